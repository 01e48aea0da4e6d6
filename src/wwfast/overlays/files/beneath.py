"""Opening files below a directory such that no name and no symbolic link leads out of it.

openat2(2) does it in the kernel (Linux 5.6); without it the path is walked component by component.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from wwfast.system import libc
from wwfast.system.within import follow

_have_openat2 = True


def open_beneath(root: Path, relative: str, flags: int = os.O_RDONLY, *, in_root: bool = False) -> int:
    """A descriptor for `relative` below `root`.

    A link that leads out is EXDEV; with `in_root` it is followed as if `root` were `/`. Raises OSError.
    """
    top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _have_openat2:
            return _openat2(top, relative, flags, libc.IN_ROOT if in_root else libc.BENEATH)
        return walk(top, relative, flags, in_root=in_root)
    finally:
        os.close(top)


def _openat2(top: int, relative: str, flags: int, resolve: int) -> int:
    global _have_openat2
    for _ in range(7):
        try:
            return libc.openat2(top, relative, flags, resolve | libc.NO_MAGICLINKS)
        except OSError as error:
            if error.errno in (errno.ENOSYS, errno.EPERM):
                _have_openat2 = False
                return walk(top, relative, flags, in_root=resolve == libc.IN_ROOT)
            if error.errno not in (errno.EAGAIN, errno.EINTR):  # EAGAIN: something was renamed meanwhile
                raise
    return libc.openat2(top, relative, flags, resolve | libc.NO_MAGICLINKS)


def walk(top: int, relative: str, flags: int, *, in_root: bool) -> int:
    """The same without openat2. Every component is opened with O_NOFOLLOW, links are resolved here."""
    away = OSError(errno.EXDEV, os.strerror(errno.EXDEV), relative)
    if relative.startswith("/") and not in_root:
        raise away
    stack = [os.dup(top)]  # of the directories at the root, and below it

    def link(at: list[str], name: str, more: bool) -> str | None:
        cut(len(at))
        if more or not flags & os.O_NOFOLLOW:
            try:
                target = os.readlink(name, dir_fd=stack[-1])
                if target.startswith("/") and not in_root:
                    raise away
                return target
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
        kind = os.O_PATH | os.O_DIRECTORY if more else flags
        stack.append(os.open(name, kind | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=stack[-1]))
        return None

    def cut(depth: int) -> None:
        while len(stack) > depth + 1:
            os.close(stack.pop())

    try:
        cut(len(follow(relative, link, strict=not in_root)))
        return os.dup(stack[-1])
    finally:
        for fd in stack:
            os.close(fd)


def real_path(root: Path, relative: str) -> str:
    """Where `relative` finally points, as an absolute path below `root`. Raises OSError."""
    fd = open_beneath(root, relative, os.O_PATH, in_root=True)
    try:
        path = os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115 - text, unnormalised
    finally:
        os.close(fd)
    top = os.path.realpath(root)
    return path if top == "/" else path.removeprefix(top) or "/"
