"""The network that DHCP serves, as warewulf.conf describes it, and the addresses on it that no node and no guest can
have, or that something has already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wwfast.config import checks
from wwfast.errors import ConfigError
from wwfast.net.dhcp.packet import dotted, number
from wwfast.nodes.model import address

if TYPE_CHECKING:
    from wwfast.config.settings import Settings
    from wwfast.nodes.model import Node
    from wwfast.nodes.registry import Snapshot
    from wwfast.paths import Paths


NONE = ("", "0.0.0.0", "::")
SERVERS = "is this server's address"


@dataclass(frozen=True, slots=True)
class Clash:
    """An address that a node or its BMC cannot have; `why` goes on after it: `is the broadcast address of its network`.
    `flag` is the one that sets it, `rival` the node whose BMC has it."""

    node: str
    address: str
    why: str
    flag: str = "ipaddr"
    rival: str = ""

    def __str__(self) -> str:
        return f"node {self.node}: {self.address} {self.why}"


def own_addresses(settings: Settings) -> dict[str, str]:
    """What no client may have, and what it is: this server's address, and those that mean the network and all of it."""
    found = {}
    bits = checks.MASKS.get(settings.netmask)
    if bits is not None and bits < 31:
        network = number(settings.ipaddr) & number(settings.netmask)
        found[dotted(network)] = "is the address of the cluster network itself"
        found[dotted(network | (1 << 32 - bits) - 1)] = "is the broadcast address of the cluster network"
    found |= {each.partition(":")[0]: "is the address of another head" for each in settings.wwfast.heads}
    return found | {settings.ipaddr: SERVERS}


def clashes(snapshot: Snapshot, settings: Settings, guests: Mapping[str, str]) -> Iterator[Clash]:
    """Of all nodes; `guests`: addresses of the range that are leased, and the MAC of each. That two nodes claim the
    same address is told by the registry."""
    own = own_addresses(settings) if settings.ipaddr else {}
    own |= {settings.ipaddr6: SERVERS} if settings.ipaddr6 else {}
    bmcs = {address(node.ipmi.ipaddr): node.id for node in snapshot.nodes.values() if node.ipmi.ipaddr}
    for node in snapshot.nodes.values():
        bmc = address(node.ipmi.ipaddr)
        if bmc in own:
            yield Clash(node.id, node.ipmi.ipaddr, own[bmc] + ", and not its BMC's", "ipmiaddr")
        elif bmc in guests:
            why = f"is leased to {guests[bmc]} at this time, and is to be its BMC's"
            yield Clash(node.id, node.ipmi.ipaddr, why, "ipmiaddr")
        for device in node.network_devices.values():
            four = "ipaddr", device.ipaddr, device.netmask, device.gateway
            for flag, said, netmask, gateway in (four, ("ipaddr6", device.ipaddr6, "", device.gateway6)):
                claimed = address(said)
                if claimed in NONE:
                    continue
                why, rival = own.get(claimed) or unfit(claimed, netmask, address(gateway)), ""
                if not why and claimed in bmcs:
                    rival = bmcs[claimed]
                    why = f"is the address of the BMC of node {rival}"
                guest = guests.get(claimed, "")
                if not why and guest and not _has(node, guest):
                    why = f"is leased to {guest} at this time"
                if why:
                    yield Clash(node.id, said, why, flag, rival)


def unfit(claimed: str, netmask: str, gateway: str = "") -> str:
    """What a device itself says against its address."""
    if checks.host(claimed):
        return "is an address that no host has"
    if claimed == gateway:
        return "is also its gateway"
    bits = checks.MASKS.get(netmask, 32)
    if ":" in claimed or not 0 < bits < 31:
        return ""
    host = number(claimed) & ((1 << 32 - bits) - 1)
    if host in (0, (1 << 32 - bits) - 1):
        return f"is the {'broadcast ' if host else ''}address of its network, not of a host (netmask {netmask})"
    return ""


def _has(node: Node, mac: str) -> bool:
    return any(device.is_called(mac) for device in node.network_devices.values())


def held_in_range(snapshot: Snapshot, settings: Settings) -> list[str]:
    """What in the range has an address that is not a node's, so that no guest gets it: `10.5.0.1 (this server)`."""
    first, last = number(settings.dhcp.range_start), number(settings.dhcp.range_end)
    held = {address: why.removeprefix("is ") for address, why in own_addresses(settings).items()}
    for node in snapshot.nodes.values():
        for device in node.network_devices.values():
            held.setdefault(device.gateway, f"the gateway of node {node.id}")
        if not checks.ip4(node.ipmi.ipaddr):
            held.setdefault(node.ipmi.ipaddr, f"the BMC of node {node.id}")
    inside = [address for address in held if address and first <= number(address) <= last]
    return [f"{address} ({held[address]})" for address in sorted(inside, key=number)]


def require_written(settings: Settings, paths: Paths) -> None:
    """DHCP on a network the admin did not write down could answer on the wrong one. An address with its mask
    (`10.0.0.1/22`, or `netmask`) says which one it is."""
    missing = [key for key in ("ipaddr", "network") if not getattr(settings, key)]
    if missing:
        raise ConfigError(
            f"{paths.conf}: DHCP needs {' and '.join(missing)} to be written down; nothing is guessed",
            hint="add them, or set `dhcp: enabled: false`",
        )


def require_range(settings: Settings, paths: Paths) -> None:
    """A range of which nothing is served would be found out when the first unknown machine asks."""
    first, last = settings.dhcp.range_start, settings.dhcp.range_end
    if not first and not last:
        return
    if not first or not last or number(first) > number(last):
        shown = f"from {first or 'nothing'} to {last or 'nothing'}"
        raise ConfigError(f"{paths.conf}: the range of DHCP is {shown}", hint="set `range start` and `range end`")
    mask = number(settings.netmask) if settings.netmask in checks.MASKS else 0
    if any((number(address) ^ number(settings.ipaddr)) & mask for address in (first, last)):
        network = f"{dotted(number(settings.ipaddr) & mask)}/{checks.MASKS[settings.netmask]}"
        raise ConfigError(
            f"{paths.conf}: the range of DHCP, {first} to {last}, is not within the cluster network {network}",
            hint="set `range start` and `range end` to addresses of that network",
        )
