"""The frame cache: compressed segments by content, shared by all images, safe to delete at any time.

Frames live in pack files that are written once: one pack for all the new frames of a build, so that publishing
costs one fsync and a node's download opens few files. `ID.pack` holds frames back to back, `ID.idx` says where.
An image refers to the packs by hard links of its own; the cache only remembers. A pack whose size or time is not
what its index says is not trusted: each of its frames is checked by digest before it is used again.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import xxhash

from wwfast.archive import frames
from wwfast.system import files, locks, work
from wwfast.system.folders import naming

log = logging.getLogger(__name__)

LOCK = ".lock"
MAGIC = b"wwframe1"
HEAD = struct.Struct("<8s16sQQ")  # magic, xxh3 of what follows it, size and mtime (ns) of the pack
RECORD = struct.Struct("<16sQQQI4x16s32s")  # key, offset, length, raw length, CRC-32 of raw, xxh3, sha256
NO_SHA256 = bytes(32)


class Frame(NamedTuple):
    """One compressed segment: `length` bytes at `offset` of the pack file `pack`.

    `sha256` is NO_SHA256 for a raw one: it would take longer than all the rest of packing it.
    """

    pack: Path
    offset: int
    length: int
    raw: int
    crc: int
    xxh3: bytes
    sha256: bytes


def frame_key(segment: bytes, fmt: str, level: int) -> bytes:
    """The frame's name: the segment's content and everything that decides how its bytes come out."""
    return xxhash.xxh3_128_digest(b"%s\0%s\0%d\0%s" % (segment, fmt.encode(), level, frames.LIBRARIES[fmt].encode()))


class PackWriter:
    """Appends frames of many threads to one new pack; the file appears with the first frame."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / f"{time.time_ns():016x}-{os.getpid()}.pack"
        self._temporary = self.path  # while it is being written: a name of its own
        self._lock = threading.Lock()
        self._file = -1
        self._end = 0
        self._records: list[bytes] = []
        self._finished = False

    def _reserve(self, length: int) -> int:
        with self._lock:
            if self._file < 0:
                self._temporary, self._file = work.begun(self.path.parent, is_folder=False)
            offset = self._end
            self._end += length
            return offset

    def _write(self, data: frames.Raw, offset: int) -> None:
        view = memoryview(data)
        with naming(self.path.parent):
            while view:
                done = os.pwrite(self._file, view, offset)
                if not done:
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                view, offset = view[done:], offset + done

    def append(self, key: bytes, data: frames.Raw, raw: int, crc: int) -> Frame:
        offset = self._reserve(len(memoryview(data)))
        self._write(data, offset)
        digest = xxhash.xxh3_128_digest(data), hashlib.sha256(data).digest()
        return self._record(key, Frame(self.path, offset, len(memoryview(data)), raw, crc, *digest))

    def append_stream(
        self, key: Callable[[], bytes], chunks: Iterable[bytes], raw: int, crc: Callable[[], int] = lambda: 0
    ) -> Frame:
        """A frame whose length is not known before; only one thread may write meanwhile. `key` and `crc` are asked
        at the end."""
        start = self._reserve(0)
        xxh3, sha256 = xxhash.xxh3_128(), hashlib.sha256()
        for chunk in chunks:
            self._write(chunk, self._reserve(len(chunk)))
            xxh3.update(chunk)
            sha256.update(chunk)
        frame = Frame(self.path, start, self._end - start, raw, crc(), xxh3.digest(), sha256.digest())
        return self._record(key(), frame)

    def append_raw(self, key: Callable[[], bytes], chunks: Iterable[frames.Raw], length: int) -> Frame:
        """The `length` bytes of `chunks` as they are; many threads may do this at once. `key` is asked at the end."""
        start = offset = self._reserve(length)
        xxh3 = xxhash.xxh3_128()
        for chunk in chunks:
            self._write(chunk, offset)
            xxh3.update(chunk)
            offset += len(chunk)
        return self._record(key(), Frame(self.path, start, length, length, 0, xxh3.digest(), NO_SHA256))

    def copy(self, key: bytes, frame: Frame) -> Frame:
        """Take over a frame from another pack."""
        offset = self._reserve(frame.length)
        with frame.pack.open("rb") as source:
            done = 0
            while done < frame.length:
                some = os.copy_file_range(
                    source.fileno(), self._file, frame.length - done, frame.offset + done, offset + done
                )
                if not some:  # it became shorter
                    raise OSError(errno.EIO, os.strerror(errno.EIO), str(frame.pack))
                done += some
        return self._record(key, frame._replace(pack=self.path, offset=offset))

    def _record(self, key: bytes, frame: Frame) -> Frame:
        line = RECORD.pack(key, frame.offset, frame.length, frame.raw, frame.crc, frame.xxh3, frame.sha256)
        with self._lock:
            self._records.append(line)
        return frame

    def finish(self) -> None:
        """Make the pack and its index durable and visible."""
        if self._file < 0:
            return
        os.fchmod(self._file, 0o400)
        with naming(self.path.parent):
            os.fsync(self._file)
        facts = os.fstat(self._file)
        self._temporary.rename(self.path)  # before it is closed: a name that nobody holds is swept
        file, self._file = self._file, -1
        os.close(file)
        body = b"".join(self._records)
        files.replace(
            self.path.with_suffix(".idx"),
            HEAD.pack(MAGIC, xxhash.xxh3_128_digest(body), facts.st_size, facts.st_mtime_ns) + body,
        )
        self._finished = True

    def abandon(self) -> None:
        """Leave nothing of a pack that was not finished. Safe to repeat."""
        if self._file >= 0:
            file, self._file = self._file, -1
            with suppress(OSError):
                os.close(file)
        for rest in () if self._finished else (self._temporary, self.path):
            with suppress(OSError):
                rest.unlink(missing_ok=True)


class FrameCache:
    """The frames found in one directory; create it inside `hold()`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.frames: dict[bytes, Frame] = {}
        self._doubtful: set[Path] = set()
        for index in sorted(directory.glob("*.idx")):
            self._read(index)

    def _read(self, index: Path) -> None:
        pack = index.with_suffix(".pack")
        data = index.read_bytes()
        if len(data) < HEAD.size:
            return
        magic, digest, size, mtime_ns = HEAD.unpack_from(data)
        body = memoryview(data)[HEAD.size :]
        if magic != MAGIC or len(body) % RECORD.size or xxhash.xxh3_128_digest(body) != digest:
            return
        try:
            facts = pack.stat()
        except FileNotFoundError:
            return
        if (facts.st_size, facts.st_mtime_ns) != (size, mtime_ns):
            self._doubtful.add(pack)
        for key, *fields in RECORD.iter_unpack(body):
            self.frames[key] = Frame(pack, *fields)

    def find(self, key: bytes) -> Frame | None:
        """The frame, if it is there and whole."""
        frame = self.frames.get(key)
        if frame is not None and frame.pack in self._doubtful and not intact(frame):
            return None
        return frame

    def seen_file(self, tree: Path) -> Path:
        """Where the digests of a tree's files are remembered."""
        return self.directory / f"seen-{xxhash.xxh3_64_hexdigest(os.fsencode(tree.resolve()))}.bin"

    def recall(self, tree: Path) -> bytes:
        try:
            data = self.seen_file(tree).read_bytes()
        except FileNotFoundError:
            return b""
        return data[16:] if data[:16] == xxhash.xxh3_128_digest(memoryview(data)[16:]) else b""

    def remember(self, tree: Path, seen: bytes) -> None:
        """For the next build, which otherwise reads all files again: no reason to fail this one."""
        try:
            files.replace(self.seen_file(tree), xxhash.xxh3_128_digest(seen) + seen, durable=False)  # torn: ignored
        except OSError as error:
            log.warning("the digests of the files of %s are not kept: %s", tree, str(error))  # not what led to it


def intact(frame: Frame) -> bool:
    """Read the frame and compare it with its digest."""
    xxh3, left = xxhash.xxh3_128(), frame.length
    try:
        for data in files.read_part(frame.pack, frame.offset, frame.length):
            xxh3.update(data)
            left -= len(data)
    except OSError:
        return False
    return not left and xxh3.digest() == frame.xxh3


@contextmanager
def hold(directory: Path) -> Iterator[None]:
    """Keep the cache from being collected; builds share it."""
    with locks.opened(directory / LOCK) as lock:
        work.sweep(directory)
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield


class Collected(NamedTuple):
    files: int
    bytes: int


def collect(directory: Path, keep: int = 0, *, wait: bool = True, dry_run: bool = False) -> Collected:
    """Delete what no image refers to: packs without another link, the oldest first until at most `keep` bytes of
    them are left, and the rests of builds that died. Running builds are waited for, or win if not `wait`."""
    if not directory.is_dir():
        return Collected(0, 0)
    with locks.opened(directory / LOCK) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return Collected(0, 0)
        doomed: list[Path] = []
        loose = [path for path in sorted(directory.glob("*.pack")) if path.stat().st_nlink == 1]
        total = sum(path.stat().st_size for path in loose)
        for path in loose:
            if total > keep or not path.with_suffix(".idx").exists():
                total -= path.stat().st_size
                doomed.append(path)
        if not keep:
            doomed += directory.glob("seen-*.bin")
        gone = set(doomed)
        doomed += [
            path
            for path in directory.glob("*.idx")
            if path.with_suffix(".pack") in gone or not path.with_suffix(".pack").exists()
        ]
        freed = sum(path.stat().st_size for path in doomed)
        for path in () if dry_run else doomed:
            path.unlink()
    return Collected(len(doomed), freed)
