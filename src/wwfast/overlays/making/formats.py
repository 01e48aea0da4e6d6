"""The forms in which a node can ask for its overlays, made from the zstd frames that the store keeps.

raw and zst are the segments one after the other; gz is one member (head, a piece per segment, tail); tar ends with two
empty blocks. Each form of a segment is made once, when it is first asked for.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import xxhash
import zstandard

from wwfast.archive import frames, tarform
from wwfast.overlays.making.store import Damaged, Segment, Store


class File(NamedTuple):
    """A path of a node: mode with its type bits, owner, group; content or target."""

    mode: int
    uid: int
    gid: int
    data: bytes


Files = dict[str, File]


def segments(store: Store, contents: Sequence[bytes], fmt: str) -> list[Segment]:
    """Where the bytes of the whole archive are, in order; missing forms are made."""
    for content in contents:
        if not store.has(content, fmt):
            _derive(store, content, fmt)
    found = [_have(store, content, fmt) for content in contents]
    if fmt == "gz":
        head = frames.gz_head(sum(segment.length for segment in found))
        tail = frames.gz_tail(*frames.combine((segment.crc, segment.raw_length) for segment in found))
        return [_literal(store, head), *found, _literal(store, tail)]
    return [*found, _literal(store, tarform.END)] if fmt == "tar" else found


def raw(store: Store, content: bytes) -> bytes:
    """The newc bytes of a content, which is their digest. Raises Damaged."""
    try:
        found = zstandard.ZstdDecompressor().decompress(store.read(content, "zst"))
    except zstandard.ZstdError:
        found = b""
    if xxhash.xxh3_128_digest(found) != content:
        store.drop(content, "zst")
        raise Damaged()
    return found


def files(store: Store, contents: Sequence[bytes]) -> Files:
    """What a node finds after unpacking these contents in order, without directories."""
    found: Files = {}
    for content in contents:
        found.update(_files(store, content))
    return found


def _derive(store: Store, content: bytes, fmt: str) -> None:
    data = raw(store, content)
    if fmt == "gz":
        piece = frames.piece(data)
        store.put(content, fmt, piece.data, piece.length, piece.crc)
    else:
        store.put(content, fmt, data if fmt == "raw" else tarform.from_newc(data), len(data), 0)


def _have(store: Store, content: bytes, fmt: str) -> Segment:
    found = store.segment(content, fmt)
    if found is None:
        raise Damaged()
    return found


def _literal(store: Store, data: bytes) -> Segment:
    content = xxhash.xxh3_128_digest(b"literal" + data)
    if not store.has(content, "literal"):
        store.put(content, "literal", data, len(data), 0)
    return _have(store, content, "literal")


@lru_cache(512)
def _files(store: Store, content: bytes) -> Files:
    return {
        entry.name.decode("utf-8", "surrogateescape"): File(entry.mode, entry.uid, entry.gid, entry.data)
        for entry in tarform.entries(raw(store, content))
        if not stat.S_ISDIR(entry.mode)
    }
