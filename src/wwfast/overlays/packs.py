"""Where rendered segments are kept: append-only files, read by several processes, trusted by nobody.

A pack is a sequence of records, each a fixed header, a msgpack `meta` and data, under one checksum. Three kinds:

- DATA: the bytes of a segment in one format, found by the digest of its content;
- KEY: what a segment was made from -> its content; the same key may come again, the last one counts;
- LAST: the segments that a node was last given for a context: what is served when a build fails or is switched off.

Packs are a cache. Each process writes its own, so no lock is needed; a record torn by a crash ends its pack. Whatever
is read back is checked against its checksum first, and what does not fit is as good as absent.
"""

from __future__ import annotations

import logging
import mmap
import os
import secrets
import struct
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import xxhash

log = logging.getLogger(__name__)

MAGIC = b"wwP1"
DATA, KEY, LAST = 0, 1, 2
FORMATS = ("", "raw", "zst", "gz", "tar", "literal")
# magic, kind, format, meta bytes, data bytes, raw bytes, crc32 of raw, name, checksum of all that follows and precedes
HEAD = struct.Struct("<4sBBHIQI16sQ")
BODY = HEAD.size
LIMIT = 256 << 20  # a new pack is begun beyond
GRACE = 900.0  # seconds a replaced pack stays, for transfers under way and for processes that have not noticed yet
BATCH = 4096  # records copied between two writes
RETIRED = ".old"  # an empty file of a pack's name and this: all of use in the pack is in a later one, too

_decode = msgspec.msgpack.decode
_encode = msgspec.msgpack.encode


class Segment(NamedTuple):
    """Bytes of one content in one format: where they are, and what a gzip tail needs of them."""

    content: bytes
    path: str
    offset: int
    length: int
    raw_length: int
    crc: int


# What was looked at while a segment was made, and the digest of what was seen.
Seen = tuple[tuple[tuple[str, str, str], bytes], ...]


class Known(NamedTuple):
    """A key's answer: the content it led to, what else its making looked at, and the paths in it (NUL between).

    For the part of one node, `paths` is the shape instead: which template made which outputs (see builder.Shape).
    """

    content: bytes
    seen: Seen
    paths: bytes


class Record(NamedTuple):
    kind: int
    format: int
    name: bytes
    meta: bytes = b""
    data: bytes = b""
    raw_length: int = 0
    crc: int = 0


class Packs:
    """All packs of one directory. Not thread-safe: the caller holds a lock for everything but `segment`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._data: dict[tuple[bytes, int], Segment] = {}
        self._keys: dict[bytes, Known] = {}
        self._last: dict[bytes, tuple[bytes, ...]] = {}
        self._read: dict[str, int] = {}  # pack -> bytes indexed
        self._written: set[str] = set()  # packs of this process
        self._trusted: set[tuple[str, int]] = set()  # (pack, offset) written or verified by us
        self._interned: dict[Seen, Seen] = {}  # few different ones, thousands of times
        self._interned_paths: dict[bytes, bytes] = {}
        self._pending: list[Record] = []
        self._coming: set[tuple[bytes, str]] = set()  # contents among them, and their formats
        self._own: int | None = None
        self._own_path = ""
        self._own_size = 0
        self._dirty = False
        self._files: dict[str, int] = {}  # packs open for reading

    # -- reading -------------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Index what other processes appended."""
        packs, retired = self._listed()
        for name in packs:
            if name == self._own_path or (name in retired and name not in self._read):
                continue
            path = Path(name)
            try:
                size = path.stat().st_size
            except FileNotFoundError:
                continue
            if size > self._read.get(name, 0):
                self._index(name, size)

    def _listed(self) -> tuple[list[str], set[str]]:
        """Packs in the order of their making, and those among them that are retired."""
        names = {str(path) for path in self.directory.glob("pack-*")}
        retired = {name.removesuffix(RETIRED) for name in names if name.endswith(RETIRED)}
        return sorted(name for name in names if not name.endswith(RETIRED)), retired

    def _index(self, name: str, size: int) -> None:
        at = self._read.get(name, 0)
        try:
            with Path(name).open("rb") as file, mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ) as view:
                while at + BODY <= size:
                    magic, kind, fmt, meta, length, raw, crc, ident, check = HEAD.unpack_from(view, at)
                    end = at + BODY + meta + length
                    if magic != MAGIC or end > size:
                        break
                    start = at + BODY
                    if kind == DATA:
                        self._data[(ident, fmt)] = Segment(ident, name, start + meta, length, raw, crc)
                    elif _check(view[at : at + BODY - 8], view[start:end]) == check:
                        self._take(kind, ident, view[start : start + meta])
                    at = end
        except (OSError, ValueError) as error:
            log.warning("overlay cache %s cannot be read: %s", name, error)
        self._read[name] = at

    def _take(self, kind: int, ident: bytes, meta: bytes) -> None:
        try:
            if kind == KEY:
                content, seen, paths = _decode(meta)
                pairs = _pairs(seen)
                self._keys[ident] = self._shared(Known(content, pairs, paths))
            elif kind == LAST:
                self._last[ident] = tuple(_decode(meta))
        except (msgspec.DecodeError, ValueError, TypeError):
            return

    def _shared(self, known: Known) -> Known:
        seen = self._interned.setdefault(known.seen, known.seen)
        return Known(known.content, seen, self._interned_paths.setdefault(known.paths, known.paths))

    def known(self, key: bytes) -> Known | None:
        found = self._keys.get(key)
        return found if found is not None and self.usable(found.content) else None

    def usable(self, content: bytes) -> bool:
        """Whether the canonical bytes of a content are there and intact (of no content, always)."""
        return not content or self.has(content, "zst")

    def has(self, content: bytes, fmt: str) -> bool:
        return (content, fmt) in self._coming or self.segment(content, fmt) is not None

    def segment(self, content: bytes, fmt: str) -> Segment | None:
        """Where the bytes are, verified once; None when absent or damaged."""
        at = (content, FORMATS.index(fmt))
        found = self._data.get(at)
        if found is None or (found.path, found.offset) in self._trusted:
            return found
        if self._intact(found, at[1]):
            self._trusted.add((found.path, found.offset))
            return found
        log.warning("overlay cache %s: damaged record at %d, made anew", found.path, found.offset)
        del self._data[at]
        return None

    def _intact(self, segment: Segment, fmt: int) -> bool:
        try:
            # The record's meta is empty for DATA, so its header ends where the data begins.
            block = self._pread(segment.path, BODY + segment.length, segment.offset - BODY)
        except OSError:
            return False
        if len(block) != BODY + segment.length:
            return False
        fields = HEAD.unpack_from(block)
        return bool(fields[2] == fmt and _check(block[: BODY - 8], block[BODY:]) == fields[8])

    def read(self, segment: Segment) -> bytes:
        return self._pread(segment.path, segment.length, segment.offset)

    def _pread(self, path: str, length: int, offset: int) -> bytes:
        fd = self._files.get(path)
        if fd is None:
            fd = self._files[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        return os.pread(fd, length, offset)

    def last(self, name: bytes) -> tuple[bytes, ...] | None:
        return self._last.get(name)

    # -- writing -------------------------------------------------------------------------------------------------

    def add_data(self, content: bytes, fmt: str, data: bytes, raw_length: int, crc: int) -> None:
        self._pending.append(Record(DATA, FORMATS.index(fmt), content, b"", data, raw_length, crc))
        self._coming.add((content, fmt))

    def add_key(self, key: bytes, known: Known) -> None:
        self._keys[key] = self._shared(known)
        self._pending.append(Record(KEY, 0, key, _encode(known)))

    def add_last(self, name: bytes, contents: tuple[bytes, ...]) -> bool:
        """False when that is what it already was."""
        if self._last.get(name) == contents:
            return False
        self._last[name] = contents
        self._pending.append(Record(LAST, 0, name, _encode(contents)))
        return True

    def flush(self, *, sync: bool = False) -> None:
        """Append what is pending in one write; with `sync` make it durable."""
        if self._pending:
            records, self._pending = self._pending, []
            self._append(records)
            self._coming.clear()
        if sync and self._dirty and self._own is not None:
            os.fdatasync(self._own)
            self._dirty = False

    def _append(self, records: Sequence[Record]) -> None:
        own = self._open()
        at = self._own_size
        parts: list[bytes] = []
        for record in records:
            head = HEAD.pack(
                MAGIC,
                record.kind,
                record.format,
                len(record.meta),
                len(record.data),
                record.raw_length,
                record.crc,
                record.name,
                0,
            )[: BODY - 8]
            body = record.meta + record.data
            parts += (head, _check(head, body).to_bytes(8, "little"), body)
            if record.kind == DATA:
                start = at + BODY
                self._data[(record.name, record.format)] = Segment(
                    record.name, self._own_path, start, len(record.data), record.raw_length, record.crc
                )
                self._trusted.add((self._own_path, start))
            at += BODY + len(body)
        blob = memoryview(b"".join(parts))
        while blob:
            blob = blob[os.write(own, blob) :]
        self._own_size = at
        self._dirty = True
        if at > LIMIT:
            self.close()

    def _open(self) -> int:
        if self._own is None:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._own_path = str(self.directory / f"pack-{time.time_ns():x}-{os.getpid()}-{secrets.token_hex(3)}")
            self._own = os.open(self._own_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            self._own_size = 0
            self._written.add(self._own_path)
        return self._own

    def detach(self) -> None:
        """In a forked child: leave the parent's pack alone, begin one of our own."""
        self._pending, self._own, self._own_path = [], None, ""
        self._coming.clear()

    def close(self) -> None:
        """End this process's pack; another one begins with the next write."""
        for fd in self._files.values():
            os.close(fd)
        self._files.clear()
        if self._own is not None:
            os.fsync(self._own)
            os.close(self._own)
            self._read[self._own_path] = self._own_size
            self._own, self._own_path = None, ""

    # -- space ---------------------------------------------------------------------------------------------------

    def size(self) -> int:
        """Bytes of all packs but those that only wait for their removal."""
        packs, retired = self._listed()
        return sum(_size(name) for name in packs if name not in retired)

    def live(self) -> int:
        """Bytes that the last builds use."""
        wanted = self._wanted()
        return sum(segment.length + BODY for (content, _), segment in self._data.items() if content in wanted)

    def _wanted(self) -> set[bytes]:
        """Contents of the last builds, and the shapes that their keys name."""
        live = {content for contents in self._last.values() for content in contents}
        return live | {known.paths for known in self._keys.values() if known.content in live}

    def compact(self) -> int:
        """Copy what the last builds use into a new pack and retire the others; their bytes.

        Nothing is removed: who was told of an extent can still open its file, for GRACE seconds (`tidy`). 0 and
        nothing done while another process writes: its pack would sort before the new one and lose to it.
        """
        self.flush()
        self.refresh()
        if self._others_write():
            return 0
        self.close()
        self._open()
        self.refresh()
        if self._others_write():  # begun just before ours
            return 0
        packs, retired = self._listed()
        old = [name for name in packs if name not in retired and name != self._own_path]
        wanted, names = self._wanted(), {*old, *retired}
        for (content, fmt), segment in list(self._data.items()):
            if segment.path in names and content in wanted and self.segment(content, FORMATS[fmt]):
                self.add_data(content, FORMATS[fmt], self.read(segment), segment.raw_length, segment.crc)
                if len(self._pending) >= BATCH:
                    self.flush()
        self._keys = {key: known for key, known in self._keys.items() if known.content in wanted}
        for key, known in list(self._keys.items()):
            self.add_key(key, known)
        self._pending += [Record(LAST, 0, name, _encode(contents)) for name, contents in self._last.items()]
        self.flush(sync=True)
        for name in old:
            Path(name + RETIRED).touch(0o600)
        self._leave(names)
        return sum(map(_size, old))

    def _others_write(self) -> bool:
        packs, retired = self._listed()
        foreign = (name for name in packs if name not in retired and name not in self._written)
        return any(time.time() - _changed(name) < GRACE for name in foreign)

    def tidy(self) -> bool:
        """Take in what other processes did; True when packs were retired since, so extents in them are not to be
        handed out any more. Removes the files of those that were retired long ago."""
        self.refresh()
        _, retired = self._listed()
        if self._own_path in retired:
            self.close()
        known = {name for name in retired if name in self._read}
        self._leave(known)
        for name in retired:
            if time.time() - _changed(name + RETIRED) > GRACE:
                Path(name).unlink(missing_ok=True)
                Path(name + RETIRED).unlink(missing_ok=True)
        return bool(known)

    def _leave(self, names: set[str]) -> None:
        """Forget all that is only in these packs."""
        self._data = {at: segment for at, segment in self._data.items() if segment.path not in names}
        self._trusted = {at for at in self._trusted if at[0] not in names}
        for name in names:
            self._read.pop(name, None)
            self._written.discard(name)
            if (fd := self._files.pop(name, None)) is not None:
                os.close(fd)


def _size(name: str) -> int:
    try:
        return Path(name).stat().st_size
    except FileNotFoundError:
        return 0


def _changed(name: str) -> float:
    """Seconds since the epoch; of a file that is gone, now."""
    try:
        return Path(name).stat().st_mtime
    except FileNotFoundError:
        return time.time()


def _check(head: bytes, body: bytes) -> int:
    state = xxhash.xxh3_64(head)
    state.update(body)
    return state.intdigest()


def _pairs(seen: Iterable[Any]) -> Seen:
    return tuple(((what, image, path), digest) for (what, image, path), digest in seen)
