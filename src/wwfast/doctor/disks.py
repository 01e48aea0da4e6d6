"""Whether what prepares a node's disks is there: the programs that the scripts of its system overlay call.

They run in the image, in stage-1, which has its programs of the image, or in the initramfs that dracut made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wwfast.boot import dracut
from wwfast.doctor.finding import ERROR, WARNING, Fault
from wwfast.images.stage1 import programs

if TYPE_CHECKING:
    from wwfast.doctor.initrd import Root
    from wwfast.images.kernels.store import NodeKernel
    from wwfast.nodes.model import Node

CHECK = "disks"
PREPARING, PARTITIONING = "whatever is done with disks", "a partition table"
SCRIPTS = "warewulf/wwinit.d"
IGNITION, TABLES, FORMATS, SWAPS, ROOT = (
    "10-ignition.sh", "10-sfdisk.sh", "20-mkfs.sh", "20-mkswap.sh", "90-root.sh",
)  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Where the scripts run: `name` for words, what `has` it, and how programs come into it."""

    name: str
    has: Callable[[str], bool]
    gets: Callable[[list[str]], str]


def prepared(node: Node, root: Root, boots: NodeKernel) -> Iterator[Fault]:
    """What they lack for its tables, swap space and file systems."""
    scripts = {name for name in (IGNITION, TABLES, FORMATS, SWAPS, ROOT) if f"{SCRIPTS}/{name}" in root.over}
    place = _place(node, root, boots)
    if not scripts or place is None:
        return
    wanted = dict(_wanted(node, scripts, place.has))
    lacking = {what: [it for it in names if not place.has(it)] for what, names in wanted.items()}
    missing = list(dict.fromkeys(name for names in lacking.values() for name in names))
    for what, names in lacking.items():
        if names:
            needs = what in (PREPARING, PARTITIONING)
            why = f"{place.name} lacks {', '.join(names)} for {what}: a boot stops"
            why += "" if needs else " where there is none yet"
            yield Fault(node.id, ERROR if needs else WARNING, CHECK, why, place.gets(missing))


def _wanted(node: Node, scripts: set[str], has: Callable[[str], bool]) -> Iterator[tuple[str, list[str]]]:
    """What is to be made, and what is called for it."""
    storage: dict[str, Any] = {}
    if IGNITION in scripts:
        scripts = scripts - {IGNITION}
        if not has("ignition") and not scripts - {ROOT}:  # their work is done in its place
            scripts |= {TABLES, FORMATS, SWAPS}
            if not node.disks and not node.filesystems:
                storage = _part(_part(node.resources, "ignition"), "storage")
    if not scripts:
        return
    yield PREPARING, programs.of_scripts()
    if TABLES in scripts and (node.disks or storage.get("disks") or node.resources.get("sfdisk")):
        yield PARTITIONING, programs.making("sfdisk")
    formats = {device: it.format for device, it in node.filesystems.items() if it.format}
    if not node.filesystems:
        formats = dict(_formats(node, storage))
    for device, kind in formats.items():
        if (SWAPS if kind == "swap" else FORMATS) in scripts:
            yield f"{'swap space' if kind == 'swap' else kind} on {device}", programs.making(kind)
    if ROOT in scripts and node.root not in formats:
        kind = "xfs" if has("mkfs.xfs") and not has("mkfs.ext4") else "ext4"
        yield f"a root on {node.root}", programs.making(kind)


def _formats(node: Node, storage: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Of resources, whose shape nobody has looked at."""
    for key, where, usual in (("mkfs", "type", ""), ("mkswap", "", "swap")):
        for it in _list(node.resources.get(key)):
            if kind := usual or str(it.get(where) or ""):
                yield str(it.get("device")), kind
    for it in _list(storage.get("filesystems")):
        if (kind := str(it.get("format") or "none")) != "none":
            yield str(it.get("device")), kind


def _part(of: dict[str, Any], key: str) -> dict[str, Any]:
    found = of.get(key)
    return found if isinstance(found, dict) else {}


def _list(value: object) -> list[dict[str, Any]]:
    return [it for it in value if isinstance(it, dict)] if isinstance(value, list) else []


def _place(node: Node, root: Root, boots: NodeKernel) -> Place | None:
    """None where nobody knows what is there."""
    image = root.image

    def carried(name: str) -> bool:
        return any(root.runs(f"{folder}/{name}") for folder in programs.PATH)

    def installed(names: list[str]) -> str:
        packages = dict.fromkeys(programs.package(name, image.rootfs) for name in names)
        return f"wwfast image exec {image.name} -- apt-get install -y {' '.join(packages)}  (or dnf, zypper)"

    if not dracut.entry(node):
        build = f"; wwfast image build {image.name}"
        return Place(f"image {image.name}", carried, lambda names: installed(names) + build)
    own = next(
        (it for it in (image.build.info.initramfs if image.build else None) or () if it.kernel == boots.version), None
    )
    if own is None or own.programs is None:
        return None
    inside = set(own.programs)

    def taken(names: list[str]) -> str:
        absent = [name for name in names if not carried(name)]
        before = f"{installed(absent)}; " if absent else ""
        return before + dracut.makes(image.name, boots.version, names)

    return Place(f"{own.path} of image {image.name}", inside.__contains__, taken)
