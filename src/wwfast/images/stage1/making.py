"""Stage-1 of an image in parts: its own programs, and for each kernel that nodes may boot the drivers.

A part is packed once and taken over by the next build, as long as all that it rests on is the same.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import xxhash

from wwfast.archive.artefact import DISK, FILESYSTEMS, GZ, ZST, Artefact
from wwfast.errors import WwfastError
from wwfast.images.kernels.detect import Kernel
from wwfast.images.stage1 import drivers, programs, rests
from wwfast.images.stage1.programs import LackingError
from wwfast.images.stage1.rests import Fill, Look, Rests
from wwfast.images.stage1.rules import DEFAULT, Choice
from wwfast.pack import build as packing
from wwfast.system import files, work

log = logging.getLogger(__name__)

PLACE = "stage1"  # of a build: a directory for each release, and that of the programs
PROGRAMS = "programs"
PROGRAMS_IN = (ZST, GZ)  # what each kernel unpacks, also one that is kept apart from images
RECIPE = 2  # to be counted up when the same tree comes out otherwise
LEVEL = 9  # 30 MB of Debian 12's cloud kernel and programs are 11.0 MB; at 19 they would be 9.6
NEEDED = ("loop", "overlay")


@dataclass(frozen=True, slots=True)
class Job:
    """Parts of the tree `root` for `place`, of something that is called `name` in words; `former` is the place of an
    earlier build, whose parts are taken over where they are still right."""

    root: Path
    name: str
    place: Path
    frames: Path
    former: Path | None = None
    choice: Choice = DEFAULT


class Drivers(NamedTuple):
    """Of one kernel, and the file systems that it can have as a root."""

    artefact: Artefact
    mounts: list[str]


def recipe(choice: Choice) -> str:
    """All that decides how stage-1 of the same tree comes out, in hex."""
    text = f"{RECIPE}\n{LEVEL}\n{programs.script()}\n{programs.for_disks()}{programs.for_some_disks()}\n{choice}"
    return xxhash.xxh3_128_hexdigest(text.encode(errors="surrogateescape"))


def make(job: Job, found: Iterable[Kernel]) -> dict[str, list[str]]:
    """Pack `place`/programs, and `place`/RELEASE for each kernel; -> the file systems that each can mount as a root.

    What is missing in the image, or on this server to read it, is said, and leaves it without: it boots in one stage as
    before. Raises WwfastError where the disk fails.
    """

    def fill(look: Look, tree: Path) -> tuple[list[str], list[str]]:
        return programs.collect(look, tree, disks=job.choice.disks), []

    try:
        part = _part(job, PROGRAMS, fill, PROGRAMS_IN)
    except LackingError as error:
        log.warning("%s has no stage-1: %s", job.name, _why(error))
        return {}
    unable = set() if DISK in part.there else {DISK}
    return {release: [kind for kind in kinds if kind not in unable] for release, kinds in kernels(job, found).items()}


def kernels(job: Job, found: Iterable[Kernel]) -> dict[str, list[str]]:
    """Pack the drivers of each; as `make`."""
    made: dict[str, list[str]] = {}
    idle: list[set[str]] = []
    for kernel in _wanted(found):
        try:
            part = for_kernel(job, kernel)
        except LackingError as error:
            log.warning("%s has no stage-1 for kernel %s: %s", job.name, kernel.release, _why(error))
            continue
        made[kernel.release] = mounts(part)
        idle.append(set(part.idle))
    for rule in sorted(set.intersection(*idle)) if idle else ():
        log.warning("the rule of drivers `%s` matches nothing in %s", rule, job.name)
    return made


def missing(job: Job, found: Iterable[Kernel]) -> list[str]:
    """The parts that `make` would not take over as they are: former ones that are not there, or would now come out
    otherwise."""
    parts = {PROGRAMS: PROGRAMS_IN} | {kernel.release: _format(kernel) for kernel in _wanted(found)}
    return [part for part, formats in parts.items() if _former(job, part, _how(job, formats)) is None]


def has(job: Job, parts: Iterable[str]) -> bool:
    """Whether one of these parts is made."""
    return any((job.place / part).is_dir() for part in parts)


def _wanted(found: Iterable[Kernel]) -> Iterator[Kernel]:
    """One for each release."""
    seen = {""}
    for kernel in found:
        if not kernel.unwanted and kernel.release not in seen:
            seen.add(kernel.release)
            yield kernel


def mounts(found: Rests) -> list[str]:
    """The file systems that a kernel can have as a root, and DISK where it has the drivers of disks."""
    return [kind for kind in (*FILESYSTEMS, DISK) if kind in found.there]


def _why(error: WwfastError) -> str:
    return ": ".join(filter(None, (error.message, error.hint)))


def for_kernel(job: Job, kernel: Kernel) -> Rests:
    """Pack its drivers. Raises LackingError where it cannot mount what stage-1 fetches."""

    def fill(look: Look, tree: Path) -> tuple[list[str], list[str]]:
        there, idle = drivers.collect(look, kernel.release, tree, job.choice)
        if lacks := [each for each in NEEDED if each not in there]:
            raise LackingError(f"the kernel has no {' and no '.join(lacks)}", hint="boot another kernel")
        return [*there, *([DISK] if job.choice.disks else [])], idle

    return _part(job, kernel.release, fill, _format(kernel))


def _format(kernel: Kernel) -> tuple[str, ...]:
    return (ZST,) if kernel.zstd else (GZ,)


def _how(job: Job, formats: tuple[str, ...]) -> str:
    return f"{recipe(job.choice)} {' '.join(formats)}"


def _part(job: Job, part: str, fill: Fill, formats: tuple[str, ...]) -> Rests:
    """Raises LackingError where what `fill` looks at is not what it needs."""
    dest = job.place / part
    job.place.mkdir(exist_ok=True)
    if taken := _taken(job, part, dest, _how(job, formats)):
        return taken
    with work.directory(job.place) as room:
        tree = room / "tree"
        tree.mkdir()
        tree.chmod(0o755)
        look = Look(job.root)
        try:
            there, idle = fill(look, tree)
        except WwfastError as error:
            raise LackingError(error.message, hint=error.hint) from error
        skipped = frozenset() if part == PROGRAMS else frozenset({"lib"})  # the image's own /lib may be a link
        name = f"{job.name.rpartition(' ')[2]}.stage1"
        packing.build(
            tree, room / "packed", name=name, formats=formats, level=LEVEL, frames=job.frames, skip_dirs=skipped,
            epoch=0,
        )  # fmt: skip
        found = look.rests(_how(job, formats), there, idle)
        rests.write(room / "packed", found)
        (room / "packed").rename(dest)
    files.sync(job.place)
    return found


def _former(job: Job, part: str, how: str) -> Rests | None:
    """What the part of an earlier build rests on now; None where there is none, or it would come out otherwise."""
    known = rests.read(job.former / part) if job.former is not None else None
    return rests.renewed(known, job.root) if known is not None and known.recipe == how else None


def _taken(job: Job, part: str, dest: Path, how: str) -> Rests | None:
    """The part of an earlier build at its new place too; None where it is none any more, or is damaged."""
    found = _former(job, part, how)
    if found is None or job.former is None or not packing.again(job.former / part, dest):
        return None
    rests.write(dest, found)
    return found


def load(build: Path, release: str) -> Artefact | None:
    """Programs and drivers as one."""
    mine = drivers_of(build, release)
    first = programs_of(build).get(mine.artefact.format) if mine else None
    return first.before(mine.artefact) if mine and first else None


def programs_of(build: Path) -> dict[str, Artefact]:
    """By format; none where the image lacks something."""
    place = build / PLACE / PROGRAMS
    found = (packing.load(place, fmt) for fmt in PROGRAMS_IN) if place.is_dir() else ()
    return {made.format: made for made in found if made is not None}


def able(build: Path) -> bool:
    """Whether the programs for disks are among those of the image."""
    known = rests.read(build / PLACE / PROGRAMS)
    return known is not None and DISK in known.there


def drivers_of(home: Path, release: str) -> Drivers | None:
    """Of a build of an image, or of a kernel that is kept apart."""
    place = home / PLACE / release
    known = rests.read(place)
    found = (packing.load(place, fmt) for fmt in (ZST, GZ)) if known else ()
    made = next((each for each in found if each is not None), None)
    return Drivers(made, mounts(known)) if made and known else None


def damage(build: Path, releases: Collection[str] = ()) -> str | None:
    """Read the parts, and those of these kernels, and compare them with their digests: what is wrong, or None."""
    place = build / PLACE
    parts = {part.name for part in place.iterdir()} if place.is_dir() else set()
    parts.update(releases, [PROGRAMS] if releases else [])
    found = (packing.damage(place / part) or rests.damage(place / part) for part in sorted(parts))
    return next(filter(None, found), None)
