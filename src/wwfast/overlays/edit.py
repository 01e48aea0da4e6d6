"""Changing overlays. Only site overlays of wwfast are written; others are copied there first, whole."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from pathlib import Path

from wwfast.errors import NotFoundError, UsageError, WwfastError, writing
from wwfast.images import work
from wwfast.overlays import model
from wwfast.overlays.model import Overlay
from wwfast.paths import Paths


def create(paths: Paths, name: str) -> Overlay:
    """A new, empty site overlay. Raises when a site overlay of that name exists."""
    model.check_name(name)
    place = paths.site_overlays / name
    if place.exists():
        raise UsageError(f"overlay {name} exists already", hint=f"wwfast overlay list -a {name}")
    with writing(place), work.directory(place.parent) as room:
        (room / name / "rootfs").mkdir(parents=True, mode=0o755)
        (room / name).rename(place)
        work.sync(place.parent)
    return model.find(paths, name)


def writable(paths: Paths, name: str) -> tuple[Overlay, bool]:
    """The site overlay of that name, copied from where it is found if need be (then True)."""
    overlay = model.find(paths, name)
    if overlay.site:
        return overlay, False
    clone(overlay, paths.site_overlays / name)
    return model.find(paths, name), True


def clone(overlay: Overlay, place: Path) -> None:
    """Copy with the modes and owners that nodes would get; complete or not at all."""
    with writing(place), work.directory(place.parent) as room:
        root = room / place.name / "rootfs"
        root.mkdir(parents=True, mode=0o755)
        for item in overlay.items():
            target = root / item.path
            if item.kind == model.DIRECTORY:
                target.mkdir()
            elif item.kind == model.LINK:
                target.symlink_to(item.target)
            else:
                shutil.copyfile(item.source, target)
                with contextlib.suppress(OSError):
                    for attribute in os.listxattr(item.source):
                        os.setxattr(target, attribute, os.getxattr(item.source, attribute))
            if os.geteuid() == 0:
                os.lchown(target, item.uid, item.gid)
            if item.kind != model.LINK:
                target.chmod(item.mode)
        work.settle(root)
        root.parent.rename(place)
        work.sync(place.parent)


def replace(overlay: Overlay, target: Path, data: bytes, *, mode: int | None = None) -> None:
    """Write a file whole or not at all, never seen half by a build; mode and owner of one that is replaced stay."""
    st = target.stat() if target.is_file() else None
    with writing(target), work.directory(overlay.path.parent) as room:
        new = room / target.name
        new.write_bytes(data)
        new.chmod(mode if mode is not None else st.st_mode & 0o7777 if st else 0o644)
        if st is not None and os.geteuid() == 0:
            os.chown(new, st.st_uid, st.st_gid)
        work.sync(new)
        new.rename(target)
        work.sync(target.parent)


def parent_of(overlay: Overlay, target: Path, *, make: bool) -> None:
    if target.parent.is_dir():
        return
    if not make:
        raise NotFoundError(
            f"overlay {overlay.name} has no directory {target.parent.relative_to(overlay.rootfs)}",
            hint="make it, too, with --parents",
        )
    target.parent.mkdir(parents=True, mode=0o755)


def import_file(
    paths: Paths, name: str, source: Path, new: str | None, *, overwrite: bool, parents: bool
) -> tuple[Path, bool]:
    """Copy a file of the server into an overlay, to the same path or to `new` (a directory: under its own name).

    A pipe or a terminal (`<(command)`, /dev/stdin, `-`) is read to its end; it has no name, so `new` must be a file.
    """
    data, mode = _content(source)
    stream = mode is None
    overlay, cloned = writable(paths, name)
    target = overlay.inside(new if new is not None else str(source.resolve()))
    if target.is_dir() or (new or "").endswith("/"):
        if stream:
            raise UsageError(f"{new} is a directory, and {source} has no name", hint="name the file")
        target = overlay.inside(str(target.relative_to(overlay.rootfs) / source.name))
    elif stream and new is None:
        raise UsageError(f"{source} has no name of its own", hint=f"wwfast overlay import {name} {source} /etc/FILE")
    if os.path.lexists(target) and not overwrite:
        raise UsageError(
            f"overlay {name} already has {target.relative_to(overlay.rootfs)}", hint="replace it with --overwrite"
        )
    parent_of(overlay, target, make=parents)
    replace(overlay, target, data, mode=mode if mode is not None else 0o644)
    return target, cloned


def _content(source: Path) -> tuple[bytes, int | None]:
    """What is to be imported, and its permissions (None for what is read like a pipe). Raises NotFoundError."""
    if str(source) == "-":
        source = Path("/dev/stdin")
    try:
        with source.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if stat.S_ISREG(mode) and not source.is_relative_to("/dev"):
                return file.read(), stat.S_IMODE(mode)
            if stat.S_ISBLK(mode):
                raise NotFoundError(f"{source} is a disk, not a file")
            return file.read(), None
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
        with writing(overlay.path), work.directory(overlay.path.parent) as room:
            overlay.path.rename(room / name)
            work.sync(overlay.path.parent)
        return
    model.find(paths, name).find(path)
    overlay, _ = writable(paths, name)
    target = overlay.find(path)
    if target == overlay.rootfs:
        raise UsageError(f"that is the whole overlay {name}", hint=f"wwfast overlay delete {name}")
    if target.is_dir() and not target.is_symlink():
        if not force and any(target.iterdir()):
            raise UsageError(f"{path} is a directory that is not empty", hint="delete it with all in it: --force")
        with writing(target), work.directory(overlay.path.parent) as room:
            target.rename(room / "gone")
    else:
        target.unlink()
    above = target.parent
    while parents and above != overlay.rootfs and not any(above.iterdir()):
        above.rmdir()
        above = above.parent


def mkdir(paths: Paths, name: str, path: str, mode: int) -> bool:
    """A directory and its parents; True when the overlay was copied to the site."""
    overlay, cloned = writable(paths, name)
    target = overlay.inside(path)
    _no_link(overlay, target)
    try:
        target.mkdir(parents=True, exist_ok=True)
        target.chmod(mode)
    except OSError as error:
        raise WwfastError(f"overlay {name}: cannot make {path}: {error.strerror}") from error
    return cloned


def chmod(paths: Paths, name: str, path: str, mode: int) -> bool:
    found = model.find(paths, name)
    _no_link(found, found.find(path))
    overlay, cloned = writable(paths, name)
    overlay.find(path).chmod(mode)
    return cloned


def _no_link(overlay: Overlay, target: Path) -> None:
    """A mode would go through the link, to a file of this server."""
    if target.is_symlink():
        shown = target.relative_to(overlay.rootfs)
        raise UsageError(f"overlay {overlay.name}: {shown} is a symbolic link, which has no mode of its own")


def chown(paths: Paths, name: str, path: str, uid: int, gid: int) -> bool:
    """-1 leaves one as it is."""
    model.find(paths, name).find(path)
    overlay, cloned = writable(paths, name)
    os.lchown(overlay.find(path), uid, gid)
    return cloned
