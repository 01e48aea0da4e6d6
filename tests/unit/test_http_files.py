"""Open files of artefacts: opened by a thread, given back when removed or replaced, never taken from who uses them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wwfast.archive.artefact import RAW, Artefact, Extent
from wwfast.net.http.files import FileCache, Opened


class Thread:
    """What the cache wants done in a thread, when the test says so."""

    def __init__(self) -> None:
        self.work: list[tuple[Callable[[], Any], Callable[[Any], None]]] = []

    def __call__(self, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        self.work.append((work, then))

    def run(self) -> None:
        while self.work:
            work, then = self.work.pop(0)
            then(work())


def artefact(*files: Path, digest: str = "") -> Artefact:
    extents = tuple(Extent(str(file), 0, file.stat().st_size) for file in files)
    return Artefact(files[0].name, RAW, extents, digest or "+".join(map(str, files)), (RAW,), 0)


def opened(cache: FileCache, thread: Thread, wanted: Artefact) -> Opened:
    if cache.opened(wanted) is None:
        errors: list[OSError | None] = []
        cache.load(wanted, errors.append)
        thread.run()
        assert errors == [None]
    found = cache.opened(wanted)
    assert found is not None
    return found


def held(folder: Path) -> list[str]:
    """Files of `folder` that this process has open, removed ones too."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the descriptor of the listing itself
            found.append(str(entry.readlink()))
    return [name for name in found if name.startswith(f"{folder}/")]


def test_http_removed_builds_are_not_held_open(tmp_path: Path) -> None:
    cache = FileCache(thread := Thread())
    kept = [tmp_path / f"kept{number}" for number in range(3)]
    for file in kept:
        file.write_bytes(b"kept")
        opened(cache, thread, artefact(file))
    for number in range(50):
        build = tmp_path / f"build{number}"
        build.write_bytes(b"build")
        opened(cache, thread, artefact(build))
        os.link(build, tmp_path / "another name")  # builds share files: what is gone is the path
        build.unlink()
        (tmp_path / "another name").unlink()
    cache.tend()
    thread.run()
    assert set(held(tmp_path)) == {str(file) for file in kept}
    cache.close()
    assert held(tmp_path) == []


def test_http_a_removed_file_stays_open_for_whom_it_was_opened(tmp_path: Path) -> None:
    cache = FileCache(thread := Thread())
    first = tmp_path / "first"
    first.write_bytes(b"under way")
    transfer = opened(cache, thread, artefact(first))
    transfer.hold()
    first.unlink()
    cache.tend()
    thread.run()
    assert os.pread(transfer.spans[0][0], 100, 0) == b"under way"
    transfer.release()
    assert held(tmp_path) == []


def test_http_two_artefacts_at_one_place_are_each_served_from_their_own_file(tmp_path: Path) -> None:
    """A kernel that is imported anew lies where the former one lay."""
    cache = FileCache(thread := Thread())
    place = tmp_path / "kernel"
    made = []
    for content in (b"former", b"latter"):
        place.unlink(missing_ok=True)
        place.write_bytes(content)
        made.append(artefact(place, digest=content.decode()))
        opened(cache, thread, made[-1])
    for wanted in made:
        fd, offset, length = opened(cache, thread, wanted).spans[0]
        assert os.pread(fd, length, offset).decode() == wanted.digest
    cache.tend()
    thread.run()
    assert held(tmp_path) == [str(place)]
    cache.close()


def test_http_one_thread_opens_for_all_who_wait_and_artefacts_share_files(tmp_path: Path) -> None:
    cache = FileCache(thread := Thread())
    pack = tmp_path / "pack"
    pack.write_bytes(b"x" * 100)
    told: list[OSError | None] = []
    for number in range(20):
        for _ in range(5):
            cache.load(artefact(pack, digest=str(number)), told.append)
    assert len(thread.work) == 20
    thread.run()
    assert told == [None] * 100
    assert held(tmp_path) == [str(pack)]
    cache.close()


def test_http_idle_descriptors_are_bounded_whatever_is_asked_for(tmp_path: Path) -> None:
    cache = FileCache(thread := Thread(), limit=8)
    files = [tmp_path / f"file{number}" for number in range(40)]
    for file in files:
        file.write_bytes(b"file")
        opened(cache, thread, artefact(file))
        assert len(held(tmp_path)) <= 8
    opened(cache, thread, artefact(*files))
    assert len(held(tmp_path)) == 40, "what one artefact needs it gets"
    opened(cache, thread, artefact(files[0]))
    assert len(held(tmp_path)) <= 8
    cache.close()


def test_http_a_file_that_is_gone_or_too_short_is_told_and_nothing_stays_open(tmp_path: Path) -> None:
    cache = FileCache(thread := Thread())
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_bytes(b"good")
    bad.write_bytes(b"bad")
    wanted = artefact(good, bad)
    for spoil in (lambda: os.truncate(bad, 1), bad.unlink):
        spoil()
        for whole in (False, True):
            told: list[OSError | None] = []
            cache.load(wanted, told.append, whole=whole)
            thread.run()
            assert told[0] is not None
            assert told[0].filename == str(bad)
    assert held(tmp_path) == []


def test_http_files_are_let_go_when_one_is_too_short_and_at_the_end(tmp_path: Path) -> None:
    cache = FileCache(thread := Thread())
    whole, short = tmp_path / "whole", tmp_path / "short"
    for file in (whole, short):
        file.write_bytes(b"x" * 10)
    wanted = artefact(whole, short)
    short.write_bytes(b"x")
    errors: list[OSError | None] = []
    for as_bytes in (False, True):
        cache.load(wanted, errors.append, whole=as_bytes)
        thread.run()
    assert [type(error) for error in errors] == [OSError, OSError]
    assert held(tmp_path) == []
    assert opened(cache, thread, artefact(whole)).files
    assert held(tmp_path) == [str(whole)]
    cache.close()
    assert held(tmp_path) == []
