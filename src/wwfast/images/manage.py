"""Whole images as things: copy, adopt, rename, delete."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from wwfast.errors import WwfastError, of_system
from wwfast.images import names
from wwfast.images.inside import mountpoints
from wwfast.images.sources import importing
from wwfast.images.store import Image, ImageStore
from wwfast.paths import Paths
from wwfast.system import files, locks, work


def copy(paths: Paths, source: str, name: str) -> Image:
    """A new image with the same tree; data is shared where the file system can (reflink). Builds are not copied."""
    _free(paths, name)
    image = ImageStore(paths).get(source)
    importing.chroots(paths)
    with (
        locks.locked(paths.run / "images", name, "image copy"),
        locks.locked(paths.run / "images", image.name, f"image copy to {name}"),
        work.directory(paths.chroots) as room,
    ):
        if image.own:
            mountpoints.sweep(image.rootfs)  # what a killed exec left is not of the image
        importing.forget_builds(paths, name)
        new = room / "image"
        new.mkdir(mode=0o755)
        importing.copy_tree(image.rootfs, new / "rootfs")
        files.settle(new)
        files.install(new, paths.chroots / name)
    return ImageStore(paths).get(name)


def adopt(paths: Paths, name: str, *, move: bool = False) -> Image:
    """Make an image of an existing Warewulf ours, under its name: a copy of its tree (shared data where the file system
    can, hard links kept), or with `move` the tree itself, which Warewulf then has no more. Its builds stay."""
    image = ImageStore(paths).get(name)
    if image.own:
        raise WwfastError(f"image {name} is ours already: {image.rootfs}")
    importing.chroots(paths)
    with locks.locked(paths.run / "images", name, "image adopt"), work.directory(paths.chroots) as room:
        theirs, new = image.rootfs.parent, room / "image"
        if move:
            try:
                theirs.rename(paths.chroots / name)
            except OSError as error:
                why = f"cannot move image {name} to {paths.chroots}: {error.strerror}"
                raise WwfastError(why, hint=f"copy it: wwfast image adopt {name}") from error
            files.sync(paths.chroots)
        else:
            new.mkdir(mode=0o755)
            importing.copy_tree(image.rootfs, new / "rootfs")
            if (theirs / "readonly").exists():
                (new / "readonly").touch()
            files.settle(new)
            files.install(new, paths.chroots / name)
    return ImageStore(paths).get(name)


def rename(paths: Paths, old: str, new: str) -> Image:
    """Give an image, with its builds, another name. Whoever names it must be told by the caller, who then calls
    renamed(). A rename that was killed on the way is finished by asking for it again.
    """
    begun = (
        _mark(paths, new).is_file() and _mark(paths, new).read_text() == old and old not in ImageStore(paths).names()
    )
    if not begun:
        _free(paths, new)
        ImageStore(paths).get(old).require_own()
    with (
        locks.locked(paths.run / "images", new, f"image rename of {old}"),
        locks.locked(paths.run / "images", old, f"image rename to {new}"),
    ):
        if not begun:
            importing.forget_builds(paths, new)
        try:
            if not begun:
                _mark(paths, old).write_text(old)
                files.sync(_mark(paths, old))
                (paths.chroots / old).rename(paths.chroots / new)
            if (paths.images / old).exists():
                (paths.images / old).rename(paths.images / new)
                files.sync(paths.images)
            files.sync(paths.chroots)
        except OSError as error:
            _back(paths, old, new)
            raise of_system(error, f"cannot rename image {old}") from error
    return ImageStore(paths).get(new)


def unrename(paths: Paths, old: str, new: str) -> None:
    """Take rename() back: who names the image could not be told."""
    with (
        locks.locked(paths.run / "images", new, f"image rename of {old}"),
        locks.locked(paths.run / "images", old, f"image rename to {new}"),
    ):
        _back(paths, old, new)


def _back(paths: Paths, old: str, new: str) -> None:
    """The way back needs no room on the disk. Where it stops half way, asking for the rename again finishes it."""
    with suppress(OSError):
        for place in (paths.images, paths.chroots):
            if (place / new).exists() and not (place / old).exists():
                (place / new).rename(place / old)
        _mark(paths, old).unlink(missing_ok=True)


def renamed(paths: Paths, new: str) -> None:
    """All that named the image know its new name."""
    _mark(paths, new).unlink(missing_ok=True)


def _mark(paths: Paths, name: str) -> Path:
    """Travels with the tree: the name it had, until all is renamed."""
    return paths.chroots / name / "renamed-from"


def refuse_used(image: Image, used_by: Collection[str]) -> None:
    """Raise WwfastError while somebody (`used_by`) names an image that is to be deleted."""
    image.require_own()
    if used_by:
        raise WwfastError(
            f"image {image.name} is used by {', '.join(sorted(used_by)[:8])}",
            hint="give them another with: wwfast node set --image NAME NODES",
        )


def delete(paths: Paths, name: str, used_by: Collection[str] = ()) -> None:
    """Remove an image and its builds; refused while somebody (`used_by`) names it.

    Where an existing Warewulf has one of that name, which takes its place, it may go (what `adopt` did is taken back),
    and the builds stay: nodes boot what they boot. An image that was never built goes like any other. Transfers under
    way end well.
    """
    stays = follows(paths, name)
    refuse_used(ImageStore(paths).get(name), () if stays else used_by)
    with (
        locks.locked(paths.run / "images", name, "image delete"),
        work.directory(paths.chroots) as room,
        work.directory(paths.images) as builds,
    ):
        # Builds first: killed in between, the image is there and not built; never builds without their image.
        try:
            if (paths.images / name).exists() and not stays:
                (paths.images / name).rename(builds / name)
                files.sync(paths.images)
            (paths.chroots / name).rename(room / name)
            files.sync(paths.chroots)
        except OSError as error:
            for moved, place in ((room, paths.chroots), (builds, paths.images)):
                if (moved / name).exists():
                    with suppress(OSError):
                        (moved / name).rename(place / name)
            raise of_system(error, f"cannot delete image {name}") from error


def follows(paths: Paths, name: str) -> bool:
    """Whether an existing Warewulf has an image of that name, which is used once there is none of ours."""
    return (paths.warewulf_chroots / name / "rootfs").is_dir()


def _free(paths: Paths, name: str) -> None:
    if names.fresh(name) in ImageStore(paths).names():
        raise WwfastError(f"there is an image {name} already", hint=f"delete it first: wwfast image delete {name}")
