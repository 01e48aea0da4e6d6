"""What a build keeps for nodes that boot by Warewulf's dracut module: of each kernel the initramfs in the image.

It is a copy, as that of the kernel: an image that is changed meanwhile, or leaves out /boot, boots as it was built.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from wwfast.archive.artefact import RAW, Artefact, Extent
from wwfast.errors import WwfastError
from wwfast.images.kernels import initramfs
from wwfast.images.kernels.detect import Kernel
from wwfast.images.kernels.initramfs import Module
from wwfast.system import files, within

PLACE = "initramfs"  # of a build


class InitramfsInfo(msgspec.Struct, frozen=True):
    """`path` in the image; `file` below PLACE, of `size` bytes and with a digest (hex); `kernel` is the release of the
    one it is for, or its version; `module`, `unread` and `programs` as in kernels.initramfs.Module."""

    path: str
    file: str
    kernel: str
    size: int
    digest: str
    mtime: int
    module: str
    unread: str = ""
    programs: list[str] | None = None


Kept = Sequence[InitramfsInfo]


@dataclass(frozen=True)
class Own:
    """What a tree has of them, None where nobody asked; `former` is the build that is served, which has `kept`."""

    tree: Path
    found: list[InitramfsInfo] | None
    former: Path | None
    kept: Kept | None

    @property
    def same(self) -> bool:
        return self.found in (None, self.kept)

    def keep(self, place: Path) -> list[InitramfsInfo] | None:
        """Copy them, or share what the former build has of the same content. Raises WwfastError where one changed since
        it was looked at."""
        if not self.found:
            return self.found
        place.mkdir(mode=0o755)
        known = {each.digest: each for each in self.kept or ()}
        for each in self.found:
            before, copy = known.get(each.digest), place / each.file
            if self.former is None or before is None or not _linked(self.former / PLACE / before.file, copy):
                self._copy(each, copy)
        files.sync(place)
        return self.found

    def _copy(self, each: InitramfsInfo, copy: Path) -> None:
        source = within.resolve(self.tree, each.path)
        if source is not None:
            shutil.copyfile(source, copy)
        if source is None or files.digest(copy) != each.digest:
            raise WwfastError(f"{each.path} changed while the image was built", hint="build it again")
        files.sync(copy)


def look(tree: Path, kernels: Iterable[Kernel], former: Path | None, kept: Kept | None, *, wanted: bool) -> Own:
    """Of these kernels, where nodes boot by the module (`wanted`) or the tree has it. Raises OSError."""
    if not wanted and not initramfs.carried(tree):
        return Own(tree, None, former, kept)
    known = {each.digest: each for each in kept or () if not each.unread and each.programs is not None}
    made = dict[str, InitramfsInfo]()
    for kernel in kernels:
        name = kernel.release or kernel.version
        one = initramfs.find(tree, kernel) if name and not kernel.unwanted and name not in made else None
        if one is None:
            continue
        facts, digest = one.file.stat(), files.digest(one.file)
        before = known.get(digest)
        module = initramfs.examine(one.file) if before is None else Module(before.module, programs=before.programs)
        file = f"{len(made)}-{one.path.rpartition('/')[2]}"
        made[name] = InitramfsInfo(one.path, file, name, facts.st_size, digest, int(facts.st_mtime), *module)
    return Own(tree, list(made.values()), former, kept)


def _linked(former: Path, copy: Path) -> bool:
    try:
        os.link(former, copy)
    except OSError:  # removed meanwhile, or has as many links as can be
        return False
    return True


def artefacts(place: Path, kept: Kept) -> dict[str, Artefact]:
    """What is served, by kernel. Raises WwfastError for a file that is not there any more."""
    made = {}
    for each in kept:
        file, name = place / each.file, each.path.rpartition("/")[2]
        if not file.is_file() or file.stat().st_size != each.size:
            raise WwfastError(f"{file} is not what was built", hint="wwfast image build --force")
        extents = (Extent(str(file), 0, each.size),)
        made[each.kernel] = Artefact(name, RAW, extents, each.digest, (RAW,), each.mtime)
    return made


def damage(place: Path, kept: Kept) -> str | None:
    """Read them and compare them with their digests: what is wrong, or None."""
    for each in kept:
        try:
            if files.digest(place / each.file) != each.digest:
                return f"{place / each.file} is damaged: it is not what was built"
        except OSError as error:
            return f"{place / each.file} cannot be read: {error.strerror}"
    return None
