"""The files of the overlay cache: what one process keeps, another finds; what is swept is gone for all."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.faultydisk import FULL, FaultyDisk
from wwfast.overlays.making import store as module
from wwfast.overlays.making.store import Damaged, Piece, Segment, Store

ONE, TWO = b"\1" * 16, b"\2" * 16


def bytes_of(segment: Segment | None) -> bytes:
    assert segment is not None
    with Path(segment.path).open("rb") as file:
        file.seek(segment.offset)
        return file.read(segment.length)


def test_overlay_store_keeps_bytes_and_what_a_gzip_tail_needs_of_them(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put(ONE, "gz", b"first", 100, 0xFFFFFFFF)
    for reader in (store, Store(tmp_path)):
        assert (reader.has(ONE, "gz"), reader.has(ONE, "zst"), reader.has(TWO, "gz")) == (True, False, False)
        found = reader.segment(ONE, "gz")
        assert (bytes_of(found), reader.read(ONE, "gz")) == (b"first", b"first")
        assert found is not None
        assert (found.raw_length, found.crc) == (100, 0xFFFFFFFF)
        assert reader.segment(TWO, "gz") is None
        reader.close()


def test_overlay_store_brings_what_stood_in_memory_to_the_disk_when_it_takes_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FaultyDisk(tmp_path, monkeypatch)
    store = Store(tmp_path)
    disk.fail(FULL)
    store.put(ONE, "gz", b"first", 100, 7)
    store.put(TWO, "gz", b"second", 200, 8)
    assert (bytes_of(store.segment(ONE, "gz")), bytes_of(store.segment(TWO, "gz"))) == (b"first", b"second")
    assert not Store(tmp_path).has(ONE, "gz")
    assert "No space left" in store.trouble()
    disk.heal()
    store.flush(anyway=True)
    assert store.trouble() == ""
    found = Store(tmp_path).segment(TWO, "gz")
    assert found is not None
    assert (bytes_of(found), found.raw_length, found.crc) == (b"second", 200, 8)
    assert bytes_of(Store(tmp_path).segment(ONE, "gz")) == b"first"
    assert (bytes_of(store.segment(ONE, "gz")), bytes_of(store.segment(TWO, "gz"))) == (b"first", b"second")
    store.close()


def test_overlay_store_that_is_swept_has_what_is_wanted_and_takes_the_rest_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for content in (ONE, TWO):
        store.put(content, "gz", b"bytes", 5, 0)
    size = sum(file.stat().st_size for file in tmp_path.rglob("*.gz")) // 2
    assert store.sweep({ONE}) == 0, "nobody may have it under way"
    assert store.sweep({ONE}, anyway=True) == size
    assert (store.has(ONE, "gz"), store.has(TWO, "gz"), store.segment(TWO, "gz")) == (True, False, None)
    with pytest.raises(Damaged):
        store.read(TWO, "gz")
    store.put(TWO, "gz", b"again", 5, 0)
    assert (store.read(ONE, "gz"), store.read(TWO, "gz")) == (b"bytes", b"again")
    store.close()


def test_overlay_store_that_is_closed_leaves_nothing_open_and_nothing_unfinished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    disk = FaultyDisk(tmp_path, monkeypatch)
    before = opened()
    for code in (0, FULL):
        store = Store(tmp_path)
        store.put(ONE, "gz", b"first", 5, 0)
        disk.fail(code) if code else disk.heal()
        store.put(TWO, "gz", b"second", 6, 0)
        store.close()
        disk.heal()
        assert opened() == before
        assert not [file for file in tmp_path.rglob("*") if file.is_file() and file.suffix != ".gz"]
        for file in tmp_path.rglob("*.gz"):
            file.unlink()


def test_overlay_store_is_brought_parts_while_what_is_known_of_it_is_forgotten(tmp_path: Path) -> None:
    store, over = Store(tmp_path), threading.Event()

    def bring(first: int) -> None:
        for n in range(first, first + 1000):
            store.bring([Piece(n.to_bytes(16, "big"), "zst", b"%d" % n)])

    def forget() -> int:
        times = 0
        while not over.is_set():
            store.forget()
            times += 1
        return times

    with ThreadPoolExecutor(3) as pool:
        forgetting = pool.submit(forget)
        try:
            list(pool.map(bring, (0, 1000)))
        finally:
            over.set()
        assert forgetting.result()
    assert all(store.read(n.to_bytes(16, "big"), "zst") == b"%d" % n for n in range(2000))
    assert store.lost
    store.close()


def test_overlay_store_says_that_it_lost_what_memory_could_not_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MEMORY", 100)
    disk = FaultyDisk(tmp_path, monkeypatch)
    store = Store(tmp_path)
    disk.fail(FULL)
    store.put(ONE, "gz", b"x" * 60, 60, 0)
    lost = store.lost
    store.put(TWO, "gz", b"y" * 60, 60, 0)
    assert store.lost > lost
    assert (store.has(ONE, "gz"), store.has(TWO, "gz")) == (False, True)
    store.close()
