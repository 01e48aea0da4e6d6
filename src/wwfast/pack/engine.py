"""From a tree to frames: walk, cut, read, compress, on all cores, with bounded memory.

Memory: each core holds one segment's raw bytes and its compressed form (together under 2 x STREAM_FROM, and for
nearly all segments a tenth of that); a file of STREAM_FROM bytes or more is streamed by itself.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import NamedTuple

import xxhash

from wwfast._ext.tree import Tree
from wwfast.archive import frames
from wwfast.archive.artefact import GZ, RAW, ZST
from wwfast.errors import WwfastError
from wwfast.pack.cache import Frame, FrameCache, PackWriter, frame_key
from wwfast.pack.xattrs import CAPABILITIES, XATTRS

SEGMENT = 2 << 20  # mean raw bytes between two cuts; the table that decided it is in docs/pack.md
LARGE_FROM = 4 << 20  # a file this large is a segment of its own
STREAM_FROM = 32 << 20
CHUNK = 4 << 20
NEWC_MOST, ANY = (1 << 32) - 1, (1 << 63) - 1  # bytes of a file
CLOCK_TICK = 2_000_000_000  # ns: the coarsest time stamp of a file system we trust

Progress = Callable[[int, int], None]  # raw bytes done, raw bytes in all


class ChangedError(WwfastError):
    """The tree changed while it was read; the next attempt may find it quiet."""


class TooLargeError(WwfastError):
    """A file that newc cannot carry, and other forms can."""


class Packed(NamedTuple):
    """One segment: the name of its content, its frame in each format, whether the cache had all of them."""

    key: bytes
    frames: dict[str, Frame]
    reused: bool


def cores() -> int:
    return len(os.sched_getaffinity(0))


def explain(error: OSError, tree: Path) -> WwfastError:
    """What an error of the walk or of reading a file means for the build."""
    where = tree / str(error.filename or "")
    if error.errno in (errno.ESTALE, errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
        return ChangedError(
            f"{where} changed while it was packed",
            hint="end what writes to the image's tree (a shell, an update), then build again",
        )
    return WwfastError(f"cannot read {where}: {error.strerror}")


def scan(
    tree: Path,
    *,
    patterns: Sequence[bytes] = (),
    skip_dirs: frozenset[str] = frozenset(),
    epoch: int | None = None,
    threads: int | None = None,
    segment: float = SEGMENT,
    newc: bool = True,
) -> Tree:
    """Walk the tree on `threads` cores and cut it into segments. Raises WwfastError for what newc cannot carry, and
    TooLargeError for a file that only `newc` cannot."""
    try:
        walk = Tree(tree, patterns)
    except OSError as error:
        raise WwfastError(f"cannot read {tree}: {error.strerror}") from error
    try:
        together([walk.walk] * (threads or cores()))
    except OSError as error:
        raise explain(error, tree) from error
    try:
        walk.arrange(
            frozenset(os.fsencode(path.strip("/")) for path in skip_dirs),
            -1 if epoch is None else epoch,
            segment,
            LARGE_FROM,
            (CAPABILITIES, XATTRS),
            NEWC_MOST if newc else ANY,
        )
    except ValueError as error:
        path, why = error.args
        limit = {
            "size": "is larger than 4 GiB - 1, the most an initramfs can carry; keep it on shared storage",
            "name": "has a path over 4095 bytes, which nodes would drop",
            "trailer": "has the name that ends an archive; nodes would drop all that follows",
        }[why]
        kind = TooLargeError if why == "size" else WwfastError
        raise kind(f"{tree / path} {limit}", hint="or leave it out: add it to etc/warewulf/excludes") from error
    return walk


def together(works: list[Callable[[], None]]) -> None:
    """Run all in threads of their own, the last in this one; raise the first error after all have ended."""
    errors: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    others = [threading.Thread(target=guarded, args=(work,)) for work in works[:-1]]
    for other in others:
        other.start()
    guarded(works[-1])
    for other in others:
        other.join()
    if errors:
        raise errors[0]


class Engine:
    """Packs the segments of one walked tree."""

    def __init__(
        self,
        root: Path,
        tree: Tree,
        cache: FrameCache,
        writer: PackWriter,
        *,
        formats: Sequence[str],
        level: int,
        full: bool = False,
        progress: Progress | None = None,
    ) -> None:
        self.root, self.tree, self.cache, self.writer = root, tree, cache, writer
        self.formats, self.level, self.full = formats, level, full
        self._progress = progress
        self._done = 0
        self.total = sum(tree.size(number) for number in range(tree.segments_count))
        self._lengths = set() if full else {frame.raw for frame in cache.frames.values()}
        self._buffers = threading.local()
        self._stop = threading.Event()

    def _advance(self, raw: int) -> None:
        self._done += raw
        if self._progress is not None:
            self._progress(self._done, self.total)

    def find(self, key: bytes, fmt: str) -> Frame | None:
        return None if self.full else self.cache.find(frame_key(key, fmt, self.level))

    def _keys(self) -> list[bytes | None]:
        """The segments' keys, where they are known without reading files."""
        count, parts = self.tree.segments_count, cores()
        found: list[list[bytes | None]] = [[] for _ in range(parts)]

        def part(index: int) -> None:
            found[index] = self.tree.keys(count * index // parts, count * (index + 1) // parts)

        together([partial(part, index) for index in range(parts)])
        return [key for part in found for key in part]

    def _known(self, key: bytes | None) -> Packed | None:
        """The segment from the cache, when no file of it has to be read."""
        if key is None:
            return None
        have: dict[str, Frame] = {}
        for fmt in self.formats:
            if (frame := self.find(key, fmt)) is None:
                return None
            have[fmt] = frame
        return Packed(key, have, True)

    def run(self) -> list[Packed]:
        """All segments in order. Raises WwfastError; a file that changed is ChangedError and names the file."""
        count = self.tree.segments_count
        done = [self._known(key) for key in self._keys()]
        self._advance(sum(self.tree.size(number) for number in range(count) if done[number]))
        todo = [number for number in range(count) if done[number] is None]
        todo.sort(key=self.tree.size, reverse=True)  # the longest first, or the last core works alone
        with ThreadPoolExecutor(cores(), thread_name_prefix="pack") as pool:
            try:
                if set(self.formats) != {RAW}:  # whose length is known: it needs no turn of its own
                    for number in filter(self._streamed, todo):
                        done[number] = self._stream(number, pool)
                        self._advance(self.tree.size(number))
                waiting: dict[Future[Packed], int] = {
                    pool.submit(self._one, number, pool): number for number in todo if done[number] is None
                }
                for future in as_completed(waiting):
                    number = waiting[future]
                    done[number] = future.result()
                    self._advance(self.tree.size(number))
            except OSError as error:
                raise explain(error, self.root) if error.filename is not None else error from error
            finally:
                self._stop.set()
                pool.shutdown(cancel_futures=True)
        return [packed for packed in done if packed is not None]

    def _streamed(self, number: int) -> bool:
        return bool(self.tree.large(number)) and self.tree.size(number) >= STREAM_FROM

    def _one(self, number: int, pool: ThreadPoolExecutor) -> Packed:
        if self._streamed(number):
            return self._stream(number, pool)
        size = self.tree.size(number)
        buffer = getattr(self._buffers, "raw", None)
        if buffer is None or len(buffer) < size:
            self._buffers.raw = None  # freed before the larger one is taken
            buffer = self._buffers.raw = bytearray(-(-size // CHUNK) * CHUNK or CHUNK)
        self.tree.fill(number, buffer)
        return self.pack(self._key(number), memoryview(buffer)[:size])

    def pack(self, key: bytes, raw: memoryview) -> Packed:
        """Frames of `raw` in every format, from the cache or made now."""
        made: dict[str, Frame] = {}
        reused = True
        for fmt in self.formats:
            frame = self.find(key, fmt)
            if frame is None:
                reused = False
                frame = self._make(key, fmt, raw)
            made[fmt] = frame
        return Packed(key, made, reused)

    def _make(self, key: bytes, fmt: str, raw: memoryview) -> Frame:
        name = frame_key(key, fmt, self.level)
        if fmt == ZST:
            return self.writer.append(name, frames.zstd_frame(raw, self.level), len(raw), 0)
        if fmt == GZ:
            data, crc, length = frames.piece(raw, self.level)
            return self.writer.append(name, data, length, crc)
        return self.writer.append_raw(lambda: name, [raw], len(raw))

    # ---- files too large to hold ---------------------------------------------------------------------------

    def _stream(self, number: int, pool: ThreadPoolExecutor) -> Packed:
        """Once per missing format; digest first, if the cache has something of that length, which may be it."""
        size = self.tree.size(number)
        key = self.tree.key(number)
        if key is None and (size in self._lengths or not self.formats):
            for _ in chunks(self.tree, number):
                pass
            key = self.tree.key(number)
        made: dict[str, Frame] = {}
        reused = True
        for fmt in self.formats:
            frame = None if key is None else self.find(key, fmt)
            if frame is None:
                reused = False
                frame = self._stream_as(fmt, number, pool)
            made[fmt] = frame
            key = self._key(number)
        return Packed(self._key(number), made, reused)

    def _key(self, number: int) -> bytes:
        """The key of a segment whose files have been read."""
        key: bytes | None = self.tree.key(number)
        assert key is not None
        return key

    def _stream_as(self, fmt: str, number: int, pool: ThreadPoolExecutor) -> Frame:
        size = self.tree.size(number)

        def name() -> bytes:
            return frame_key(self._key(number), fmt, self.level)

        if fmt == GZ:
            return self._stream_gz(name, number, pool)
        if fmt == ZST:
            return self.writer.append_stream(name, self._stream_zst(number), size)
        return self.writer.append_raw(name, chunks(self.tree, number), size)

    def _stream_zst(self, number: int) -> Iterator[bytes]:
        """One frame by libzstd's own workers; a frame cannot end inside a file."""
        packer = frames.zstd_compressor(self.level, cores()).compressobj(size=self.tree.size(number))
        for chunk in chunks(self.tree, number):
            yield packer.compress(chunk)
        yield packer.flush()

    def _stream_gz(self, name: Callable[[], bytes], number: int, pool: ThreadPoolExecutor) -> Frame:
        """Deflate pieces may end anywhere, so the chunks of one file go to all cores."""
        crcs: list[tuple[int, int]] = []

        def pieces() -> Iterator[bytes]:
            waiting: deque[Future[frames.Piece]] = deque()
            for chunk in chunks(self.tree, number):
                waiting.append(pool.submit(frames.piece, chunk, self.level))
                if len(waiting) > cores() + 1:
                    yield take(waiting.popleft())
            while waiting:
                yield take(waiting.popleft())

        def take(future: Future[frames.Piece]) -> bytes:
            made = future.result()
            crcs.append((made.crc, made.length))
            return made.data

        return self.writer.append_stream(name, pieces(), self.tree.size(number), crc=lambda: frames.combine(crcs)[0])


def chunks(tree: Tree, number: int) -> Iterator[bytes]:
    """The raw bytes of a segment of one large file; at the end the file is checked and its digest kept."""
    heads, descriptor, size = tree.start_stream(number)
    digest = xxhash.xxh3_128()
    try:
        yield heads
        left = size
        while left:
            chunk = os.read(descriptor, min(CHUNK, left))
            if not chunk:
                break
            digest.update(chunk)
            left -= len(chunk)
            yield chunk
        value = digest.intdigest()
        tree.end_stream(number, descriptor, value & (1 << 64) - 1, value >> 64)
        yield b"\0" * (-size % 4)
    finally:
        os.close(descriptor)


def trusted_before() -> int:
    """Files changed after this (ns) may change again without a trace in their times; call it before the walk."""
    return time.time_ns() - CLOCK_TICK
