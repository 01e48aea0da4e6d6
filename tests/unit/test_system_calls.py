"""Calls that a storm of threads makes: whole or not at all, as those of Python would; and the directory they go by."""

from __future__ import annotations

import errno
import os
import resource
import select
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.everycommand import in_child
from support.faultydisk import FULL, FaultyDisk, put_all
from wwfast._ext import calls
from wwfast.system import work

Put = Callable[[list[tuple[bytes, bytes, bytes]]], list[int]]


def triple(folder: Path, name: str, data: bytes) -> tuple[bytes, bytes, bytes]:
    return os.fsencode(folder / f"new-{name}"), os.fsencode(folder / name), data


def tree(folder: Path) -> dict[str, bytes]:
    return {str(it.relative_to(folder)): it.read_bytes() for it in folder.rglob("*") if it.is_file()}


@pytest.mark.parametrize("put", [calls.put_all, put_all], ids=["native", "stand-in"])
def test_files_are_put_whole_and_the_error_of_each_is_told(tmp_path: Path, put: Put) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "new-taken").write_bytes(b"another's")
    (tmp_path / "old").write_bytes(b"old")
    todo = [
        triple(tmp_path, "empty", b""),
        triple(tmp_path / "absent", "a", b"x"),
        triple(tmp_path, "old", b"new" * 100_000),
        triple(tmp_path, "folder", b"x"),
        triple(tmp_path, "taken", b"x"),
        triple(tmp_path, "last", b"\0\xff"),
    ]
    assert put(todo) == [0, errno.ENOENT, 0, errno.EISDIR, errno.EEXIST, 0]
    found = tree(tmp_path)
    assert found == {"empty": b"", "old": b"new" * 100_000, "new-taken": b"another's", "last": b"\0\xff"}
    assert (tmp_path / "last").stat().st_mode & 0o777 == 0o600


def test_a_file_that_does_not_fit_leaves_nothing_and_the_others_are_there(tmp_path: Path) -> None:
    def limited() -> list[int]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        return calls.put_all([triple(tmp_path, "large", b"x" * 2000), triple(tmp_path, "small", b"x" * 900)])

    assert in_child(limited) == [errno.EFBIG, 0]
    assert tree(tmp_path) == {"small": b"x" * 900}


@pytest.mark.parametrize("wrong", [[("a", "b", b"")], [(b"a", b"b")], [(b"a", b"b", "text")], [None]])
def test_what_are_no_files_is_refused_before_anything_is_written(wrong: list[object], tmp_path: Path) -> None:
    with pytest.raises((TypeError, ValueError)):
        calls.put_all([triple(tmp_path, "one", b"x"), *wrong])  # type: ignore[list-item]
    assert tree(tmp_path) == {}


def test_there_is_true_only_where_all_are(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.touch()
    assert calls.there([])
    assert calls.there([os.fsencode(one), os.fsencode(one)])
    assert not calls.there([os.fsencode(one), os.fsencode(other)])


def test_ready_says_what_epoll_says_and_takes_nothing() -> None:
    reading, writing = os.pipe()
    with select.epoll() as told:
        told.register(reading, select.EPOLLIN)
        assert calls.ready(told.fileno()) == []
        os.write(writing, b"x")
        assert calls.ready(told.fileno()) == [reading] == calls.ready(told.fileno())
        os.read(reading, 1)
        assert calls.ready(told.fileno()) == []
    with pytest.raises(OSError, match="Bad file descriptor"):
        calls.ready(-1)
    os.close(reading)
    os.close(writing)


def test_a_room_takes_files_of_many_threads_while_it_is_left(tmp_path: Path) -> None:
    room, over = work.Room(tmp_path), threading.Event()

    def leaving() -> None:
        while not over.is_set():
            room.leave()

    def put(n: int) -> list[OSError | None]:
        return room.put([(f"{tmp_path}/{n % 7}/{n}.{m}", b"%d" % n) for m in range(5)])

    with ThreadPoolExecutor(8) as pool:
        pool.submit(leaving)
        try:
            assert not any(map(any, pool.map(put, range(300))))
        finally:
            over.set()
    room.leave()
    assert tree(tmp_path) == {f"{n % 7}/{n}.{m}": b"%d" % n for n in range(300) for m in range(5)}
    assert not [it for it in tmp_path.iterdir() if it.name.startswith(work.PREFIX)]


def test_a_room_that_somebody_emptied_is_made_anew_with_all_above_it(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    room = work.Room(cache)
    for n in range(3):
        assert room.put([(f"{cache}/a/{n}", b"x"), (f"{cache}/b/{n}", b"y")]) == [None, None]
        assert sorted(tree(cache)) == [f"a/{n}", f"b/{n}"]
        assert {it.stat().st_mode & 0o777 for it in (cache, *cache.iterdir())} == {0o700}
        shutil.rmtree(cache)
    room.leave()


def test_a_room_says_what_failed_of_which_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, room = FaultyDisk(tmp_path, monkeypatch), work.Room(tmp_path)
    assert room.put([(f"{tmp_path}/a/first", b"x")]) == [None]
    assert tmp_path.joinpath("a").stat().st_mode & 0o777 == 0o700
    disk.fail(FULL, skip=4)  # a file is begun, written and renamed: the second one fails as it is written
    errors = room.put([(f"{tmp_path}/a/{n}", b"x") for n in range(2)])
    assert [error and (error.errno, error.filename) for error in errors] == [None, (FULL, f"{tmp_path}/a/1")]
    room.leave()
    assert tree(tmp_path) == {"a/first": b"x", "a/0": b"x"}
    disk.heal()
    disk.fail(FULL)
    assert [error and error.errno for error in room.put([(f"{tmp_path}/b/1", b"x")])] == [FULL]


def test_a_room_that_somebody_writes_in_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = work.Room(tmp_path)

    def put_and_leave(files: list[tuple[bytes, bytes, bytes]]) -> list[int]:
        room.leave()
        return native(files)

    native = calls.put_all
    room.put([(f"{tmp_path}/a/first", b"x")])
    monkeypatch.setattr(calls, "put_all", put_and_leave)
    assert room.put([(f"{tmp_path}/a/second", b"x")]) == [None]
    assert [it.name for it in tmp_path.iterdir() if it.name.startswith(work.PREFIX)]
    room.leave()
    assert sorted(tree(tmp_path)) == ["a/first", "a/second"]
