"""Locks between processes of this machine: a flock, which the kernel gives up with the process.

Whoever can open a file for reading can lock it, so lock files are 0600, in folders of our own.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from wwfast.errors import WwfastError
from wwfast.system.folders import folder

DYING = 10.0  # seconds that the children of a killed process may take to go


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """The lock file, made if need be and closed, with its lock, at the end. One that others could open is tightened."""
    folder(path.parent)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        status = os.fstat(handle)
        if status.st_mode & 0o077 and status.st_uid == os.geteuid():
            os.fchmod(handle, 0o600)
        yield handle
    finally:
        os.close(handle)


@contextmanager
def waited(path: Path) -> Iterator[None]:
    """One at a time; the others wait for their turn."""
    with opened(path) as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def locked(directory: Path, name: str, purpose: str) -> Iterator[None]:
    """Hold the lock of one image or kernel; raise WwfastError naming who has it when it is taken."""
    with opened(directory / f"{name}.lock") as handle:
        until = time.monotonic() + DYING
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                holder = os.pread(handle, 200, 0).decode(errors="replace").strip() or "another process"
                if _alive(holder) or time.monotonic() > until:
                    raise WwfastError(f"{name} is in use: {holder}", hint="wait until it has ended") from None
                time.sleep(0.02)
        with suppress(OSError):  # for people; on a full disk the way back of a command needs its lock all the same
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{purpose} (process {os.getpid()})\n".encode(), 0)
        yield


def _alive(holder: str) -> bool:
    """False when the process that took the lock has gone: its children hold it until the kernel has ended them too."""
    pid = holder.rpartition("(process ")[2].rstrip(")")
    return not pid.isdigit() or Path("/proc", pid).exists()
