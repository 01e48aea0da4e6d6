"""The files of the overlay cache: records under a checksum, appended whole or not at all.

A record is a fixed header, a msgpack `meta` and data. Three kinds:

- DATA: the bytes of a segment in one format, found by the digest of its content;
- KEY: what a segment was made from -> its content; the same key may come again, the last one counts;
- LAST: the segments that a node was last given for a context: what is served when a build fails or is switched off.
"""

from __future__ import annotations

import errno
import os
import secrets
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import xxhash

from wwfast.system.folders import folder

MAGIC = b"wwP1"
DATA, KEY, LAST = 0, 1, 2
FORMATS = ("", "raw", "zst", "gz", "tar", "literal")
# magic, kind, format, meta bytes, data bytes, raw bytes, crc32 of raw, name, checksum of all that follows and precedes
HEAD = struct.Struct("<4sBBHIQI16sQ")
BODY = HEAD.size
CHUNK = 1 << 20  # bytes read at once while a pack is indexed


class Segment(NamedTuple):
    """Bytes of one content in one format: where they are, and what a gzip tail needs of them."""

    content: bytes
    path: str
    offset: int
    length: int
    raw_length: int
    crc: int


class Record(NamedTuple):
    kind: int
    format: int
    name: bytes
    meta: bytes = b""
    data: bytes = b""
    raw_length: int = 0
    crc: int = 0

    @property
    def size(self) -> int:
        return BODY + len(self.meta) + len(self.data)


def encode(records: Sequence[Record]) -> bytes:
    parts: list[bytes] = []
    for kind, fmt, name, meta, data, raw_length, crc in records:
        head = HEAD.pack(MAGIC, kind, fmt, len(meta), len(data), raw_length, crc, name, 0)[: BODY - 8]
        body = meta + data
        parts += (head, check(head, body).to_bytes(8, "little"), body)
    return b"".join(parts)


def check(head: bytes, body: bytes) -> int:
    state = xxhash.xxh3_64(head)
    state.update(body)
    return state.intdigest()


def sound(block: bytes, fmt: int) -> bool:
    """Whether `block` is header and data of an undamaged DATA record (its meta is empty)."""
    fields = HEAD.unpack_from(block)
    return bool(fields[2] == fmt and check(block[: BODY - 8], block[BODY:]) == fields[8])


class Found(NamedTuple):
    """A record of a pack: DATA by its place and unchecked, the others by their checked `meta`; it ends at `end`."""

    kind: int
    format: int
    segment: Segment
    meta: bytes
    end: int


def scan(path: str, at: int) -> Iterator[Found]:
    """The records of a pack from `at` up to where it ends or is torn. Raises OSError.

    It is read and not mapped: a map of a file that becomes shorter, or of a bad disk, kills the process.
    """
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - a plain path
        fd, size, base, chunk = file.fileno(), os.fstat(file.fileno()).st_size, at, b""
        while at + BODY <= size:
            if at + BODY > base + len(chunk):
                base, chunk = at, os.pread(fd, CHUNK, at)
                if len(chunk) < BODY:
                    return
            here = at - base
            magic, kind, fmt, meta, length, raw, crc, name, expected = HEAD.unpack_from(chunk, here)
            end = at + BODY + meta + length
            if magic != MAGIC or end > size:
                return
            place = Segment(name, path, at + BODY + meta, length, raw, crc)
            if kind == DATA:
                yield Found(kind, fmt, place, b"", end)
            else:
                block = chunk[here : end - base] if end - base <= len(chunk) else os.pread(fd, end - at, at)
                if check(block[: BODY - 8], block[BODY:]) == expected:
                    yield Found(kind, fmt, place, block[BODY : BODY + meta], end)
            at = end


class Writer:
    """A pack that is appended to: a file of the cache, or one in memory that nobody else sees."""

    def __init__(self, path: str, fd: int, *, memory: bool = False) -> None:
        self.path = path
        self.size = 0  # bytes that are whole records
        self.memory = memory
        self._fd = fd
        self._unsynced = False

    @classmethod
    def on_disk(cls, directory: Path) -> Writer:
        """Raises OSError."""
        folder(directory)
        path = str(directory / f"pack-{time.time_ns():x}-{os.getpid()}-{secrets.token_hex(3)}")
        return cls(path, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))

    @classmethod
    def in_memory(cls) -> Writer:
        """Raises OSError. Its path is one for this process only."""
        fd = os.memfd_create("overlays", os.MFD_CLOEXEC)
        return cls(f"/proc/self/fd/{fd}", fd, memory=True)

    def append(self, blob: bytes) -> int:
        """Where it begins. Raises OSError: then nothing counts as written, and only `give_up` may follow."""
        rest = memoryview(blob)
        while rest:
            done = os.write(self._fd, rest)
            if not done:
                raise OSError(errno.EIO, os.strerror(errno.EIO), self.path)
            rest = rest[done:]
        at, self.size = self.size, self.size + len(blob)
        self._unsynced = True
        return at

    def gone(self) -> bool:
        """Whether somebody removed the file."""
        return not self.memory and os.fstat(self._fd).st_nlink == 0

    def sync(self) -> None:
        if self._unsynced and not self.memory:
            os.fdatasync(self._fd)
            self._unsynced = False

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def give_up(self) -> None:
        """End it after a failure: nothing is left of a record that was written half, nor a file without a record."""
        with suppress(OSError):
            os.ftruncate(self._fd, self.size)
        with suppress(OSError):
            self.close()
        if not self.size and not self.memory:
            with suppress(OSError):
                os.unlink(self.path)  # noqa: PTH108 - a plain path

    def empty(self) -> None:
        """Give back the memory; who still reads finds the end of the file, never another file's bytes."""
        with suppress(OSError):
            os.ftruncate(self._fd, 0)
