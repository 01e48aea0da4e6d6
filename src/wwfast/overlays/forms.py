"""The forms in which a node can ask for its overlays, made from the zstd frames that the packs keep.

raw and zst are the segments one after the other; gz is one member (head, a piece per segment, tail); tar ends with two
empty blocks. Each form of a segment is made once, when it is first asked for.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from typing import NamedTuple

import xxhash
import zstandard

from wwfast.overlays import tarform
from wwfast.overlays.packfile import Segment
from wwfast.overlays.packindex import Damaged
from wwfast.overlays.packs import Packs
from wwfast.pack import frames


class File(NamedTuple):
    """A path of a node: mode with its type bits, owner, group; content or target."""

    mode: int
    uid: int
    gid: int
    data: bytes


Files = dict[str, File]


def segments(packs: Packs, contents: Sequence[bytes], fmt: str) -> list[Segment]:
    """Where the bytes of the whole archive are, in order; missing forms are made."""
    for content in contents:
        if not packs.has(content, fmt):
            _derive(packs, content, fmt)
    found = [_have(packs, content, fmt) for content in contents]
    if fmt == "gz":
        head = frames.gz_head(sum(segment.length for segment in found))
        tail = frames.gz_tail(*frames.combine((segment.crc, segment.raw_length) for segment in found))
        return [_literal(packs, head), *found, _literal(packs, tail)]
    return [*found, _literal(packs, tarform.END)] if fmt == "tar" else found


def raw(packs: Packs, content: bytes) -> bytes:
    """The newc bytes of a content, which is their digest. Raises Damaged."""
    try:
        found = zstandard.ZstdDecompressor().decompress(packs.read(content, "zst"))
    except zstandard.ZstdError:
        found = b""
    if xxhash.xxh3_128_digest(found) != content:
        packs.drop(content, "zst")
        raise Damaged()
    return found


def files(packs: Packs, contents: Sequence[bytes]) -> Files:
    """What a node finds after unpacking these contents in order, without directories."""
    found: Files = {}
    for content in contents:
        found.update(_files(packs, content))
    return found


def _derive(packs: Packs, content: bytes, fmt: str) -> None:
    data = raw(packs, content)
    if fmt == "gz":
        piece = frames.piece(data)
        packs.add_data(content, fmt, piece.data, piece.length, piece.crc)
    else:
        packs.add_data(content, fmt, data if fmt == "raw" else tarform.from_newc(data), len(data), 0)


def _have(packs: Packs, content: bytes, fmt: str) -> Segment:
    found = packs.segment(content, fmt)
    if found is None:
        raise Damaged()
    return found


def _literal(packs: Packs, data: bytes) -> Segment:
    content = xxhash.xxh3_128_digest(b"literal" + data)
    if not packs.has(content, "literal"):
        packs.add_data(content, "literal", data, len(data), 0)
    return _have(packs, content, "literal")


_parsed: dict[bytes, Files] = {}


def _files(packs: Packs, content: bytes) -> Files:
    found = _parsed.get(content)
    if found is None:
        if len(_parsed) > 512:
            _parsed.clear()
        found = {}
        for entry in tarform.entries(raw(packs, content)):
            if not stat.S_ISDIR(entry.mode):
                found[entry.name.decode("utf-8", "surrogateescape")] = File(
                    entry.mode, entry.uid, entry.gid, entry.data
                )
        _parsed[content] = found
    return found
