"""Building: pack a tree, keep its kernels beside it, make it what nodes get, and keep a few predecessors."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from wwfast.archive.artefact import ARCHIVES, FILESYSTEMS, FORMATS, TMPFS
from wwfast.errors import NotFoundError, WwfastError
from wwfast.images import archives, dracut, filesystems, names, store
from wwfast.images.inside import mountpoints
from wwfast.images.kernels import detect
from wwfast.images.kernels.detect import Kernel
from wwfast.images.kernels.unwanted import spare
from wwfast.images.stage1 import making as stage1
from wwfast.images.stage1 import programs, rules
from wwfast.images.stage1.rules import Choice
from wwfast.images.store import Build, BuildInfo, Image, ImageStore, KernelInfo
from wwfast.pack import build as packing
from wwfast.pack.manifest import Manifest
from wwfast.paths import Paths
from wwfast.system import files, locks, records, work
from wwfast.system.folders import folder

log = logging.getLogger(__name__)

KEEP = 3  # builds kept beside the current one and those that nodes name

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class How:
    """How to pack. `formats`: beside the one its kernels unpack; `full` takes nothing from earlier builds, `check`
    reads every file again; `force` publishes also what did not change; `in_use` are image references that nodes name,
    whose builds are never removed; `boots` are the kernels that nodes ask for, by version or by path (one outside the
    usual places is kept with the build); `spare`: modules of kernels other than these and the default are left out;
    `drivers` are those of stage-1; `dracut`: nodes boot by Warewulf's module in the image's own initramfs; `memory` is
    that of the smallest machine known to boot it, MiB, or 0."""

    formats: Sequence[str] = ()
    level: int = 3
    full: bool = False
    check: bool = False
    force: bool = False
    in_use: Collection[str] = ()
    boots: Collection[str] = ()
    spare: bool = False
    drivers: Choice = rules.DEFAULT
    dracut: bool = False
    memory: int = 0
    progress: Progress | None = None


DEFAULT = How()


def build(paths: Paths, name: str, how: How = DEFAULT) -> tuple[Build, bool]:
    """Pack the image's tree and publish it; (build, False) when nothing changed since the current one.

    Raises NotFoundError without such an image, WwfastError while somebody else works on it.
    """
    with locks.locked(paths.run / "images", names.check(name), "image build"):
        return build_locked(paths, name, how)


def build_locked(paths: Paths, name: str, how: How) -> tuple[Build, bool]:
    """As build(), for one who holds the image's lock."""
    image = ImageStore(paths).get(name)
    work.sweep(paths.chroots, paths.images)
    if image.own:
        mountpoints.sweep(image.rootfs)
    found = _kernels(image.rootfs, how.boots)
    without = spare(image.rootfs, found, how.boots) if how.spare else {}
    place = paths.images / name
    folder(place)
    unpacks = _archive(image.rootfs, name, how)
    with work.directory(place) as room:
        manifest = packing.build(
            image.rootfs,
            room / "image",
            name=name,
            formats=_formats(found, how),
            level=how.level,
            full=how.full,
            check=how.check,
            excludes=tuple(without.values()),
            archive=unpacks,
            archive_from=0 if TMPFS in how.formats else archives.from_size(how.memory),
            frames=paths.frames,
            progress=how.progress,
        )
        kinds = [it for it in how.formats if it in FILESYSTEMS]
        made = room / "build"
        made.mkdir(mode=0o755)
        drivers = how.drivers if kinds or any(fmt in ARCHIVES for fmt in manifest.formats) else None
        kernels = [it for it in found if it.release not in without]
        first = _first(paths, image, kernels if drivers else None, [TMPFS] if unpacks else [], made, how)
        own = _own(image, kernels, how)
        new = how.force or how.full or not own.same
        if (served := image.build) and not new and _same(served, manifest, kinds, drivers) and first.same(served):
            return served, False
        (room / "image").rename(made / "image")
        if lost := filesystems.lost(kinds, manifest):
            log.warning("image %s: %s", name, lost)
        excluded = list(without.values())
        with filesystems.making(image.rootfs, made / filesystems.PLACE, kinds, excluded, how.level) as roots:
            info = BuildInfo(
                created=int(time.time()),
                kernels=_keep_kernels(found, made / "kernels"),
                symlinks=sorted(store.symlinks(image.rootfs)),
                arch=store.architecture(image.rootfs),
                sizes={fmt: body.bytes for fmt, body in manifest.formats.items()},
                unpacked=manifest.unpacked,
                without=list(without),
                archive=archives.listed(made / "image", manifest),
                stage1=first.starts,
                script=programs.script(),
                recipe=stage1.recipe(how.drivers),
                initramfs=own.keep(made / "initramfs"),
                roots=roots(),
            )
        _write(info, made)
        published = _publish(paths, name, made)
    prune(paths, name, in_use_of(name, how.in_use))
    return published, True


def _publish(paths: Paths, name: str, made: Path) -> Build:
    place = paths.images / name
    published = Build(name, place / _new_id(place))
    made.rename(published.path)
    try:
        make_current(paths, published)
    except BaseException:
        if store.current_id(paths, name) != published.id:  # a build that was never served is none
            work.remove(published.path)
        raise
    return published


def _write(info: BuildInfo, made: Path) -> None:
    file = made / "info.json"
    file.write_bytes(records.encode(info))
    for each in (file, made / "image", made):
        files.sync(each)


def _archive(tree: Path, name: str, how: How) -> str:
    """The form for stage-1 to unpack; it is made where it is asked for, and of large trees where it may be used."""
    form = archives.form(tree)
    if TMPFS in how.formats and not form:
        lacking = archives.lacks(tree)
        packages = ", ".join(programs.package(program, tree) for program in lacking)
        said = (name, ", ".join("GNU tar" if program == "tar" else program for program in lacking), packages)
        log.warning("image %s is not made for two stages as tmpfs: it has no %s: install %s in it", *said)
    return form


def _kernels(tree: Path, boots: Collection[str]) -> list[Kernel]:
    """Those in the usual places, and those that nodes name by path."""
    found = detect.kernels(tree)
    by_path = (detect.by_path(tree, want) for want in sorted(boots) if "/" in want)
    usual = {kernel.file for kernel in found}
    return found + [kernel for kernel in by_path if kernel is not None and kernel.file not in usual]


def _formats(found: Sequence[Kernel], how: How) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*default_formats(found), *(fmt for fmt in how.formats if fmt in FORMATS))))


@dataclass(frozen=True)
class _First:
    """Stage-1 of a build, for these kernels, None where it is not wanted; `unpacks` is what each makes beside what it
    mounts."""

    job: stage1.Job
    kernels: list[Kernel] | None
    unpacks: Collection[str]

    @cached_property
    def starts(self) -> dict[str, list[str]]:
        """Made now: the roots that stage-1 of each kernel makes."""
        mounts = stage1.make(self.job, self.kernels) if self.kernels is not None else {}
        return {release: [*kinds, *self.unpacks] for release, kinds in mounts.items()}

    def same(self, former: Build) -> bool:
        """Whether it would come out as in the build that is served. What that has not is tried again: what still cannot
        be made is said again, and is no other build."""
        missing = stage1.missing(self.job, self.kernels) if self.kernels is not None else []
        made = bool(missing) and (self.starts != former.info.stage1 or stage1.has(self.job, missing))
        return not made


def _first(
    paths: Paths, image: Image, kernels: list[Kernel] | None, unpacks: Collection[str], made: Path, how: How
) -> _First:
    former = image.build.path / stage1.PLACE if image.build and not how.full else None
    job = stage1.Job(image.rootfs, f"image {image.name}", made / stage1.PLACE, paths.frames, former, how.drivers)
    return _First(job, kernels, unpacks)


def _own(image: Image, kernels: Sequence[Kernel], how: How) -> dracut.Own:
    served = image.build
    former, kept = (served.path, served.info.initramfs) if served else (None, None)
    return dracut.look(image.rootfs, kernels, former, kept, wanted=how.dracut)


def default_formats(found: Sequence[Kernel]) -> tuple[str, ...]:
    usable = [k for k in found if not k.unwanted]
    if not usable:
        return ("zst", "gz")  # the kernel comes from elsewhere: serve what it can unpack
    return ("zst",) if all(k.zstd for k in usable) else ("gz",)


def make_current(paths: Paths, build: Build) -> None:
    """From now on nodes get this build. One rename: a request sees the old build or the new one."""
    with work.directory(build.path.parent) as room:
        link = room / store.CURRENT
        link.symlink_to(build.id)
        link.rename(build.path.parent / store.CURRENT)
    files.sync(build.path.parent)


def prune(paths: Paths, name: str, in_use: Collection[str], keep: int = KEEP) -> list[str]:
    """Remove the oldest builds beyond `keep`; never the current one, never one that a node names. Returns their ids.

    A transfer under way holds its files open and ends well.
    """
    current = store.current_id(paths, name)
    spare = [b for b in ImageStore(paths).builds(name) if b.id != current and b.id not in in_use]
    gone = spare[: max(len(spare) - keep, 0)]
    for old in gone:
        # Out of sight in one step: half a build must never be one to go back to.
        with work.directory(old.path.parent) as room:
            old.path.rename(room / old.id)
    return [old.id for old in gone]


def rollback(paths: Paths, name: str, build_id: str | None = None) -> Build:
    """Serve an earlier build again: the one before the current one, or the one named."""
    with locks.locked(paths.run / "images", names.check(name), "image rollback"):
        images = ImageStore(paths)
        image = images.get(name)
        kept = images.builds(name)
        if build_id is None:
            earlier = [b for b in kept if image.build is not None and b.id < image.build.id]
            if not earlier:
                raise WwfastError(f"image {name} has no earlier build", hint=f"see: wwfast image history {name}")
            target = earlier[-1]
        else:
            match = [b for b in kept if b.id == build_id]
            if not match:
                raise NotFoundError(f"image {name} has no build {build_id}", hint=f"see: wwfast image history {name}")
            target = match[0]
        if not any(target.artefact(fmt) for fmt in target.info.sizes):
            raise WwfastError(
                f"build {target.id} of image {name} is not whole", hint=f"see: wwfast image history {name}"
            )
        make_current(paths, target)
        return target


def in_use_of(name: str, references: Collection[str]) -> frozenset[str]:
    """Build ids among image references (`NAME@BUILD`) that belong to the image."""
    return frozenset(pin for ref in references for base, pin in [names.split(ref)] if base == name and pin)


def _same(build: Build, new: Manifest, kinds: Collection[str], drivers: Choice | None) -> bool:
    """The same entries in the same order, and nothing missing in the old one that the new one has, as far as it is not
    of stage-1; `drivers` are None where that is not wanted."""
    old = build.manifest()
    same = [s.key for s in old.segments] == [s.key for s in new.segments]
    if set(kinds) - build.info.roots.keys() or (drivers is not None and build.info.recipe != stage1.recipe(drivers)):
        return False
    return same and new.formats.keys() <= old.formats.keys()


def _keep_kernels(found: Sequence[Kernel], place: Path) -> list[KernelInfo]:
    place.mkdir()
    kept = []
    for number, kernel in enumerate(found):
        copy = place / f"{number}-{kernel.file.name}"
        shutil.copyfile(kernel.file, copy)
        os.utime(copy, ns=(kernel.file.stat().st_mtime_ns,) * 2)
        files.sync(copy)
        kept.append(KernelInfo(kernel.path, copy.name, kernel.version, kernel.release, kernel.zstd, kernel.aside))
    files.sync(place)
    return kept


def _new_id(place: Path) -> str:
    """UTC time to the second, with a counter where the clock did not advance: ids sort by age."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    last = max((entry.name for entry in place.iterdir() if entry.name[0].isdigit()), default="")
    if stamp > last:
        return stamp
    base, _, count = last.partition(".")
    return f"{base}.{int(count or 0) + 1:03d}"
