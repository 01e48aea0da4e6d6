"""Extensions that do not fit the checkout, as after an update of it: the error says what to run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import wwfast


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    shutil.copytree(Path(wwfast.__file__).parent, tmp_path / "wwfast", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def listed(checkout: Path) -> str:
    """What `node list` says that ends with an error."""
    done = subprocess.run(
        [sys.executable, "-m", "wwfast", "--root", checkout / "root", "node", "list"],
        env=os.environ | {"PYTHONPATH": str(checkout)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done
    return done.stderr


def test_cli_says_what_to_run_when_an_extension_is_missing(checkout: Path) -> None:
    for built in (checkout / "wwfast/_ext").glob("yamlevents.*.so"):
        built.unlink()
    said = listed(checkout)
    assert "the native extensions do not fit this version: " in said
    assert "hint: run `make setup` in the checkout" in said
    assert "bug" not in said


def test_cli_says_what_to_run_when_an_extension_lacks_what_is_new(checkout: Path) -> None:
    user = checkout / "wwfast/config/yaml.py"
    text = user.read_text()
    user.write_text(text.replace("yamlevents import Quoted", "yamlevents import New, Quoted"))
    assert "hint: run `make setup` in the checkout" in listed(checkout)
    user.write_text(text.replace("yamlevents.load(", "yamlevents.parsed("))
    (checkout / "root/etc/warewulf").mkdir(parents=True)
    (checkout / "root/etc/warewulf/nodes.conf").write_text("nodes: &a {n1: {}}\n")
    assert "make setup" not in listed(checkout)
    (source := checkout / "wwfast/_ext/yamlevents.pyx").touch()
    for built in source.parent.glob("yamlevents.*.so"):
        os.utime(built, ns=(0, source.stat().st_mtime_ns - 1))
    said = listed(checkout)
    assert "unexpected AttributeError" in said
    assert "older than its source: run `make setup`" in said
