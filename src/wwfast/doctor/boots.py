"""Whether the nodes' images and kernels are there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from wwfast.doctor.finding import ERROR, WARNING, Finding, Scene
from wwfast.errors import WwfastError
from wwfast.images import inside
from wwfast.images.kernels import KernelStore, for_node
from wwfast.images.store import ImageStore

if TYPE_CHECKING:
    from wwfast.nodes.model import Node


def images(scene: Scene) -> Iterator[Finding]:
    """Images in use: present, built, and with what wwclient needs (curl and tar)."""
    store = ImageStore(scene.paths)
    used = {node.image_name for node in scene.snapshot.nodes.values() if node.image_name}
    for name in sorted(used):
        try:
            image = store.get(name)
        except WwfastError as error:
            fix = f"wwfast image import SOURCE {name}" if "@" not in name else error.hint or "wwfast image list"
            yield Finding(ERROR, "images", error.message, fix)
            continue
        if image.artefact(image.boot_format) is None:
            yield Finding(ERROR, "images", f"image {name} is not built", f"wwfast image build {name}")
        for tool in ("curl", "tar"):
            if not any(inside.is_file(image.rootfs, f"/{folder}/{tool}") for folder in ("usr/bin", "bin")):
                yield Finding(
                    WARNING,
                    "images",
                    f"image {name} has no {tool}: its nodes get no runtime overlay",
                    f"wwfast image exec {name} -- apt-get install -y {tool}  (or dnf, zypper)",
                )


def kernels(scene: Scene) -> Iterator[Finding]:
    """The kernel of every node: there, and with its modules. Nodes that agree on image and kernel are one finding."""
    images, own = ImageStore(scene.paths), KernelStore(scene.paths)
    known = set(images.names())
    alike: dict[tuple[str, str, str], list[Node]] = {}
    for node in scene.snapshot.nodes.values():
        if node.kernel.override or node.image_name.partition("@")[0] in known:
            alike.setdefault((node.image_name, node.kernel.override, node.kernel.version), []).append(node)
    for nodes in alike.values():
        try:
            for_node(nodes[0], images, own)
        except WwfastError as error:
            more = f" (and {len(nodes) - 1} more nodes)" if len(nodes) > 1 else ""
            yield Finding(ERROR, "kernels", f"{error.message}{more}", error.hint or "wwfast image kernels")
