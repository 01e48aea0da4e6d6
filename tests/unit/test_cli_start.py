"""What a command imports before it does anything: each of these is a tenth of its start, or more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"asyncio", "ctypes", "hashlib", "jinja2", "rich", "secrets", "sqlite3", "ssl", "subprocess", "uvloop", "yaml"}
WRITING = {"wwfast.api.service", "wwfast.archive.stream", "wwfast.nodes.edit.store"}  # what reads has no use for them
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
    ("words", "not_needed"),
    [
        ("--help", {*HEAVY, "pathlib"}),
        ("node list", {*HEAVY, *WRITING}),
        ("node set --help", HEAVY),
        ("image list --long", {*HEAVY, *WRITING} - {"hashlib"}),
        ("kernel list", {*HEAVY, *WRITING} - {"hashlib"}),
        ("overlay list", {*HEAVY, *WRITING}),
    ],
)
def test_cli_starts_without_what_it_does_not_need(words: str, not_needed: set[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-c", LOADED, "--root", tmp_path, *words.split()],
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(done.stderr.split()) & not_needed == set()


SAYING = ["--help", "node list", "config show", "image list --json", "nonsense"]  # each way to say something


def started(root: Path, words: str, shell: str) -> subprocess.CompletedProcess[str]:
    """A command below `root`, of a shell that redirects it so."""
    line = f'exec "$0" -m wwfast --root "$1" {words} {shell}'
    return subprocess.run(["sh", "-c", line, sys.executable, root], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("shell", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_cli_does_its_work_whatever_stream_is_closed(shell: str, tmp_path: Path) -> None:
    for words in SAYING:
        usual, ended = started(tmp_path, words, ""), started(tmp_path, words, shell)
        assert ended.returncode == usual.returncode
        assert ended.stdout == ("" if ">&-" in shell.split() else usual.stdout)
        assert ended.stderr == ("" if "2>&-" in shell else usual.stderr)
    assert started(tmp_path, "node add n1 --comment x", shell).returncode == 0
    assert started(tmp_path, "node set n1 --comment later -y", shell).returncode == 0
    written = (tmp_path / "etc/warewulf/nodes.conf").read_text()
    assert written == "nodes:\n  n1:\n    comment: later\n", "and nothing of what is said"


@pytest.mark.parametrize("shell", [">/dev/full", "1</dev/null"])
def test_cli_names_the_output_that_cannot_be_written(shell: str, tmp_path: Path) -> None:
    for words in (*SAYING[:-1], "node add n[1-3000]", "node list"):
        ended = started(tmp_path, words, shell)
        assert ended.returncode == 1
        assert ended.stderr.startswith("error: standard output: ")
        assert not {"clean", "Traceback", "Exception"} & set(ended.stderr.split())
