"""What a DHCP responder is told and says, and whose word counts."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import msgspec

from wwfast.net.dhcp.packet import Message, Option, sub_options

#: RFC 8357: the relay listens on the port it sent from, not on 67.
RELAY_SOURCE_PORT = 19
SERVER_PORT, CLIENT_PORT, PROXY_PORT = 67, 68, 4011
#: Kinds of contact that gave the client nothing to boot.
NO_BOOT_FILE = "NO BOOT FILE"
REFUSED = ("IGNORED", "DECLINE", NO_BOOT_FILE)


class Reservation(msgspec.Struct, frozen=True):
    """What nodes.conf says about a MAC: its node and, if it has one, its address (dotted, "" for none).

    `unusable`: the fault that keeps it out of service, or ""; the machine gets no answer, not even as a stranger.
    """

    node: str
    address: str = ""
    netmask: str = ""
    gateway: str = ""
    hostname: str = ""
    unusable: str = ""


class BootFile(msgspec.Struct, frozen=True):
    """`filename` is a name on the TFTP server `next_server`, or a URL."""

    next_server: str
    filename: str


LEASE_SECONDS = 86400


@dataclass(frozen=True, slots=True)
class DhcpConfig:
    """Of the network served; addresses dotted, "" where unset. `proxy`: give boot files, never addresses;
    `relays`: addresses of those that may send from any port (RFC 8357); `siblings`: other servers that belong here."""

    server_ip: str
    netmask: str = ""
    router: str = ""
    dns: tuple[str, ...] = ()
    domain: str = ""
    lease_seconds: int = LEASE_SECONDS
    proxy: bool = False
    relays: frozenset[int] = frozenset()
    siblings: frozenset[int] = frozenset()


class Way(Enum):
    """How a reply travels (RFC 2131 4.1)."""

    ROUTED = "routed"  # to address:port
    BROADCAST = "broadcast"  # to every station on the link
    LINK = "link"  # to an address its owner does not have yet, by its MAC


class Reply(msgspec.Struct, frozen=True):
    data: bytes
    way: Way
    address: int
    port: int
    mac: bytes = b""


class Contact(msgspec.Struct, frozen=True):
    """What happened, for the boot timeline: `kind` is OFFER, ACK, ...; or IGNORED with the reason in `detail`.

    `boots`: firmware or a boot loader, not an operating system, was answered.
    """

    mac: str
    node: str
    kind: str
    address: str
    detail: str = ""
    boots: bool = False


def proven(message: Message, source: tuple[int, int], relays: frozenset[int]) -> bool:
    """Whether no ordinary user of a node can have sent this: it takes root to send from the port of DHCP clients, or
    from that of relays (RFC 2131 4.1). A relay that uses another port and says so (RFC 8357) must be known by its
    address; what it sends from is not what it writes into giaddr, which is its address on the clients' link."""
    address, port = source
    if port == CLIENT_PORT:
        return True
    if not message.giaddr:
        return False
    return port == SERVER_PORT or (
        address in relays and RELAY_SOURCE_PORT in sub_options(message.options.get(Option.RELAY_AGENT, b""))
    )
