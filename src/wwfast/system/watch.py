"""Noticing that something below a set of directories changed: inotify, or looking again every second.

inotify says nothing about changes that other hosts make on a network file system; there, and where the kernel refuses
another watch, `changed` says yes once a second and the caller compares for itself.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import termios
import time
import weakref
from collections.abc import Iterable
from pathlib import Path

from wwfast.system import libc

log = logging.getLogger(__name__)

POLL = 1.0
_LOCAL = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "tmpfs", "overlay", "zfs", "f2fs", "ramfs", "bcachefs"})
# moved_from, moved_to, create, delete, delete_self, move_self; and modify, attrib, close_write
_NAMES = 0x040 | 0x080 | 0x100 | 0x200 | 0x400 | 0x800
_ALL = _NAMES | 0x002 | 0x004 | 0x008
_ONLYDIR, _MASK_ADD = 0x01000000, 0x20000000


class Watch:
    """`changed()` costs one system call while nothing happens."""

    def __init__(self) -> None:
        try:
            self._fd = libc.inotify()
        except OSError:
            self._fd = -1
        # Linux gives a user 128 of these: one that nobody holds any more must not stay open.
        self._closer = weakref.finalize(self, os.close, self._fd) if self._fd >= 0 else None
        self._known: dict[str, tuple[int, int, int]] = {}  # device, inode, what is watched
        self._polling = self._fd < 0
        self._next = 0.0

    def add(self, directories: Iterable[Path | str], *, contents: bool = True) -> bool:
        """Watch these too; True when one of them was not watched yet.

        Without `contents` only names that come, go or move are told, not what is written into files.
        """
        new, mask = False, _ALL if contents else _NAMES
        for directory in directories:
            name = str(directory)
            try:
                st = os.stat(name)  # noqa: PTH116 - a string, many times
            except OSError:
                continue
            *before, watched = self._known.get(name, (0, 0, 0))
            if before != [st.st_dev, st.st_ino]:
                watched = 0
            if watched & mask == mask:
                continue
            self._known[name] = (st.st_dev, st.st_ino, watched | mask)
            new = True
            if self._polling:
                continue
            if _type(st.st_dev) not in _LOCAL:
                self._poll(f"{name} is not on a local file system")
                continue
            try:
                libc.inotify_add(self._fd, name, mask | _ONLYDIR | _MASK_ADD)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                    self._poll(f"{name}: {error.strerror}")
        return new

    def fileno(self) -> int:
        """For an event loop: readable when `changed` has something to say; -1 where only polling works."""
        return self._fd

    def waiting(self) -> bool:
        """Whether `changed` has to be asked; takes nothing, and any thread may call it."""
        if self._polling and time.monotonic() >= self._next:
            return True
        return self._fd >= 0 and fcntl.ioctl(self._fd, termios.FIONREAD, bytes(4)) != bytes(4)

    def changed(self) -> bool:
        """Whether anything happened since the last call."""
        found = False
        if self._fd >= 0:
            try:
                while os.read(self._fd, 1 << 16):
                    found = True
            except BlockingIOError:
                pass
        if self._polling and time.monotonic() >= self._next:
            self._next = time.monotonic() + POLL
            found = True
        if found:
            self._known = {name: ident for name, ident in self._known.items() if _same(name, ident)}
        return found

    def close(self) -> None:
        if self._closer is not None:
            self._closer()
        self._fd = -1

    def _poll(self, why: str) -> None:
        log.info("changes are looked for every %g s: %s", POLL, why)
        self._polling = True


def existing(place: Path) -> Path:
    """The directory itself, or the nearest one above it that is there: where its coming is seen."""
    while not place.is_dir() and place != place.parent:
        place = place.parent
    return place


def _same(name: str, ident: tuple[int, int, int]) -> bool:
    try:
        st = os.stat(name)  # noqa: PTH116 - a string, many times
    except OSError:
        return False
    return (st.st_dev, st.st_ino) == ident[:2]


def _type(device: int) -> str:
    """Type of the file system of a device number, from mountinfo; "" when it is not there."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open("/proc/self/mountinfo") as file:  # noqa: PTH123 - proc
            for line in file:
                fields = line.split()
                if fields[2] == wanted:
                    return fields[fields.index("-") + 1]
    except (OSError, ValueError, IndexError):
        pass
    return ""
