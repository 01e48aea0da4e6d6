"""What nodes and profiles refer to: does it exist, and is an address taken twice?"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from wwfast.config import checks
from wwfast.errors import WwfastError
from wwfast.nodes.edit.store import Draft
from wwfast.nodes.registry import Snapshot
from wwfast.nodes.text.source import NODES, NOUN, PROFILES, Source
from wwfast.overlays.files import model
from wwfast.paths import Paths

if TYPE_CHECKING:
    from wwfast.config.settings import Settings
    from wwfast.images.store import Image
    from wwfast.nodes.model import Node

FIELDS = (
    ("image name", "image"),
    ("profiles", "profile"),
    ("system overlay", "overlay"),
    ("runtime overlay", "overlay"),
)
TAGS = ("IPXEMenuEntry", "GrubMenuEntry")  # as in boot.dracut
COMMAND = {"image": "wwfast image list", "overlay": "wwfast overlay list", "kernel": "wwfast kernel list"}


def names(kind: str, paths: Paths) -> list[str]:
    """What there is of a kind: node, profile, image, overlay, kernel; sorted."""
    if kind in ("node", "profile"):
        return sorted(Source.read(paths.nodes_conf).trees[NODES if kind == "node" else PROFILES])
    if kind == "image":
        return sorted({*directories(paths.chroots), *directories(paths.images), *directories(paths.warewulf_chroots)})
    if kind == "overlay":
        return sorted(model.names(paths))
    return directories(paths.kernels)


def directories(place: Path) -> list[str]:
    return sorted(entry.name for entry in place.iterdir() if entry.is_dir()) if place.is_dir() else []


def faults(draft: Draft, made: Snapshot, paths: Paths, settings: Settings) -> list[str]:
    """What the changes of a draft, which make `made`, refer to in vain, and the addresses they take twice or that no
    node can have."""
    found: list[str] = []
    there: dict[str, set[str]] = {}
    addressed = False
    for (section, name), (before, after) in draft.changes().items():
        if after is None:
            continue
        old = before if isinstance(before, dict) else {}
        for kind, value in references(after):
            if (kind, value) in references(old):
                continue
            if kind not in there:
                there[kind] = set(draft.names(PROFILES)) if kind == "profile" else set(names(kind, paths))
                there[kind] |= model.ALIASES.keys() if kind == "overlay" else set()
            if (value.partition("@")[0] if kind == "image" else value) not in there[kind]:
                found.append(f"{NOUN[section]} {name}: no {kind} {checks.shown(value)}")
        addressed = addressed or addresses(old) != addresses(after)
    found += namesakes(draft)
    found += mismatches(draft, made)
    if addressed:
        from wwfast.net.dhcp.journal import guests  # here: few commands need SQLite
        from wwfast.net.dhcp.network import clashes

        touched = {name for section, name in draft.changes() if section == NODES}
        every = any(section == PROFILES for section, _ in draft.changes())
        for problem in made.problems:
            if problem.rival and (every or {problem.id, problem.rival} & touched):
                found.append(str(problem))
        claims = clashes(made, settings, guests(paths.database))
        found += [str(clash) for clash in claims if every or {clash.node, clash.rival} & touched]
    return found


def mismatches(draft: Draft, made: Snapshot) -> list[str]:
    """What does not fit together by these changes: primary networks that name no device of their node, roots that do
    not come as `two stage` says."""

    def told(snapshot: Snapshot, names: Iterable[str] | None) -> set[str]:
        for name in names if names is not None else snapshot.source.trees[NODES]:
            snapshot.nodes.get(name)
        found = snapshot.found_problems()
        return {str(each) for each in found if each.mismatch and (names is None or each.id in names)}

    named: set[str] | None = set()
    for (section, name), (before, after) in draft.changes().items():
        if fitting(before) == fitting(after):
            continue
        if section == PROFILES:
            named = None
            break
        assert named is not None
        named.add(name)
    return sorted(told(made, named) - told(Snapshot(draft.source), named)) if named is None or named else []


def fitting(tree: object) -> object:
    """What of an entry has to fit together, in it and with its profiles."""
    if not isinstance(tree, dict):
        return None
    devices, said = tree.get("network devices"), ("primary network", "profiles", "root", "wwfast")
    return [tree.get(key) for key in said], sorted(devices) if isinstance(devices, dict) else None


def namesakes(draft: Draft) -> list[str]:
    """New nodes that DNS cannot tell from others: it knows no capitals (RFC 4343)."""
    new = [name for (section, name), (before, _) in draft.changes().items() if section == NODES and before is None]
    if not new:
        return []
    lower: dict[str, list[str]] = {}
    for name in draft.names(NODES):
        lower.setdefault(name.lower(), []).append(name)
    alike = dict.fromkeys(name.lower() for name in new if len(lower[name.lower()]) > 1)
    return [f"nodes {' and '.join(lower[name])} have one name: DNS knows no capitals" for name in alike]


def unbootable(draft: Draft, made: Snapshot, paths: Paths) -> list[str]:
    """What keeps nodes from booting once the changes of image or kernel in a draft are written, one line a cause."""
    concerned = {
        (section, name)
        for (section, name), (before, after) in draft.changes().items()
        if after is not None and boots(before) != boots(after)
    }
    if not concerned:
        return []
    every = any(section == PROFILES for section, _ in concerned)
    return without_kernel((node for node in made.nodes.values() if every or (NODES, node.id) in concerned), paths)


def without_kernel(nodes: Iterable[Node], paths: Paths) -> list[str]:
    """What keeps nodes with an image from getting a kernel, or by dracut what follows it, one line a cause (and one
    node that it hits)."""
    from wwfast.images.kernels.store import KernelStore, for_node
    from wwfast.images.store import ImageStore

    images, kernels, found, seen = ImageStore(paths), KernelStore(paths), [], set()
    for node in nodes:
        tags = [node.tags.get(tag, "") for tag in TAGS]
        kernel = node.kernel.override, node.kernel.version
        choice = (node.image_name, *kernel, *tags, node.root if any(tags) else "")
        if choice not in seen and node.image_name:
            seen.add(choice)
            try:
                boots = for_node(node, images, kernels)
                if any(tags):
                    _by_dracut(node, images.get(node.image_name), boots.version)
            except WwfastError as error:
                found.append(f"{error.message}\nhint: {error.hint}" if error.hint else error.message)
    return found


def _by_dracut(node: Node, image: Image, release: str) -> None:
    """Raises WwfastError where a node that is to boot so cannot; an image that is not built is told elsewhere."""
    from wwfast.boot import dracut  # here: few nodes boot so, and this reads archives
    from wwfast.boot.resolve import served
    from wwfast.boot.ways import UNTOLD

    if image.build is not None and dracut.entry(node):
        dracut.choose(served(image), node, release, UNTOLD)


def boots(tree: object) -> tuple[object, object]:
    """What of an entry chooses image and kernel, and how they are loaded."""
    if not isinstance(tree, dict):
        return None, None
    kernel = tree.get("kernel")
    own = {key: kernel.get(key) for key in ("version", "override")} if isinstance(kernel, dict) else {}
    tags = tree.get("tags")
    own |= {tag: tags.get(tag) for tag in TAGS} if isinstance(tags, dict) else {}
    return tree.get("image name"), {key: value for key, value in own.items() if value}


def references(tree: dict[str, object]) -> set[tuple[str, str]]:
    """Every (kind, name) an entry refers to."""
    found: set[tuple[str, str]] = set()
    for key, kind in FIELDS:
        value = tree.get(key) or ()
        for item in [value] if isinstance(value, str) else value if isinstance(value, list) else ():
            if isinstance(item, str) and item[:1] != "~":
                found.add((kind, item))
    kernel = tree.get("kernel")
    if isinstance(kernel, dict) and isinstance(kernel.get("override"), str) and kernel["override"]:
        found.add(("kernel", kernel["override"]))
    return found


def addresses(tree: dict[str, object]) -> list[object]:
    """All that must be unique in a cluster, or decides whether it must."""
    ipmi, devices = tree.get("ipmi"), tree.get("network devices")
    taken: list[object] = [ipmi.get("ipaddr") if isinstance(ipmi, dict) else None, tree.get("discoverable")]
    for device in devices.values() if isinstance(devices, dict) else ():
        if isinstance(device, dict):
            taken += [device.get(key) for key in ("hwaddr", "ipaddr", "ipaddr6", "netmask", "gateway", "gateway6")]
    return taken
