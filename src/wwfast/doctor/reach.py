"""Whether the server knows a node when it asks, and has an address for it."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from wwfast.config import checks
from wwfast.doctor.finding import ERROR, WARNING, Fault, Finding, Scene, grouped
from wwfast.net.dhcp.journal import guests
from wwfast.net.dhcp.network import NONE, Clash, clashes, held_in_range
from wwfast.net.dhcp.packet import number

if TYPE_CHECKING:
    from wwfast.nodes.model import NetDev, Node

ALONE = "255.255.255.255"
SHOWN = 5  # of what a range holds


def known(scene: Scene, node: Node) -> Iterator[Fault]:
    """By which hardware address it is found; a discoverable one takes that of the next unknown machine."""
    if node.is_discoverable:
        if not node.network_devices:
            why = "is discoverable and has no network device that could take a hardware address"
            yield Fault(node.id, ERROR, "hwaddr", why, f"wwfast node set {node.id} --netname default --onboot true")
        return
    given = [device.hwaddr for device in node.network_devices.values() if device.hwaddr]
    addresses = [each for each in given if not checks.hwaddr(each)]
    if not addresses:
        none = f"has no hardware address{' that a card can have' if given else ''}"
        why = f"{none} and is not discoverable, so no machine is this node"
        yield Fault(node.id, ERROR, "hwaddr", why, f"wwfast node set {node.id} --hwaddr MAC (or --discoverable=true)")
        return
    owners = {owner.id for address in addresses if (owner := scene.snapshot.by_mac(address)) is not None}
    if node.id not in owners:
        why = f"its hardware addresses belong to {', '.join(sorted(owners))} as well, and a machine boots as that"
        yield Fault(node.id, ERROR, "hwaddr", why, f"wwfast node set {node.id} --hwaddr MAC")


def addressed(scene: Scene, node: Node) -> Iterator[Fault]:
    """Our DHCP answers a node with the address of the device that asks, or one of the range; and with that it has to
    reach us. Whatever else it has, one device that does is enough."""
    if not serves_addresses(scene):
        return
    ranged = bool(scene.settings.dhcp.range_start and scene.settings.dhcp.range_end)
    asking = {name: it for name, it in node.network_devices.items() if it.hwaddr or node.is_discoverable}
    told = [
        _reaches(scene, node, name, device) if device.ipaddr not in NONE else None
        for name, device in asking.items()
        if ranged or device.ipaddr not in NONE
    ]
    if None not in told:
        yield from filter(None, told)
    if not told and not ranged:
        why = "has no address, and DHCP has no range to give it one"
        fix = f"wwfast node set {node.id} --ipaddr ADDRESS, or `dhcp: range start` and `range end` in warewulf.conf"
        yield Fault(node.id, ERROR, "address", why, fix)


def _reaches(scene: Scene, node: Node, name: str, device: NetDev) -> Fault | None:
    """Whether a device gets its address, and comes to this server by it; a relay is the gateway of its own network."""
    other = scene.snapshot.by_ip(device.ipaddr)
    fix = f"wwfast node set {node.id} --netname {name}"
    if other is not None and other is not node:
        why = f"{device.ipaddr} also belongs to node {other.id}: DHCP does not give it"
        return Fault(node.id, ERROR, "address", why, f"{fix} --ipaddr ADDRESS")
    settings = scene.settings
    netmask = device.netmask if device.netmask in checks.MASKS else settings.netmask
    if not (settings.ipaddr and settings.netmask in checks.MASKS):
        return None  # told of warewulf.conf
    if _same_network(device.ipaddr, settings.ipaddr, netmask):
        return None
    if device.gateway not in NONE:
        if netmask == ALONE or _same_network(device.ipaddr, device.gateway, netmask):
            return None
        why = f"its gateway {device.gateway} is not in the network of {device.ipaddr} with netmask {netmask}"
        return Fault(
            node.id, WARNING, "address", f"{why}: Linux takes no such route to this server", f"{fix} --gateway ADDRESS"
        )
    alone = netmask == ALONE or _same_network(device.ipaddr, settings.ipaddr, settings.netmask)
    if not alone and settings.wwfast.dhcp_relays:
        return None
    why = f"{device.ipaddr} with netmask {netmask} and no gateway does not reach this server, {settings.ipaddr}"
    fix += (
        f" --netmask {settings.netmask}, or --gateway ADDRESS" if alone else " --gateway ADDRESS, or --ipaddr ADDRESS"
    )
    more = "" if alone else ", unless a DHCP relay is in its network"
    return Fault(node.id, ERROR if alone else WARNING, "address", why + more, fix)


def _same_network(one: str, other: str, netmask: str) -> bool:
    return not (number(one) ^ number(other)) & number(netmask)


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
    """Addresses that a node cannot have, or that something has already; DHCP gives those of IPv4."""

    def fault(clash: Clash) -> Fault:
        given = serves_addresses(scene) and ":" not in clash.address
        why = f"{clash.address} {clash.why}" + (": DHCP does not give it" if given else "")
        fix = f"wwfast node set {clash.node} --{clash.flag} ADDRESS"
        return Fault(clash.node, ERROR if given else WARNING, "address", why, fix)

    found = clashes(scene.snapshot, scene.settings, guests(scene.paths.database))
    return grouped(fault(clash) for clash in found if scene.asked(clash.node))
