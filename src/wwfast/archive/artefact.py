"""Artefact: what every transfer to a node sends, prebuilt and immutable.

An artefact is an ordered list of extents of files plus a digest. It is published by rename and never changes:
a rebuild publishes another one, and transfers under way keep reading the old files through their open
descriptors. Serving one is headers, then one sendfile per extent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from wwfast.config.checks import MOUNTED

RAW, ZST, GZ = "raw", "zst", "gz"
FORMATS = (RAW, ZST, GZ)
#: Forms of an image that stage-1 unpacks, which keep what newc cannot: attributes, holes, files over 4 GiB.
TAR_ZST, TAR_GZ = "tar.zst", "tar.gz"
ARCHIVES = (TAR_ZST, TAR_GZ)
TMPFS = "tmpfs"  # by what a node asks for that form of its image which its programs unpack
DISK = "disk"  # the same form, where stage-1 unpacks it on a disk
SUFFIX = {RAW: "", ZST: ".zst", GZ: ".gz", TAR_ZST: ".tar.zst", TAR_GZ: ".tar.gz"}
#: Forms of an image that are mounted, and not unpacked.
SQUASHFS, EROFS = FILESYSTEMS = MOUNTED
PIECES = ".pieces"  # behind the name of a file system or archive: the list of its pieces, `LENGTH SHA256` a line


class Extent(NamedTuple):
    """`length` bytes at `offset` of the file `path`."""

    path: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Artefact:
    """One published body in one format.

    `name` is what the status table shows as sent (`debian.img.zst`); `digest` identifies the content (hex) and
    is the ETag; `formats` are all the formats in which the same content was published; `mtime` is the time of
    publication in seconds.
    """

    name: str
    format: str
    extents: tuple[Extent, ...]
    digest: str
    formats: tuple[str, ...]
    mtime: int

    @property
    def size(self) -> int:
        return sum(extent.length for extent in self.extents)

    def parts(self, lengths: Iterable[int]) -> Iterator[tuple[Extent, ...]]:
        """Where pieces of so many bytes lie that stand one behind the other. Raises ValueError beyond its end."""
        left = list(reversed(self.extents))
        for length in lengths:
            found: list[Extent] = []
            while length:
                if not left:
                    raise ValueError(f"{self.name} has {self.size} bytes")
                path, offset, size = left.pop()
                taken = min(size, length)
                found.append(Extent(path, offset, taken))
                if taken < size:
                    left.append(Extent(path, offset + taken, size - taken))
                length -= taken
            yield tuple(found)

    def before(self, other: Artefact) -> Artefact:
        """Both as one: a kernel unpacks archives that stand one behind the other."""
        digest = hashlib.sha256(f"{self.digest} {other.digest}".encode()).hexdigest()
        extents, mtime = self.extents + other.extents, max(self.mtime, other.mtime)
        return Artefact(self.name, self.format, extents, digest, (self.format,), mtime)

    @property
    def etag(self) -> str:
        return f'"{self.digest}"'
