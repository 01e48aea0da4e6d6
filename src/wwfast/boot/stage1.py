"""Boots in two stages: what stage-1 (share/stage1/init) is told on the kernel's command line, and if it can do it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from wwfast.archive.artefact import DISK, PIECES, TMPFS
from wwfast.config import checks
from wwfast.config.checks import MOUNTED
from wwfast.errors import NotFoundError, WwfastError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wwfast.archive.artefact import Artefact
    from wwfast.boot.standing import Blobs, ServedImage, ServedKernel
    from wwfast.nodes.model import Node

CACHES, UPDATES, CACHED = "wwfast.cache=", "wwfast.update=1", "wwfast.blob"
BESIDE = 100  # letters of initrd=, wwid= and the end beside the arguments
PRELOADS = "wwfast.runtime=1"  # among the arguments: stage-1 fetches the runtime overlay as well


def archive(image: ServedImage, release: str, override: str = "") -> Artefact:
    """Stage-1 of a kernel. Raises WwfastError that says what is missing."""
    made = image.stage1.get(release)
    if made is None and override and image.programs:
        raise NotFoundError(
            f"kernel {override} has no drivers for stage-1",
            hint=f"wwfast kernel import --force SOURCE {override} says why",
        )
    if made is None:
        raise NotFoundError(
            f"image {image.name} has no stage-1 of this version of wwfast for kernel {release}",
            hint=f"wwfast image build --format {MOUNTED[0]} {image.name} says why",
        )
    return made


def with_kernel(image: ServedImage, kernel: ServedKernel) -> ServedImage:
    """With the stage-1 of a kernel that is kept apart: the image's own programs, and that kernel's drivers."""
    drivers = kernel.drivers
    programs = image.programs.get(drivers.format) if drivers is not None else None
    if drivers is None or programs is None:
        return replace(image, stage1={}, mounts={})
    unable = set() if image.disks else {DISK}
    mounts = [kind for kind in kernel.mounts if kind not in unable] + ([TMPFS] if TMPFS in image.roots else [])
    return replace(image, stage1={kernel.version: programs.before(drivers)}, mounts={kernel.version: mounts})


def form(kind: str) -> str:
    """Of the image, that stage-1 fetches for a root of this kind."""
    return TMPFS if kind == DISK else kind


def ready(image: ServedImage, release: str, kind: str, override: str = "") -> None:
    """Raises WwfastError that says what is missing for a root of this kind."""
    if form(kind) not in image.roots:
        raise NotFoundError(
            f"image {image.name} is not built as {kind}", hint=f"wwfast image build --format {kind} {image.name}"
        )
    archive(image, release, override)
    if kind not in image.mounts.get(release, ()):
        if kind == DISK:
            raise NotFoundError(
                f"image {image.name} has no programs or drivers for disks in stage-1 of kernel {release}",
                hint=f"wwfast image build --format {DISK} {image.name}"
                + (f"; wwfast kernel import --force SOURCE {override}" if override else ""),
            )
        raise WwfastError(
            f"stage-1 of kernel {release} of image {image.name} makes no {kind}",
            hint="wwfast node set NODE --root initramfs",
        )


def caches(image: ServedImage, release: str, node: Node) -> bool:
    """Whether stage-1 of a node can keep the pieces of its image on a disk, and is to."""
    wanted = node.wwfast.cache
    return bool(wanted) and wanted.lower() not in checks.UNSET and DISK in image.mounts.get(release, ())


def updates(image: ServedImage, release: str, node: Node) -> bool:
    """Whether stage-1 of a node can leave what is right on its root, which is on a disk, and is to."""
    wanted = node.wwfast.disk_root == checks.UPDATE and checks.on_disk(node.root)
    return wanted and DISK in image.mounts.get(release, ())


def arguments(
    image: ServedImage, release: str, node: Node, heads: Sequence[str], kind: str, need: int, *, preload: bool
) -> str:
    """The kernel's arguments: the node's own, and ours, in which iPXE says its address. `heads` are URLs, the first
    that of the script; `need`: MiB that Linux must have for a root of this kind. Raises WwfastError."""
    own = " ".join(node.kernel.args)
    for flag, value in (("kernelargs", own), ("cache", node.wwfast.cache)):  # all that is not ours
        if wrong := checks.script(value):
            raise WwfastError(f"node {node.id}: {wrong}", hint=f"wwfast node set {node.id} --{flag} ...")
    ours = {
        "url": heads[0],
        **({"heads": ",".join(heads)} if heads[1:] else {}),
        "image": image.build,
        "root": kind,
        "need": need,
        "pieces": image.roots[form(kind) + PIECES].digest,
        "ip": "${netX/ip}/${netX/netmask}",
        "gateway": "${netX/gateway}",
        "runtime": int(preload),
        **({"kmods": 1} if node.kernel.override else {}),
        **({"cache": node.wwfast.cache} if caches(image, release, node) else {}),
        **({"update": 1} if kind == DISK and updates(image, release, node) else {}),
        **({"upper": checks.ZRAM} if node.wwfast.upper == checks.ZRAM and kind in MOUNTED else {}),
    }
    return " ".join([*([own] if own else []), *(f"wwfast.{name}={value}" for name, value in ours.items())])


def require_room(node: Node, arguments: str) -> None:
    """Raises WwfastError where a kernel would lose the last arguments, which are ours."""
    if len(arguments) > checks.ARGUMENTS - BESIDE:
        raise WwfastError(
            f"the kernel arguments of node {node.id} are {len(arguments)} letters with those of stage-1, and a kernel "
            f"takes {checks.ARGUMENTS - BESIDE}",
            hint=f"wwfast node set {node.id} --kernelargs ...; or --twostage never",
        )


def sources(blobs: Blobs, image: ServedImage, kind: str, caches: Sequence[str]) -> str:
    """What is added to them where there are caches which can have the image: they are asked before the server."""
    name = blobs.name(image.roots[form(kind)]) if caches else ""
    return f" {CACHED}={name} wwfast.caches={','.join(caches)}" if name else ""
