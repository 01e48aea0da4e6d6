"""Which files changed: inotify as a plain descriptor and a parser, for whatever event loop there is.

A file is watched through its directory, because editors and our own store replace files by rename; a symbolic link
is watched at both ends. Several changes close together come as several reads: the caller waits a little (DEBOUNCE
seconds) before it reloads.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

from wwfast.errors import WwfastError

DEBOUNCE = 0.05
EVENT = struct.Struct("iIII")
CLOSE_WRITE, MOVED_FROM, MOVED_TO, CREATE, DELETE = 0x8, 0x40, 0x80, 0x100, 0x200
OVERFLOW = 0x4000
MASK = CLOSE_WRITE | MOVED_FROM | MOVED_TO | DELETE


def events(data: bytes) -> Iterator[tuple[int, int, str]]:
    """(watch, mask, name) of each event in what was read from the descriptor; see inotify(7)."""
    at = 0
    while at + EVENT.size <= len(data):
        watch, mask, _, length = EVENT.unpack_from(data, at)
        at += EVENT.size
        yield watch, mask, os.fsdecode(data[at : at + length].rstrip(b"\0"))
        at += length


class Watch:
    """Watches files and directories. `fileno()` becomes readable when one changed; `read()` tells which."""

    def __init__(self, files: Iterable[Path] = (), directories: Iterable[Path] = ()) -> None:
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.fd = int(self.libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        if self.fd < 0:
            raise failure("inotify", "cannot watch files")
        self.files: dict[tuple[int, str], Path] = {}
        self.directories: dict[int, Path] = {}
        try:
            for file in files:
                for place in {file, Path(os.path.realpath(file))}:
                    self.files[(self.add(place.parent, MASK), place.name)] = file
            for directory in directories:
                self.directories[self.add(directory, MASK | CREATE)] = directory
        except WwfastError:
            self.close()
            raise

    def add(self, directory: Path, mask: int) -> int:
        watch = int(self.libc.inotify_add_watch(self.fd, os.fsencode(directory), mask | 0x20000000))  # IN_MASK_ADD
        if watch < 0:
            raise failure(str(directory), "cannot be watched")
        return watch

    def fileno(self) -> int:
        return self.fd

    def read(self) -> set[Path]:
        """The watched files and directories that changed since the last read; never blocks.

        When the kernel dropped events all of them are named.
        """
        changed: set[Path] = set()
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self.fd, 65536):
                for watch, mask, name in events(data):
                    if mask & OVERFLOW:
                        changed |= {*self.files.values(), *self.directories.values()}
                    if (watch, name) in self.files:
                        changed.add(self.files[(watch, name)])
                    if watch in self.directories:
                        changed.add(self.directories[watch])
        return changed

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def failure(what: str, why: str) -> WwfastError:
    number = ctypes.get_errno()
    hint = "raise fs.inotify.max_user_watches or max_user_instances" if number in (24, 28) else None
    return WwfastError(f"{what}: {why}: {os.strerror(number)}", hint=hint)
