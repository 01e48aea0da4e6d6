"""An image as an archive that stage-1 unpacks into a tmpfs: in what form it can, and what is served of it.

The frames are the packer's (pack.tar); here is the list of them, by which a node checks each before it unpacks it.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from pathlib import Path

import msgspec

from wwfast.archive.artefact import ARCHIVES, PIECES, TAR_GZ, TAR_ZST, TMPFS, Artefact, Extent
from wwfast.errors import WwfastError
from wwfast.pack.manifest import Manifest
from wwfast.system import files, within

#: Bytes of a tree in memory from which it is made without being asked for: half of 2 GiB is what a kernel's initramfs
#: can have there, and the packed image lies beside that. Smaller trees fit any server in one stage.
FROM = 768 << 20
PLACES = ("/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin", "/sbin")
#: What stage-1 unpacks by, the faster one first.
PROGRAMS = {TAR_ZST: ("tar", "head", "zstd"), TAR_GZ: ("tar", "head", "gzip")}
#: What is in GNU tar and in no other: busybox's and bsdtar lack the options that stage-1 needs.
GNU = b"delay-directory-restore"


class ArchiveInfo(msgspec.Struct, frozen=True):
    """`form` is one of ARCHIVES; SHA-256 of the list of its pieces; bytes of holes, which take no memory."""

    form: str
    pieces: str
    holes: int = 0


def from_size(memory: int) -> int:
    """Bytes of a tree from which it is made; `memory` is that of the smallest machine known to boot it, MiB, or 0: in
    one stage that holds the tree twice, and the packed image, which is two fifths of it or less."""
    return min(FROM, (memory << 20) * 5 // 12) if memory else FROM


def form(tree: Path) -> str:
    """What the programs of an image unpack, "" where they cannot."""
    return next((fmt for fmt, programs in PROGRAMS.items() if all(_has(tree, program) for program in programs)), "")


def lacks(tree: Path) -> list[str]:
    """The programs that are missing; tar is, too, where there is another one than GNU's."""
    return [program for program in PROGRAMS[TAR_GZ] if not _has(tree, program)]


def listed(image: Path, packed: Manifest) -> ArchiveInfo | None:
    """Write the list of the pieces beside what was packed, where that has an archive: length, SHA-256, and a plus where
    it is unpacked together with the next one."""
    fmt = next((fmt for fmt in ARCHIVES if fmt in packed.formats), None)
    if fmt is None:
        return None
    made = packed.formats[fmt]
    ends = set(itertools.accumulate(made.parts))
    lines = (
        f"{piece.length} {piece.sha256}{'' if number in ends else ' +'}\n"
        for number, piece in enumerate(made.pieces, start=1)
    )
    text = "".join(lines).encode()
    beside = image / (TMPFS + PIECES)
    beside.write_bytes(text)
    beside.chmod(0o444)
    files.sync(beside)
    return ArchiveInfo(fmt, hashlib.sha256(text).hexdigest(), packed.holes)


def damage(image: Path, found: ArchiveInfo | None) -> str | None:
    """Whether the list is what was written: what is wrong, or None."""
    if found is None:
        return None
    beside = image / (TMPFS + PIECES)
    try:
        right = hashlib.sha256(beside.read_bytes()).hexdigest() == found.pieces
    except OSError as error:
        return f"{beside} cannot be read: {error.strerror}"
    return None if right else f"{beside} is damaged: it is not what was built"


def artefacts(image: Path, packed: Artefact | None, found: ArchiveInfo | None) -> dict[str, Artefact]:
    """What is served of it, by what a node asks for. Raises WwfastError."""
    if found is None or packed is None:
        return {}
    beside = image / (TMPFS + PIECES)
    try:
        length = beside.stat().st_size
    except OSError as error:
        name = packed.name.partition(".img")[0]
        raise WwfastError(
            f"cannot read {beside}: {error.strerror}", hint=f"wwfast image build --force {name}"
        ) from error
    extents, name = (Extent(str(beside), 0, length),), packed.name + PIECES
    list_ = Artefact(name, TMPFS, extents, found.pieces, (TMPFS,), packed.mtime)
    return {TMPFS: packed, TMPFS + PIECES: list_}


def _has(tree: Path, program: str) -> bool:
    real = (within.resolve(tree, f"{place}/{program}") for place in PLACES)
    there = next((each for each in real if each is not None and each.is_file() and os.access(each, os.X_OK)), None)
    return there is not None and (program != "tar" or GNU in there.read_bytes())
