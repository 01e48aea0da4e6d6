"""House rules a machine can check: which folder may import which, where sockets and subprocesses live."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src/wwfast"

# folder -> folders it may import, beside its own and the common ground below.
COMMON = {"errors", "paths", "system", "_ext"}
ALLOWED = {
    "errors": set(),
    "paths": set(),
    "system": set(),
    "_ext": set(),
    "config": set(),
    "nodes": {"config"},
    "archive": {"config"},
    "pack": {"archive"},
    "images": {"pack", "archive", "config", "nodes"},
    "overlays": {"images", "pack", "archive", "config", "nodes"},
    "bmc": {"config", "nodes"},
    "net": {"archive", "config", "nodes", "images", "overlays"},
    "boot": {"overlays", "images", "pack", "archive", "config", "nodes"},
    "doctor": {"boot", "net", "overlays", "images", "pack", "archive", "config", "nodes"},
    "daemon": {"doctor", "boot", "net", "overlays", "images", "pack", "archive", "config", "nodes"},
    "storm": {"daemon", "boot", "net", "overlays", "images", "pack", "archive", "config", "nodes"},
    "demo": {"storm", "daemon", "boot", "net", "overlays", "images", "pack", "archive", "config", "nodes"},
    "cli": {
        "bmc",
        "demo",
        "storm",
        "daemon",
        "doctor",
        "boot",
        "net",
        "overlays",
        "images",
        "pack",
        "config",
        "nodes",
    },
    "__main__": {"cli"},
    "__init__": set(),
}
ALLOWED["cli"] = ALLOWED.keys() - {"cli", "__main__", "__init__"}  # it may ask them all


def modules() -> list[Path]:
    return sorted(SRC.rglob("*.py")) + sorted(SRC.rglob("*.pyx"))


def imports(path: Path) -> set[str]:
    if path.suffix == ".pyx":
        words = [
            line.split() for line in path.read_text().splitlines() if line.startswith(("import ", "from ", "cimport "))
        ]
        return {line[1] for line in words}
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= (
                {f"{node.module}.{alias.name}" for alias in node.names} if node.module == "wwfast" else {node.module}
            )
    return found


SOCKETS = ("server.py", "connection.py")


def folder(path: Path) -> str:
    return path.relative_to(SRC).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SRC)))
def test_imports_point_downwards(path: Path) -> None:
    mine = folder(path)
    ours = {name.split(".")[1] for name in imports(path) if name.startswith("wwfast.") and len(name.split(".")) > 1}
    assert ours - {mine, "__version__"} <= ALLOWED[mine] | (COMMON if mine not in ("_ext", "errors") else set())


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SRC)))
def test_rooms_for_sockets_subprocesses_yaml_and_click(path: Path) -> None:
    names = {name.split(".")[0] for name in imports(path)}
    room = folder(path)
    if (
        room in ("doctor", "net", "boot", "overlays", "images", "pack", "archive", "nodes", "config")
        and path.name not in SOCKETS
    ):
        assert not names & {"asyncio", "socket", "uvloop"}, (
            "only net/*/server.py and connection.py, daemon and storm touch the event loop"
        )
    if path != SRC / "system/run.py":
        assert "subprocess" not in names, "subprocesses start in system/run.py"
    if path != SRC / "system/libc.py":
        assert "ctypes" not in names, "libc is called in system/libc.py"
    if room not in ("cli", "demo"):
        assert "click" not in names, "click stays in cli"
    if room not in ("config",):
        assert "yaml" not in names, "one YAML helper: wwfast.config.yaml"
