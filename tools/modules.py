"""docs/modules.md from the first lines of docstrings: `make map`. A test says when it is not current."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src/wwfast"
MAP = ROOT / "docs/modules.md"
HEAD = """# Every module, by its own words

Written by `make map` from the first line of each docstring; what the folders are for is in [design.md](design.md).
"""


def summary(path: Path) -> str:
    if path.suffix == ".py":
        text = ast.get_docstring(ast.parse(path.read_text())) or ""
    else:
        text = path.read_text().partition('"""')[2].partition('"""')[0]
    return " ".join(text.split("\n\n")[0].split())


def written() -> str:
    folders: dict[str, list[Path]] = {}
    for path in sorted([*SRC.rglob("*.py"), *SRC.rglob("*.pyx")], key=lambda path: (path.parent, path.name)):
        if path.name != "__init__.py":
            folders.setdefault(str(path.parent.relative_to(SRC)), []).append(path)
    parts = [HEAD]
    for folder, paths in folders.items():
        rows = [f"- `{path.name}`: {summary(path)}" for path in paths]
        parts.append("\n".join([f"## {folder if folder != '.' else 'wwfast'}/", "", *rows, ""]))
    return "\n".join(parts)


if __name__ == "__main__":
    MAP.write_text(written())
