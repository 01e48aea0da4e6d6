"""System calls of Linux for which Python has no function. Each raises OSError with the kernel's error number."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Collection

Name = str | os.PathLike[str]

AT_FDCWD = -100
RENAME_EXCHANGE = 2
NO_MAGICLINKS, BENEATH, IN_ROOT = 0x02, 0x08, 0x10  # RESOLVE_* of openat2(2)
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
MNT_DETACH = 2
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWPID = 0x20000, 0x4000000, 0x8000000, 0x20000000
_OPENAT2, _MOUNT_SETATTR = 437, 442  # the same on every architecture
_MOUNT_ATTR_RDONLY, _AT_RECURSIVE = 1, 0x8000
_SIGKILL = 9
_PDEATHSIG, _CAPBSET_READ, _CAPBSET_DROP = 1, 23, 24  # PR_* of prctl(2)

_libc = ctypes.CDLL(None, use_errno=True)
_prctl = _libc.prctl  # looked up before any fork


def _checked(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)
    return result


def exchange(one: Name, other: Name) -> None:
    """Two names change their places in one step: renameat2(2). EINVAL where the file system cannot."""
    done = _libc.renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE)
    _checked(done, os.fspath(other))


def syncfs(fd: int, what: str) -> None:
    """All that the file system of `fd` has to write is on the disk; `what` names it in an error."""
    _checked(_libc.syncfs(fd), what)


def openat2(top: int, relative: str, flags: int, resolve: int) -> int:
    """A descriptor, by the rules of `resolve`. ENOSYS before Linux 5.6, EPERM below some filters of system calls."""
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, 0, resolve)
    return _checked(_libc.syscall(_OPENAT2, top, os.fsencode(relative), how, len(how)), relative)


def inotify() -> int:
    """A descriptor that tells of changes; does not block."""
    return _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), "inotify")


def inotify_add(fd: int, path: str, mask: int) -> int:
    """The number of the watch: the same as long as the path leads to the same place, and never that of another."""
    return _checked(_libc.inotify_add_watch(fd, os.fsencode(path), mask), path)


def mount(source: Name | None, target: Name, kind: str | None, flags: int, options: str = "") -> None:
    encoded = [os.fsencode(text) if text else None for text in (source, target, kind, options)]
    done = _libc.mount(*encoded[:3], ctypes.c_ulong(flags), encoded[3])
    _checked(done, f"mount {kind or 'bind'} on {target}")


def umount(target: Name, flags: int = 0) -> None:
    _checked(_libc.umount2(os.fsencode(target), flags), f"umount {target}")


def mount_readonly(target: Name) -> None:
    """The mount at `target` and all below it: mount_setattr(2), ENOSYS before Linux 5.12."""
    attributes = struct.pack("QQQQ", _MOUNT_ATTR_RDONLY, 0, 0, 0)
    done = _libc.syscall(_MOUNT_SETATTR, AT_FDCWD, os.fsencode(target), _AT_RECURSIVE, attributes, len(attributes))
    _checked(done, f"mount_setattr on {target}")


def pivot_root(new: Name, old: Name) -> None:
    _checked(_libc.pivot_root(os.fsencode(new), os.fsencode(old)), "pivot_root")


def set_hostname(name: str) -> None:
    """As much of it as the kernel takes (64 bytes)."""
    text = name.encode()[:64]
    _checked(_libc.sethostname(text, len(text)), "sethostname")


def unshare(flags: int) -> None:
    _checked(_libc.unshare(flags), "unshare")


def die_with_parent() -> None:
    """The kernel kills this process when the thread that started it ends. Safe between fork and exec."""
    _prctl(_PDEATHSIG, _SIGKILL, 0, 0, 0)


def drop_capabilities(kept: Collection[int]) -> None:
    """Out of the bounding set, for good: all that this kernel knows but those of these numbers."""
    number = 0
    while _prctl(_CAPBSET_READ, number, 0, 0, 0) >= 0:  # -1 beyond the last
        if number not in kept:
            _checked(_prctl(_CAPBSET_DROP, number, 0, 0, 0), f"dropping capability {number}")
        number += 1
