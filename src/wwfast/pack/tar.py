"""A walked tree as a tar archive, for nodes that unpack it themselves, with all that newc cannot carry.

Frames are cut where the packer's segments are, so that they are the same after an update, and in a large file every
FRAME bytes. Each is a piece that a node checks by its SHA-256 before it unpacks it.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import xxhash

from wwfast._ext.tree import Tree
from wwfast.archive import frames, pax
from wwfast.archive.artefact import TAR_ZST
from wwfast.pack.cache import Frame, FrameCache, PackWriter, frame_key
from wwfast.pack.engine import Packed, cores, explain

FRAME = 4 << 20  # raw bytes of a frame, at most: two of them are in a node's memory beside the image
VERSION = b"pax 2"  # of what is written here: frames of another one are made anew
KINDS = {
    stat.S_IFDIR: pax.DIRECTORY,
    stat.S_IFLNK: pax.SYMLINK,
    stat.S_IFCHR: pax.CHARACTER,
    stat.S_IFBLK: pax.BLOCK_DEVICE,
    stat.S_IFIFO: pax.FIFO,
    stat.S_IFREG: pax.FILE,
}

Attributes = Sequence[tuple[bytes, bytes]]


class Archive:
    """The frames of one walked tree; use it when all digests of the tree are known. `fmt` is one of ARCHIVES."""

    def __init__(
        self,
        root: Path,
        tree: Tree,
        cache: FrameCache,
        writer: PackWriter,
        *,
        fmt: str,
        level: int,
        full: bool = False,
    ) -> None:
        self.root, self.tree, self.cache, self.writer = root, tree, cache, writer
        self.fmt, self.level, self.full = fmt, level, full
        self.parts: list[int] = []  # frames that are unpacked without the others, when it has been run
        self._holes: dict[int, int] = {}
        self._attributes = {path: _attributes(root, path) for path in tree.with_xattrs()}

    @property
    def holes(self) -> int:
        """Bytes of its files that are none in a file system that knows holes; when it has been run."""
        return sum(self._holes.values())

    def run(self) -> list[Packed]:
        """All frames in order. Raises WwfastError; a file that changed is ChangedError and names the file."""
        with ThreadPoolExecutor(cores(), thread_name_prefix="tar") as pool:
            try:
                made = list(pool.map(self._segment, range(self.tree.segments_count)))
            except OSError as error:
                raise explain(error, self.root) if error.filename is not None else error from error
            finally:
                pool.shutdown(cancel_futures=True)
        end = self._frame(xxhash.xxh3_128_digest(VERSION + pax.END), pax.END)
        self.parts = [*(len(segment) for segment in made if segment), 1]
        return [*(frame for segment in made for frame in segment), end]

    def _segment(self, number: int) -> list[Packed]:
        key, extents = self._key(number)
        if not self.full and (known := self._known(key)):
            return known
        made: list[Packed] = []
        before: bytes | None = None
        for data in _cut(self._members(number, extents)):
            if before is not None:
                made.append(self._frame(_part(key, len(made), last=False), before))
            before = data
        if before is not None:
            made.append(self._frame(_part(key, len(made), last=True), before))
        return made

    def _known(self, key: bytes) -> list[Packed]:
        """The frames of a segment, if the cache has them all."""
        found: list[Packed] = []
        while True:
            for last in (True, False):
                part = _part(key, len(found), last=last)
                frame = self.cache.find(frame_key(part, self.fmt, self.level))
                if frame is not None:
                    found.append(Packed(part, {self.fmt: frame}, True))
                    break
            else:
                return []
            if last:
                return found

    def _frame(self, key: bytes, raw: bytes) -> Packed:
        name = frame_key(key, self.fmt, self.level)
        frame: Frame | None = None if self.full else self.cache.find(name)
        reused = frame is not None
        if frame is None:
            zst = self.fmt == TAR_ZST
            data = frames.zstd_frame(raw, self.level) if zst else frames.member([frames.piece(raw, self.level)])
            frame = self.writer.append(name, data, len(raw), 0)
        return Packed(key, {self.fmt: frame}, reused)

    def _key(self, number: int) -> tuple[bytes, list[pax.Extent] | None]:
        """What names the segment's content, and what is no hole in its file, where that has any."""
        newc = self.tree.key(number)
        assert newc is not None
        digest = xxhash.xxh3_128(VERSION + newc)
        if self._attributes:
            for path in self.tree.paths(number):
                for name, value in self._attributes.get(path, ()):
                    digest.update(b"%s\0%s=%d:%s" % (path, name, len(value), value))
        extents = self._extents(number) if self.tree.large(number) else None
        if extents is not None:
            digest.update(repr(extents).encode())
            self._holes[number] = self.tree.members(number)[-1][5] - sum(length for _, length in extents)
        return digest.digest(), extents

    def _extents(self, number: int) -> list[pax.Extent] | None:
        """Of a segment of one large file."""
        path, *_, identity = self.tree.members(number)[-1]
        descriptor = _open(self.root, path, identity)
        try:
            facts = os.fstat(descriptor)
            return list(_data(descriptor, facts.st_size)) if facts.st_blocks * 512 < facts.st_size else None
        finally:
            os.close(descriptor)

    def _members(self, number: int, extents: list[pax.Extent] | None) -> Iterator[bytes]:
        """A segment's bytes. Of the names of one inode the one with the content comes first, as tar wants it."""
        listed = self.tree.members(number)
        content = {inode: path for path, *_, inode, carries, _ in listed if carries}
        listed.sort(key=lambda each: not each[9] and each[8] in content)  # links last
        for path, mode, uid, gid, mtime, size, device, target, inode, carries, identity in listed:
            kind = KINDS[stat.S_IFMT(mode)]
            link = kind == pax.FILE and not carries
            member = pax.Member(
                path,
                pax.LINK if link else kind,
                stat.S_IMODE(mode),
                uid,
                gid,
                mtime,
                size if carries else 0,
                content[inode] if link else target,
                device if kind in (pax.CHARACTER, pax.BLOCK_DEVICE) else (0, 0),
                self._attributes.get(path, ()) if not link else (),
            )
            if not carries:
                yield pax.head(member)
                continue
            whole = [(0, size)] if extents is None else extents
            yield pax.head(member) if extents is None else pax.sparse(member, extents)
            yield from _content(self.root, path, identity, whole)
            yield pax.padding(sum(length for _, length in whole))


def _part(key: bytes, number: int, *, last: bool) -> bytes:
    """The name of a segment's frame; the last one's is another, so that no frame too many is looked for."""
    return xxhash.xxh3_128_digest(key + struct.pack("<Q?", number, last))


def _cut(parts: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of FRAME."""
    room = bytearray()
    for part in parts:
        room += part
        while len(room) >= FRAME:
            yield bytes(room[:FRAME])
            del room[:FRAME]
    if room:
        yield bytes(room)


def _attributes(root: Path, path: bytes) -> Attributes:
    full = os.fsencode(root) + b"/" + path
    return [
        (name.encode(), os.getxattr(full, name, follow_symlinks=False))
        for name in sorted(os.listxattr(full, follow_symlinks=False))
        if not name.startswith("trusted.overlay.")  # bookkeeping of the file system below, not the image's
    ]


def _open(root: Path, path: bytes, identity: tuple[int, ...]) -> int:
    full = os.fsencode(root) + b"/" + path
    descriptor = os.open(full, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _require(descriptor, path, identity)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _require(descriptor: int, path: bytes, identity: tuple[int, ...]) -> None:
    """It is the file of the walk. Raises OSError."""
    facts = os.fstat(descriptor)
    if (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns) != identity:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), os.fsdecode(path))


def _content(root: Path, path: bytes, identity: tuple[int, ...], extents: Sequence[pax.Extent]) -> Iterator[bytes]:
    descriptor = _open(root, path, identity)
    try:
        for offset, length in extents:
            left = length
            while left:
                data = os.pread(descriptor, min(left, FRAME), offset + length - left)
                if not data:
                    raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), os.fsdecode(path))
                left -= len(data)
                yield data
        _require(descriptor, path, identity)
    finally:
        os.close(descriptor)


def _data(descriptor: int, size: int) -> Iterator[pax.Extent]:
    """What is no hole."""
    at = 0
    while at < size:
        try:
            begin = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return
        at = os.lseek(descriptor, begin, os.SEEK_HOLE)
        yield begin, at - begin
