"""Locks between processes: who has one is named, and whoever has gone has none."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from wwfast.errors import WwfastError
from wwfast.system import locks
from wwfast.system.locks import locked, waited

KILLED = """
import os, sys, time
from pathlib import Path
from wwfast.system.locks import locked
with locked(Path(sys.argv[1]), "one", "packing"):
    if os.fork():
        os.kill(os.getpid(), 9)
    time.sleep(0.3)  # it has the lock, too, until it ends
    os._exit(0)
"""


def test_lock_that_is_held_names_what_is_done_and_who_does_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "DYING", 1e9)  # who lives is not waited for
    with locked(tmp_path, "one", "packing"):
        with pytest.raises(WwfastError) as refused, locked(tmp_path, "one", "deleting"):
            pass
        assert refused.value.message == f"one is in use: packing (process {os.getpid()})"
        with locked(tmp_path, "two", "deleting"):
            pass
    with locked(tmp_path, "one", "x"), pytest.raises(WwfastError) as refused, locked(tmp_path, "one", "deleting"):
        pass
    assert refused.value.message == f"one is in use: x (process {os.getpid()})", "nothing of the longer one before it"
    with locks.opened(tmp_path / "new.lock") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)  # and has not said yet who it is
        with pytest.raises(WwfastError) as refused, locked(tmp_path, "new", "deleting"):
            pass
    assert refused.value.message == "new is in use: another process"


def test_lock_of_a_process_that_was_killed_is_waited_for_until_its_children_have_gone(tmp_path: Path) -> None:
    assert subprocess.run([sys.executable, "-c", KILLED, tmp_path], check=False).returncode == -9
    with locked(tmp_path, "one", "deleting"):
        assert (tmp_path / "one.lock").read_text() == f"deleting (process {os.getpid()})\n"


def test_lock_that_is_waited_for_comes_when_the_other_one_has_left(tmp_path: Path) -> None:
    order = list[str]()
    inside = threading.Event()

    def other() -> None:
        inside.set()
        with waited(tmp_path / "lock"):
            order.append("other")

    thread = threading.Thread(target=other)
    with waited(tmp_path / "lock"):
        thread.start()
        assert inside.wait(60)
        thread.join(0.1)
        order.append("first")
    thread.join(60)
    assert order == ["first", "other"]


def test_lock_file_is_one_that_nobody_else_can_open(tmp_path: Path) -> None:
    (tmp_path / "old.lock").touch(0o644)
    for name in ("old", "new"):
        with locked(tmp_path / "made", name, "packing"), locked(tmp_path, name, "packing"):
            assert (tmp_path / f"{name}.lock").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o700
    (tmp_path / "link.lock").symlink_to("elsewhere")
    with pytest.raises(OSError, match="Too many levels"), locked(tmp_path, "link", "packing"):
        pass
    assert not (tmp_path / "elsewhere").exists()
