"""Stage-1 of an image: its own programs and drivers in one archive, for each kernel that nodes may boot."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from wwfast.archive.artefact import FILESYSTEMS, GZ, ZST, Artefact
from wwfast.errors import WwfastError
from wwfast.images.kernels.detect import Kernel
from wwfast.images.stage1 import drivers, programs
from wwfast.pack import build as packing
from wwfast.system import work

log = logging.getLogger(__name__)

PLACE = "stage1"  # of a build: a directory for each release
LEVEL = 9  # 30 MB of Debian 12's cloud kernel and programs are 11.0 MB; at 19 they would be 9.6
NEEDED = ("loop", "overlay")


def make(root: Path, name: str, kernels: Iterable[Kernel], place: Path, frames: Path) -> dict[str, list[str]]:
    """Pack `place`/RELEASE for each kernel; -> the file systems that each can mount as a root.

    What is missing in the image is said, and leaves it without: it boots in one stage as before.
    """
    made: dict[str, list[str]] = {}
    for kernel in kernels:
        if kernel.unwanted or not kernel.release or kernel.release in made:
            continue
        try:
            made[kernel.release] = _make(root, name, kernel, place / kernel.release, frames)
        except WwfastError as error:
            why = ": ".join(filter(None, (error.message, error.hint)))
            log.warning("image %s has no stage-1 for kernel %s: %s", name, kernel.release, why)
    return made


def _make(root: Path, name: str, kernel: Kernel, dest: Path, frames: Path) -> list[str]:
    dest.parent.mkdir(exist_ok=True)
    with work.directory(dest.parent) as room:
        tree = room / "tree"
        tree.mkdir(mode=0o755)
        programs.collect(root, tree)
        there = drivers.collect(root, kernel.release, tree)
        if missing := [each for each in NEEDED if each not in there]:
            raise WwfastError(f"the kernel has no {' and no '.join(missing)}", hint="boot another kernel")
        formats = (ZST,) if kernel.zstd else (GZ,)
        packing.build(tree, room / "packed", name=f"{name}.stage1", formats=formats, level=LEVEL, frames=frames)
        (room / "packed").rename(dest)
    return [kind for kind in FILESYSTEMS if kind in there]


def load(build: Path, release: str, fmt: str) -> Artefact | None:
    return packing.load(build / PLACE / release, fmt)
