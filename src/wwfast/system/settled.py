"""Files that others write in place, never read half: `cp` cuts a file to nothing, then writes it piece by piece."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
import time
from pathlib import Path

from wwfast.system import files

SETTLED = 0.02  # seconds a file must have been left alone before it is read
UNSETTLED = 0.2  # seconds that is waited for at most
HELD = 2.0  # seconds after which what somebody has open for writing, and does not write, is taken for whole
BUSY = "another process is writing it"


def changing(written: float, end: float) -> bool:
    """Whether a file that was written at `written` (Unix time) may be half of what it will be. True comes when it was
    left alone for long enough, and it has to be looked at anew; never after `end` (of the monotonic clock)."""
    left = written + SETTLED - time.time()
    if not 0 < left <= SETTLED or time.monotonic() > end:
        return False
    time.sleep(left)
    return True


def recent(mtime_ns: int) -> bool:
    """Whether it was written so lately that somebody may be at it."""
    return 0 <= time.time() - mtime_ns / 1e9 < HELD


def being_written(fd: int) -> bool:
    """Whether somebody has a file open for writing, and wrote a moment ago. No where the kernel does not tell: on a
    network file system, or one who is neither root nor the file's owner."""
    if not recent(os.fstat(fd).st_mtime_ns):
        return False
    try:  # the kernel gives a lease for reading only where nobody writes
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)  # not SIGIO, which would end us, if one begins just now
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def read(path: Path, patience: float = HELD) -> bytes:
    """The bytes of a file, waited for while it is being written. Raises OSError, EBUSY where that takes longer."""
    end = time.monotonic() + patience
    while True:
        with path.open("rb") as file:
            before = os.fstat(file.fileno())
            if not stat.S_ISREG(before.st_mode):
                return files.rest(file, str(path))
            if not being_written(file.fileno()):
                data = files.rest(file, str(path))
                after = os.fstat(file.fileno())
                if (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns):
                    return data
        if time.monotonic() > end:
            raise OSError(errno.EBUSY, BUSY, str(path))
        time.sleep(SETTLED)
