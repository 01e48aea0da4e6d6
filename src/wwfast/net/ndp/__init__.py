"""IPv6 router solicitations of nodes in iPXE, sans IO: who gets an answer, and which.

iPXE configures IPv6 beside IPv4 and goes on only when both have ended. Where no router answers it solicits one for
16 s (iPXE 1.0.0 of Debian 12 under OVMF, measured; 27 s on a busy machine) with its IPv4 address long at hand. An
advertisement that offers nothing (RFC 4861 4.2: no router lifetime, no prefix, no DHCPv6) ends its wait at once.

A router that is there comes first: it answers within half a second (RFC 4861 10, MAX_RA_DELAY_TIME), after which
iPXE does not ask again. So only a node that asks again gets our answer, and it alone.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from wwfast.net.recent import Recent

SOLICITATION, ADVERTISEMENT = 133, 134
SOURCE_LINK_ADDRESS = 1
HOP_LIMIT = 255  # a packet with less came through a router and is not of this link (RFC 4861 6.1.1)
ICMPV6 = 58
#: The least time between two solicitations of one wait: a router has had its half second.
AGAIN_SECONDS = 0.5
#: Solicitations further apart are of two boots.
FORGET_SECONDS = 30.0
#: Machines that wait at once, at most; each link of a cluster's size.
WAITING = 16384


def solicitor(packet: bytes) -> str:
    """The MAC in a router solicitation (ICMPv6 header first); "" when it is none, is malformed, or names no MAC."""
    if len(packet) < 8 or packet[0] != SOLICITATION or packet[1] != 0:
        return ""
    at, found = 8, ""
    while at < len(packet):
        if at + 2 > len(packet) or not packet[at + 1] or at + packet[at + 1] * 8 > len(packet):
            return ""
        if packet[at] == SOURCE_LINK_ADDRESS and packet[at + 1] == 1:
            found = packet[at + 2 : at + 8].hex(":")
        at += packet[at + 1] * 8
    return found


def advertisement(source: str, target: str) -> bytes:
    """An IPv6 packet with an advertisement that offers nothing, from one link-local address to another."""
    body = struct.pack(">BBHBBHII", ADVERTISEMENT, 0, 0, 0, 0, 0, 0, 0)
    ends = ipaddress.IPv6Address(source).packed + ipaddress.IPv6Address(target).packed
    total = sum(struct.unpack(">30H", ends + struct.pack(">II", len(body), ICMPV6) + body + bytes(4)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    body = body[:2] + struct.pack(">H", ~total & 0xFFFF) + body[4:]
    return struct.pack(">IHBB", 6 << 28, len(body), ICMPV6, HOP_LIMIT) + ends + body


@dataclass(slots=True)
class Impatience:
    """Which solicitation is to be answered. `boots(mac)`: whether firmware or iPXE of that machine asks us now."""

    boots: Callable[[str], bool]
    clock: Callable[[], float]
    _asked: Recent[float] = field(default_factory=lambda: Recent(WAITING))

    def answers(self, mac: str) -> bool:
        if not self.boots(mac):
            self._asked.pop(mac, None)
            return False
        now = self.clock()
        first = self._asked.get(mac, float("-inf"))
        if now - first > FORGET_SECONDS:
            self._asked.note(mac, now)
            return False
        return now - first >= AGAIN_SECONDS
