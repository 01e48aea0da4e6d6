"""Locks and work directories that a killed process cannot leave behind.

A lock is a flock: the kernel gives it up with the process. A work directory is locked by its maker as long as
that one lives; whoever needs one next removes those that nobody holds any more.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from wwfast.errors import WwfastError
from wwfast.run import run

log = logging.getLogger(__name__)

PREFIX = ".work-"
AT_FDCWD = -100
RENAME_EXCHANGE = 2
DYING = 10.0  # seconds that the children of a killed process may take to go


@contextmanager
def locked(directory: Path, name: str, purpose: str) -> Iterator[None]:
    """Hold the lock of one image or kernel; raise WwfastError naming who has it when it is taken."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / f"{name}.lock").open("a+b", buffering=0) as file:
        until = time.monotonic() + DYING
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                file.seek(0)
                holder = file.read().decode(errors="replace").strip() or "another process"
                if _alive(holder) or time.monotonic() > until:
                    raise WwfastError(f"{name} is in use: {holder}", hint="wait until it has ended") from None
                time.sleep(0.02)
        with suppress(OSError):  # for people; on a full disk the way back of a command needs its lock all the same
            file.truncate(0)
            file.write(f"{purpose} (process {os.getpid()})\n".encode())
        yield


def _alive(holder: str) -> bool:
    """False when the process that took the lock has gone: its children hold it until the kernel has ended them too."""
    pid = holder.rpartition("(process ")[2].rstrip(")")
    return not pid.isdigit() or Path("/proc", pid).exists()


@contextmanager
def directory(parent: Path) -> Iterator[Path]:
    """A new directory below parent (0700) that is gone afterwards, with what is then in it."""
    parent.mkdir(parents=True, exist_ok=True)
    guard = os.open(parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # The guard closes the gap between making a directory and locking it.
        fcntl.flock(guard, fcntl.LOCK_EX)
        sweep(parent)
        made = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        held = os.open(made, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(held, fcntl.LOCK_EX)
    finally:
        os.close(guard)
    try:
        yield made
    finally:
        try:
            remove(made)
        except WwfastError as error:  # of a disk that became read-only: neither what was done nor the cause is less so
            log.warning("%s stays for the next command to remove: %s", made, error.message)
        os.close(held)


def sweep(parent: Path) -> None:
    """Remove what killed commands, or such that could not tidy, left below parent."""
    for left in parent.glob(PREFIX + "*"):
        try:
            held = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove(left)
        except BlockingIOError:
            pass
        except WwfastError as error:
            log.warning("%s was left by a killed command and cannot be removed: %s", left, error.message)
        finally:
            os.close(held)


def remove(tree: Path) -> None:
    """Remove a tree, however deep: shutil.rmtree recurses, and gives up at a thousand directories.

    One made by a user who is not root may hold directories without write permission.
    """
    if os.geteuid() != 0:
        run(["chmod", "-R", "u+rwX", tree], check=False)
    run(["rm", "-rf", "--one-file-system", "--", tree])


def install(new: Path, place: Path) -> None:
    """Put the directory `new` where `place` is, in one step; what was there ends up at `new`."""
    if not place.exists():
        new.rename(place)
        sync(place.parent)
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(AT_FDCWD, os.fsencode(new), AT_FDCWD, os.fsencode(place), RENAME_EXCHANGE) != 0:
        code = ctypes.get_errno()
        if code not in (errno.EINVAL, errno.ENOSYS):
            raise OSError(code, os.strerror(code), str(place))
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
    fd = os.open(tree, os.O_RDONLY)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(fd) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(tree))
    finally:
        os.close(fd)


def sync(path: Path) -> None:
    """fsync a file or directory."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
