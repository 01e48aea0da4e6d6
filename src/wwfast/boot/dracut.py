"""Boots by Warewulf's dracut module, which sites have in the images that they bring: 90wwinit in an initramfs there.

The boot loader fetches kernel and initramfs; the module then asks for the system overlay, and, when it has a root, for
image, system and runtime overlay, as gzip. What it must be told is on the kernel's command line.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from wwfast.boot.ways import BESIDE, DRACUT, MIB, Choice, Machine, UnfitError, Way, whole
from wwfast.config.checks import MOUNTED, on_disk
from wwfast.errors import NotFoundError, WwfastError
from wwfast.images.kernels.initramfs import BOOTS, told

if TYPE_CHECKING:
    from wwfast.boot.standing import Initramfs, ServedImage
    from wwfast.nodes.model import Node

ENTRY, STATIC = ENTRIES = ("dracut", "dracut_static")
IPXE_TAG, GRUB_TAG = "IPXEMenuEntry", "GrubMenuEntry"
SIZE = "wwinit.tmpfs.size="  # a kernel argument of the node: without it a tmpfs takes half of the memory
#: What an initramfs unpacks to, beside its own size: with Debian's, dracut and zstd, 33 MB are 92.
UNPACKS = 4


def entry(node: Node) -> str:
    """One of ENTRIES by the tags of the node, or "": GRUB is not served, who was to boot so by it does by iPXE."""
    said = node.tags.get(IPXE_TAG, "")
    if said:
        return said if said in ENTRIES else ""
    return ENTRY if node.tags.get(GRUB_TAG) == ENTRY else ""


def initramfs(image: ServedImage, release: str) -> Initramfs:
    """That of a kernel. Raises NotFoundError that says what is missing."""
    if image.initramfs is None:
        raise NotFoundError(
            f"image {image.name} was built without its own initramfs", hint=f"wwfast image build {image.name}"
        )
    found = image.initramfs.get(release)
    if found is None:
        raise NotFoundError(
            f"image {image.name} has no initramfs for kernel {release} in /boot", hint=_makes(image, release)
        )
    return found


def _makes(image: ServedImage, release: str) -> str:
    """How to come by a right one."""
    return f"with warewulf-dracut in it, {makes(image.name, release)}"


def makes(image: str, release: str, programs: Sequence[str] = ()) -> str:
    """What makes the initramfs of a kernel in an image, with these programs of the image in it."""
    install = f' --install "{" ".join(programs)}"' if programs else ""
    dracut = f"dracut --force --no-hostonly --add wwinit{install} --kver {release}"
    return f"wwfast image exec {image} -- {dracut}; wwfast image build {image}"


def way(image: ServedImage, release: str, root: str = "", args: str = "") -> Way:
    """With a kernel of this release, for a root as nodes.conf has it. Raises WwfastError that says what is missing."""
    found = initramfs(image, release)
    name = found.artefact.name
    if not found.unread and not found.module:
        raise WwfastError(
            f"{name} of image {image.name} is without Warewulf's module (90wwinit)", hint=_makes(image, release)
        )
    if not found.unread and found.module not in BOOTS:
        why = "it would lose what overlays have of files of the image, and 4.6.2 is the first that does not"
        raise WwfastError(
            f"{name} of image {image.name} has the module of Warewulf {told(found.module)}: {why}",
            hint=_makes(image, release),
        )
    if not image.artefacts:
        raise WwfastError(f"image {image.name} has a file that an initramfs cannot carry, and so it comes in no gzip")
    loaded, unpacked = UNPACKS * found.artefact.size, image.unpacked
    if on_disk(root):
        return Way(DRACUT, need := -(-loaded // MIB) + BESIDE[DRACUT], need, found.artefact.size)
    need = -(-(loaded + unpacked) // MIB) + BESIDE[DRACUT]
    if SIZE not in args:
        need = max(need, whole(-(-2 * unpacked // MIB)))
    return Way(DRACUT, need, need, found.artefact.size)


def offered(image: ServedImage, release: str) -> Way:
    """With a kernel of this release and a root in memory: what it needs, or lacks."""
    try:
        return way(image, release)
    except WwfastError as error:
        return Way(DRACUT, lacks=error.message, hint=error.hint or "")


def choose(image: ServedImage, node: Node, release: str, machine: Machine) -> Choice:
    """Raises WwfastError where the node cannot boot so, and why."""
    if node.kernel.override:
        raise WwfastError(
            f"node {node.id} has a kernel that is kept apart from its image, and dracut boots those of images",
            hint=f"wwfast node set {node.id} --kerneloverride UNSET --kernelversion VERSION",
        )
    if node.root in MOUNTED:
        raise WwfastError(
            f"root {node.root} of node {node.id} comes by wwfast's own stage-1, and its tags ask for dracut",
            hint=f"wwfast node set {node.id} --tagdel {IPXE_TAG},{GRUB_TAG}, or --root UNSET",
        )
    found = way(image, release, node.root, " ".join(node.kernel.args))
    if machine.memory and machine.memory < found.need:
        raise UnfitError(
            f"image {image.name} does not fit node {node.id}, which has {machine.memory} MiB of memory: "
            f"{found.name} it needs {found.need} MiB",
            hint=f"wwfast node set {node.id} --tagdel {IPXE_TAG},{GRUB_TAG}, or --root /dev/...",
        )
    said = IPXE_TAG if node.tags.get(IPXE_TAG) else GRUB_TAG
    own = initramfs(image, release)
    with_ = f"Warewulf's module {told(own.module)}" if not own.unread else "a module that could not be looked at"
    return Choice(
        found,
        f"{found.name}: needs {found.need} MiB {machine}; tag {said} is {node.tags[said]}; "
        f"{own.artefact.name} has {with_}",
    )


def variables(node: Node, wwid: str, base: str) -> dict[str, object]:
    """What the script of the node fetches, and tells its kernel: for each of ENTRIES."""
    lines = {each: arguments(node, wwid, base, static=each == STATIC) for each in ENTRIES}
    return {"stages": ["initramfs"], "preload": False, "kernel_args": lines[entry(node)], **lines}


def arguments(node: Node, wwid: str, base: str, *, static: bool) -> str:
    """The kernel's arguments, but for `initrd=` and `wwid=`. Modules before 4.7.0 know `wwinit.uri`, those before 4.6.2
    the plain word `wwinit` for a root in memory."""
    network = ["rd.neednet=1"]
    for at in node.network_devices.values():
        if at.hwaddr and at.device:
            own = f"{at.device}:dhcp"
            if static:  # `on`, of Warewulf's scripts, is DHCP: dracut's network-legacy refuses it beside an address
                how = "none" if at.ipaddr else "on"
                own = f"{at.ipaddr}::{at.gateway}:{at.netmask}::{at.device}:{how}"
            network += [f"ifname={at.device}:{at.hwaddr}", f"ip={own}"]
    root = f"wwinit:{node.root}" if on_disk(node.root) else "wwinit"
    server = [f"root={root}", f"wwinit.server={base}", f"wwinit.uri={base}/provision/{wwid}"]
    return " ".join([*network, *server, "init=/warewulf/run-init", *node.kernel.args])
