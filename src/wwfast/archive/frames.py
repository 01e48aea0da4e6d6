"""Compressed pieces that may be concatenated: zstd frames, and the pieces of one gzip member.

What decides the form (limits: Linux lib/decompress*.c and init/initramfs.c; iPXE src/image/gzip.c):

- Linux takes any number of zstd frames, each ending on an entry boundary; no skippable frames, no dictionary,
  window at most 2^27. Every frame says its content size and carries its checksum.
- iPXE reads only the first member of a gzip file and takes its size from the last 8 bytes, so gzip artefacts are
  ONE member: head, deflate pieces that each end byte-aligned and refer to nothing before them, tail. Linux skips a
  file name in the head but no other option, so the name pads the whole to a multiple of 4.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterable
from typing import NamedTuple

import isal
import zstandard
from isal import isal_zlib
from zlib_ng import zlib_ng

from wwfast.archive.artefact import GZ, RAW, TAR_GZ, TAR_ZST, ZST

DEFAULT_LEVEL = 3
SAMPLES, SAMPLE = 16, 4096  # how often, and how many bytes of, a piece is looked at before it is compressed
LIBRARIES = {
    RAW: "newc",
    ZST: f"zstd {'.'.join(map(str, zstandard.ZSTD_VERSION))}",
    GZ: f"zlib-ng {zlib_ng.ZLIBNG_VERSION}, isal {isal.__version__}, dense pieces by isal",
}
LIBRARIES |= {TAR_ZST: LIBRARIES[ZST], TAR_GZ: LIBRARIES[GZ]}

Raw = bytes | bytearray | memoryview

_local = threading.local()


class Piece(NamedTuple):
    """A compressed piece with the CRC-32 and length of its raw bytes, as a gzip tail needs them."""

    data: bytes
    crc: int
    length: int


def zstd_compressor(level: int, threads: int = 0) -> zstandard.ZstdCompressor:
    """One frame per call. No level of libzstd's asks for a window over 2^27. `threads` > 0: its own workers (the
    bytes are then the same for any number of them, but not those of `threads` = 0)."""
    return zstandard.ZstdCompressor(level=level, write_checksum=True, write_content_size=True, threads=threads)


def zstd_frame(raw: Raw, level: int = DEFAULT_LEVEL) -> bytes:
    """`raw` as one zstd frame; each thread keeps its context of the last level."""
    if getattr(_local, "level", None) != level:
        _local.level, _local.zstd = level, zstd_compressor(level)
    frame: bytes = _local.zstd.compress(raw)
    return frame


def deflate_level(level: int) -> tuple[object, int]:
    """The deflate implementation and its level for our one scale (zstd's).

    Measured on a Debian tree per core: zlib-ng 5 makes 64 MB/s at 2.2 % over the size of zlib 6 (24 MB/s); ISA-L
    makes 340 MB/s at 13 % over.
    """
    return (isal_zlib, max(level, 0)) if level < 3 else (zlib_ng, min(level + 2, 9))


def dense(raw: Raw) -> bool:
    """Whether samples spread over `raw` do not shrink: it is compressed already, as an initrd or an archive."""
    view = memoryview(raw)
    if len(view) < 2 * SAMPLES * SAMPLE:
        return False
    step = len(view) // SAMPLES
    sample = b"".join(view[step * index : step * index + SAMPLE] for index in range(SAMPLES))
    return len(isal_zlib.compress(sample, 1)) > 0.98 * len(sample)


def piece(raw: Raw, level: int = DEFAULT_LEVEL) -> Piece:
    """`raw` as deflate data that ends on a byte and can be followed by another piece of the same member.

    What is dense goes to ISA-L: of an initrd zlib-ng makes 36 MB/s and saves 0.6 %, ISA-L over 250 MB/s and 0.2 %.
    """
    library, native_level = deflate_level(1 if dense(raw) else level)
    packer = library.compressobj(native_level, 8, -15)  # type: ignore[attr-defined]
    data = packer.compress(raw) + packer.flush(library.Z_FULL_FLUSH)  # type: ignore[attr-defined]
    return Piece(data, isal_zlib.crc32(raw), len(memoryview(raw)))


def combine(pieces: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """CRC-32 and length of the concatenation of parts given by their (crc, length)."""
    crc = total = 0
    for part, length in pieces:
        crc = isal_zlib.crc32_combine(crc, part, length)
        total += length
    return crc, total


def gz_head(deflated: int) -> bytes:
    """The member's header; `deflated` is the sum of its pieces' lengths. The whole gets a multiple of 4 bytes."""
    name = b"image"[: (-(10 + 1 + deflated + 10)) % 4] + b"\0"
    return b"\x1f\x8b\x08\x08" + b"\0" * 4 + b"\0\x03" + name


def gz_tail(crc: int, length: int) -> bytes:
    """An empty last block, then CRC-32 and length (modulo 2^32) of the raw bytes."""
    return b"\x03\x00" + struct.pack("<II", crc, length & 0xFFFFFFFF)


def member(pieces: Iterable[Piece]) -> bytes:
    """One gzip member of all the pieces."""
    listed = list(pieces)
    head = gz_head(sum(len(part.data) for part in listed))
    tail = gz_tail(*combine((part.crc, part.length) for part in listed))
    return b"".join([head, *(part.data for part in listed), tail])


def compress(raw: bytes, fmt: str, level: int = DEFAULT_LEVEL) -> bytes:
    """`raw` as a whole artefact of one frame (zst), one member (gz) or itself (raw)."""
    if fmt == ZST:
        return zstd_frame(raw, level)
    if fmt == GZ:
        return member([piece(raw, level)])
    return raw
