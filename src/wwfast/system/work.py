"""Unfinished work, which a killed process cannot leave behind: directories and files under a name nobody else uses.

Each is locked (flock) by its maker for as long as that one lives: the kernel gives a lock up with the process. Whoever
works in the same directory next, and every command when it begins, removes those that nobody holds any more. They are
0700 and 0600, so no other user can hold one: whoever can open a file for reading can lock it.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from wwfast._ext import calls
from wwfast.errors import WwfastError
from wwfast.system.folders import folder

log = logging.getLogger(__name__)

Files = Sequence[tuple[str, bytes]]  # paths and what is to be there

PREFIX = ".wwfast-"  # no editor, package manager or person names files like this


@contextmanager
def directory(parent: Path) -> Iterator[Path]:
    """A new directory below parent (0700) that is gone afterwards, with what is then in it."""
    folder(parent)
    sweep(parent)
    made, held = begun(parent, is_folder=True)
    try:
        yield made
    finally:
        try:
            remove(made)
        except (WwfastError, OSError) as error:  # what went wrong first is told; the next command tries again
            log.warning("%s cannot be removed: %s", made, error)
        os.close(held)


@contextmanager
def file(parent: Path) -> Iterator[tuple[Path, int]]:
    """A new file in parent (0600), open for reading and writing; gone afterwards, unless it was renamed."""
    folder(parent)
    sweep(parent)
    made, held = begun(parent, is_folder=False)
    try:
        yield made, held
    finally:
        with suppress(OSError):  # what went wrong first is told
            made.unlink(missing_ok=True)
        os.close(held)


def begun(parent: Path, *, is_folder: bool) -> tuple[Path, int]:
    """Its name and its descriptor, which holds the lock; whoever calls this ends both."""
    while True:
        made = parent / f"{PREFIX}{os.urandom(6).hex()}"
        if is_folder:
            made.mkdir(mode=0o700)
            try:
                held = os.open(made, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
        else:
            held = os.open(made, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        fcntl.flock(held, fcntl.LOCK_EX)
        # Between the two calls it was nobody's, and a sweep may have removed it.
        if os.fstat(held).st_nlink and os.path.lexists(made):
            return made, held
        os.close(held)


def sweep(*parents: Path) -> None:
    """Remove what dead processes left in these directories; what cannot be removed is told and stays."""
    for left in _left(parents):
        try:
            held = os.open(left, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:  # another user's, or just removed
            continue
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove(left)
        except BlockingIOError:
            pass
        except (WwfastError, OSError) as error:
            log.info("%s was left by a killed command and cannot be removed: %s", left, error)
        finally:
            os.close(held)


def _left(parents: Iterable[Path]) -> Iterator[Path]:
    for parent in parents:
        try:
            found = [entry for entry in os.scandir(parent) if entry.name.startswith(PREFIX)]
        except OSError:
            continue
        for entry in found:
            yield Path(entry.path)


def remove(tree: Path) -> None:
    """Remove a tree, however deep: shutil.rmtree recurses, and gives up at a thousand directories.

    One made by a user who is not root may hold directories without write permission.
    """
    with suppress(OSError):  # most are a file, or empty by now: no program needs to start
        tree.rmdir() if tree.is_dir() and not tree.is_symlink() else tree.unlink()
    if not os.path.lexists(tree):
        return
    from wwfast.system.run import LONG, run  # with subprocess and ctypes, a tenth of a command's start

    if os.geteuid() != 0:
        run(["chmod", "-R", "u+rwX", tree], check=False, timeout=LONG)
    run(["rm", "-rf", "--one-file-system", "--", tree], timeout=LONG)


class Room:
    """One directory for many small unfinished files: a lock for each of them took 90 us. Thread-safe."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._mutex = threading.Lock()
        self._entered: tuple[Path, int] | None = None  # where they are, and the lock
        self._unfinished = 0
        self._numbers = count()

    def put(self, files: Files) -> list[OSError | None]:
        """Write each whole and rename it into its place, two directories below at most; why not, of each. Nothing is
        left of one that failed, and what a killed process left the next command sweeps."""
        with self._mutex:
            self._unfinished += 1
        try:
            where = self._entered or self._enter(None)
            errors = self._written(where, files)
            for at, file in enumerate(files):
                if errors[at] == errno.ENOENT:  # the first in its directory, or somebody emptied all of it
                    errors[at] = self._again(where, *file)
        except OSError as error:
            return [error] * len(files)
        finally:
            with self._mutex:
                self._unfinished -= 1
        return [
            OSError(error, os.strerror(error), path) if error else None
            for (path, _), error in zip(files, errors, strict=True)
        ]

    def _enter(self, former: tuple[Path, int] | None) -> tuple[Path, int]:
        with self._mutex:
            where = self._entered
            if where is None or (where is former and not where[0].exists()):
                self._end()
                self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                where = self._entered = begun(self._directory, is_folder=True)
            return where

    def _again(self, former: tuple[Path, int], path: str, data: bytes) -> int:
        where = self._enter(former)
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)  # noqa: PTH103, PTH120 - strings
        return self._written(where, [(path, data)])[0]

    def _written(self, where: tuple[Path, int], files: Files) -> list[int]:
        room = where[0]
        return calls.put_all(
            [(os.fsencode(f"{room}/{next(self._numbers)}"), os.fsencode(path), data) for path, data in files]
        )

    def leave(self) -> None:
        """Nothing is in it now, as far as nobody is writing."""
        with self._mutex:
            if not self._unfinished:
                self._end()

    def _end(self) -> None:
        if self._entered is not None:
            room, held = self._entered
            self._entered = None
            with suppress(OSError):
                room.rmdir()
            os.close(held)
