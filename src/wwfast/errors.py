"""Errors for people: what failed, on which object, why, and what to do next."""

from __future__ import annotations

import errno


def as_text(said: str) -> str:
    """Names of files need not be UTF-8; what is told of them is, for a node that asked, a log and JSON."""
    return said.encode(errors="backslashreplace").decode()


class WwfastError(Exception):
    """A failure an admin can act on; the CLI prints it without a traceback and exits with `exit_code`.

    `message` is one or two lines that name the object and the cause; `hint` is the next step.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        self.message = as_text(message)
        super().__init__(self.message)
        self.hint = as_text(hint) if hint is not None else None


class UsageError(WwfastError):
    """The command line itself was wrong (exit status 2)."""

    exit_code = 2


class NotFoundError(WwfastError):
    """A node, profile, image, kernel, overlay or file that was named does not exist."""


class ConfigError(WwfastError):
    """warewulf.conf, nodes.conf or an overlay says something that cannot be right."""


#: What to do about an error of a system call, by errno.
HINTS = {
    errno.ENOSPC: "make room on that file system, for example with: wwfast clean",
    errno.EDQUOT: "make room, or have the quota raised",
    errno.EROFS: "the file system is mounted read-only; see dmesg for the error that made it so",
    errno.EIO: "the disk reports errors; see dmesg",
    errno.EACCES: "run it as root, or with --root DIR for a trial",
    errno.EPERM: "run it as root, or with --root DIR for a trial",
    errno.ENAMETOOLONG: "use a shorter name",
    errno.ELOOP: "symbolic links lead to each other there",
    errno.ENOTDIR: "a part of that path is a file where a directory is needed",
    errno.EISDIR: "a file is needed there",
    errno.EEXIST: "something of that name is in the way",
    errno.ENOENT: "a directory of that path is missing",
    errno.EMFILE: "too many files are open: raise the limit, ulimit -n",
    errno.ENFILE: "too many files are open on this machine",
    errno.ENOMEM: "this machine has no memory left",
    errno.EBUSY: "it is in use: something is mounted there, or a program holds it",
    errno.ENXIO: "it is a socket, a pipe or a device where a file is needed",
}


def of_system(error: OSError, doing: str = "") -> WwfastError:
    """An error of a system call in words: the file where it is known, the cause, what to do; `doing` goes before."""
    names = dict.fromkeys(str(name) for name in (error.filename, error.filename2) if name is not None)
    what = ": ".join(str(part) for part in (doing, " -> ".join(names), error.strerror or error) if part)
    return WwfastError(what, hint=HINTS.get(error.errno or 0))


def cause(error: BaseException, told: object = None) -> str:
    """Why, in words: of an error of the system its file and its reason, and no number, which is for programs. The file
    that is `told` anyway is not told twice."""
    if isinstance(error, WwfastError):
        return error.message
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    return error.strerror if str(error.filename) == str(told) else of_system(error).message
