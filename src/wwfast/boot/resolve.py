"""From what lies on the disk to what every node boots with (boot.standing). For a thread: everything here may wait."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from wwfast.archive.artefact import FORMATS, Artefact
from wwfast.boot.loader.script import Scripts
from wwfast.boot.standing import NOBODY, Initramfs, Key, ServedImage, ServedKernel, Standing, key
from wwfast.errors import WwfastError, of_system
from wwfast.images import names
from wwfast.images.kernels.store import KernelStore, chosen
from wwfast.images.stage1 import making, programs
from wwfast.images.store import Build, Image, ImageStore
from wwfast.system.watch import existing
from wwfast.system.within import trail

if TYPE_CHECKING:
    from collections.abc import Callable

    from wwfast.nodes.registry import Snapshot
    from wwfast.paths import Paths

T = TypeVar("T")

#: Where kernels and what belongs to them are looked for in a tree (images.kernels.detect).
KERNEL_PLACES = ("boot/x", "lib/modules/x", "usr/lib/modules/x")


class Resolver:
    """Not thread safe: for one thread at a time.

    Of each image the build that is served is resolved, those that were served before, whose boots are to end with what
    they began with, and those that were asked for: to look at every build there is may be to read them all.
    """

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._images = ImageStore(paths)
        self._kernels = KernelStore(paths)
        self._former: Standing | None = None
        self._kept: set[str] = set()  # builds beside the current ones, as NAME@BUILD
        self._snapshot: Snapshot | None = None
        self._wanted: dict[str, set[Key]] = {}

    @property
    def former(self) -> Standing:
        """What was resolved last. The first one has our scripts, which take 50 ms to compile."""
        if self._former is None:
            self._former = Standing(Scripts(self._paths))
        return self._former

    def resolve(self, snapshot: Snapshot, asked: Iterable[str] = ()) -> Standing:
        """What all nodes boot with now, and `asked`, builds as NAME@BUILD. Never raises for what is wrong with one."""
        wanted = self._wants(snapshot)
        builds: dict[str, tuple[str, ...]] = {}
        images: dict[str, ServedImage | WwfastError] = {}
        kernels: dict[Key, ServedKernel | WwfastError] = {}
        self._kept.update(asked)
        for name, keys in wanted.items():
            if name:
                builds[name] = tuple(_or(lambda name=name: [it.id for it in self._images.builds(name)], []))  # type: ignore[misc]
            there = {f"{name}@{build}" for build in builds.get(name, ())}
            references = {reference for reference, _, _ in keys if reference} | (self._kept & there)
            for reference in references:
                images[reference] = found = self._image(reference)
                if isinstance(found, ServedImage) and found.build in there:
                    self._kept.add(found.build)
            for reference, override, version in keys:
                of_builds = () if override or "@" in reference else self._kept & there
                for each in (reference, *of_builds):
                    kernels[each, override, version] = self._kernel((each, override, version))
        self._kept &= {f"{name}@{build}" for name, found in builds.items() for build in found}
        self._former = Standing(Scripts(self._paths, self.former.scripts), images, kernels, builds)
        return self._former

    def _wants(self, snapshot: Snapshot) -> dict[str, set[Key]]:
        """What the nodes ask for, by name of the image; kernels of no image under ""."""
        if snapshot is not self._snapshot:
            found: dict[str, set[Key]] = {}
            for node in snapshot.nodes.values():
                if node.image_name:
                    at = found.setdefault(names.split(node.image_name)[0], set())
                    at.add((node.image_name, "", node.kernel.version))
                if node.kernel.override:
                    found.setdefault("", set()).add(key(node))
            self._snapshot, self._wanted = snapshot, found
        return self._wanted

    def _image(self, reference: str) -> ServedImage | WwfastError:
        def read() -> ServedImage:
            return served(self._images.get(reference))

        return _attempt(read)

    def _kernel(self, wanted: Key) -> ServedKernel | WwfastError:
        def read() -> ServedKernel:
            found = chosen(NOBODY, *wanted, self._images, self._kernels)
            modules: dict[str, Artefact] = {}
            if found.entry is not None:
                modules = {fmt: made for fmt in FORMATS if (made := found.kmods(fmt)) is not None}
            drivers = found.entry and making.drivers_of(found.entry.path, found.version)
            return ServedKernel(found.version, found.artefact, modules, *(drivers or ()))

        return _attempt(read)

    def places(self, snapshot: Snapshot) -> Iterator[tuple[Path | str, bool]]:
        """Directories in which a change may make a difference: where, and whether what is written in files counts."""
        paths = self._paths
        yield existing(paths.ipxe_templates), True
        yield from ((file, True) for file in self.former.scripts.files())  # which may have other names
        for place in (paths.chroots, paths.warewulf_chroots, paths.images, paths.kernels):
            yield existing(place), False
        for name, keys in self._wants(snapshot).items():
            if not name:
                for _, override, _ in keys:
                    yield from ((paths.kernels / override / part, True) for part in ("", "rootfs", "rootfs/boot"))
                continue
            for place in (paths.chroots, paths.warewulf_chroots, paths.images):
                yield place / name, False
            image = _or(lambda name=name: self._images.get(name), None)  # type: ignore[misc]
            if image is not None and image.build is None:
                yield from ((place, True) for place in _places_of_a_tree(image, keys))


def served(image: Image) -> ServedImage:
    """What nodes get of an image. Raises WwfastError."""
    build = f"{image.name}@{image.build.id}" if image.build else image.name
    artefacts = {fmt: made for fmt in FORMATS if (made := image.artefact(fmt)) is not None}
    sizes = image.min_ram, image.unpacked
    found = ServedImage(image.name, build, image.arch, image.boot_format, *sizes, artefacts)
    return found if image.build is None else _in_two_stages(found, image.build)


def _in_two_stages(image: ServedImage, build: Build) -> ServedImage:
    """With what only nodes need that boot in two stages: others boot without, whatever is wrong with it."""
    ours = build.info.script == programs.script()
    mounts = build.info.stage1 if ours else {}
    found = {release: _or(partial(build.stage1, release), None) for release in mounts}
    stage1 = {release: made for release, made in found.items() if made is not None}
    own: dict[str, Artefact] = _or(build.programs, {}) if ours else {}
    disks = ours and _or(build.prepares_disks, False)
    holes = build.info.archive.holes if build.info.archive else 0
    image = replace(
        image, roots=_or(build.roots, {}), stage1=stage1, mounts=mounts, programs=own, disks=disks, holes=holes
    )
    if (kept := build.info.initramfs) is None:
        return image
    theirs: dict[str, Artefact] = _or(build.initramfs, {})
    there = (each for each in kept if each.kernel in theirs)
    return replace(image, initramfs={it.kernel: Initramfs(theirs[it.kernel], it.module, it.unread) for it in there})


def _places_of_a_tree(image: Image, keys: set[Key]) -> Iterator[str]:
    """Of an image that is not built, whose kernels are those of its tree."""
    for place in (*KERNEL_PLACES, *(version for _, _, version in keys if "/" in version)):
        yield from trail(image.rootfs, place)


def _attempt(read: Callable[[], T]) -> T | WwfastError:
    """What was read, or what is wrong with it."""
    try:
        return read()
    except WwfastError as error:
        return error.with_traceback(None)
    except OSError as error:
        return of_system(error)


def _or(read: Callable[[], T], instead: T) -> T:
    try:
        return read()
    except (WwfastError, OSError):
        return instead
