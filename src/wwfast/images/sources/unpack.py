"""Unpacking tar archives and container layers into a tree of our own, without ever leaving it.

Names are seen from the root of the image, however they are written: a leading slash says nothing, `..` counts as long
as it stays inside; what leads out is refused. Whiteouts (`.wh.NAME`, `.wh..wh..opq`: OCI image specification,
layer.md) remove what earlier layers brought, never what the same layer brings. Other names that begin with `.wh..wh.`
are book-keeping of aufs, of which only hard links may need something.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from wwfast.archive import members
from wwfast.archive.limits import LIMITS, Limits, exceeded
from wwfast.archive.members import Member
from wwfast.archive.stream import Forward
from wwfast.errors import WwfastError
from wwfast.images.sources.below import Below, Hostile, Parts, is_directory

__all__ = ["Hostile", "Unpacker"]

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
AUFS = b".wh..wh."
AUFS_LINKS = b".wh..wh.plnk"  # files that several names of the layer are hard links to
XATTR = b"SCHILY.xattr."
LONGEST = 4096  # bytes of a name: PATH_MAX
NODES = {members.CHARACTER: stat.S_IFCHR, members.DEVICE: stat.S_IFBLK, members.FIFO: stat.S_IFIFO}


class Unpacker:
    """Applies archives to one tree, in order; finish() sets the times of directories."""

    def __init__(self, root: Path, limits: Limits = LIMITS) -> None:
        self.root = root
        self._limits = limits
        self._below = Below(root, limits.depth)
        # Then what we make belongs to 0:0 without being told.
        setgid = os.fstat(self._below.root).st_mode & stat.S_ISGID
        self._fresh = self._below.empty and os.getegid() == 0 and not setgid
        self._is_root = os.geteuid() == 0
        self._added: set[Parts] = set()  # what the layer brought, and what is above it
        self._hidden: set[Parts] = set()  # directories in which nothing is left but what the layer brought
        self._size = 0  # bytes of the archives before this one
        self.entries = 0
        self.lost_xattrs: set[bytes] = set()

    def __enter__(self) -> Unpacker:
        self._umask = os.umask(0)  # files are made with their modes
        return self

    def __exit__(self, *exc: object) -> None:
        os.umask(self._umask)
        self._below.close()

    def apply(self, source: Forward, *, layer: bool = False) -> None:
        """Unpack one archive; with `layer`, whiteouts in it remove what is already there.

        Raises Hostile for names that lead outside, WwfastError for damaged or truncated archives and for those over
        the limits.
        """
        self._added.clear()
        self._hidden.clear()
        # Layers may lack the end mark; their digests tell that they are whole.
        for member in members.members(source, self._limits, endless=layer):
            self.entries += 1
            if self.entries > self._limits.entries:
                raise exceeded("the image has too many entries", "image entries", self._limits.entries)
            if self._size + source.tell() + member.stored > self._limits.size:
                raise exceeded(f"the image becomes too large with {member.shown}", "image size", self._limits.size)
            try:
                self._entry(source, member, layer)
            except (OSError, ValueError, OverflowError) as error:
                raise self._failed(member, error) from error
        self._size += source.tell()
        if layer and (AUFS_LINKS,) in self._added:
            self._below.clear(self._below.root, (AUFS_LINKS,))

    def finish(self) -> None:
        """Give every directory the mode and time its entry (or its earlier state) had."""
        self._below.finish()

    def _failed(self, member: Member, error: Exception) -> WwfastError:
        code = error.errno if isinstance(error, OSError) else None
        if code == errno.EPERM and member.kind in NODES:
            return WwfastError(f"device node {member.shown} needs root", hint="run the import as root")
        if code in (errno.ENOSPC, errno.EDQUOT):
            return WwfastError(f"no space left for {member.shown} below {self.root}")
        return WwfastError(f"cannot unpack {member.shown}: {error.strerror if isinstance(error, OSError) else error}")

    # -- one entry -----------------------------------------------------------------------------------------------

    def _entry(self, source: Forward, member: Member, layer: bool) -> None:
        if member.kind == members.LABEL:
            return
        parts = _parts(member.name)
        self._below.trim()
        if not parts:
            if member.kind not in (members.DIRECTORY, members.DUMPDIR):
                raise Hostile(f"the archive holds {member.shown}, which is no directory, as the root of the image")
            self._finish_directory(self._below.root, (), member)
            return
        if layer and parts[0] != AUFS_LINKS and any(part.startswith(AUFS) and part != OPAQUE for part in parts):
            return
        at = self._below.real(parts[:-1])
        parent = self._below.directory(at)
        name = parts[-1]
        where = (*at, name)
        if at not in self._below.states:
            status = os.fstat(parent)
            self._below.states[at] = (stat.S_IMODE(status.st_mode), status.st_mtime_ns)
        if layer and name.startswith(WHITEOUT) and parts[0] != AUFS_LINKS:
            self._whiteout(at, parent, name)
            return
        if layer:
            for length in range(len(where), 0, -1):
                if where[:length] in self._added:
                    break
                self._added.add(where[:length])
        self._create(source, member, parent, where)

    def _create(self, source: Forward, member: Member, parent: int, where: Parts) -> None:
        if member.kind in (members.DIRECTORY, members.DUMPDIR):
            self._finish_directory(self._below.make(parent, where), where, member)
            return
        if member.kind == members.HARD:
            self._hard_link(member, parent, where)
            return
        make = self._maker(source, member)
        try:
            make(parent, where[-1])
        except FileExistsError:
            self._below.clear(parent, where)
            make(parent, where[-1])

    def _maker(self, source: Forward, member: Member) -> Callable[[int, bytes], None]:
        """What creates a node of the member's type; it raises FileExistsError before it reads any data."""

        def file(parent: int, name: bytes) -> None:
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(name, flags, member.mode & 0o777, dir_fd=parent)
            try:
                _data(source, member, fd)
                self._finish_file(fd, member)
            finally:
                os.close(fd)

        def link(parent: int, name: bytes) -> None:
            os.symlink(member.link, name, dir_fd=parent)
            self._own(name, member, parent)
            os.utime(name, ns=(member.mtime, member.mtime), dir_fd=parent, follow_symlinks=False)

        def node(parent: int, name: bytes) -> None:
            os.mknod(name, 0o600 | NODES[member.kind], os.makedev(*member.device), dir_fd=parent)
            self._own(name, member, parent)
            os.chmod(name, member.mode & 0o7777, dir_fd=parent)
            os.utime(name, ns=(member.mtime, member.mtime), dir_fd=parent, follow_symlinks=False)

        if member.kind == members.FILE:
            return file
        if member.kind == members.SYMBOLIC:
            return link
        if member.kind in NODES:
            return node
        if member.kind == members.CONTINUED:
            raise WwfastError(
                f"{member.shown} began in another archive: this is one volume of several",
                hint="unpack them with tar --multi-volume, then import the directory",
            )
        raise WwfastError(f"{member.shown} is of a type this program does not know ({member.kind!r})")

    def _hard_link(self, member: Member, parent: int, where: Parts) -> None:
        target = _parts(member.link)
        if not target:
            raise Hostile(f"hard link {member.shown} to the root")
        at = self._below.real(target[:-1])
        other = self._below.directory(at)
        try:
            if is_directory(other, target[-1]):
                raise Hostile(f"hard link {member.shown} to a directory")
        except FileNotFoundError as error:
            link = repr(member.link.decode(errors="replace"))
            raise WwfastError(f"hard link {member.shown} to {link}, which is not in the image") from error
        source = (*at, target[-1])
        if source == where:  # tar was told of the file twice
            return
        if source[: len(where)] == where:
            raise Hostile(f"hard link {member.shown} to what is below it")
        self._below.clear(parent, where)
        os.link(target[-1], where[-1], src_dir_fd=other, dst_dir_fd=parent, follow_symlinks=False)

    def _whiteout(self, at: Parts, parent: int, name: bytes) -> None:
        if name == OPAQUE:
            self._hide(at)
            return
        hidden = name[len(WHITEOUT) :]
        if hidden in (b"", b".", b".."):
            raise Hostile(f"whiteout {name!r}")
        where = (*at, hidden)
        if where not in self._added:
            self._below.clear(parent, where)
        else:
            with suppress(FileNotFoundError):  # this layer brought it, and then something else in its place
                if is_directory(parent, hidden):
                    self._hide(where)

    def _hide(self, at: Parts) -> None:
        """Remove what lower layers put below a directory; keep what this layer did."""
        todo = [at]
        while todo:
            at = todo.pop()
            if at in self._hidden:
                continue
            self._hidden.add(at)
            self._below.trim()
            fd = self._below.directory(at)
            for text in os.listdir(fd):  # noqa: PTH208 - a descriptor
                where = (*at, os.fsencode(text))
                if where not in self._added:
                    self._below.clear(fd, where)
                elif is_directory(fd, where[-1]):
                    todo.append(where)

    # -- owner, mode, times --------------------------------------------------------------------------------------

    def _own(self, target: int | bytes, member: Member, parent: int | None = None) -> None:
        # What root makes is root's already, and directories get their set-group-id bits only at the end.
        if not self._is_root or (self._fresh and member.uid == 0 and member.gid == 0):
            return
        if parent is None:
            os.chown(target, member.uid, member.gid)
        else:
            os.chown(target, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)

    def _finish_file(self, fd: int, member: Member) -> None:
        # chown clears set-id bits and capabilities, so it comes first.
        self._own(fd, member)
        if member.mode & 0o7000:
            os.fchmod(fd, member.mode & 0o7777)
        self._xattrs(fd, member)
        os.utime(fd, ns=(member.mtime, member.mtime))

    def _finish_directory(self, fd: int, where: Parts, member: Member) -> None:
        self._own(fd, member)
        self._xattrs(fd, member)
        os.fchmod(fd, (member.mode & 0o1777) | stat.S_IRWXU)  # ours to fill; finish() sets the true mode
        self._below.states[where] = (member.mode & 0o7777, member.mtime)

    def _xattrs(self, fd: int, member: Member) -> None:
        for key, value in member.records.items():
            if not key.startswith(XATTR):
                continue
            name = key[len(XATTR) :]
            if name.startswith(b"trusted.overlay."):
                continue
            try:
                os.setxattr(fd, name, value)
            except OSError as error:
                if error.errno not in (errno.ENOTSUP, errno.EPERM, errno.EINVAL):
                    raise
                self.lost_xattrs.add(name)


def _parts(name: bytes) -> Parts:
    """Components of a name in an archive, seen from the root of the image; Hostile when it leads out."""
    if b"\0" in name or len(name) > LONGEST:
        raise Hostile(f"the archive holds a name that cannot be one: {name[:80]!r}")
    if b".." not in name:
        return tuple([part for part in name.split(b"/") if part not in (b"", b".")])
    found: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if not found:
                raise Hostile(f"the archive holds {name.decode(errors='replace')!r}, which leads out of the image")
            found.pop()
        elif part not in (b"", b"."):
            found.append(part)
    return tuple(found)


def _data(source: Forward, member: Member, fd: int) -> None:
    """Write what is stored of a file; holes of a sparse one cost nothing but its length."""
    for offset, length in ((0, member.size),) if member.pieces is None else member.pieces:
        if member.pieces is not None:
            os.lseek(fd, offset, os.SEEK_SET)
        left = length
        for piece in source.pieces(length):
            left -= len(piece)
            data = piece
            while data:
                data = data[os.write(fd, data) :]
        if left:
            raise WwfastError(f"the archive is cut short within {member.shown}")
    if member.pieces is not None:
        os.ftruncate(fd, member.size)
