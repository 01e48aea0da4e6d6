"""What builds take on disk, and how much of it they share: frames are in packs, of which each build has a link."""

from __future__ import annotations

import os
from dataclasses import dataclass

from wwfast.paths import Paths


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes of the files of one build; `shared` is in other builds as well, of this image or another one."""

    disk: int
    shared: int


def footprints(paths: Paths) -> dict[tuple[str, str], Footprint]:
    """By image and build."""
    files: dict[tuple[str, str], dict[int, int]] = {}
    users: dict[int, int] = {}
    for image in _names(paths.images):
        for build in _names(os.path.join(paths.images, image)):  # noqa: PTH118 - some for each image of a list
            held: dict[int, int] = {}
            home = os.path.join(paths.images, image, build)  # noqa: PTH118
            stage1 = [f"stage1/{release}" for release in _names(f"{home}/stage1")]
            for part in ("image", "kernels", "initramfs", "roots", *stage1):
                for entry in _files(f"{home}/{part}"):
                    status = entry.stat(follow_symlinks=False)
                    held[status.st_ino] = status.st_blocks * 512
            for inode in held:
                users[inode] = users.get(inode, 0) + 1
            files[image, build] = held
    return {
        key: Footprint(sum(held.values()), sum(size for inode, size in held.items() if users[inode] > 1))
        for key, held in files.items()
    }


def _names(place: str | os.PathLike[str]) -> list[str]:
    try:
        with os.scandir(place) as entries:
            return [e.name for e in entries if not e.name.startswith(".") and e.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def _files(place: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(place) as entries:
            return [entry for entry in entries if entry.is_file(follow_symlinks=False)]
    except OSError:  # removed meanwhile, or without kernels
        return []
