"""A plain reader of newc archives, written from the format's description and the rules of Linux' init/initramfs.c.

It is the reference the fast writer is compared with, so it shares no code with it.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass


@dataclass
class Inode:
    mode: int
    uid: int
    gid: int
    mtime: int
    rdev: tuple[int, int]
    data: bytes


class Malformed(Exception):
    """Linux would print an error and boot a part of the tree, or silently drop an entry."""


def decode(raw: bytes) -> dict[bytes, Inode]:
    """Names to inodes; names of one inode share the object. Raises Malformed for what Linux would not take."""
    names: dict[bytes, Inode] = {}
    links: dict[tuple[int, int, int, int], Inode] = {}
    at = 0
    while True:
        if raw[at : at + 6] != b"070701":
            raise Malformed(f"no magic at {at}")
        (ino, mode, uid, gid, nlink, mtime, size, major, minor, rmajor, rminor, length, check) = (
            int(raw[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)
        )
        if check or not 1 < length <= 4096:
            raise Malformed(f"check {check}, name of {length} bytes at {at}")
        name = raw[at + 110 : at + 110 + length - 1]
        if b"\0" in name or raw[at + 110 + length - 1] != 0:
            raise Malformed(f"name at {at} does not end with its one NUL")
        start = at + (110 + length + 3) // 4 * 4
        data = raw[start : start + size]
        if len(data) != size:
            raise Malformed(f"{name!r} ends early")
        if any(raw[at + 110 + length : start]) or any(raw[start + size : start + (size + 3) // 4 * 4]):
            raise Malformed(f"{name!r} is not padded with zeros")
        at = start + (size + 3) // 4 * 4
        if name == b"TRAILER!!!":
            if at != len(raw):
                raise Malformed("something follows the trailer")
            return names
        if name in names:
            raise Malformed(f"{name!r} twice")
        parent = name.rpartition(b"/")[0]
        if parent and parent not in names:
            raise Malformed(f"{name!r} comes before its directory: Linux drops it")
        inode = Inode(mode, uid, gid, mtime, (rmajor, rminor), data)
        if nlink > 1 and not stat.S_ISDIR(mode) and not stat.S_ISLNK(mode):
            known = links.setdefault((major, minor, ino, stat.S_IFMT(mode)), inode)
            if known is not inode:
                if known.data and data:
                    raise Malformed(f"{name!r} carries content another name of its inode carried")
                known.data = known.data or data
                inode = known
        names[name] = inode
