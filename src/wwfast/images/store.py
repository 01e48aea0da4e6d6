"""The images of this server: where each one's tree is, and which build of it is served.

    chroots/NAME/rootfs/            the tree an admin changes (ours, or read-only that of an existing Warewulf)
    images/NAME/BUILD/              one build: image/ (packed), kernels/ (copies), info.json
    images/NAME/current -> BUILD    what nodes get; flipped by rename

A build holds the kernels that were in the tree when it was packed, so kernel and modules of a node always match,
whatever happens to the tree meanwhile.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from wwfast.archive.artefact import GZ, ZST, Artefact
from wwfast.errors import NotFoundError, WwfastError, cause
from wwfast.images import archives, dracut, filesystems, names
from wwfast.images.archives import ArchiveInfo
from wwfast.images.dracut import InitramfsInfo
from wwfast.images.filesystems import FilesystemInfo
from wwfast.images.kernels import detect
from wwfast.images.kernels.detect import Kernel
from wwfast.paths import Paths
from wwfast.system import records, within

if TYPE_CHECKING:
    from wwfast.pack.manifest import Manifest

CURRENT = "current"
ADOPT = "take it over, under the same name: wwfast image adopt {}"
Stamp = tuple[int, int]
MACHINES = {3: "386", 40: "arm", 62: "amd64", 183: "arm64", 21: "ppc64le", 22: "s390x", 243: "riscv64"}


class KernelInfo(msgspec.Struct, frozen=True):
    path: str
    file: str  # name below kernels/
    version: str
    release: str
    zstd: bool
    aside: bool = False


class BuildInfo(msgspec.Struct, frozen=True):
    """What a build knows beside its packed tree. `symlinks` are paths in file system encoding (surrogate escapes)."""

    created: int
    kernels: list[KernelInfo]
    symlinks: list[str]
    arch: str
    sizes: dict[str, int]  # bytes by format
    unpacked: int = 0  # bytes of the tree in memory; 0 in builds of earlier versions
    without: list[str] = []  # releases of kernels that are there, and their modules are not
    roots: dict[str, FilesystemInfo] = {}  # file systems made of the tree, by kind
    archive: ArchiveInfo | None = None  # the form that stage-1 unpacks
    stage1: dict[str, list[str]] = {}  # by release of a kernel: the file systems that its stage-1 mounts
    script: str = ""  # which stage-1 is in it (images.stage1.programs.script)
    recipe: str = ""  # all that decides how it comes out (images.stage1.making.recipe)
    initramfs: list[InitramfsInfo] | None = None  # the image's own; None where they were not looked for


@dataclass(frozen=True)
class Build:
    """One published build; nothing in it ever changes."""

    image: str
    path: Path

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def info(self) -> BuildInfo:
        return _info(self.path, self.stamp)

    @property
    def stamp(self) -> Stamp:
        """Tells it from another one at its place: of an image that is made again, after the clock was set back."""
        try:
            found = (self.path / "info.json").stat()
        except OSError:
            return (0, 0)
        return found.st_ino, found.st_ctime_ns

    @cached_property
    def kernels(self) -> list[Kernel]:
        place = self.path / "kernels"
        return [Kernel(k.path, place / k.file, k.version, k.release, k.zstd, k.aside) for k in self.info.kernels]

    @cached_property
    def symlinks(self) -> frozenset[str]:
        return frozenset(self.info.symlinks)

    def manifest(self) -> Manifest:
        return _manifest(self.path, self.stamp)

    def artefact(self, fmt: str) -> Artefact | None:
        """In a form that it was built in, or was brought into later."""
        from wwfast.pack import derive

        return _artefact(self.path, self.stamp, fmt) or derive.load(self.path / "image", fmt)

    def roots(self) -> dict[str, Artefact]:
        """What stage-1 makes a root of, and the lists of its pieces, by what a node asks for. Raises WwfastError."""
        info, place = self.info, self.path / "image"
        packed = _artefact(self.path, self.stamp, info.archive.form) if info.archive else None
        made = filesystems.artefacts(self.path / filesystems.PLACE, self.image, info.roots, info.created)
        return made | archives.artefacts(place, packed, info.archive)

    def stage1(self, release: str) -> Artefact | None:
        """What a kernel of it starts where it does not unpack the image itself."""
        from wwfast.images.stage1 import making

        return making.load(self.path, release) if release in self.info.stage1 else None

    def initramfs(self) -> dict[str, Artefact]:
        """The image's own, by kernel. Raises WwfastError."""
        return dracut.artefacts(self.path / dracut.PLACE, self.info.initramfs or ())

    def programs(self) -> dict[str, Artefact]:
        """What stands before the drivers of a kernel that is kept apart, by format."""
        from wwfast.images.stage1 import making

        return making.programs_of(self.path)

    def prepares_disks(self) -> bool:
        """Whether these have what disks take."""
        from wwfast.images.stage1 import making

        return making.able(self.path)

    def derive(self, fmt: str) -> None:
        """Bring it into another form. For a thread; raises WwfastError."""
        from wwfast.pack import derive

        derive.make(self.path / "image", fmt)

    def damage(self) -> str | None:
        """Read all that is served and compare it with its digests: what is wrong, or None."""
        from wwfast.images.stage1 import making
        from wwfast.pack.build import damaged
        from wwfast.pack.manifest import read

        place, roots = self.path / "image", self.path / filesystems.PLACE
        packed = damaged(place, read(place)) or archives.damage(place, self.info.archive)
        packed = packed or dracut.damage(self.path / dracut.PLACE, self.info.initramfs or ())
        return packed or filesystems.damage(roots, self.info.roots) or making.damage(self.path, self.info.stage1)

    def differences(self, tree: Path) -> list[str]:
        """Read a tree and compare it with what was packed: lines that say where it differs. Raises WwfastError."""
        from wwfast.pack.verify import differences

        return differences(self.path / "image", tree)


class Image:
    """One image as asked for by name: its tree and the build that nodes get (pinned, else the current one)."""

    def __init__(self, name: str, rootfs: Path, build: Build | None, *, own: bool, pinned: bool) -> None:
        self.name = name
        self.rootfs = rootfs
        self.build = build
        self.own = own
        self.pinned = pinned

    @property
    def reference(self) -> str:
        return f"{self.name}@{self.build.id}" if self.pinned and self.build else self.name

    @property
    def readonly(self) -> bool:
        """Marked by a file named `readonly` beside the tree, or not ours to write."""
        return not self.own or (self.rootfs.parent / "readonly").exists()

    def require_own(self) -> None:
        """Raises WwfastError for an image of an existing Warewulf, which is only read."""
        if not self.own:
            raise WwfastError(
                f"image {self.name} belongs to {self.rootfs.parent}, which is only read", hint=ADOPT.format(self.name)
            )

    def kernels(self) -> list[Kernel]:
        """Those of the served build; before the first build, those of the tree."""
        return self.build.kernels if self.build else detect.kernels(self.rootfs)

    def default_kernel(self) -> Kernel | None:
        return detect.default(self.kernels())

    @property
    def boot_format(self) -> str:
        """zst where every kernel that may be chosen unpacks it, else gz."""
        usable = [k for k in self.kernels() if not k.unwanted]
        return ZST if usable and all(k.zstd for k in usable) else GZ

    @property
    def without(self) -> Sequence[str]:
        """Releases of its kernels whose modules were left out of the served build."""
        return self.build.info.without if self.build else ()

    def manifest(self) -> Manifest | None:
        return self.build.manifest() if self.build else None

    def artefact(self, fmt: str) -> Artefact | None:
        """The packed image in one format; None when it was not built in that format."""
        return self.build.artefact(fmt) if self.build else None

    def symlinks(self) -> frozenset[str]:
        """Relative paths of the image that are symbolic links."""
        return self.build.symlinks if self.build else self._links_now

    @cached_property
    def _links_now(self) -> frozenset[str]:
        return frozenset(symlinks(self.rootfs))

    @property
    def arch(self) -> str:
        return self.build.info.arch if self.build else architecture(self.rootfs)

    @property
    def unpacked(self) -> int:
        """Bytes of the tree in memory, in pages; 0 before the first build."""
        return (self.build.info.unpacked or self.build.manifest().unpacked) if self.build else 0

    @property
    def min_ram(self) -> int:
        """Bytes of RAM a node needs to unpack and start it; 0 before the first build."""
        manifest = self.manifest()
        return manifest.least_ram if manifest else 0


class ImageStore:
    """Finds images: our own first, then those of an existing Warewulf."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        self._known: dict[str, tuple[tuple[Any, ...], Image]] = {}

    def names(self) -> list[str]:
        found = set()
        for place in (self.paths.chroots, self.paths.warewulf_chroots):
            try:
                with os.scandir(place) as entries:
                    found |= {entry.name for entry in entries if names.NAME.fullmatch(entry.name)}
            except OSError:
                continue
        return sorted(name for name in found if not name.startswith(".") and self._tree(name) is not None)

    def __iter__(self) -> Iterator[Image]:
        return (self.get(name) for name in self.names())

    def get(self, reference: str) -> Image:
        """The image called NAME or NAME@BUILD; NotFoundError when there is no such image or build.

        Cheap to call for every request: a few stats while nothing changes.
        """
        name, pin = names.split(reference)
        names.check(name)
        rootfs = self._tree(name)
        if rootfs is None:
            close = ", ".join(self.names()[:8]) or "none yet"
            raise NotFoundError(
                f"there is no image {name}",
                hint=f"images here: {close}; import one with: wwfast image import SOURCE {name}",
            )
        build_id = pin if pin is not None else current_id(self.paths, name)
        status = rootfs.stat()
        build = self._build(name, build_id) if build_id else None
        state = (rootfs, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, build_id, build and build.stamp)
        known = self._known.get(reference)
        if known is not None and known[0] == state:
            return known[1]
        if pin is not None and build is None:
            have = ", ".join(b.id for b in self.builds(name)) or "none"
            raise NotFoundError(f"image {name} has no build {pin}", hint=f"builds kept: {have}")
        own = rootfs.is_relative_to(self.paths.chroots)
        image = Image(name, rootfs, build, own=own, pinned=pin is not None)
        self._known[reference] = (state, image)
        return image

    def builds(self, name: str) -> list[Build]:
        """All builds kept, oldest first."""
        place = self.paths.images / name
        if not place.is_dir():
            return []
        found = (self._build(name, entry.name) for entry in sorted(place.iterdir()) if not entry.is_symlink())
        return [build for build in found if build is not None]

    def _build(self, name: str, build_id: str) -> Build | None:
        if "/" in build_id or build_id.startswith("."):
            return None
        path = self.paths.images / name / build_id
        return Build(name, path) if (path / "info.json").is_file() else None

    def _tree(self, name: str) -> Path | None:
        for place in (self.paths.chroots, self.paths.warewulf_chroots):
            rootfs = place / name / "rootfs"
            if rootfs.is_dir():
                return rootfs
        return None


def current_id(paths: Paths, name: str) -> str | None:
    try:
        return str((paths.images / name / CURRENT).readlink())
    except OSError:
        return None


@lru_cache(maxsize=256)
def _info(path: Path, _stamp: Stamp) -> BuildInfo:
    try:
        return records.decode((path / "info.json").read_bytes(), BuildInfo)
    except (OSError, msgspec.DecodeError) as error:
        raise WwfastError(
            f"build {path.name} of image {path.parent.name} cannot be read: {cause(error)}",
            hint=f"build it again: wwfast image build --force {path.parent.name}",
        ) from error


# Builds never change, so neither does what was read from one.
@lru_cache(maxsize=256)
def _manifest(path: Path, _stamp: Stamp) -> Manifest:
    from wwfast.pack.manifest import read

    return read(path / "image")


@lru_cache(maxsize=512)
def _artefact(path: Path, _stamp: Stamp, fmt: str) -> Artefact | None:
    from wwfast.pack.build import load  # the packer's libraries are not for `image list`

    return load(path / "image", fmt)


def symlinks(tree: Path) -> Iterator[str]:
    """Relative paths of all symbolic links of a tree."""
    todo = [""]
    while todo:
        at = todo.pop()
        try:
            entries = os.scandir(os.path.join(tree, at))  # noqa: PTH118 - one per directory of a whole image
        except OSError:
            continue
        with entries:
            for entry in entries:
                if entry.is_symlink():
                    yield at + entry.name
                elif entry.is_dir(follow_symlinks=False):
                    todo.append(f"{at}{entry.name}/")


def architecture(tree: Path) -> str:
    """amd64, arm64 ... by the ELF header of the image's shell or init; "" when neither tells."""
    for path in ("/bin/sh", "/usr/bin/sh", "/sbin/init", "/usr/lib/systemd/systemd"):
        real = within.resolve(tree, path)
        if real is not None and real.is_file():
            with real.open("rb") as stream:
                head = stream.read(20)
            if head[:4] == b"\x7fELF" and len(head) == 20:
                order = "<" if head[5] == 1 else ">"
                return MACHINES.get(struct.unpack_from(order + "H", head, 18)[0], "")
    return ""
