"""Mount points and copies made in an image for the time of one command, written down so that a crash leaves none.

The list is beside the tree. Whoever next runs a command in the image or packs it removes what is still on it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import msgspec

from wwfast.images import inside

LIST = "places.json"


class Place(msgspec.Struct, frozen=True):
    """`path` of the image; an empty mount point, or (`copy_of`) a copy of that file of the server."""

    path: str
    copy_of: str = ""


def note(rootfs: Path, place: Place) -> None:
    """Before it is made: from now on sweep() removes it."""
    _write(rootfs, [*_read(rootfs), place])


def done(rootfs: Path) -> None:
    """All were removed, or are the image's own now."""
    (rootfs.parent / LIST).unlink(missing_ok=True)


def sweep(rootfs: Path) -> None:
    """Remove what a command that was killed left. Only empty mount points and copies like their source go."""
    for place in _read(rootfs):
        there = inside.resolve(rootfs, place.path)
        if there is None or there != rootfs / place.path.lstrip("/"):
            continue
        times = there.parent.stat()
        with suppress(OSError):
            if there.is_dir():
                there.rmdir()
            elif there.read_bytes() == (Path(place.copy_of).read_bytes() if place.copy_of else b""):
                there.unlink()
            os.utime(there.parent, ns=(times.st_atime_ns, times.st_mtime_ns))
    done(rootfs)


def _read(rootfs: Path) -> list[Place]:
    try:
        return msgspec.json.decode((rootfs.parent / LIST).read_bytes(), type=list[Place])
    except (OSError, msgspec.DecodeError):
        return []


def _write(rootfs: Path, places: list[Place]) -> None:
    new = rootfs.parent / f".{LIST}"
    new.write_bytes(msgspec.json.encode(places))
    new.rename(rootfs.parent / LIST)
