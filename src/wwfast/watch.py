"""Noticing that something below a set of directories changed: inotify, or looking again every second.

inotify says nothing about changes that other hosts make on a network file system; there, and where the kernel refuses
another watch, `changed` says yes once a second and the caller compares for itself.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import time
import weakref
from collections.abc import Iterable
from pathlib import Path

log = logging.getLogger(__name__)

POLL = 1.0
_LOCAL = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "tmpfs", "overlay", "zfs", "f2fs", "ramfs", "bcachefs"})
# modify, attrib, close_write, moved_from, moved_to, create, delete, delete_self, move_self
_MASK = 0x002 | 0x004 | 0x008 | 0x040 | 0x080 | 0x100 | 0x200 | 0x400 | 0x800
_ONLYDIR = 0x01000000
_libc = ctypes.CDLL(None, use_errno=True)


class Watch:
    """`changed()` costs one system call while nothing happens."""

    def __init__(self) -> None:
        self._fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        # Linux gives a user 128 of these: one that nobody holds any more must not stay open.
        self._closer = weakref.finalize(self, os.close, self._fd) if self._fd >= 0 else None
        self._known: dict[str, tuple[int, int]] = {}
        self._polling = self._fd < 0
        self._next = 0.0

    def add(self, directories: Iterable[Path]) -> bool:
        """Watch these too; True when one of them was not watched yet."""
        new = False
        for directory in directories:
            name = str(directory)
            try:
                st = os.stat(name)  # noqa: PTH116 - a string, many times
            except OSError:
                continue
            here = (st.st_dev, st.st_ino)
            if self._known.get(name) == here:
                continue
            self._known[name] = here
            new = True
            if self._polling:
                continue
            if _type(st.st_dev) not in _LOCAL:
                self._poll(f"{name} is not on a local file system")
            elif _libc.inotify_add_watch(self._fd, os.fsencode(name), _MASK | _ONLYDIR) < 0:
                code = ctypes.get_errno()
                if code not in (errno.ENOENT, errno.ENOTDIR):
                    self._poll(f"{name}: {os.strerror(code)}")
        return new

    def fileno(self) -> int:
        """For an event loop: readable when `changed` has something to say; -1 where only polling works."""
        return int(self._fd)

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


def _same(name: str, ident: tuple[int, int]) -> bool:
    try:
        st = os.stat(name)  # noqa: PTH116 - a string, many times
    except OSError:
        return False
    return (st.st_dev, st.st_ino) == ident


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
