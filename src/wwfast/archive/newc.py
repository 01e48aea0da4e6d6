"""newc archives of entries held in memory (overlays, kernel modules, small additions to an image).

Rules of the readers (Linux init/initramfs.c, GNU cpio, libarchive) this module keeps: a name with its NUL is at
most PATH_MAX bytes, or Linux skips the entry without a word; an archive ends on an entry boundary, so compressed
archives can be concatenated; every archive's length is a multiple of 4; a TRAILER ends the scope of hard links
and makes GNU cpio stop, so the whole of what a node is sent has at most one, at its very end.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from wwfast._ext import newc as native
from wwfast.errors import WwfastError

PATH_MAX = 4096
SIZE_MAX = NUMBER_MAX = 0xFFFFFFFF
S_IFMT, S_IFLNK = 0o170000, 0o120000
TRAILER = native.pack([], 0, True)


class Entry(NamedTuple):
    """One file: `name` relative to the root without a leading slash, `mode` with its type bits.

    `data` is the content of a regular file or the target of a symbolic link; `mtime` seconds (0 to 2^32-1);
    `rdev` major and minor of a device.
    """

    name: bytes
    mode: int
    uid: int
    gid: int
    mtime: int
    data: bytes = b""
    rdev: tuple[int, int] = (0, 0)


def problem(entry: Entry) -> str | None:
    """Why a node would drop or misread this entry."""
    name = entry.name
    if not name or name.startswith(b"/") or b"\0" in name:
        return "names are relative, not empty and without NUL"
    if name == b"TRAILER!!!":
        return "this name ends an archive"
    if len(name) >= PATH_MAX:
        return f"the name has {len(name)} bytes; Linux drops entries with a name over {PATH_MAX - 1}"
    if len(entry.data) > SIZE_MAX:
        return f"{len(entry.data)} bytes of content; newc carries up to 4 GiB - 1"
    if entry.mode & S_IFMT == S_IFLNK and not 0 < len(entry.data) < PATH_MAX:
        return f"the target of the symbolic link has {len(entry.data)} bytes; 1 to {PATH_MAX - 1} work"
    if min(entry.mode, entry.uid, entry.gid, entry.mtime, *entry.rdev) < 0:
        return "mode, owner, group, time and device numbers are not negative"
    if max(entry.mode, entry.uid, entry.gid, entry.mtime, *entry.rdev) > NUMBER_MAX:
        return "mode, owner, group, time and device numbers are at most 2^32 - 1"
    return None


def archive(entries: Iterable[Entry | tuple[Any, ...]], *, segment: int = 0, trailer: bool = True) -> bytes:
    """The newc archive of `entries` in the given order, parents first; hard links are not made.

    `segment` goes into the device number: archives that are concatenated without a TRAILER between them need
    different ones. Raises WwfastError for what newc or Linux cannot carry. Tuples may stand for entries.
    """
    listed = list(entries)
    for entry in () if native.sound(listed) else map(Entry._make, listed):
        if why := problem(entry):
            shown = entry.name[:200].decode(errors="backslashreplace")
            raise WwfastError(f"'{shown}' cannot be archived: {why}")
    return native.pack(listed, segment, trailer)


def entries(raw: bytes) -> list[Entry]:
    """The entries of an archive, or of a part of one, in order. ValueError for what is no archive of ours."""
    return [Entry(*each) for each in native.entries(raw)]
