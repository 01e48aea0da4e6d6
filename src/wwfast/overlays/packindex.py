"""What is in the packs of the overlay cache, and reading it: nothing is believed that does not have its checksum."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from wwfast.errors import WwfastError
from wwfast.overlays.packfile import BODY, DATA, FORMATS, KEY, LAST, Record, Segment, scan, sound

log = logging.getLogger(__name__)

RETIRED = ".old"  # an empty file of a pack's name and this: all of use in the pack is in a later one, too

_decode = msgspec.msgpack.decode
_encode = msgspec.msgpack.encode

# What was looked at while a segment was made, and the digest of what was seen.
Seen = tuple[tuple[tuple[str, str, str], bytes], ...]


class Damaged(WwfastError):
    """A segment is not what was written: it was dropped, and is made anew for whoever asks again."""

    def __init__(self) -> None:
        super().__init__("a segment of an overlay was damaged on disk", hint="ask again: it is made anew")


class Known(NamedTuple):
    """A key's answer: the content it led to, what else its making looked at, and the paths in it (NUL between).

    For the part of one node, `paths` is the shape instead: which template made which outputs (see builder.Shape).
    """

    content: bytes
    seen: Seen
    paths: bytes


class Index:
    """Records by what they are looked up with. Not thread-safe."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._data: dict[tuple[bytes, int], Segment] = {}
        self._keys: dict[bytes, Known] = {}
        self._last: dict[bytes, tuple[bytes, ...]] = {}
        self._read: dict[str, int] = {}  # pack -> bytes indexed
        self._believed: set[str] = set()  # packs of this process without a mishap: there, though not read back yet
        self._trusted: set[tuple[str, int]] = set()  # (pack, offset) read back and found right
        self._interned: dict[Seen, Seen] = {}  # few different ones, thousands of times
        self._interned_paths: dict[bytes, bytes] = {}
        self._files: dict[str, int] = {}  # packs open for reading

    def _listed(self) -> tuple[list[str], set[str]]:
        """Packs in the order of their making, and those among them that are retired."""
        names = {str(path) for path in self.directory.glob("pack-*")}
        retired = {name.removesuffix(RETIRED) for name in names if name.endswith(RETIRED)}
        return sorted(name for name in names if not name.endswith(RETIRED)), retired

    def _index(self, name: str) -> None:
        try:
            for kind, fmt, segment, meta, end in scan(name, self._read.setdefault(name, 0)):
                if kind == DATA:
                    self._data[segment.content, fmt] = segment
                else:
                    self._take(kind, segment.content, meta)
                self._read[name] = end
        except OSError as error:
            log.warning("overlay cache %s cannot be read: %s", name, error)

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

    def last(self, name: bytes) -> tuple[bytes, ...] | None:
        return self._last.get(name)

    def _block(self, segment: Segment, fmt: int) -> bytes:
        """Header and data of a record; nothing when it is damaged: it is forgotten, and its pack read anew."""
        with suppress(OSError):
            block = self._pread(segment.path, BODY + segment.length, segment.offset - BODY)
            if len(block) == BODY + segment.length and sound(block, fmt):
                self._trusted.add((segment.path, segment.offset))
                return block
        log.warning("overlay cache %s: damaged record at %d, made anew", segment.path, segment.offset)
        self.drop(segment.content, FORMATS[fmt])
        self._suspect(segment.path)
        return b""

    def _suspect(self, path: str) -> None:
        """Nothing in this pack is believed before it is read again."""
        self._believed.discard(path)
        self._trusted = {at for at in self._trusted if at[0] != path}

    def drop(self, content: bytes, fmt: str) -> None:
        """Forget bytes that turned out wrong."""
        if found := self._data.pop((content, FORMATS.index(fmt)), None):
            self._trusted.discard((found.path, found.offset))

    def forget_missing(self) -> bool:
        """Forget packs that somebody removed; whether there were any."""
        names = {segment.path for segment in self._data.values()}
        missing = {name for name in names if not os.path.exists(name)}  # noqa: PTH110 - strings
        self._leave(missing)
        return bool(missing)

    def size(self) -> int:
        """Bytes of all packs but those that only wait for their removal."""
        packs, retired = self._listed()
        return sum(size_of(name) for name in packs if name not in retired)

    def live(self) -> int:
        """Bytes that the last builds use."""
        wanted = self._wanted()
        return sum(segment.length + BODY for (content, _), segment in self._data.items() if content in wanted)

    def _wanted(self) -> set[bytes]:
        """Contents of the last builds, and the shapes that their keys name."""
        live = {content for contents in self._last.values() for content in contents}
        return live | {known.paths for known in self._keys.values() if known.content in live}

    def _lasts(self) -> list[Record]:
        return [Record(LAST, 0, name, _encode(contents)) for name, contents in self._last.items()]

    def _pread(self, path: str, length: int, offset: int) -> bytes:
        fd = self._files.get(path)
        if fd is None:
            fd = self._files[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        return os.pread(fd, length, offset)

    def _leave(self, names: set[str]) -> None:
        """Forget all that is only in these packs."""
        self._data = {at: segment for at, segment in self._data.items() if segment.path not in names}
        self._trusted = {at for at in self._trusted if at[0] not in names}
        for name in names:
            self._read.pop(name, None)
            self._believed.discard(name)
            if (fd := self._files.pop(name, None)) is not None:
                os.close(fd)


def size_of(name: str) -> int:
    """Bytes; of a file that is gone or cannot be looked at, none."""
    try:
        return os.stat(name).st_size  # noqa: PTH116 - a string
    except OSError:
        return 0


def changed(name: str) -> float:
    """Seconds since the epoch; of a file that is gone or cannot be looked at, now."""
    try:
        return Path(name).stat().st_mtime
    except OSError:
        return time.time()


def _pairs(seen: Iterable[Any]) -> Seen:
    return tuple(((what, image, path), digest) for (what, image, path), digest in seen)
