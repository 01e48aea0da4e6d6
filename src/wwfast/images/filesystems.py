"""An image as a file system that is mounted as it is: squashfs or erofs, made from its tree by the programs for that.

The file never changes; nodes fetch it in pieces, whose digests are in a list beside it, and the digest of the list is
in the script of the boot.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from wwfast.archive.artefact import EROFS, PIECES, SQUASHFS, Artefact, Extent
from wwfast.errors import WwfastError
from wwfast.pack import excludes as rules
from wwfast.system import files

if TYPE_CHECKING:
    from wwfast.pack.manifest import Manifest

PLACE = "roots"  # of a build
PIECE = 8 << 20  # bytes: two of them are in memory beside the image, and a broken one is fetched again
PACKAGES = {SQUASHFS: ("mksquashfs", "squashfs-tools"), EROFS: ("mkfs.erofs", "erofs-utils")}
#: One of an image's own would make two builds of one tree differ.
UUID = "77777766-6173-7400-0000-000000000000"

SUPERBLOCK, CHECKSUMMED = 1024, 1


class FilesystemInfo(msgspec.Struct, frozen=True):
    """`size` in bytes; SHA-256 of the list of its pieces, which has theirs."""

    size: int
    pieces: str


def lost(kinds: Collection[str], packed: Manifest) -> str:
    """What file systems of these kinds cannot hold of the tree that was packed; "" where they hold all of it."""
    if SQUASHFS not in kinds or not packed.acls:  # its attributes are user., trusted. and security. (squashfs_fs.h)
        return ""
    names = ", ".join(f"/{name}" for name in packed.acls_first)
    more = ", ..." if packed.acls > len(packed.acls_first) else ""
    return f"squashfs holds no POSIX ACLs, which {packed.acls} names have ({names}{more}); erofs and tmpfs do"


@contextmanager
def making(
    tree: Path, place: Path, kinds: Sequence[str], excludes: Sequence[str], level: int
) -> Iterator[Callable[[], dict[str, FilesystemInfo]]]:
    """The new directory `place` with those of `kinds`: the first is made while the body does something else, what is
    yielded waits for it and makes the others. Both raise WwfastError."""
    if not kinds:
        yield dict
        return
    from wwfast.system.run import LONG, beside  # not for `image list`

    place.mkdir()
    first, *others = kinds
    with beside(
        command(tree, place / first, first, excludes, level), timeout=LONG, package=PACKAGES[first][1]
    ) as ended:

        def made() -> dict[str, FilesystemInfo]:
            ended()
            found = {first: _finished(place / first, first)}
            found |= {kind: make(tree, place, kind, excludes=excludes, level=level) for kind in others}
            files.sync(place)
            return found

        yield made


def make(tree: Path, place: Path, kind: str, *, excludes: Sequence[str] = (), level: int = 3) -> FilesystemInfo:
    """Write `place`/KIND and `place`/KIND.pieces. `excludes` beside the rules of the tree; `level` on zstd's scale, of
    squashfs. Raises WwfastError."""
    from wwfast.system.run import LONG, run

    run(command(tree, place / kind, kind, excludes, level), timeout=LONG, package=PACKAGES[kind][1])
    return _finished(place / kind, kind)


def _finished(file: Path, kind: str) -> FilesystemInfo:
    if kind == EROFS:
        _timeless(file)
    return listed(file)


def command(tree: Path, file: Path, kind: str, excludes: Sequence[str] = (), level: int = 3) -> list[str | Path]:
    """What makes it, as for `make`."""
    lines = [line.strip().strip("/") for line in (*rules.read(tree), *excludes)]
    wanted = [line for line in lines if line and rules.well_formed(line)]
    words = _squashfs(tree, file, wanted, level) if kind == SQUASHFS else _erofs(tree, file, wanted)
    return [PACKAGES[kind][0], *words]


def _squashfs(tree: Path, file: Path, excludes: Sequence[str], level: int) -> list[str | Path]:
    # One time for the file system itself, so that the same tree is the same file. Of 335 MB: level 3 makes 82 MB in
    # 3.5 s, 6 makes 79 in 8, 9 makes 77 in 16 (mksquashfs 4.5.1, two cores).
    # Without -exit-on-error a file that cannot be read would be an empty one.
    always = "-noappend -no-progress -quiet -exit-on-error -xattrs -one-file-system -mkfs-time 0 -comp zstd -b 256K"
    options = [*always.split(), "-Xcompression-level", str(level), "-processors", str(os.cpu_count() or 1)]
    words: list[str | Path] = [tree, file, *options]
    return [*words, "-wildcards", "-e", *excludes] if excludes else words


def _erofs(tree: Path, file: Path, excludes: Sequence[str]) -> list[str | Path]:
    # lz4 is what the kernels of this year's distributions read (6.1 to 6.12), 64 KiB what makes it small.
    words: list[str | Path] = ["-zlz4hc", "-C65536", "-U", UUID, "--preserve-mtime", "--quiet"]
    return [*words, *(f"--exclude-regex=^{_regex(rule)}$" for rule in excludes), file, tree]


def _timeless(file: Path) -> None:
    """The same tree is the same file: without the time at which it was made, and the checksum that holds it (struct
    erofs_super_block: checksum at 4, feature_compat at 8, build_time and its nanoseconds at 24)."""
    with file.open("r+b") as out:
        out.seek(SUPERBLOCK)
        head = bytearray(out.read(36))
        head[4:8] = bytes(4)
        head[8] &= ~CHECKSUMMED & 0xFF
        head[24:36] = bytes(12)
        out.seek(SUPERBLOCK)
        out.write(head)


def _regex(rule: str) -> str:
    """A rule in POSIX extended syntax: a star does not cross a slash."""
    made = re.sub(r"[.+^${}()|]", r"\\\g<0>", re.sub(r"\[\^", "[!", rule))
    return made.replace("[!", "[^").replace("*", "[^/]*").replace("?", "[^/]")


def listed(file: Path) -> FilesystemInfo:
    """Write the list of its pieces beside it; the disk writes the file while it is read for that."""
    from concurrent.futures import ThreadPoolExecutor

    file.chmod(0o444)
    beside = file.with_name(file.name + PIECES)
    with ThreadPoolExecutor(1) as other:
        written = other.submit(files.sync, file)
        text = b"".join(_pieces(file))
        beside.write_bytes(text)
        beside.chmod(0o444)
        files.sync(beside)
        written.result()
    return FilesystemInfo(file.stat().st_size, hashlib.sha256(text).hexdigest())


def _pieces(file: Path) -> Iterator[bytes]:
    """A line for each, read on all cores."""
    from concurrent.futures import ThreadPoolExecutor

    def line(start: int) -> bytes:
        piece, length = hashlib.sha256(), 0
        for data in files.read_part(file, start, PIECE):
            piece.update(data)
            length += len(data)
        return f"{length} {piece.hexdigest()}\n".encode()

    with ThreadPoolExecutor(os.cpu_count()) as cores:
        yield from cores.map(line, range(0, file.stat().st_size, PIECE))


def damage(place: Path, found: Mapping[str, FilesystemInfo]) -> str | None:
    """Read them and compare them with their digests: what is wrong, or None."""
    for kind, info in found.items():
        file, beside = place / kind, place / (kind + PIECES)
        try:
            wanted, there = beside.read_bytes(), b"".join(_pieces(file))
        except OSError as error:
            return f"{error.filename or file} cannot be read: {error.strerror}"
        if hashlib.sha256(wanted).hexdigest() != info.pieces:
            return f"{beside} is damaged: it is not what was built"
        if there != wanted:
            return f"{file} is damaged: it is not what was built"
    return None


def _digest(info: FilesystemInfo) -> str:
    """Of the file: another one than that of its list, by which it is as good as named."""
    return hashlib.sha256(info.pieces.encode()).hexdigest()


def artefacts(place: Path, name: str, found: Mapping[str, FilesystemInfo], created: int) -> dict[str, Artefact]:
    """What is served of it: the file systems, and the lists of their pieces, by what a node asks for."""
    made = {}
    for kind, info in found.items():
        file = place / kind
        beside = file.with_name(kind + PIECES)
        made[kind] = Artefact(
            f"{name}.{kind}", kind, (Extent(str(file), 0, info.size),), _digest(info), (kind,), created
        )
        try:
            length = beside.stat().st_size
        except OSError as error:
            raise WwfastError(
                f"cannot read {beside}: {error.strerror}", hint=f"wwfast image build --force {name}"
            ) from error
        extents = (Extent(str(beside), 0, length),)
        made[kind + PIECES] = Artefact(f"{name}.{kind}{PIECES}", kind, extents, info.pieces, (kind,), created)
    return made
