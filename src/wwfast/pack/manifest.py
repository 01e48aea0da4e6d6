"""The manifest of a built image: what it holds, where its bytes lie, and their digests."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import xxhash

from wwfast.archive.artefact import SUFFIX, Artefact, Extent
from wwfast.errors import WwfastError
from wwfast.system import records

FILE = "manifest.json"
VERSION = 1
RESERVE = 192 << 20  # bytes of RAM for the kernel, its page tables and the first processes


class Segment(msgspec.Struct, frozen=True):
    """A run of entries that was packed as one: its first name, its raw bytes, the name of its content (hex)."""

    first: str
    entries: int
    raw: int
    key: str


class Piece(msgspec.Struct, frozen=True, array_like=True):
    """`length` bytes at `offset` of a file beside the manifest, with their digests (hex; raw has no sha256)."""

    file: str
    offset: int
    length: int
    xxh3: str
    sha256: str


class Body(msgspec.Struct, frozen=True):
    """One format of the image. `sha256` and `xxh3` (hex) are taken over the binary digests of the pieces in order,
    so that a rebuild need not read what did not change; raw has no sha256, which would take longer than all the
    rest of packing it. `library` made the bytes. `parts`, of an archive: so many pieces, one after the other, are
    unpacked without the others."""

    bytes: int
    level: int
    library: str
    sha256: str
    xxh3: str
    pieces: list[Piece]
    parts: list[int] = []


class Stamp(msgspec.Struct, frozen=True, array_like=True):
    """Size and time (ns) of a file beside the manifest when it was published."""

    size: int
    mtime_ns: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes are bytes, `created` Unix seconds, `seconds` the duration of the build.

    `unpacked` is what the tree takes in a tmpfs, with the `holes` that its archive leaves out; `least_ram` what a node
    needs to unpack and start it. `entries` counts names in the archive. `reused` and `packed` count segments taken from
    the cache and made anew.
    `acls` are the names that have a POSIX ACL, `acls_first` some of them. `kernels` is for the owner of the image to
    fill.
    """

    version: int = VERSION
    name: str
    tool: str
    tree: str
    created: float
    seconds: float
    entries: int
    raw: int
    unpacked: int
    least_ram: int
    holes: int = 0
    reused: int
    packed: int
    epoch: int | None
    excludes: list[str]
    skip_dirs: list[str]
    kernels: list[str] = []
    warnings: list[str]
    acls: int = 0
    acls_first: list[str] = []
    formats: dict[str, Body]
    segments: list[Segment]
    files: dict[str, Stamp]


def body(pieces: list[Piece], level: int, library: str, parts: list[int]) -> Body:
    sha256 = [bytes.fromhex(piece.sha256) for piece in pieces if piece.sha256]
    return Body(
        bytes=sum(piece.length for piece in pieces),
        level=level,
        library=library,
        sha256=hashlib.sha256(b"".join(sha256)).hexdigest() if sha256 else "",
        xxh3=xxhash.xxh3_128_hexdigest(b"".join(bytes.fromhex(piece.xxh3) for piece in pieces)),
        pieces=pieces,
        parts=parts,
    )


def encode(manifest: Manifest) -> bytes:
    return records.encode(manifest) + b"\n"


def read(dest: Path) -> Manifest:
    """The manifest in `dest`. Raises WwfastError when there is none or it is damaged."""
    try:
        return records.decode((dest / FILE).read_bytes(), Manifest)
    except FileNotFoundError as error:
        raise WwfastError(f"{dest} holds no built image", hint="build it: wwfast image build NAME") from error
    except msgspec.MsgspecError as error:
        raise WwfastError(f"{dest / FILE} is damaged: {error}", hint="build the image again") from error


def artefact(dest: Path, manifest: Manifest, fmt: str) -> Artefact | None:
    """The artefact of one format, None when it was not built; neighbouring pieces become one extent."""
    if (made := manifest.formats.get(fmt)) is None:
        return None
    extents: list[Extent] = []
    for piece in made.pieces:
        path = str(dest / piece.file)
        if extents and extents[-1].path == path and extents[-1].offset + extents[-1].length == piece.offset:
            extents[-1] = extents[-1]._replace(length=extents[-1].length + piece.length)
        else:
            extents.append(Extent(path, piece.offset, piece.length))
    return Artefact(
        name=f"{manifest.name}.img{SUFFIX[fmt]}",
        format=fmt,
        extents=tuple(extents),
        digest=made.sha256 or made.xxh3,
        formats=tuple(sorted(manifest.formats)),
        mtime=int(manifest.created),
    )
