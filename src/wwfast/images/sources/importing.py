"""Import: from any source to a new tree, swapped in when it is complete.

Until that moment, and after any failure, the image that had the name is as it was, also with `update` and `force`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path

from wwfast.archive.stream import DamagedError, opened
from wwfast.errors import NotFoundError, UsageError, WwfastError
from wwfast.images import names
from wwfast.images.sources import debian, oci, registry
from wwfast.images.sources.options import Options
from wwfast.images.sources.unpack import Unpacker
from wwfast.images.store import Image, ImageStore
from wwfast.paths import Paths
from wwfast.system import files, locks, within, work
from wwfast.system.folders import folder
from wwfast.system.run import LONG, run

# What is mounted on a node or in `image exec`; a tree without them boots into a confusing failure.
MOUNT_POINTS = ("dev", "proc", "run", "sys")


def default_name(source: str) -> str:
    """The base name of the source; of a registry reference without its digest, of an archive without its suffixes."""
    base = source.rstrip("/").rpartition("/")[2].partition("@")[0]
    for suffix in (".gz", ".zst", ".xz", ".bz2", ".tgz", ".tar"):
        base = base.removesuffix(suffix)
    return base.rpartition(":")[2] if source.startswith(("oci:", "debian:")) else base


def unused(source: str, asked: Collection[str]) -> list[str]:
    """Which of the options that are asked for `source` has no use for."""
    path = Path(source.removeprefix("file://"))
    one = path.is_dir() and not oci.is_layout(path)  # a tree: of an archive only unpacking tells
    idle = {"username", "password", "password_stdin", "nohttps"} | ({"platform"} if one else set())
    return [] if source.startswith("docker://") else [name for name in asked if name in idle]


def import_image(
    paths: Paths, source: str, name: str, options: Options, *, force: bool = False, update: bool = False
) -> Image:
    """Make image `name` from `source`; `update` unpacks over a copy of what is there, `force` replaces it."""
    there = ImageStore(paths).get(name) if names.check(name) in ImageStore(paths).names() else None
    if there is None:
        names.fresh(name)
    if force and update:
        raise UsageError("--force and --update exclude each other")
    place = paths.chroots / name
    if there is not None and not (force or update):
        raise WwfastError(
            f"there is an image {name} already", hint="use --force to replace it, or --update to unpack over it"
        )
    chroots(paths)
    with locks.locked(paths.run / "images", name, "image import"), work.directory(paths.chroots) as room:
        new = room / "image"
        new.mkdir(mode=0o755)
        tree = new / "rootfs"
        if there is not None and update:
            options.progress("copying", 0, 0)
            copy_tree(there.rootfs, tree)
        if there is not None and (mark := there.rootfs.parent / "readonly").exists():
            shutil.copy2(mark, new / "readonly")
        if there is None:
            forget_builds(paths, name)
        fill(paths, source, tree, room, options)
        complete(tree, source)
        options.progress("writing out", 0, 0)
        files.settle(new)
        files.install(new, place)
    return ImageStore(paths).get(name)


def forget_builds(paths: Paths, name: str) -> None:
    """Remove builds of an image by that name whose tree has gone: they must not become those of another."""
    if (paths.images / name).exists():
        with work.directory(paths.images) as room:
            (paths.images / name).rename(room / name)


def chroots(paths: Paths) -> Path:
    """The directory of our trees: 0700, for old set-user-id programs in them are nobody's business."""
    return folder(paths.chroots)


def fill(paths: Paths, source: str, tree: Path, room: Path, options: Options) -> None:
    """Bring what `source` names into `tree`, which may exist and then is unpacked over."""
    scheme, colon, rest = source.partition(":")
    if source.startswith("docker://"):
        with registry.fetched(paths, source, options) as layers:
            apply(layers, tree, options)
        return
    if scheme == "docker-daemon":
        image = rest.removeprefix("//")
        file = image.rpartition("/")[2].partition(":")[0] + ".tar"
        raise WwfastError(
            "a Docker daemon is not asked for images",
            hint=f"docker save --output {file} {image}, then: wwfast image import {file}",
        )
    if scheme == "debian" and colon:
        if tree.exists():
            raise UsageError("debian: makes a new tree and cannot --update one", hint="use --force")
        debian.bootstrap(rest, tree, options.platform)
        return
    reference = ""
    if scheme in ("oci", "oci-archive", "docker-archive") and colon:
        rest, _, reference = rest.partition(":")
        source = rest
    if not source.removeprefix("file://"):  # Path("") is the current directory
        raise UsageError(f"{scheme}: names nothing", hint="give a directory or a file")
    path = Path(source.removeprefix("file://"))
    if path.is_dir():
        if oci.is_layout(path):
            apply(oci.layers(path, reference, options.platform), tree, options)
        elif within.resolve(path, "/bin/sh") is None:
            raise WwfastError(f"{path} has no /bin/sh inside, so it is no root file system")
        elif tree.exists():
            update_tree(path, tree, room, options)
        else:
            options.progress("copying", 0, 0)
            copy_tree(path, tree)
    elif path.is_file() or path.is_fifo():
        archive(path, reference, tree, room, options)
    else:
        raise NotFoundError(
            f"{path} is no file, pipe or directory" if path.exists() else f"there is no {path}",
            hint="sources: docker://REGISTRY/NAME:TAG, oci:DIR, a directory, a tar archive, debian:SUITE",
        )


def apply(layers: Sequence[oci.Layer], tree: Path, options: Options) -> None:
    """Unpack layers over each other, the lowest first; each must have the digest it is known by."""
    tree.mkdir(mode=0o755, exist_ok=True)
    total = sum(layer.size for layer in layers)
    done = 0

    def count(read: int) -> None:
        nonlocal done
        done += read
        options.progress("unpacking", done, total)

    with Unpacker(tree, options.limits) as unpacker:
        for layer in layers:
            try:
                raw = layer.arriving() if layer.arriving else None
                ratio, digest = options.limits.ratio, layer.digest or None
                with opened(layer.path, digest=digest, progress=count, raw=raw, ratio=ratio) as stream:
                    unpacker.apply(stream, layer=True)
            except DamagedError:
                # A damaged blob must not stay in the cache for the next try.
                if layer.path.parent.parent.name == "blobs" and layer.path.parents[2].name == "layers":
                    layer.path.unlink(missing_ok=True)
                raise
        unpacker.finish()


def copy_tree(source: Path, tree: Path) -> None:
    """Copy with owners, modes, times, links, devices and attributes; extents are shared where the file system can."""
    source = source.resolve()  # the tree, where the admin gave a link to it
    if tree.resolve().is_relative_to(source):
        raise WwfastError(f"{source} holds the directory of images itself", hint="import a directory outside of it")
    words: list[str | Path] = ["cp", "-a", "--reflink=auto", "--one-file-system", "--no-target-directory"]
    run([*words, source, tree], timeout=LONG)


def update_tree(source: Path, tree: Path, room: Path, options: Options) -> None:
    """Copy over a tree that is there. Not by cp, which would write the server's files through links of the tree."""
    options.progress("copying", 0, 0)
    file = room / "update.tar"
    words: list[str | Path] = ["tar", "--create", "--format=posix", "--xattrs", "--xattrs-include=*", "--numeric-owner"]
    run([*words, "--one-file-system", "--file", file, "--directory", source, "."], timeout=LONG)
    with opened(file) as stream, Unpacker(tree, options.limits) as unpacker:
        unpacker.apply(stream)
        unpacker.finish()


def complete(tree: Path, source: str) -> None:
    """Refuse what cannot be a root file system; add the mount points that are missing."""
    if within.resolve(tree, "/bin/sh") is None:
        raise WwfastError(f"{source} has no /bin/sh inside, so it is no root file system")
    status = tree.stat()
    for point in MOUNT_POINTS:
        if not os.path.lexists(tree / point):
            (tree / point).mkdir(mode=0o755)
            os.utime(tree / point, ns=(status.st_mtime_ns, status.st_mtime_ns))
    os.utime(tree, ns=(status.st_atime_ns, status.st_mtime_ns))


def archive(path: Path, reference: str, tree: Path, room: Path, options: Options) -> None:
    """Unpack a tar archive: a root file system, or a container image whose layers are then applied."""
    total = path.stat().st_size
    done = 0

    def count(read: int) -> None:
        nonlocal done
        done += read
        options.progress("reading", done, total)

    def unpack(target: Path) -> None:
        target.mkdir(mode=0o755, exist_ok=True)
        with (
            opened(path, progress=count, ratio=options.limits.ratio) as stream,
            Unpacker(target, options.limits) as unpacker,
        ):
            unpacker.apply(stream)
            if not unpacker.entries:  # zeros are an empty archive: told before all that follow are read
                raise WwfastError(f"{path} is an archive without anything in it, so it is no root file system")
            unpacker.finish()

    # What kind of archive it is shows only when it is unpacked: `docker save` writes its manifest last.
    aside = room / "archive"
    unpack(aside)
    if oci.is_layout(aside):
        apply(oci.layers(aside, reference, options.platform), tree, options)
    elif not tree.exists():
        aside.rename(tree)
    elif path.is_file():
        unpack(tree)
    else:
        update_tree(aside, tree, room, options)  # a pipe is read once
