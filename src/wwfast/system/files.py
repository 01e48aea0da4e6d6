"""Files and trees that are written whole or not at all, and read in pieces."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

import xxhash

from wwfast.system import work
from wwfast.system.folders import naming

PIECE, BLOCK = 1 << 20, 64 << 20
LARGEST = 256 << 20  # bytes of a file that is read whole: nodes.conf of 100,000 nodes has 60 MB


def replace(target: Path, data: bytes, *, mode: int | None = None, durable: bool = True) -> None:
    """Write a file whole or not at all. Mode and owner of a former one stay unless `mode` is given; a new one is 0600.

    A link at `target` is replaced, not followed. Raises OSError naming the target.
    """
    try:
        former: os.stat_result | None = target.stat()
    except FileNotFoundError:
        former = None
    bits = mode if mode is not None else former.st_mode & 0o7777 if former is not None else 0o600
    with naming(target), work.file(target.parent) as (fresh, handle):
        fill(handle, data)
        if former is not None:
            with suppress(PermissionError):
                os.fchown(handle, former.st_uid, former.st_gid)
        os.fchmod(handle, bits)
        if durable:
            os.fsync(handle)
        fresh.rename(target)
        if durable:
            sync(target.parent)


def read(path: Path, most: int = LARGEST) -> bytes:
    """All of a file, which may be a device without an end, or sparse and larger than any memory. Raises OSError that
    names it, EFBIG where it has more than `most`."""
    with path.open("rb") as file:
        return rest(file, str(path), most)


def rest(file: IO[bytes], name: str, most: int = LARGEST) -> bytes:
    """What is left of an open file, as `read`."""
    pieces, size = [], 0
    try:
        while size <= most and (piece := file.read(BLOCK)):
            pieces.append(piece)
            size += len(piece)
        if size <= most:
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)
    except MemoryError:
        raise OSError(errno.ENOMEM, "not enough memory to read it", name) from None
    raise OSError(errno.EFBIG, f"larger than {most >> 20} MiB, the most that is read of a file", name)


def read_part(path: Path, offset: int, length: int) -> Iterator[bytes]:
    """`length` bytes from `offset` in pieces of 1 MiB, fewer where the file ends: one read(2) gives at most 2 GiB."""
    with path.open("rb") as file:
        file.seek(offset)
        while length and (data := file.read(min(length, PIECE))):
            length -= len(data)
            yield data


def digest(path: Path) -> str:
    """XXH3 of the content, 128 bits in hex."""
    found = xxhash.xxh3_128()
    with path.open("rb", buffering=0) as stream:
        while data := stream.read(PIECE):
            found.update(data)
    return found.hexdigest()


def fill(handle: int, data: bytes) -> None:
    """write(2) to the end: a signal or a disk that is nearly full may take less at once."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(handle, rest) :]


def install(new: Path, place: Path) -> None:
    """Put the directory `new` where `place` is, in one step; what was there ends up at `new`."""
    if not place.exists():
        new.rename(place)
        sync(place.parent)
        return
    from wwfast.system import libc  # with ctypes: not at the start of each command

    try:
        libc.exchange(new, place)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS):
            raise
        # File systems without exchange: two renames, the gap between them is microseconds.
        old = new.with_name(new.name + ".old")
        place.rename(old)
        try:
            new.rename(place)
        except BaseException:
            old.rename(place)
            raise
        old.rename(new)
    sync(place.parent)


def settle(tree: Path) -> None:
    """Have the file system write all of it out, so that a power failure after the swap finds it whole."""
    from wwfast.system import libc

    fd = os.open(tree, os.O_RDONLY | os.O_CLOEXEC)
    try:
        libc.syncfs(fd, str(tree))
    finally:
        os.close(fd)


def sync(path: Path) -> None:
    """fsync a file or directory."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with naming(path):
            os.fsync(fd)
    finally:
        os.close(fd)
