"""The directories of a tree being filled, each by a descriptor: links are followed inside the tree, never out of it.

A directory is found component by component with O_NOFOLLOW; a link met on the way is followed as chroot would, and
refused when it climbs above the root.
"""

from __future__ import annotations

import errno
import os
import resource
import stat
from pathlib import Path

from wwfast.archive.limits import exceeded
from wwfast.errors import WwfastError
from wwfast.system.within import follow

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
CACHED = 8192  # descriptors of directories kept open, where the process may have four times as many

Parts = tuple[bytes, ...]


class Hostile(WwfastError):
    """An archive that names something outside its own tree."""


class Below:
    """Directories below `root`, at most `depth` deep. `states` are the mode and time (ns) each gets in the end.

    A descriptor that was given is good until trim(), unless its directory is cleared away.
    """

    def __init__(self, root: Path, depth: int) -> None:
        self.root = os.open(root, DIRECTORY)
        self.empty = not os.listdir(self.root)  # noqa: PTH208 - a descriptor
        self.states: dict[Parts, tuple[int, int]] = {(): (0o755, 0)} if self.empty else {}
        self._depth = depth
        self._open: dict[Parts, int] = {}
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._cached = CACHED if limit == resource.RLIM_INFINITY else min(CACHED, limit // 4)

    def close(self) -> None:
        self._forget()
        os.close(self.root)

    def trim(self) -> None:
        if len(self._open) > self._cached:
            self._forget()

    def finish(self) -> None:
        """Give every directory the mode and time its entry (or its earlier state) had; innermost first."""
        for parts in sorted(self.states, key=len, reverse=True):
            self.trim()
            mode, time = self.states[parts]
            fd = self.directory(parts)
            os.fchmod(fd, mode)
            os.utime(fd, ns=(time, time))
        self.states.clear()

    def real(self, parts: Parts) -> Parts:
        """The directory `parts` names once links are followed inside the root; missing ones are made."""
        if parts in self._open:
            return parts

        def link(at: list[bytes], name: bytes, _more: bool) -> bytes | None:
            where = (*at, name)
            fd = self.directory(tuple(at))
            try:
                self._step(fd, where)
            except OSError as error:
                if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                    raise
                return _link(fd, where)
            if len(where) > self._depth:
                raise exceeded(f"{shown(where)[:80]}... is too deep", "image depth", self._depth)
            return None

        try:
            return tuple(follow(b"/".join(parts), link, strict=True))
        except OSError as error:
            if error.errno == errno.EXDEV:
                raise Hostile(f"{shown(parts)} leads out of the image by a link") from error
            if error.errno == errno.ELOOP:
                raise Hostile(f"{shown(parts)} is a loop of links") from error
            raise

    def directory(self, parts: Parts) -> int:
        """Descriptor of a directory none of whose components is a link."""
        known = self._open.get(parts)
        if known is not None:
            return known
        fd = self.root
        for length in range(1, len(parts) + 1):
            fd = self._step(fd, parts[:length])
        return fd

    def make(self, parent: int, where: Parts) -> int:
        """A directory at `where`, new unless there is one already; whatever else has that name goes."""
        try:
            os.mkdir(where[-1], 0o755, dir_fd=parent)
        except FileExistsError:
            if not is_directory(parent, where[-1]):
                self.clear(parent, where)
                os.mkdir(where[-1], 0o755, dir_fd=parent)
        return self.directory(where)

    def clear(self, parent: int, where: Parts) -> None:
        """Remove whatever is at `where`, in the directory `parent`."""
        try:
            os.unlink(where[-1], dir_fd=parent)
        except FileNotFoundError:
            pass
        except (IsADirectoryError, PermissionError):
            if not is_directory(parent, where[-1]):
                raise
            self._remove(parent, where)

    def _remove(self, parent: int, where: Parts) -> None:
        """Remove a tree, however deep, and what is known of it: what each costs is what it holds."""
        stack = [self._enter(parent, where)]
        try:
            while stack:
                fd, at, names = stack[-1]
                if not names:
                    os.close(stack.pop()[0])
                    os.rmdir(at[-1], dir_fd=stack[-1][0] if stack else parent)
                    continue
                child = os.fsencode(names.pop())
                try:
                    os.unlink(child, dir_fd=fd)
                except (IsADirectoryError, PermissionError):
                    stack.append(self._enter(fd, (*at, child)))
        finally:
            for fd, _, _ in stack:
                os.close(fd)

    def _enter(self, parent: int, where: Parts) -> tuple[int, Parts, list[str]]:
        """A directory about to go: its descriptor, now the caller's, and what is in it."""
        self.states.pop(where, None)
        fd = self._open.pop(where, None)
        if fd is None:
            fd = os.open(where[-1], DIRECTORY, dir_fd=parent)
        return fd, where, os.listdir(fd)  # noqa: PTH208

    def _step(self, parent: int, parts: Parts) -> int:
        known = self._open.get(parts)
        if known is not None:
            return known
        try:
            fd = os.open(parts[-1], DIRECTORY, dir_fd=parent)
        except FileNotFoundError:
            os.mkdir(parts[-1], 0o755, dir_fd=parent)
            self.states[parts] = (0o755, 0)  # no entry of its own: the same on every import
            fd = os.open(parts[-1], DIRECTORY, dir_fd=parent)
        self._open[parts] = fd
        return fd

    def _forget(self) -> None:
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()


def is_directory(parent: int, name: bytes) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)


def shown(parts: Parts) -> str:
    return repr(b"/".join(parts).decode(errors="replace"))


def _link(parent: int, where: Parts) -> bytes:
    """Where the link at `where` leads; WwfastError for what is no link, and no directory either."""
    try:
        return os.readlink(where[-1], dir_fd=parent)
    except OSError as error:
        raise WwfastError(f"{shown(where)} is no directory, but the archive puts files in it") from error
