"""What a part of stage-1 rests on: where it looked in a tree, what was there, and what the files held."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import xxhash

from wwfast.errors import WwfastError
from wwfast.pack import manifest
from wwfast.pack.engine import trusted_before
from wwfast.system import files, records, within

FILE = "rests"  # beside the packed part
DIGEST = 16  # bytes of XXH3 before the record
LARGEST = 512 << 20  # bytes of a file in stage-1: no program or driver has that many


class UnfitError(WwfastError):
    """A file of the tree is none that stage-1 could be made of."""


class File(msgspec.Struct, frozen=True, array_like=True):
    """`stamp` is inode, time of change and of the inode in ns, () where it may change without a trace in these."""

    size: int
    mode: int
    digest: str
    stamp: tuple[int, ...]


class Rests(msgspec.Struct, frozen=True):
    """`recipe` is how it was made, `there` and `idle` what came of it (see `making`); paths are inside the tree.

    `real` has the file that each path led to, "" where it led nowhere; `matched` what each pattern did.
    """

    recipe: str
    there: list[str]
    idle: list[str]
    real: dict[str, str]
    matched: dict[str, list[str]]
    files: dict[str, File]


class Look:
    """A tree that is looked at by name; what was looked for is kept."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._real: dict[str, str] = {}
        self._matched: dict[str, list[str]] = {}
        self._files: dict[str, File] = {}
        self._trusted = trusted_before()

    def resolve(self, path: str) -> Path | None:
        """As within.resolve."""
        found = within.resolve(self.root, path)
        self._real[path] = _inside(self.root, found)
        return found

    def matching(self, pattern: str) -> Iterator[str]:
        """As within.matching."""
        found = self._matched[pattern] = list(within.matching(self.root, pattern))
        return iter(found)

    def uses(self, real: Path) -> None:
        """The content of this file of the tree is in the part, or decides what is. Raises UnfitError for a device, a
        fifo and what is too large, OSError of reading."""
        name = _inside(self.root, real)
        if name in self._files:
            return
        status = real.lstat()
        if not stat.S_ISREG(status.st_mode):
            raise UnfitError(f"{name} of the image is no regular file")
        if status.st_size > LARGEST:
            raise UnfitError(f"{name} of the image is too large for stage-1: {status.st_size >> 20} MiB")
        self._files[name] = _examined(real, self._trusted)

    def copy(self, real: Path, copy: Path) -> None:
        """The digest first: of what is replaced meanwhile it is another than the file's, and the part is made again.
        Raises as `uses`, and OSError of writing."""
        self.uses(real)
        shutil.copy2(real, copy)

    def rests(self, recipe: str, there: list[str], idle: list[str]) -> Rests:
        return Rests(recipe, there, idle, self._real, self._matched, self._files)


def write(place: Path, rests: Rests) -> None:
    """Into the directory of the part, whose manifest it vouches for, and both to the disk."""
    body = records.encode(rests)
    (place / FILE).write_bytes(_digest(place, body) + body)
    files.sync(place / FILE)
    files.sync(place)


def read(place: Path) -> Rests | None:
    """None where there is none, or it or the manifest is damaged."""
    try:
        data = (place / FILE).read_bytes()
        body = data[DIGEST:]
        return records.decode(body, Rests) if data[:DIGEST] == _digest(place, body) else None
    except (OSError, msgspec.MsgspecError):
        return None


def damage(place: Path) -> str | None:
    """What is wrong with the record of a part that is whole, or None."""
    try:
        (place / FILE).read_bytes()
    except OSError as error:
        return f"{place / FILE} cannot be read: {error.strerror}"
    return None if read(place) else f"{place / FILE} is damaged: it is not what was built"


def _digest(place: Path, body: bytes) -> bytes:
    return xxhash.xxh3_128_digest((place / manifest.FILE).read_bytes() + body)


def renewed(rests: Rests, root: Path) -> Rests | None:
    """With the stamps that the files of the tree have now; None where it would come out otherwise."""
    trusted = trusted_before()
    if any(_inside(root, within.resolve(root, path)) != real for path, real in rests.real.items()):
        return None
    if any(list(within.matching(root, pattern)) != found for pattern, found in rests.matched.items()):
        return None
    now_there = {}
    for name, was in rests.files.items():
        now = _same(root / name.lstrip("/"), was, trusted)
        if now is None:
            return None
        now_there[name] = now
    return msgspec.structs.replace(rests, files=now_there)


def _same(file: Path, was: File, trusted: int) -> File | None:
    try:
        status = file.lstat()
        if was.stamp and (status.st_size, status.st_mode, _stamp(status)) == (was.size, was.mode, was.stamp):
            return was
        now = _examined(file, trusted) if (status.st_size, status.st_mode) == (was.size, was.mode) else None
    except OSError:
        return None
    return now if now is not None and now.digest == was.digest else None


def _examined(file: Path, trusted: int) -> File:
    digest = xxhash.xxh3_128()
    with file.open("rb", buffering=0) as stream:
        status = os.fstat(stream.fileno())
        while data := stream.read(1 << 20):
            digest.update(data)
    settled = max(status.st_mtime_ns, status.st_ctime_ns) < trusted
    return File(status.st_size, status.st_mode, digest.hexdigest(), _stamp(status) if settled else ())


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return status.st_ino, status.st_mtime_ns, status.st_ctime_ns


def _inside(root: Path, real: Path | None) -> str:
    return "" if real is None else f"/{real.relative_to(root)}"


#: What fills a tree from what it looks at; -> what came of it, and the rules that matched nothing.
Fill = Callable[[Look, Path], tuple[list[str], list[str]]]
