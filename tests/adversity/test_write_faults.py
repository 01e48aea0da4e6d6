"""A disk that fails or is full, and kill -9, at the calls of every writer: see support/faults."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.faults.sloppy import sloppy
from support.faults.trial import PROMISES, shape
from support.faults.writers import writers

TESTS = Path(__file__).parents[1]
MOST = 10  # points of each writer; `make faults` tries all


def tried(*names: str) -> tuple[dict[str, list[str]], str]:
    """The promises that each writer broke, and all that was printed."""
    words = [sys.executable, "-m", "support.faults", "--most", str(MOST), *names]
    done = subprocess.run(words, cwd=TESTS, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    lines = done.stdout.splitlines()
    broken = {
        name: [kind for kind in PROMISES if any(at.startswith(f"{kind}: {name}, ") for at in lines)] for name in names
    }
    assert done.returncode == int(any(broken.values())), done.stdout
    return broken, done.stdout


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("writer", [each.name for each in writers()])
def test_faults_of_the_disk_and_kills_break_no_promise(writer: str) -> None:
    broken, said = tried(writer)
    print(said)
    assert broken == {writer: []}, said


def test_faults_tool_takes_files_that_are_named_by_digest_for_one_kind() -> None:
    """Their names are others in each run, and now and then without a decimal digit."""
    names = ("cache/index/302", "cache/index/5ca", "cache/index/fca", "cache/index/abe")
    assert {shape(name) for name in names} == {"cache/index/#"}
    assert shape("cache/index/cab.new") != "cache/index/#" != shape("cache/index/lock")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_faults_are_found_in_whoever_writes_sloppily() -> None:
    names = [each.name for each in sloppy()]
    broken, said = tried(*names)
    for name, found in broken.items():
        promise = name.removeprefix("sloppy: ").partition(" ")[0]
        assert promise in found or (promise == "none" and not found), said
