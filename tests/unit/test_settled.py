"""Files that others write in place are read whole or not at all."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import pytest

from wwfast.system import settled


def written(file: Path) -> bool:
    with file.open("rb") as opened:
        return settled.being_written(opened.fileno())


def test_settled_file_is_being_written_as_long_as_somebody_has_it_open_for_that(tmp_path: Path) -> None:
    file = tmp_path / "file"
    with file.open("w") as writer:
        assert written(file)
        writer.write("half")
    with file.open() as _reader, file.open() as _another:
        assert not written(file)
        with file.open("a"):  # who has it leased meanwhile keeps nobody from writing
            assert written(file)
            os.utime(file, (1, 1))
            assert not written(file), "nobody has written for long: a log, a hung program"
    assert not written(file)


def test_settled_file_that_was_written_a_moment_ago_is_left_alone_until_it_may_be_whole() -> None:
    later = time.monotonic() + 60
    written = time.time()
    if settled.changing(written, later):  # the machine may have been busy meanwhile
        assert time.time() >= written + settled.SETTLED
    assert any(settled.changing(time.time(), later) for _ in range(100))
    assert not any(settled.changing(time.time(), time.monotonic() - 1) for _ in range(100)), "not for ever"
    assert not settled.changing(time.time() - settled.SETTLED, later)
    assert not settled.changing(time.time() + 3600, later), "a clock that was wrong is not waited for"


def test_settled_reading_waits_for_the_rest_and_ends_in_words(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("former")
    assert settled.read(file) == b"former"
    begun, ready = threading.Event(), threading.Event()

    def copy() -> None:
        with file.open("w") as writer:
            begun.set()
            for piece in ("one ", "two ", "three"):
                time.sleep(0.05)
                writer.write(piece)
                writer.flush()
        ready.set()

    writing = threading.Thread(target=copy)
    writing.start()
    begun.wait()
    assert settled.read(file) == b"one two three"
    assert ready.wait(5)
    writing.join()
    with file.open("w"), pytest.raises(OSError, match=settled.BUSY) as refused:
        settled.read(file, 0.05)
    assert refused.value.errno == errno.EBUSY
    with pytest.raises(FileNotFoundError):
        settled.read(tmp_path / "none")


def test_settled_reading_of_what_is_no_file_takes_it_as_it_comes() -> None:
    of, to = os.pipe()
    os.write(to, b"text")
    os.close(to)
    assert settled.read(Path(f"/proc/self/fd/{of}")) == b"text"
    os.close(of)
