"""Whether the server knows a node when it asks, and has an address for it."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from wwfast.doctor.finding import ERROR, WARNING, Fault, Finding, Scene, grouped
from wwfast.net.dhcp.journal import guests
from wwfast.net.dhcp.network import clashes, held_in_range

if TYPE_CHECKING:
    from wwfast.nodes.model import Node

NONE = ("", "0.0.0.0")
SHOWN = 5  # of what a range holds


def known(scene: Scene, node: Node) -> Iterator[Fault]:
    """By which hardware address it is found; a discoverable one takes that of the next unknown machine."""
    if node.is_discoverable:
        if not node.network_devices:
            why = "is discoverable and has no network device that could take a hardware address"
            yield Fault(node.id, ERROR, "hwaddr", why, f"wwfast node set {node.id} --netname default --onboot true")
        return
    addresses = [device.hwaddr for device in node.network_devices.values() if device.hwaddr]
    if not addresses:
        why = "has no hardware address and is not discoverable, so no machine is this node"
        yield Fault(node.id, ERROR, "hwaddr", why, f"wwfast node set {node.id} --hwaddr MAC (or --discoverable=true)")
        return
    owners = {owner.id for address in addresses if (owner := scene.snapshot.by_mac(address)) is not None}
    if node.id not in owners:
        why = f"its hardware addresses belong to {', '.join(sorted(owners))} as well, and a machine boots as that"
        yield Fault(node.id, ERROR, "hwaddr", why, f"wwfast node set {node.id} --hwaddr MAC")


def addressed(scene: Scene, node: Node) -> Iterator[Fault]:
    """Our DHCP answers a node with the address of the device that asks, or one of the range."""
    dhcp = scene.settings.dhcp
    if not serves_addresses(scene) or has_address(node) or (dhcp.range_start and dhcp.range_end):
        return
    why = "has no address, and DHCP has no range to give it one"
    fix = f"wwfast node set {node.id} --ipaddr ADDRESS, or `dhcp: range start` and `range end` in warewulf.conf"
    yield Fault(node.id, ERROR, "address", why, fix)


def serves_addresses(scene: Scene) -> bool:
    return scene.settings.own_dhcp


def has_address(node: Node) -> bool:
    """Of a device that may ask: one whose hardware address is known, or is to be found out."""
    devices = node.network_devices.values()
    return any(it.ipaddr not in NONE for it in devices if it.hwaddr or node.is_discoverable)


def room(scene: Scene) -> Iterator[Finding]:
    """A range that is too small for the nodes that need it."""
    dhcp = scene.settings.dhcp
    if not serves_addresses(scene) or not (dhcp.range_start and dhcp.range_end):
        return
    there = int(IPv4Address(dhcp.range_end)) - int(IPv4Address(dhcp.range_start)) + 1
    need = sum(not has_address(node) for node in scene.snapshot.nodes.values())
    if 0 < there < need:
        message = f"the range of DHCP has {there} addresses, and {need} nodes without one of their own need it"
        yield Finding(WARNING, "address", message, "a larger `dhcp: range`, or addresses in nodes.conf")
    if held := held_in_range(scene.snapshot, scene.settings):
        shown = ", ".join(held[:SHOWN]) + (f" and {len(held) - SHOWN} more" if len(held) > SHOWN else "")
        message = f"the range of DHCP holds {shown}: no guest is given these"
        yield Finding(WARNING, "address", message, f"choose another range in {scene.paths.conf}")


def clashing(scene: Scene) -> list[Finding]:
    """Addresses that a node cannot have, or that something has already."""
    served = serves_addresses(scene)
    level, more = (ERROR, ": DHCP does not give it") if served else (WARNING, "")
    return grouped(
        Fault(
            clash.node,
            level,
            "address",
            f"{clash.address} {clash.why}{more}",
            f"wwfast node set {clash.node} --ipaddr ADDRESS",
        )
        for clash in clashes(scene.snapshot, scene.settings, guests(scene.paths.database))
        if scene.asked(clash.node)
    )
