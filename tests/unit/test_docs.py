"""The documents name things that exist."""

from __future__ import annotations

import ast
import fnmatch
import re
from pathlib import Path

import pytest
from tools import modules

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def names_of_tests() -> set[str]:
    found: set[str] = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        found.add(path.name)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                found.add(node.name)
    return found


def test_every_lesson_names_tests_that_exist() -> None:
    text = (ROOT / "docs/lessons.md").read_text()
    named = {name.split("[")[0] for name in re.findall(r"`(test_[^`]+)`", text)}
    known = names_of_tests()
    assert len(named) > 20
    assert {name for name in named if not fnmatch.filter(known, name)} == set()


def test_every_lesson_has_a_test() -> None:
    text = (ROOT / "docs/lessons.md").read_text()
    for lesson in re.split(r"\n(?=- W-)", text)[1:]:
        assert "`test_" in lesson, lesson


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), target


def test_the_map_of_modules_is_current() -> None:
    assert modules.MAP.read_text() == modules.written(), "run `make map`"
    assert not re.findall(r"^- `.*`: $", modules.written(), re.MULTILINE), "every module says what it is for"


def test_walks_and_answers_name_files_that_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text() + (ROOT / "docs/design.md").read_text()
    named = set(re.findall(r"`((?:[a-z_0-9]+/)+[a-z_0-9.]*)`", text))
    assert len(named) > 30
    assert {name for name in named if not any((top / name).exists() for top in (ROOT, ROOT / "src/wwfast"))} == set()
