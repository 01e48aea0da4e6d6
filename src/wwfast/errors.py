"""Errors for people: what failed, on which object, why, and what to do next."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike


class WwfastError(Exception):
    """A failure an admin can act on; the CLI prints it without a traceback and exits with `exit_code`.

    `message` is one or two lines that name the object and the cause; `hint` is the next step.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(WwfastError):
    """The command line itself was wrong (exit status 2)."""

    exit_code = 2


class NotFoundError(WwfastError):
    """A node, profile, image, kernel, overlay or file that was named does not exist."""


class ConfigError(WwfastError):
    """warewulf.conf, nodes.conf or an overlay says something that cannot be right."""


#: What to do about a disk that does not take what is written, by errno.
HINTS = {
    errno.ENOSPC: "make room on that file system, for example with: wwfast clean",
    errno.EDQUOT: "make room, or have the quota raised",
    errno.EROFS: "the file system is mounted read-only; see dmesg for the error that made it so",
    errno.EIO: "the disk reports errors; see dmesg",
    errno.EACCES: "run it as root, or with --root DIR for a trial",
    errno.EPERM: "run it as root, or with --root DIR for a trial",
}


def of_system(error: OSError, doing: str = "") -> WwfastError:
    """An error of a system call in words: the cause, the file where it is known, what to do; `doing` goes before."""
    what = ": ".join(str(part) for part in (doing, error.filename, error.strerror or error) if part)
    return WwfastError(what, hint=HINTS.get(error.errno or 0))


@contextmanager
def writing(target: str | PathLike[str]) -> Iterator[None]:
    """Name the file or the thing that could not be written: system calls on descriptors do not."""
    try:
        yield
    except OSError as error:
        cause = error.strerror or str(error)
        raise WwfastError(f"cannot write {target}: {cause}", hint=HINTS.get(error.errno or 0)) from error
