"""Kernels kept apart from images, and the kernel a node gets.

    kernels/NAME/rootfs/boot/   kernel files and their configurations
    kernels/NAME/kmods/         modules, and the firmware they name, packed for the /kmods/ stage
    kernels/NAME/stage1/        for each release the drivers of stage-1

The modules are packed under `lib/modules/` without an entry for `lib` itself: in an image where /lib is a link
they go through it, in one where it is a directory they go there, and the same archive serves both.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from wwfast.archive.artefact import GZ, RAW, ZST, Artefact, Extent
from wwfast.errors import NotFoundError, WwfastError
from wwfast.images import names
from wwfast.images.kernels import detect
from wwfast.images.kernels.detect import Kernel
from wwfast.images.store import ImageStore
from wwfast.paths import Paths
from wwfast.system import files, locks, work

if TYPE_CHECKING:
    from wwfast.nodes.model import Node


@dataclass(frozen=True)
class KernelEntry:
    """One imported kernel; several versions may share the name."""

    name: str
    path: Path
    found: tuple[Kernel, ...]

    def kmods(self, fmt: str) -> Artefact | None:
        from wwfast.pack.build import load  # the packer's libraries are not for `kernel list`

        return load(self.path / "kmods", fmt)

    @property
    def size(self) -> int:
        """Bytes on disk, kernels and packed modules."""
        return sum(file.lstat().st_size for file in self.path.rglob("*") if not file.is_dir())


class KernelStore:
    """The kernels below `paths.kernels`."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        self._known: dict[str, tuple[list[tuple[int, int]], KernelEntry]] = {}

    def names(self) -> list[str]:
        if not self.paths.kernels.is_dir():
            return []
        return sorted(
            entry.name
            for entry in self.paths.kernels.iterdir()
            if not entry.name.startswith(".") and (entry / "rootfs").is_dir()
        )

    def __iter__(self) -> Iterator[KernelEntry]:
        return (self.get(name) for name in self.names())

    def get(self, name: str) -> KernelEntry:
        place = self.paths.kernels / names.check(name, "kernel")
        try:
            found = [(place / "rootfs").stat()]
        except OSError:
            have = ", ".join(self.names()) or "none yet"
            raise NotFoundError(
                f"there is no kernel {name}",
                hint=f"kernels here: {have}; import one with: wwfast kernel import IMAGE {name}",
            ) from None
        with suppress(OSError):
            found.append((place / "rootfs/boot").stat())
        state = [(each.st_ino, each.st_ctime_ns) for each in found]
        known = self._known.get(name)
        if known is None or known[0] != state:
            entry = KernelEntry(name, place, tuple(detect.kernels(place / "rootfs")))
            known = self._known[name] = (state, entry)
        return known[1]

    def import_(
        self,
        source: str,
        name: str,
        *,
        version: str = "",
        force: bool = False,
        strip: bool = False,
        beside: Callable[[Path, Path, Sequence[Kernel]], object] | None = None,
    ) -> KernelEntry:
        """Take the kernels (or the one of `version`) of an image or a directory, with modules and firmware.

        Atomic: an existing kernel of that name is replaced only by a complete new one, and only with `force`.
        `beside` adds to it before it is seen: from the tree, to the place of the kernel, for these.
        """
        from wwfast.images.kernels.modules import gather
        from wwfast.pack.build import build

        names.check(name, "kernel")
        place = self.paths.kernels / name
        if place.exists() and not force:
            raise WwfastError(f"kernel {name} exists already", hint="use --force to replace it")
        root = self._source(source)
        found = [k for k in detect.kernels(root) if not k.unwanted]
        if version:
            one = detect.choose(found, version)
            found = [one] if one else []
        if not found:
            raise NotFoundError(
                f"{source} has no kernel" + (f" {version}" if version else ""),
                hint="looked for /boot/Image-*, /boot/vmlinuz-* and /lib/modules/*/vmlinuz inside it",
            )
        with (
            locks.locked(self.paths.run / "kernels", name, "kernel import"),
            work.directory(self.paths.kernels) as room,
        ):
            new = room / "new"
            new.mkdir(mode=0o755)
            _copy_kernels(root, found, new / "rootfs/boot")
            tree = room / "modules"
            for release in dict.fromkeys(k.release for k in found):
                gather(root, release, tree, strip=strip)
            build(
                tree,
                new / "kmods",
                name=f"{name}.kmods",
                formats=(ZST, GZ),
                skip_dirs=frozenset({"lib"}),
                frames=self.paths.frames,
            )
            if beside is not None:
                beside(root, new, found)
            files.settle(new)
            files.install(new, place)
        return self.get(name)

    def delete(self, name: str, used_by: Collection[str] = ()) -> None:
        """Remove a kernel; refused while nodes or profiles (`used_by`) name it."""
        entry = self.get(name)
        if used_by:
            raise WwfastError(
                f"kernel {name} is used by {', '.join(sorted(used_by)[:8])}",
                hint="give them another with: wwfast node set --kerneloverride NAME NODES",
            )
        with (
            locks.locked(self.paths.run / "kernels", name, "kernel delete"),
            work.directory(self.paths.kernels) as room,
        ):
            entry.path.rename(room / name)
            files.sync(self.paths.kernels)

    def _source(self, source: str) -> Path:
        if "/" not in source and source not in (".", ".."):
            images = ImageStore(self.paths)
            if source in images.names() or not Path(source).is_dir():
                return images.get(source).rootfs
        directory = Path(source)
        if not directory.is_dir():
            raise NotFoundError(f"{source} is neither an image nor a directory", hint="see: wwfast image list")
        return directory.absolute()


@dataclass(frozen=True)
class NodeKernel:
    """What one node boots: the kernel file, and the modules that go with it where it is not the image's own."""

    kernel: Kernel
    entry: KernelEntry | None

    @property
    def version(self) -> str:
        return self.kernel.release or self.kernel.version

    @property
    def artefact(self) -> Artefact:
        return kernel_artefact(self.kernel.file)

    @property
    def boot_format(self) -> str:
        """The format this kernel unpacks best."""
        return ZST if self.kernel.zstd else GZ

    def kmods(self, fmt: str) -> Artefact | None:
        """The modules of an overriding kernel; None where the image's own kernel boots."""
        return self.entry.kmods(fmt) if self.entry else None


def for_node(node: Node, images: ImageStore, kernels: KernelStore) -> NodeKernel:
    """The kernel of a node: see `chosen`. Raises NotFoundError naming node and cause."""
    if not node.kernel.override and not node.image_name:
        raise NotFoundError(
            f"node {node.id} has neither an image nor a kernel", hint=f"wwfast node set --image NAME {node.id}"
        )
    return chosen(f"node {node.id}", node.image_name, node.kernel.override, node.kernel.version, images, kernels)


def chosen(
    whom: str, reference: str, override: str, wanted: str, images: ImageStore, kernels: KernelStore
) -> NodeKernel:
    """What `whom` boots: `override` (`kernel: override`) names an imported kernel, else it comes from the image or the
    build of one that `reference` names.

    `wanted` (`kernel: version`) chooses within it, by path or by prefix. Raises NotFoundError naming cause and `whom`,
    also when the served build of the image has the kernel and not its modules: a system without drivers must not come
    up in silence.
    """
    entry = None
    built = False
    without: Collection[str] = ()
    if override:
        entry = kernels.get(override)
        found, where = list(entry.found), f"kernel {entry.name}"
        see = "wwfast kernel list"
        root = entry.path / "rootfs"
    else:
        image = images.get(reference)
        built = image.build is not None
        found, where, without = image.kernels(), f"image {image.reference}", image.without
        see = f"wwfast image kernels {image.name}"
        root = image.rootfs
    kernel = detect.choose(found, wanted)
    if kernel is None and wanted:
        kernel = detect.by_path(root, wanted)
        if kernel is not None and built:
            raise NotFoundError(
                f"{whom}: kernel {kernel.path} is in the tree of {where}, not in the build that is served",
                hint=f"wwfast image build {image.name}",
            )
    if kernel is None:
        raise NotFoundError(f"{whom}: {where} has no kernel" + (f" {wanted}" if wanted else ""), hint=f"see: {see}")
    if kernel.release in without:
        raise NotFoundError(
            f"{whom}: {where} was built without the modules of kernel {kernel.release}",
            hint=f"wwfast image build {image.name}" + (", and name the new build" if image.pinned else ""),
        )
    return NodeKernel(kernel, entry)


def kernel_artefact(file: Path) -> Artefact:
    """The kernel file as one extent; its digest is computed once while the file stays the same."""
    status = file.stat()
    return _artefact(str(file), status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


@lru_cache(maxsize=1024)
def _artefact(path: str, size: int, mtime_ns: int, ctime_ns: int, inode: int) -> Artefact:
    digest, name = files.digest(Path(path)), os.path.basename(path)  # noqa: PTH119
    return Artefact(name, RAW, (Extent(path, 0, size),), digest, (RAW,), mtime_ns // 10**9)


def _copy_kernels(root: Path, found: Collection[Kernel], boot: Path) -> None:
    boot.mkdir(parents=True)
    for kernel in found:
        name = Path(kernel.path).name
        if not kernel.path.startswith("/boot/"):
            name = f"vmlinuz-{kernel.release}{'.gz' if name.endswith('.gz') else ''}"
        shutil.copyfile(kernel.file, boot / name)
        os.utime(boot / name, ns=(kernel.file.stat().st_mtime_ns,) * 2)
        config = detect.config(root, kernel.release)
        if config is not None:
            shutil.copyfile(config, boot / f"config-{kernel.release}")
