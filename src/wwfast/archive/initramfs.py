"""The files in an initramfs: archives one behind the other, each plain or compressed, as the kernel unpacks them.

Of early microcode there is a plain one in front, with zeros behind it (Documentation/driver-api/early-userspace).
"""

from __future__ import annotations

import lzma
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple, cast

import zstandard

from wwfast.archive.newc import PATH_MAX
from wwfast.archive.stream import CHUNK, MAGIC, DamagedError, Digested, Forward, GzipError, plain_chunks
from wwfast.errors import WwfastError, cause

HEAD = 110  # bytes of a newc header: a magic and 13 fields of 8 digits
MAGICS = (b"070701", b"070702")
FIELDS = re.compile(rb"[0-9A-Fa-f]*")
EMPTY = 10_000  # pieces of one that hold nothing: each gzip member costs a copy of what is read behind it
LARGEST = 4 << 30  # bytes that one is unpacked to at most: no kernel unpacks more
OTHERS = {b"\x02\x21\x4c\x18": "lz4", b"\x89LZO": "lzo", b"\x5d\0\0": "lzma", b"\x04\x22\x4d\x18": "lz4"}


class Member(NamedTuple):
    """A file: its path without a leading slash, and its size."""

    name: str
    mode: int
    size: int


def members(path: Path) -> Iterator[tuple[Member, Forward]]:
    """Each file, and where the next read begins with its content. Raises DamagedError where it is not what it should
    be, WwfastError for a form that is not read here, OSError."""
    with path.open("rb", buffering=0) as stream:
        try:
            yield from _archives(_chunks(stream), path)
        except (GzipError, lzma.LZMAError, zstandard.ZstdError, EOFError, OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise DamagedError(f"{path} is damaged or cut short: {cause(error, path)}") from error


def _chunks(stream: IO[bytes]) -> Iterator[bytes]:
    while data := stream.read(CHUNK):
        yield data


def _archives(chunks: Iterator[bytes], path: Path, *, plain: bool = False) -> Iterator[tuple[Member, Forward]]:
    """Of one file, or (`plain`) of what a compressed one holds."""
    source = Forward(chunks)
    while True:
        while (more := source.peek(CHUNK)) and (zeros := len(more) - len(more.lstrip(b"\0"))):
            source.skip(zeros)
        head = more[:MAGIC]
        if not head:
            return
        if head.startswith(MAGICS):
            yield from _newc(source)
        elif plain:
            raise DamagedError(f"{path} holds no newc archive, but {head[:6].hex()}")
        else:
            if other := next((name for magic, name in OTHERS.items() if head.startswith(magic)), ""):
                raise WwfastError(f"{path} is compressed by {other}, which is not read here")
            yield from _archives(_bounded(source, path), path, plain=True)
            return


def _bounded(source: Forward, path: Path) -> Iterator[bytes]:
    size = empty = 0
    for data in plain_chunks(Digested(cast(IO[bytes], source), None, None)):
        size += len(data)
        empty += not data
        if empty > EMPTY:
            raise WwfastError(f"{path} is compressed as more than {EMPTY} pieces that hold nothing")
        if size > LARGEST:
            raise WwfastError(f"{path} unpacks to more than {LARGEST >> 30} GiB")
        if data:  # nothing is the end to who reads it
            yield data


def _newc(source: Forward) -> Iterator[tuple[Member, Forward]]:
    """One archive to its end, which is a TRAILER or the end of the file."""
    start = source.tell()
    while (head := source.read(HEAD)).startswith(MAGICS) and len(head) == HEAD:
        if not FIELDS.fullmatch(head, len(MAGICS[0])):
            raise ValueError("a newc header whose fields are no numbers")
        mode, size, length = (int(head[6 + 8 * at : 14 + 8 * at], 16) for at in (1, 6, 11))
        if not 0 < length <= PATH_MAX:
            raise ValueError(f"a name of {length} bytes")
        name = source.read(length).rstrip(b"\0")
        source.skip(-(source.tell() - start) % 4)
        if name == b"TRAILER!!!":
            return
        content = source.tell()
        yield Member(name.decode(errors="surrogateescape").removeprefix("./").lstrip("/"), mode, size), source
        left = content + size + -(content + size - start) % 4 - source.tell()
        if left < 0:
            raise ValueError("more than its content was read of a file")
        source.skip(left)
    if head.strip(b"\0"):
        raise ValueError("no newc header")
