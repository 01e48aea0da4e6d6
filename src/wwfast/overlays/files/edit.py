"""Changing overlays. Only site overlays of wwfast are written; others are copied there first, whole."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from wwfast.archive.newc import SIZE_MAX
from wwfast.config import checks
from wwfast.errors import NotFoundError, UsageError, WwfastError
from wwfast.overlays.files import model
from wwfast.overlays.files.model import Overlay
from wwfast.paths import Paths
from wwfast.system import files, work
from wwfast.system.folders import naming


def create(paths: Paths, name: str) -> Overlay:
    """A new, empty site overlay. Raises when a site overlay of that name exists."""
    if wrong := checks.name(model.check_name(name)):  # of those that are there a Warewulf's may be called otherwise
        raise UsageError(f"{wrong}, so no node could have this overlay")
    place = paths.site_overlays / name
    if os.path.lexists(place):
        raise UsageError(f"overlay {name} exists already", hint=f"wwfast overlay list -a {name}")
    with work.directory(paths.site_overlays) as room:
        (room / name).mkdir(mode=0o755)
        (room / name / "rootfs").mkdir(mode=0o755)
        (room / name).rename(place)
        files.sync(place.parent)
    return model.find(paths, name)


class Unchanged(Exception):
    """Raised within `changing`: there is nothing to change after all."""


@contextmanager
def changing(paths: Paths, name: str) -> Iterator[Overlay]:
    """The site overlay of that name, to change in place. Where the overlay is another's, a copy of it that becomes the
    site's at the end of the block, and leaves no trace when the block fails or raises Unchanged."""
    found = model.find(paths, name)
    with suppress(Unchanged):
        if found.site:
            yield found
            return
        with work.directory(paths.site_overlays) as room:
            copy = room / name
            clone(found, copy)
            yield Overlay(name, copy, site=True, distribution=False)
            files.settle(copy)
            files.install(copy, paths.site_overlays / name)


def clone(overlay: Overlay, place: Path) -> None:
    """Copy with the modes and owners that nodes would get."""
    root = place / "rootfs"
    place.mkdir(mode=0o755)
    root.mkdir(mode=0o755)
    for item in overlay.items():
        target = root / item.path
        if item.kind == model.DIRECTORY:
            target.mkdir()
        elif item.kind == model.LINK:
            target.symlink_to(item.target)
        else:
            shutil.copyfile(item.source, target)
            with suppress(OSError):
                for attribute in os.listxattr(item.source):
                    os.setxattr(target, attribute, os.getxattr(item.source, attribute))
        if os.geteuid() == 0:
            os.lchown(target, item.uid, item.gid)
        if item.kind != model.LINK:
            target.chmod(item.mode)


def replace(overlay: Overlay, target: Path, data: bytes, *, mode: int | None = None) -> None:
    """Write a file whole or not at all, never seen half by a build; mode and owner of one that is replaced stay.

    A link is replaced, and nothing is taken of what it leads to."""
    st = target.lstat() if target.is_file() and not target.is_symlink() else None
    bits = mode if mode is not None else st.st_mode & 0o7777 if st else 0o644
    with naming(target), work.file(overlay.path.parent) as (fresh, handle):  # not beside it: there a build would see it
        files.fill(handle, data)
        if st is not None and os.geteuid() == 0:
            os.fchown(handle, st.st_uid, st.st_gid)
        os.fchmod(handle, bits)  # after the owner, whose change takes set-user-id away
        os.fsync(handle)
        fresh.rename(target)
        files.sync(target.parent)


def missing_above(overlay: Overlay, target: Path, *, make: bool) -> list[Path]:
    """The directories above `target` that are to be made, the highest last. Raises WwfastError where they cannot be,
    NotFoundError unless they are to be made."""
    above = [path for path in target.parents if path.is_relative_to(overlay.rootfs) and not path.is_dir()]
    if above and os.path.lexists(above[-1]):
        raise WwfastError(
            f"overlay {overlay.name}: cannot make {target.relative_to(overlay.rootfs)}: "
            f"{above[-1].relative_to(overlay.rootfs)} is no directory"
        )
    if above and not make:
        raise NotFoundError(
            f"overlay {overlay.name} has no directory {target.parent.relative_to(overlay.rootfs)}",
            hint="make it, too, with --parents",
        )
    return above


@contextmanager
def parents_of(overlay: Overlay, target: Path, *, make: bool) -> Iterator[None]:
    """The directories above `target`; those that are made go again when the block fails."""
    above = missing_above(overlay, target, make=make)
    try:
        for path in reversed(above):
            path.mkdir(mode=0o755)
        yield
    except BaseException:
        with suppress(OSError):  # as far as they were made
            for path in [path for path in above if path.is_dir()]:
                path.rmdir()
        raise


def import_file(paths: Paths, name: str, source: Path, new: str | None, *, overwrite: bool, parents: bool) -> Path:
    """Copy a file of the server into an overlay, to the same path or to `new` (a directory: under its own name).

    A pipe or a terminal (`<(command)`, /dev/stdin, `-`) is read to its end; it has no name, so `new` must be a file.
    """
    data, mode = _content(source)
    stream = mode is None
    with changing(paths, name) as overlay:
        target = overlay.inside(new if new is not None else os.path.abspath(source))  # noqa: PTH100 - resolve() follows links
        if target.is_dir() or (new or "").endswith("/"):
            if stream:
                raise UsageError(f"{new} is a directory, and {source} has no name", hint="name the file")
            target = overlay.inside(str(target.relative_to(overlay.rootfs) / source.name))
        elif stream and new is None:
            raise UsageError(
                f"{source} has no name of its own", hint=f"wwfast overlay import {name} {source} /etc/FILE"
            )
        inner = target.relative_to(overlay.rootfs)
        if os.path.lexists(target) and not overwrite:
            raise UsageError(f"overlay {name} already has {inner}", hint="replace it with --overwrite")
        with parents_of(overlay, target, make=parents):
            replace(overlay, target, data, mode=mode if mode is not None else 0o644)
    return model.find(paths, name).rootfs / inner


def _content(source: Path) -> tuple[bytes, int | None]:
    """What is to be imported, and its permissions (None for what is read like a pipe). Raises NotFoundError."""
    if str(source) == "-":
        source = Path("/dev/stdin")
    try:
        with source.open("rb") as file:
            status = os.fstat(file.fileno())
            mode = status.st_mode
            if status.st_size > SIZE_MAX:
                raise WwfastError(f"{source} is larger than 4 GiB - 1, the most an initramfs can carry")
            if stat.S_ISREG(mode) and not source.is_relative_to("/dev"):
                return files.rest(file, str(source), SIZE_MAX), stat.S_IMODE(mode)
            if stat.S_ISBLK(mode):
                raise NotFoundError(f"{source} is a disk, not a file")
            return files.rest(file, str(source)), None
    except OSError as error:
        raise NotFoundError(f"cannot read {source}: {error.strerror}") from error


def delete(paths: Paths, name: str, path: str | None, *, force: bool, parents: bool) -> None:
    """A file or directory of an overlay, or the whole site overlay."""
    if path is None:
        overlay = model.find(paths, name)
        if not overlay.site:
            kind = "distribution" if overlay.distribution else "Warewulf's"
            raise UsageError(f"overlay {name} is a {kind} overlay: it stays", hint="take it out of the nodes' lists")
        if not force and any(item.kind != model.DIRECTORY for item in overlay.items()):
            raise UsageError(f"overlay {name} is not empty", hint="delete it with all its files: --force")
        with work.directory(paths.site_overlays) as room:
            overlay.path.rename(room / name)
            files.sync(paths.site_overlays)
        return
    model.find(paths, name).find(path)
    with changing(paths, name) as overlay:
        target = overlay.find(path)
        if target == overlay.rootfs:
            raise UsageError(f"that is the whole overlay {name}", hint=f"wwfast overlay delete {name}")
        if target.is_dir() and not target.is_symlink():
            if not force and any(target.iterdir()):
                raise UsageError(f"{path} is a directory that is not empty", hint="delete it with all in it: --force")
            with work.directory(paths.site_overlays) as room:
                target.rename(room / "gone")
                files.sync(target.parent)
        else:
            target.unlink()
        above = target.parent
        while parents and above != overlay.rootfs and not any(above.iterdir()):
            above.rmdir()
            above = above.parent


def mkdir(paths: Paths, name: str, path: str, mode: int) -> None:
    """A directory and its parents."""
    with changing(paths, name) as overlay:
        target = overlay.inside(path)
        _no_link(overlay, target)
        if target.is_dir():
            if stat.S_IMODE(target.stat().st_mode) == mode:
                raise Unchanged
            target.chmod(mode)
            return
        with parents_of(overlay, target, make=True):
            target.mkdir()
            target.chmod(mode)


def chmod(paths: Paths, name: str, path: str, mode: int) -> None:
    found = model.find(paths, name)
    _no_link(found, found.find(path))
    with changing(paths, name) as overlay:
        target = overlay.find(path)
        if stat.S_IMODE(target.lstat().st_mode) == mode:
            raise Unchanged
        target.chmod(mode)


def _no_link(overlay: Overlay, target: Path) -> None:
    """A mode would go through the link, to a file of this server."""
    if target.is_symlink():
        shown = target.relative_to(overlay.rootfs)
        raise UsageError(f"overlay {overlay.name}: {shown} is a symbolic link, which has no mode of its own")


def chown(paths: Paths, name: str, path: str, uid: int, gid: int) -> None:
    """-1 leaves one as it is."""
    model.find(paths, name).find(path)
    with changing(paths, name) as overlay:
        target = overlay.find(path)
        now = target.lstat()
        if uid in (-1, now.st_uid) and gid in (-1, now.st_gid):
            raise Unchanged
        os.lchown(target, uid, gid)
