"""What a command imports before it does anything: each of these is a tenth of its start, or more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"asyncio", "ctypes", "hashlib", "jinja2", "rich", "secrets", "sqlite3", "ssl", "subprocess", "uvloop", "yaml"}
# By itself (-I): the watchdogs of the tests import more.
LOADED = """
import sys
from wwfast.cli.main import main
try:
    main(sys.argv[1:])
finally:
    print(*sys.modules, file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("words", "not_needed"), [("--help", {*HEAVY, "pathlib"}), ("node list", HEAVY), ("node set --help", HEAVY)]
)
def test_cli_starts_without_what_it_does_not_need(words: str, not_needed: set[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-c", LOADED, "--root", tmp_path, *words.split()],
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(done.stderr.split()) & not_needed == set()
