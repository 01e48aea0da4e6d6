"""Boots in two stages: what stage-1 (share/stage1/init) is told on the kernel's command line, and if it can do it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wwfast.archive.artefact import PIECES
from wwfast.config import checks
from wwfast.errors import NotFoundError, WwfastError

if TYPE_CHECKING:
    from wwfast.archive.artefact import Artefact
    from wwfast.boot.standing import ServedImage
    from wwfast.nodes.model import Node

#: MiB beside the image: kernel, stage-1, and what a system writes while it starts (Debian 12 with 95 MB: login at 256).
BESIDE = 130
MIB = 1 << 20
PRELOADS = "wwfast.runtime=1"  # among the arguments: stage-1 fetches the runtime overlay as well


def archive(image: ServedImage, node: Node, release: str) -> Artefact:
    """Stage-1 of a kernel for the node's root. Raises WwfastError that says what is missing."""
    kind = node.root
    again = f"wwfast image build --format {kind} {image.name}"
    if kind not in image.roots:
        raise NotFoundError(f"image {image.name} is not built as {kind}", hint=again)
    if node.kernel.override:
        raise WwfastError(
            f"root {kind} of node {node.id} goes with the kernels of its image, and not with {node.kernel.override}",
            hint=f"wwfast node unset {node.id} --kerneloverride",
        )
    made = image.stage1.get(release)
    if made is None:
        raise NotFoundError(
            f"image {image.name} has no stage-1 of this version of wwfast for kernel {release}",
            hint=f"{again} says why",
        )
    if kind not in image.mounts.get(release, ()):
        raise WwfastError(
            f"kernel {release} of image {image.name} has no {kind}", hint=f"wwfast node set {node.id} --root initramfs"
        )
    return made


def enough(image: ServedImage, node: Node, memory: int) -> None:
    """Raises WwfastError where a node of `memory` MiB (0: unknown) cannot hold the image."""
    least = image.roots[node.root].size // MIB + BESIDE
    if memory and memory < least:
        raise WwfastError(f"image {image.name} as {node.root} needs {least} MiB of memory and this node has {memory}")


def arguments(image: ServedImage, node: Node, base: str, *, preload: bool) -> str:
    """The kernel's arguments: the node's own, and ours, in which iPXE says its address. Raises WwfastError."""
    own = " ".join(node.kernel.args)
    if checks.script(own):
        raise WwfastError(
            f"the kernel arguments of node {node.id} hold ${{, || or &&, which iPXE would run",
            hint=f"wwfast node set {node.id} --kernelargs ...",
        )
    ours = {
        "url": base,
        "image": image.build,
        "root": node.root,
        "pieces": image.roots[node.root + PIECES].digest,
        "ip": "${netX/ip}/${netX/netmask}",
        "gateway": "${netX/gateway}",
        "runtime": int(preload),
    }
    return " ".join([*([own] if own else []), *(f"wwfast.{name}={value}" for name, value in ours.items())])
