"""The frame cache: only whole frames come out of it, what images hold stays, and the oldest goes first."""

from __future__ import annotations

import fcntl
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import xxhash

from wwfast.pack.cache import LOCK, Frame, FrameCache, PackWriter, collect, hold, intact
from wwfast.system import locks

KEY, OTHER = b"k" * 16, b"o" * 16


def written(cache: Path, **frames: bytes) -> list[Frame]:
    """One pack with a frame for each letter, whose key is that letter 16 times."""
    writer = PackWriter(cache)
    made = [writer.append(letter.encode() * 16, data, len(data), 7) for letter, data in frames.items()]
    writer.finish()
    writer.abandon()
    return made


def read(frame: Frame) -> bytes:
    with frame.pack.open("rb") as file:
        return os.pread(file.fileno(), frame.length, frame.offset)


def found(cache: Path, key: bytes = KEY) -> bytes | None:
    frame = FrameCache(cache).find(key)
    return None if frame is None else read(frame)


def test_pack_cache_gives_back_what_was_written_alone_in_pieces_and_raw(tmp_path: Path) -> None:
    writer = PackWriter(tmp_path)
    writer.append(KEY, b"alone", 5, 1)
    writer.append_stream(lambda: OTHER, iter([b"in ", b"pieces"]), 9, lambda: 2)
    writer.append_raw(lambda: b"r" * 16, iter([b"as ", b"it is"]), 8)
    assert not list(tmp_path.glob("*.pack")), "no name before it is whole"
    writer.finish()
    assert {key[:1]: found(tmp_path, key) for key in (KEY, OTHER, b"r" * 16)} == {
        b"k": b"alone", b"o": b"in pieces", b"r": b"as it is"
    }  # fmt: skip
    frames = FrameCache(tmp_path).frames
    assert [(frame.raw, frame.crc) for frame in frames.values()] == [(5, 1), (9, 2), (8, 0)]
    assert all(intact(frame) for frame in frames.values())
    [pack] = tmp_path.glob("*.pack")
    assert pack.stat().st_mode & 0o777 == 0o400


def test_pack_cache_copies_a_frame_whole_or_says_that_its_pack_became_shorter(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    [first, second] = written(tmp_path, k=b"first" * 100, o=b"second" * 100)
    writer = PackWriter(tmp_path / "new")
    writer.copy(KEY, first)
    writer.copy(OTHER, second)
    writer.finish()
    assert found(tmp_path / "new") == b"first" * 100
    assert found(tmp_path / "new", OTHER) == b"second" * 100
    second.pack.chmod(0o600)
    os.truncate(second.pack, second.offset + 10)
    writer = PackWriter(tmp_path / "new")
    with pytest.raises(OSError, match=second.pack.name):
        writer.copy(OTHER, second)
    writer.abandon()
    writer.abandon()
    assert len(list((tmp_path / "new").iterdir())) == 2


def test_pack_cache_that_was_given_nothing_writes_nothing(tmp_path: Path) -> None:
    writer = PackWriter(tmp_path)
    writer.finish()
    writer.abandon()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:47],
        lambda data: data[:-1],
        lambda data: b"x" + data[1:],
        lambda data: data[:8] + b"x" + data[9:],
        lambda data: data[:-1] + bytes((data[-1] ^ 1,)),
        lambda data: data + bytes(1),
        lambda data: b"",
    ],
)
def test_pack_cache_believes_no_index_that_is_not_whole(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    written(tmp_path, k=b"data")
    [index] = tmp_path.glob("*.idx")
    index.write_bytes(damage(index.read_bytes()))
    assert found(tmp_path) is None


def test_pack_cache_reads_each_frame_of_a_pack_that_was_touched_before_it_is_used_again(tmp_path: Path) -> None:
    [frame, _] = written(tmp_path, k=b"data", o=b"more")
    frame.pack.chmod(0o600)
    whole = frame.pack.read_bytes()
    frame.pack.write_bytes(b"DATA" + whole[4:])
    os.utime(frame.pack, ns=(1, 1))
    assert found(tmp_path) is None
    assert found(tmp_path, OTHER) == b"more"
    frame.pack.write_bytes(whole[:6])
    assert found(tmp_path) == b"data"
    assert found(tmp_path, OTHER) is None
    frame.pack.unlink()
    assert found(tmp_path) is None
    assert not intact(frame)


def test_pack_cache_a_frame_longer_than_one_read_is_intact_and_takes_no_memory(tmp_path: Path) -> None:
    length, zeros, xxh3 = (2 << 30) + 4096, bytes(1 << 20), xxhash.xxh3_128()
    for start in range(0, length, len(zeros)):
        xxh3.update(zeros[: length - start])
    pack = tmp_path / "large.pack"
    with pack.open("wb") as file:
        file.truncate(length)
    frame = Frame(pack, 0, length, length, 0, xxh3.digest(), bytes(32))
    tracemalloc.start()
    try:
        assert intact(frame)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert not intact(frame._replace(length=length + 1))


def test_pack_cache_remembers_digests_of_a_tree_whole_or_not_at_all(tmp_path: Path) -> None:
    cache, tree = FrameCache(tmp_path), tmp_path / "tree"
    assert cache.recall(tree) == b""
    cache.remember(tree, b"seen")
    assert cache.recall(tree) == b"seen"
    assert cache.recall(tmp_path / "other") == b""
    cache.seen_file(tree).write_bytes(cache.seen_file(tree).read_bytes() + b"x")
    assert cache.recall(tree) == b""


def test_pack_cache_collects_the_oldest_that_no_image_holds(tmp_path: Path) -> None:
    cache, image = tmp_path / "cache", tmp_path / "image"
    cache.mkdir()
    old, held, new = (written(cache, **{letter: letter.encode() * 1000})[0].pack for letter in "abc")
    image.hardlink_to(held)
    FrameCache(cache).remember(tmp_path, b"seen")
    assert collect(cache, 5000) == (0, 0)
    assert collect(cache, 2000) == (0, 0), "exactly so much may stay"
    would = collect(cache, 1999, dry_run=True)
    assert would.files == 2
    assert old.exists()
    assert collect(cache, 1999) == would
    assert would.bytes > 1000
    assert [pack.exists() for pack in (old, held, new)] == [False, True, True]
    assert not old.with_suffix(".idx").exists()
    assert FrameCache(cache).recall(tmp_path) == b"seen"
    assert collect(cache).files == 3
    assert {path.name for path in cache.iterdir()} == {LOCK, held.name, held.with_suffix(".idx").name}
    assert collect(tmp_path / "absent") == (0, 0)


def test_pack_cache_collects_packs_and_indexes_that_stand_alone(tmp_path: Path) -> None:
    packs = [written(tmp_path, **{letter: b"data"})[0].pack for letter in "ab"]
    packs[0].unlink()
    packs[1].with_suffix(".idx").unlink()
    assert collect(tmp_path, 1 << 30).files == 2
    assert {path.name for path in tmp_path.iterdir()} == {LOCK}


def test_pack_cache_is_not_collected_under_a_build_unless_that_is_waited_for(tmp_path: Path) -> None:
    with hold(tmp_path), hold(tmp_path):  # builds share it
        [frame] = written(tmp_path, k=b"data")
        assert collect(tmp_path, wait=False) == (0, 0)
        assert frame.pack.exists()
    with locks.opened(tmp_path / LOCK) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert collect(tmp_path, wait=False).files == 2
