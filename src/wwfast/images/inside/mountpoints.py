"""Mount points and copies made in an image for the time of one command, written down so that a crash leaves none.

The list is beside the tree. Whoever next runs a command in the image, copies or packs it removes what is still on it.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

import msgspec
import xxhash

from wwfast.system import files, within

LIST = "places.json"
ASIDE = ".copy"  # a copy that is not whole yet, beside the tree
PIECE = 1 << 20


class Place(msgspec.Struct, frozen=True):
    """`path` of the image, and the fingerprint() of the copy that was put there; of a mount point none."""

    path: str
    copy: str = ""


def aside(rootfs: Path) -> Path:
    """Where a copy grows before it gets its place."""
    return rootfs.parent / ASIDE


def fingerprint(file: Path) -> str:
    """What tells whether somebody changed it: type, permissions, and the content of a file. Links are not followed."""
    mode = file.lstat().st_mode
    digest = xxhash.xxh3_128()
    if stat.S_ISREG(mode):
        with file.open("rb", buffering=0) as stream:
            while piece := stream.read(PIECE):
                digest.update(piece)
    return f"{mode:o} {digest.hexdigest()}"


def remove(there: Path) -> None:
    """Remove a file, or a directory that is empty. Raises OSError for one that is not."""
    if stat.S_ISDIR(there.lstat().st_mode):
        there.rmdir()
    else:
        there.unlink()


def note(rootfs: Path, place: Place) -> None:
    """Before it is made: from now on sweep() removes it."""
    _write(rootfs, [*_read(rootfs), place])


def done(rootfs: Path) -> None:
    """All were removed, or are the image's own now."""
    (rootfs.parent / LIST).unlink(missing_ok=True)


def sweep(rootfs: Path) -> None:
    """Remove what a command that was killed left. Only empty mount points and copies as they were made go."""
    aside(rootfs).unlink(missing_ok=True)
    found = _read(rootfs)
    for place in found:
        there = within.resolve(rootfs, place.path)
        if there is None or there != rootfs / place.path.lstrip("/"):
            continue
        with suppress(OSError):
            status, times = there.lstat(), there.parent.stat()
            empty = stat.S_ISDIR(status.st_mode) or status.st_size == 0
            if fingerprint(there) == place.copy if place.copy else empty:
                remove(there)
                os.utime(there.parent, ns=(times.st_atime_ns, times.st_mtime_ns))
    if found:
        done(rootfs)


def _read(rootfs: Path) -> list[Place]:
    try:
        return msgspec.json.decode((rootfs.parent / LIST).read_bytes(), type=list[Place])
    except (OSError, msgspec.DecodeError):
        return []


def _write(rootfs: Path, places: list[Place]) -> None:
    files.replace(rootfs.parent / LIST, msgspec.json.encode(places))
