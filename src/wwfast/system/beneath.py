"""Opening files below a directory such that no name and no symbolic link leads out of it.

openat2(2) does it in the kernel (Linux 5.6); without it the path is walked component by component.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from wwfast.system import libc

_have_openat2 = True

MAX_LINKS = 40


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
    todo = [piece for piece in reversed(relative.split("/")) if piece not in ("", ".")]
    if relative.startswith("/") and not in_root:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), relative)
    stack = [os.dup(top)]
    links = 0
    try:
        while todo:
            piece = todo.pop()
            if piece == "..":
                if len(stack) > 1:
                    os.close(stack.pop())
                elif not in_root:
                    raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), relative)
                continue
            try:
                target = os.readlink(piece, dir_fd=stack[-1]) if todo or not flags & os.O_NOFOLLOW else None
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                target = None
            if target is None:
                last = flags if not todo else os.O_PATH | os.O_DIRECTORY
                stack.append(os.open(piece, last | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=stack[-1]))
                continue
            links += 1
            if links > MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), relative)
            if target.startswith("/"):
                if not in_root:
                    raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), relative)
                while len(stack) > 1:
                    os.close(stack.pop())
            todo += [word for word in reversed(target.split("/")) if word not in ("", ".")]
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
