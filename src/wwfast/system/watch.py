"""Noticing that something below a set of directories changed: inotify, or looking again every second.

inotify says nothing about changes that other hosts make on a network file system; there, and where the kernel refuses
another watch, `changed` says yes once a second and the caller compares for itself. Nor does it tell of what is mounted
over a directory: the table of mounts does. What is written into a file by another name than the one in the directory (a
hard link, a file that is mounted there) is told by a watch of the file itself.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import select
import struct
import time
import weakref
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

from wwfast._ext import calls
from wwfast.system import libc
from wwfast.system.within import follow

log = logging.getLogger(__name__)

POLL = 1.0
_LOCAL = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "tmpfs", "overlay", "zfs", "f2fs", "ramfs", "bcachefs"})
# moved_from, moved_to, create, delete, delete_self, move_self; and modify, attrib, close_write
_NAMES = 0x040 | 0x080 | 0x100 | 0x200 | 0x400 | 0x800
_ALL = _NAMES | 0x002 | 0x004 | 0x008
_SELF = 0x004 | 0x400 | 0x800  # attrib (a link that is replaced has one name less), delete_self, move_self
_MASK_ADD, _DONT_FOLLOW, _IGNORED = 0x20000000, 0x02000000, 0x8000
_EVENT = struct.Struct("iIII")  # watch descriptor, what happened, cookie, bytes of the name that follows


#: The number of a watch; where there is no inotify: device and inode.
Identity = int | tuple[int, int]


class Watch:
    """`changed()` costs one system call while nothing happens."""

    def __init__(self) -> None:
        self._fd, self._mounts = -1, -1
        self._ready: select.epoll | None = None
        with suppress(OSError), ExitStack() as opened:
            fd = libc.inotify()
            opened.callback(os.close, fd)
            mounts = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
            opened.callback(os.close, mounts)
            ready = opened.enter_context(select.epoll())
            ready.register(fd, select.EPOLLIN)
            ready.register(mounts, select.EPOLLPRI)
            # Linux gives a user 128 of these: one that nobody holds any more must not stay open.
            self._closer = weakref.finalize(self, opened.pop_all().close)
            self._fd, self._mounts, self._ready = fd, mounts, ready
        # Which one each is, and what is watched; by name, and whether it is about a link itself.
        self._known: dict[tuple[str, int], tuple[Identity, int]] = {}
        self._polling = self._ready is None
        self._mounted = False  # the table of mounts changed, and `changed` has not looked
        self._table: set[tuple[str, str]] | None = None  # read with the first places, by who may wait for it
        self._inside: dict[str, list[str]] = {}  # by folder: a file that is mounted there is written elsewhere
        self._next = 0.0

    def add(self, places: Iterable[Path | str], *, contents: bool = True) -> bool:
        """Watch these directories and files too; True when one of them was not watched yet, or is another one now.

        Without `contents` only names that come, go or move are told, not what is written into files.
        """
        if self._table is None:
            self._table = _mounts()
            self._inside = _by_folder(self._table)
        if not contents:
            return self._add(places, _NAMES)
        each = [str(place) for place in places]
        return self._add([*each, *(it for place in each for it in self._inside.get(place, ()))], _ALL)

    def follow(self, places: Iterable[Path | str]) -> bool:
        """Watch the way to these places: a directory above that is renamed, a link that is pointed elsewhere. True as
        above."""
        return self._add({step for place in places for step in steps(str(place))}, _SELF | _DONT_FOLLOW)

    def _add(self, places: Iterable[Path | str], mask: int) -> bool:
        new = False
        for place in places:
            key = str(place), mask & _DONT_FOLLOW
            identity = self._watched(*key, mask)
            if identity is None:
                continue
            before, watched = self._known.get(key, (None, 0))
            if before != identity:
                watched = 0
            if watched & mask != mask:
                self._known[key] = (identity, watched | mask)
                new = True
        return new

    def _watched(self, name: str, itself: int, mask: int) -> Identity | None:
        """Which one it is, watched from now on; None when there is none. Numbers never come again, as inodes do: a
        directory that is removed and made anew is another one."""
        try:
            if self._fd >= 0:
                number = libc.inotify_add(self._fd, name, mask | _MASK_ADD)
                if not itself and self._known.get((name, 0), (0, 0))[0] != number:
                    self._ask_type(name)
                return number
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return None
            self._poll(f"{name}: {error.strerror}")
        try:
            st = os.stat(name, follow_symlinks=not itself)  # noqa: PTH116 - a string, many times
        except OSError:
            return None
        return st.st_dev, st.st_ino

    def _ask_type(self, name: str) -> None:
        with suppress(OSError):
            if not self._polling and _type(os.stat(name).st_dev) not in _LOCAL:  # noqa: PTH116 - as above
                self._poll(f"{name} is not on a local file system")

    def fileno(self) -> int:
        """For an event loop: readable when `changed` has something to say; -1 where only polling works."""
        return self._fd

    def waiting(self) -> bool:
        """Whether `changed` has to be asked; takes nothing, and any thread may call it."""
        if self._polling and time.monotonic() >= self._next:
            return True
        return self._told() or self._mounted

    def changed(self) -> bool:
        """Whether anything happened since the last call."""
        found = False
        try:
            while self._told() and self._ready is not None:
                self._forget(os.read(self._fd, 1 << 16))
                found = True
        except BlockingIOError:  # it was about mounts alone
            pass
        if self._mounted:
            self._mounted = False
            found |= self._remounted()
        if self._polling and time.monotonic() >= self._next:
            self._next = time.monotonic() + POLL
            found = True
        return found

    def close(self) -> None:
        if self._ready is not None:
            self._closer()
        self._fd, self._ready = -1, None

    def _told(self) -> bool:
        """Whether inotify has something to tell. That something was mounted the kernel tells once, to whoever asks."""
        ready = [] if (told := self._ready) is None else calls.ready(told.fileno())
        if self._mounts in ready:
            self._mounted = True
        return bool(ready)

    def _remounted(self) -> bool:
        """Whether what was mounted or unmounted lies over or in what is watched."""
        if self._table is None:  # nothing is watched yet
            return False
        before, self._table = self._table, _mounts()
        if not (changed := before ^ self._table):
            return False
        self._inside = _by_folder(self._table)
        watched = [os.path.realpath(name) for name, _ in self._known]
        return any(
            os.path.dirname(place) == name or f"{name}/".startswith(f"{place.rstrip('/')}/")  # noqa: PTH120
            for _, place in changed
            for name in watched
        )

    def _forget(self, data: bytes) -> None:
        """What is gone, by its last event."""
        at, gone = 0, set()
        while at < len(data):
            number, what, _, length = _EVENT.unpack_from(data, at)
            if what & _IGNORED:
                gone.add(number)
            at += _EVENT.size + length
        if gone:
            self._known = {key: known for key, known in self._known.items() if known[0] not in gone}

    def _poll(self, why: str) -> None:
        log.info("changes are looked for every %g s: %s", POLL, why)
        self._polling = True


def existing(place: Path) -> Path:
    """The directory itself, or the nearest one above it that is there: where its coming is seen."""
    while not place.is_dir() and place != place.parent:
        place = place.parent
    return place


def steps(place: str) -> Iterator[str]:
    """Every directory and link on the way to a place, and itself, as far as they are there."""
    found = []

    def link(at: list[str], name: str, _more: bool) -> str | None:
        found.append("/".join(["", *at, name]))
        try:
            return os.readlink(found[-1])  # noqa: PTH115 - a string, many times
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return None

    with suppress(OSError):
        follow(place, link)
    return iter(found)


def _mounts() -> set[tuple[str, str]]:
    """Number and place of each mount."""
    with suppress(OSError), open("/proc/self/mountinfo") as file:  # noqa: PTH123 - proc
        fields = [line.split(" ", 5) for line in file]
        return {(each[0], re.sub(r"\\([0-7]{3})", lambda it: chr(int(it[1], 8)), each[4])) for each in fields}
    return set()


def _by_folder(table: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Places of mounts by the directory that holds them."""
    found: dict[str, list[str]] = {}
    for _, place in table:
        found.setdefault(os.path.dirname(place), []).append(place)  # noqa: PTH120
    return found


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
