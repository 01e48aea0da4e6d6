"""Unpacking tar archives and container layers into a tree of our own, without ever leaving it.

Every entry is created relative to the descriptor of its directory, which is found component by component with
O_NOFOLLOW: a link met on the way is followed as chroot would, and refused when it climbs above the root. Names
that are absolute or hold `..` are refused. Whiteouts (`.wh.NAME`, `.wh..wh..opq`: OCI image specification, layer.md)
remove what earlier layers brought, never what the same layer brings.
"""

from __future__ import annotations

import errno
import os
import resource
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from wwfast.errors import WwfastError
from wwfast.images.inside import LINKS
from wwfast.images.stream import Forward
from wwfast.images.tarheader import Header, times

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
XATTR = "SCHILY.xattr."
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
CACHED = 8192  # descriptors of directories kept open, where the process may have twice as many
DEEPEST = 500  # directories below each other: real trees have some thirty, and what walks a tree must not run out

Parts = tuple[bytes, ...]
Maker = Callable[[int, bytes], None]  # (directory, name)


class Hostile(WwfastError):
    """An archive that names something outside its own tree."""


class Unpacker:
    """Applies archives to one tree, in order; finish() sets the times of directories."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._root = os.open(root, DIRECTORY)
        self._open: dict[Parts, int] = {}
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._cached = CACHED if limit == resource.RLIM_INFINITY else min(CACHED, limit // 2)
        self._states: dict[Parts, tuple[int, int]] = {}  # of directories: mode, time in ns
        empty = not os.listdir(self._root)  # noqa: PTH208 - a descriptor
        if empty:
            self._states[()] = (0o755, 0)
        # Then what we make belongs to 0:0 without being told.
        self._fresh = empty and os.getegid() == 0 and not os.fstat(self._root).st_mode & stat.S_ISGID
        self._is_root = os.geteuid() == 0
        self._added: set[Parts] = set()
        self.entries = 0
        self.lost_xattrs: set[str] = set()

    def __enter__(self) -> Unpacker:
        self._umask = os.umask(0)  # files are made with their modes
        return self

    def __exit__(self, *exc: object) -> None:
        os.umask(self._umask)
        self._forget()
        os.close(self._root)

    def apply(self, source: Forward, *, layer: bool = False) -> None:
        """Unpack one archive; with `layer`, whiteouts in it remove what is already there.

        Raises Hostile for names that lead outside, WwfastError for damaged or truncated archives.
        """
        self._added.clear()
        try:
            archive: Any = tarfile.TarFile(
                fileobj=cast(Any, source), encoding="utf-8", errors="surrogateescape", tarinfo=Header
            )
            member: tarfile.TarInfo | None = archive.next()
            while member is not None:
                archive.members.clear()  # it would keep every one
                self._entry(source, archive, member, layer)
                member = archive.next()
        except (tarfile.TarError, ValueError, OverflowError, OSError) as error:
            raise WwfastError(f"the archive is damaged or no tar archive: {error}") from error
        # tarfile takes a damaged header for the end. Layers may lack the end mark; their digests tell.
        if source.last != bytes(512) and not (layer and not source.last):
            raise WwfastError("the archive is damaged or cut short: its end mark is missing")

    def finish(self) -> None:
        """Give every directory the mode and time its entry (or its earlier state) had; innermost first."""
        for parts in sorted(self._states, key=len, reverse=True):
            if len(self._open) > self._cached:
                self._forget()
            mode, time = self._states[parts]
            fd = self._directory(parts)
            os.fchmod(fd, mode)
            os.utime(fd, ns=(time, time))
        self._states.clear()

    # -- one entry -----------------------------------------------------------------------------------------------

    def _entry(self, source: Forward, archive: tarfile.TarFile, member: tarfile.TarInfo, layer: bool) -> None:
        parts = _parts(member.name)
        self.entries += 1
        if len(self._open) > self._cached:
            self._forget()
        if member.size < 0:
            raise WwfastError(f"{member.name!r} has an impossible size")
        if not parts:
            if member.isdir():
                self._finish_directory(self._root, (), member)
            return
        at = self._real(parts[:-1])
        parent = self._directory(at)
        name = parts[-1]
        where = (*at, name)
        if at not in self._states:
            status = os.fstat(parent)
            self._states[at] = (stat.S_IMODE(status.st_mode), status.st_mtime_ns)
        if layer and name.startswith(WHITEOUT):
            self._whiteout(at, parent, name)
            return
        if layer:
            self._added.update(where[:length] for length in range(len(where), 0, -1))
        try:
            self._create(source, archive, member, parent, name, where)
        except OSError as error:
            if error.errno == errno.EPERM and member.isdev():
                raise WwfastError(f"device node {member.name} needs root", hint="run the import as root") from error
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise WwfastError(f"no space left for {member.name} below {self.root}") from error
            raise WwfastError(f"cannot unpack {member.name!r}: {error.strerror}") from error

    def _create(
        self, source: Forward, archive: tarfile.TarFile, member: tarfile.TarInfo, parent: int, name: bytes, where: Parts
    ) -> None:
        kind = member.type
        if kind == tarfile.DIRTYPE:
            self._make_directory(parent, name, where)
            self._finish_directory(self._directory(where), where, member)
            return
        if kind == tarfile.LNKTYPE:
            self._hard_link(member, parent, name, where)
            return
        make = self._maker(source, archive, member)
        try:
            make(parent, name)
        except FileExistsError:
            make(self._clear(parent, name, where), name)

    def _maker(
        self, source: Forward, archive: tarfile.TarFile, member: tarfile.TarInfo
    ) -> Callable[[int, bytes], None]:
        """What creates a node of the member's type; it raises FileExistsError before it reads any data."""
        kind = member.type

        def file(parent: int, name: bytes) -> None:
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(name, flags, member.mode & 0o777, dir_fd=parent)
            try:
                self._data(source, archive, member, fd)
                self._finish_file(fd, member)
            finally:
                os.close(fd)

        def link(parent: int, name: bytes) -> None:
            os.symlink(_encode(member.linkname), name, dir_fd=parent)
            self._own(name, member, parent)
            os.utime(name, ns=times(member), dir_fd=parent, follow_symlinks=False)

        def node(parent: int, name: bytes) -> None:
            types = {tarfile.CHRTYPE: stat.S_IFCHR, tarfile.BLKTYPE: stat.S_IFBLK, tarfile.FIFOTYPE: stat.S_IFIFO}
            device = 0 if kind == tarfile.FIFOTYPE else os.makedev(member.devmajor, member.devminor)
            os.mknod(name, 0o600 | types[kind], device, dir_fd=parent)
            self._own(name, member, parent)
            os.chmod(name, member.mode & 0o7777, dir_fd=parent)
            os.utime(name, ns=times(member), dir_fd=parent, follow_symlinks=False)

        if member.isfile():
            return file
        if kind == tarfile.SYMTYPE:
            return link
        if member.isdev():
            return node
        raise WwfastError(f"{member.name!r} is of a type this program does not know ({kind!r})")

    def _data(self, source: Forward, archive: tarfile.TarFile, member: tarfile.TarInfo, fd: int) -> None:
        if member.issparse():
            reader = archive.extractfile(member)
            assert reader is not None
            while chunk := reader.read(1 << 20):
                if chunk.strip(b"\0"):
                    _write(fd, memoryview(chunk))
                else:
                    os.lseek(fd, len(chunk), os.SEEK_CUR)
            os.ftruncate(fd, member.size)
            return
        left = member.size
        for piece in source.pieces(left):
            left -= len(piece)
            _write(fd, piece)
        if left:
            raise WwfastError(f"the archive is cut short within {member.name}")

    def _hard_link(self, member: tarfile.TarInfo, parent: int, name: bytes, where: Parts) -> None:
        target = _parts(member.linkname)
        if not target:
            raise Hostile(f"hard link {member.name!r} to the root")
        at = self._real(target[:-1])
        if (*at, target[-1]) == where:
            return
        other = self._directory(at)
        if stat.S_ISDIR(os.stat(target[-1], dir_fd=other, follow_symlinks=False).st_mode):
            raise Hostile(f"hard link {member.name!r} to a directory")
        parent = self._clear(parent, name, where)
        os.link(target[-1], name, src_dir_fd=self._directory(at), dst_dir_fd=parent, follow_symlinks=False)

    def _whiteout(self, at: Parts, parent: int, name: bytes) -> None:
        if name == OPAQUE:
            self._hide(at, parent)
        elif not name.startswith(WHITEOUT + WHITEOUT):  # others of aufs' own book-keeping carry nothing
            hidden = name[len(WHITEOUT) :]
            if hidden in (b"", b".", b".."):
                raise Hostile(f"whiteout {name!r}")
            where = (*at, hidden)
            if where not in self._added:
                self._clear(parent, hidden, where)
            elif self._is_directory(parent, hidden):
                self._hide(where, self._directory(where))

    def _hide(self, at: Parts, fd: int) -> None:
        """Remove what lower layers put below a directory; keep what this layer did."""
        for text in os.listdir(fd):
            name = os.fsencode(text)
            where = (*at, name)
            parent = self._directory(at)
            if where not in self._added:
                self._clear(parent, name, where)
            elif self._is_directory(parent, name):
                self._hide(where, self._directory(where))

    # -- directories ---------------------------------------------------------------------------------------------

    def _make_directory(self, parent: int, name: bytes, where: Parts) -> None:
        try:
            os.mkdir(name, 0o755, dir_fd=parent)
        except FileExistsError:
            if not self._is_directory(parent, name):
                os.mkdir(name, 0o755, dir_fd=self._clear(parent, name, where))

    @staticmethod
    def _is_directory(parent: int, name: bytes) -> bool:
        return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)

    def _clear(self, parent: int, name: bytes, where: Parts) -> int:
        """Remove whatever has that name; return the descriptor of its directory, which may be a new one."""
        try:
            os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            pass
        except (IsADirectoryError, PermissionError):
            if not self._is_directory(parent, name):
                raise
            _remove_tree(parent, name)
            depth = len(where)
            self._states = {parts: state for parts, state in self._states.items() if parts[:depth] != where}
            self._forget()
            return self._directory(where[:-1])
        return parent

    def _real(self, parts: Parts) -> Parts:
        """The directory `parts` names once links are followed inside the root; missing ones are made."""
        if parts in self._open:
            return parts
        todo = list(reversed(parts))
        at: list[bytes] = []
        links = 0
        fd = self._root
        while todo:
            part = todo.pop()
            if part == b"..":
                if not at:
                    raise Hostile(f"{_show(parts)} leads out of the image by a link")
                at.pop()
                fd = self._directory(tuple(at))
                continue
            try:
                fd = self._step(fd, (*at, part))
                at.append(part)
                if len(at) > DEEPEST:
                    raise Hostile(f"{_show(parts)[:80]} is deeper than {DEEPEST} directories")
            except OSError as error:
                if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                    raise
                try:
                    target = os.readlink(part, dir_fd=fd)
                except OSError:
                    raise WwfastError(
                        f"{_show((*at, part))} is no directory, but the archive puts files in it"
                    ) from error
                links += 1
                if links > LINKS:
                    raise Hostile(f"{_show(parts)} is a loop of links") from error
                if target.startswith(b"/"):
                    at.clear()
                    fd = self._root
                todo.extend(piece for piece in reversed(target.split(b"/")) if piece not in (b"", b"."))
        return tuple(at)

    def _directory(self, parts: Parts) -> int:
        """Descriptor of a directory none of whose components is a link."""
        known = self._open.get(parts)
        if known is not None:
            return known
        fd = self._root
        for length in range(1, len(parts) + 1):
            fd = self._step(fd, parts[:length])
        return fd

    def _step(self, parent: int, parts: Parts) -> int:
        known = self._open.get(parts)
        if known is not None:
            return known
        try:
            fd = os.open(parts[-1], DIRECTORY, dir_fd=parent)
        except FileNotFoundError:
            os.mkdir(parts[-1], 0o755, dir_fd=parent)
            self._states[parts] = (0o755, 0)  # no entry of its own: the same on every import
            fd = os.open(parts[-1], DIRECTORY, dir_fd=parent)
        self._open[parts] = fd
        return fd

    def _forget(self) -> None:
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()

    # -- owner, mode, times --------------------------------------------------------------------------------------

    def _own(self, target: int | bytes, member: tarfile.TarInfo, parent: int | None = None) -> None:
        # What root makes is root's already, and directories get their set-group-id bits only at the end.
        if not self._is_root or (self._fresh and member.uid == 0 and member.gid == 0):
            return
        if parent is None:
            os.chown(cast(int, target), member.uid, member.gid)
        else:
            os.chown(target, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)

    def _finish_file(self, fd: int, member: tarfile.TarInfo) -> None:
        # chown clears set-id bits and capabilities, so it comes first.
        self._own(fd, member)
        if member.mode & 0o7000:
            os.fchmod(fd, member.mode & 0o7777)
        self._xattrs(fd, member)
        os.utime(fd, ns=times(member))

    def _finish_directory(self, fd: int, where: Parts, member: tarfile.TarInfo) -> None:
        self._own(fd, member)
        self._xattrs(fd, member)
        os.fchmod(fd, (member.mode & 0o1777) | stat.S_IRWXU)  # ours to fill; finish() sets the true mode
        self._states[where] = (member.mode & 0o7777, times(member)[0])

    def _xattrs(self, fd: int, member: tarfile.TarInfo) -> None:
        for key, value in member.pax_headers.items():
            if not key.startswith(XATTR):
                continue
            name = key[len(XATTR) :]
            if name.startswith("trusted.overlay."):
                continue
            try:
                os.setxattr(fd, name, os.fsencode(value))
            except OSError as error:
                if error.errno not in (errno.ENOTSUP, errno.EPERM, errno.EINVAL):
                    raise
                self.lost_xattrs.add(name)


def _parts(name: str) -> Parts:
    """Components of a name in an archive; Hostile when it is absolute or climbs."""
    raw = _encode(name)
    if raw.startswith(b"/"):
        raise Hostile(f"the archive holds the absolute name {name!r}", hint="pack it with relative names")
    if b"\0" in raw or len(raw) > 4096:
        raise Hostile(f"the archive holds a name that cannot be one: {name[:80]!r}")
    parts = tuple(part for part in raw.split(b"/") if part not in (b"", b"."))
    if b".." in parts:
        raise Hostile(f"the archive holds {name!r}, which leads out of the image")
    return parts


def _encode(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _show(parts: Parts) -> str:
    return repr(b"/".join(parts).decode(errors="replace"))


def _write(fd: int, data: memoryview) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _remove_tree(parent: int, name: bytes) -> None:
    fd = os.open(name, DIRECTORY, dir_fd=parent)
    try:
        for text in os.listdir(fd):  # noqa: PTH208 - a descriptor
            child = os.fsencode(text)
            try:
                os.unlink(child, dir_fd=fd)
            except (IsADirectoryError, PermissionError):
                _remove_tree(fd, child)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=parent)
