"""What a node that boots by Warewulf's dracut module gets and does not get.

What keeps it from booting at all its script says (boot.dracut).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from wwfast.archive.artefact import GZ
from wwfast.doctor.finding import ERROR, WARNING, Fault
from wwfast.images.kernels.initramfs import NEWEST, in_tree, told

if TYPE_CHECKING:
    from wwfast.config.settings import Settings
    from wwfast.images.kernels.store import NodeKernel
    from wwfast.images.store import Image
    from wwfast.nodes.model import Node

CHECK = "dracut"


def fetches(node: Node, image: Image, boots: NodeKernel, settings: Settings) -> Iterator[Fault]:
    """The image as gzip, the runtime overlay over HTTPS, and a module that could be looked at."""
    build = image.build
    if build is None:
        return
    if build.artefact(GZ) is None:
        why = f"image {image.name} is not built as gzip, which dracut unpacks: the first node waits until it is made"
        yield Fault(node.id, WARNING, CHECK, why, f"wwfast image build {image.name}")
    own = next((each for each in build.info.initramfs or () if each.kernel == boots.version), None)
    if own is None:
        return
    if own.unread:
        module = in_tree(image.rootfs).since
        has = f"has that of Warewulf {told(module)}" if module else "has none"
        why = f"nobody knows which module is in {own.path} of image {image.name}: {own.unread}; its tree {has}"
        yield Fault(node.id, WARNING, CHECK, why, f"compress it otherwise: dracut --gzip, by image exec {image.name}")
    elif settings.warewulf.tls and own.module != NEWEST:
        why = f"the module of Warewulf {told(own.module)} in {own.path} of image {image.name} dies without the runtime "
        why += "overlay, which it fetches over HTTP alone"
        yield Fault(node.id, ERROR, CHECK, why, "warewulf-dracut 4.7 in the image, or `tls: false`")
