"""The sockets for router solicitations: a raw one that hears them, a packet socket that answers one machine."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from pathlib import Path

from wwfast.net.ndp import ADVERTISEMENT, HOP_LIMIT, ICMPV6, SOLICITATION, Impatience, advertisement, solicitor

log = logging.getLogger(__name__)

ICMP6_FILTER = 1
ETH_P_IPV6 = 0x86DD
ALL_ROUTERS = "ff02::2"
TURN = 256  # packets handled before other work of the event loop gets its turn


def link_local(interface: str, listing: Path = Path("/proc/net/if_inet6")) -> str:
    """The link-local address of an interface, "" without one (IPv6 is off)."""
    with contextlib.suppress(OSError):
        for line in listing.read_text().splitlines():
            address, _, _, scope, _, name = line.split()
            if name == interface and scope == "20":
                return ":".join(address[at : at + 4] for at in range(0, 32, 4))
    return ""


class NdpServer:
    """Answers the solicitations on one interface that `impatience` says are to be answered."""

    def __init__(self, interface: str, source: str, impatience: Impatience) -> None:
        """Raises OSError: PermissionError without CAP_NET_RAW, others where there is no IPv6."""
        self._interface = interface
        self._source = source
        self._impatience = impatience
        self.answered = 0
        self._raw = socket.socket(socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_NONBLOCK, ICMPV6)
        self._link = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, 0)
        try:
            self._listen(interface)
        except OSError:
            self._raw.close()
            self._link.close()
            raise

    def _listen(self, interface: str) -> None:
        passed = bytearray(b"\xff" * 32)  # a bit per type, set: blocked (RFC 3542 3.2)
        (word,) = struct.unpack_from("=I", passed, SOLICITATION // 32 * 4)
        struct.pack_into("=I", passed, SOLICITATION // 32 * 4, word & ~(1 << SOLICITATION % 32))
        self._raw.setsockopt(ICMPV6, ICMP6_FILTER, bytes(passed))
        self._raw.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode() + b"\0")
        self._raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
        group = socket.inet_pton(socket.AF_INET6, ALL_ROUTERS) + struct.pack("=I", socket.if_nametoindex(interface))
        self._raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)

    def start(self) -> None:
        asyncio.get_running_loop().add_reader(self._raw.fileno(), self._readable)

    def stop(self) -> None:
        """Safe before start()."""
        asyncio.get_running_loop().remove_reader(self._raw.fileno())
        self._raw.close()
        self._link.close()

    def _readable(self) -> None:
        for _ in range(TURN):
            try:
                packet, extra, _, sender = self._raw.recvmsg(1500, 64)
            except BlockingIOError:
                return
            except OSError as error:
                log.warning("router solicitations: %s", error)
                return
            limits = [data for level, kind, data in extra if (level, kind) == (41, socket.IPV6_HOPLIMIT)]
            address = str(sender[0]).split("%")[0]
            mac = solicitor(packet)
            if not mac or not address.startswith("fe80") or limits != [struct.pack("=i", HOP_LIMIT)]:
                continue
            if self._impatience.answers(mac):
                self._answer(mac, address)

    def _answer(self, mac: str, address: str) -> None:
        frame = advertisement(self._source, address)
        where = (self._interface, ETH_P_IPV6, 0, 1, bytes.fromhex(mac.replace(":", "")))
        try:
            self._link.sendto(frame, where)
        except OSError as error:  # full, or the interface is down: the machine asks again
            log.debug("no advertisement to %s: %s", mac, error)
        else:
            self.answered += 1
            log.debug("%s asked again for an IPv6 router: type %d, offering nothing", mac, ADVERTISEMENT)
