"""A built image in a form it was not built in: raw and gzip, made once of the form there is, when somebody asks.

BUILD/image/also-gz        the body
BUILD/image/also-gz.json   its size, time and digest; written last, so a body without it is none
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import xxhash
import zstandard

from wwfast.archive import frames
from wwfast.archive.artefact import GZ, RAW, SUFFIX, ZST, Artefact, Extent
from wwfast.errors import WwfastError
from wwfast.pack import manifest
from wwfast.system import files

FORMATS = (RAW, GZ)
SOURCES = (RAW, ZST, GZ)  # the cheapest to read first
CHUNK = 1 << 20
EMPTY = b"\0\0\0\xff\xff"  # a stored block of nothing: 5 bytes
TAIL = frames.gz_tail(0, 0)


class Derived(msgspec.Struct, frozen=True):
    """Bytes and time (ns) of the body, and its digest (hex)."""

    bytes: int
    mtime_ns: int
    xxh3: str


def load(dest: Path, fmt: str) -> Artefact | None:
    """What make() made; None where it did not, or where that is not what it was."""
    body = dest / f"also-{fmt}"
    try:
        known = msgspec.json.decode(body.with_suffix(".json").read_bytes(), type=Derived)
        facts = body.stat()
        listed = manifest.read(dest)
    except (OSError, msgspec.DecodeError, WwfastError):
        return None
    if (facts.st_size, facts.st_mtime_ns) != (known.bytes, known.mtime_ns):
        return None
    extents = (Extent(str(body), 0, known.bytes),)
    formats = tuple(sorted({*listed.formats, fmt}))
    return Artefact(f"{listed.name}.img{SUFFIX[fmt]}", fmt, extents, known.xxh3, formats, int(listed.created))


def make(dest: Path, fmt: str) -> None:
    """Bring the build in `dest` into another form. Raises WwfastError."""
    if fmt not in FORMATS:
        raise WwfastError(f"no image is brought into the form {fmt!r}", hint=f"there are {', '.join(FORMATS)}")
    listed = manifest.read(dest)
    source = next((form for form in SOURCES if form in listed.formats), None)
    if source is None:
        raise WwfastError(f"{dest} holds nothing to make {fmt} of")
    body, new = dest / f"also-{fmt}", dest / f".also-{fmt}.new"
    digest = xxhash.xxh3_128()
    try:
        with new.open("wb") as out:
            for data in _member(_raw(dest, listed, source)) if fmt == GZ else _raw(dest, listed, source):
                out.write(data)
                digest.update(data)
        files.sync(new)
        new.rename(body)
        facts = body.stat()
        known = Derived(facts.st_size, facts.st_mtime_ns, digest.hexdigest())
        files.replace(body.with_suffix(".json"), msgspec.json.encode(known))
    except OSError as error:
        raise WwfastError(f"cannot bring image {listed.name} into the form {fmt}: {error.strerror}") from error
    finally:
        new.unlink(missing_ok=True)


def _raw(dest: Path, listed: manifest.Manifest, source: str) -> Iterator[bytes]:
    """The archive, bit by bit. Raises WwfastError where it does not unpack."""
    member: Callable[[bytes], bytes] = zlib.decompressobj(31).decompress
    for piece in listed.formats[source].pieces:
        frame: Callable[[bytes], bytes] = zstandard.ZstdDecompressor().decompressobj().decompress
        unpack = {RAW: bytes, GZ: member, ZST: frame}[source]
        try:
            for data in files.read_part(dest / piece.file, piece.offset, piece.length):
                yield unpack(data)
        except (zlib.error, zstandard.ZstdError) as error:
            hint = f"build it again: wwfast image build {listed.name} --full"
            raise WwfastError(f"{dest / piece.file} is damaged: {error}", hint=hint) from error


def _member(raw: Iterator[bytes]) -> Iterator[bytes]:
    """One gzip member, brought to a multiple of 4 bytes, as Linux wants what follows it, by empty blocks."""
    head, made = frames.gz_head(0), []
    length = len(head) + len(TAIL)
    yield head
    for data in raw:
        for at in range(0, len(data), CHUNK):
            piece = frames.piece(data[at : at + CHUNK])
            made.append((piece.crc, piece.length))
            length += len(piece.data)
            yield piece.data
    yield EMPTY * (-length % 4) + frames.gz_tail(*frames.combine(made))
