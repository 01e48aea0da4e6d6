"""The DHCP sockets: one interface, replies on the interface that asked, never a wait.

A reply to a client without an address goes out as a link-level frame to its MAC (packet socket), so neither the
neighbour table (1024 entries by default) nor broadcasts to every node stand between 10,000 clients and us.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

from wwfast.errors import WwfastError
from wwfast.net.dhcp.packet import (
    BROADCAST_FLAG,
    REPLY,
    Kind,
    Malformed,
    Message,
    Option,
    build,
    dotted,
    number,
    parse,
)
from wwfast.net.dhcp.responder import CLIENT_PORT, PROXY_PORT, SERVER_PORT, Contact, Reply, Responder, Way
from wwfast.net.listen import bind_error, grow_receive_buffer
from wwfast.net.transfer import Outcome, Transfer
from wwfast.run import run

log = logging.getLogger(__name__)

#: Packets handled before other work of the event loop gets its turn.
TURN = 256
SO_RXQ_OVFL = 40
IP_PKTINFO = 8
ETH_P_IP = 0x0800


def interface_of(address: str) -> str:
    """The interface that has this address. Raises WwfastError when none has."""
    shown = json.loads(run(["ip", "-j", "addr", "show", "to", f"{address}/32"], package="iproute2").stdout or b"[]")
    for link in shown:
        if link.get("ifname"):
            return str(link["ifname"])
    raise WwfastError(
        f"no interface of this machine has the address {address} (ipaddr in warewulf.conf)",
        hint=f"give it to the cluster's interface, for example: ip address add {address}/24 dev eth1",
    )


@dataclass(frozen=True, slots=True)
class DhcpSockets:
    """`server` listens on 67 (or `port`), `proxy` on 4011, `link` sends frames (None: broadcast instead)."""

    interface: str
    server: socket.socket
    proxy: socket.socket | None
    link: socket.socket | None

    def close(self) -> None:
        for sock in (self.server, self.proxy, self.link):
            if sock is not None:
                sock.close()


def listening(interface: str, port: int) -> socket.socket:
    """A socket for `port` on one interface. Raises WwfastError naming the port when it is taken or privileged."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode() + b"\0")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.setsockopt(socket.SOL_SOCKET, SO_RXQ_OVFL, 1)
        sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        grow_receive_buffer(sock)
        sock.bind(("", port))
    except OSError as error:
        sock.close()
        raise bind_error(port, interface, error) from error
    return sock


def open_sockets(
    interface: str,
    *,
    port: int = SERVER_PORT,
    proxy_port: int | None = PROXY_PORT,
    listen: Callable[[str, int], socket.socket] = listening,
) -> DhcpSockets:
    """All sockets for one interface; raises what `listen` does."""
    server = listen(interface, port)
    proxy = None
    try:
        if proxy_port is not None:
            proxy = listen(interface, proxy_port)
    except WwfastError:
        server.close()
        raise
    try:
        link: socket.socket | None = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
    except PermissionError:
        link = None  # no CAP_NET_RAW: replies to clients without an address are broadcast
    return DhcpSockets(interface, server, proxy, link)


class DhcpServer:
    """Runs a Responder on its sockets inside the running event loop."""

    def __init__(
        self,
        sockets: DhcpSockets,
        responder: Responder,
        *,
        on_transfer: Callable[[Transfer], None] = lambda event: None,
    ) -> None:
        self.sockets = sockets
        self.responder = responder
        self._on_transfer = on_transfer
        self._dropped: dict[int, int] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        for sock, port in self._listening():
            self._loop.add_reader(sock.fileno(), self._readable, sock, port)

    def stop(self) -> None:
        """Stop answering and close the sockets."""
        if self._loop is not None:
            for sock, _ in self._listening():
                self._loop.remove_reader(sock.fileno())
            self._loop = None
        self.sockets.close()

    def stats(self) -> dict[str, object]:
        """Counters since the start; `dropped` are packets that the kernel could not keep for us."""
        responder = self.responder
        return {
            **responder.counts,
            "dropped": sum(self._dropped.values()),
            "leases": len(responder.leases),
            "range": responder.leases.size,
            "other_servers": sorted(responder.others),
        }

    def _listening(self) -> list[tuple[socket.socket, int]]:
        found = [(self.sockets.server, SERVER_PORT)]
        if self.sockets.proxy is not None:
            found.append((self.sockets.proxy, PROXY_PORT))
        return found

    def _readable(self, sock: socket.socket, port: int) -> None:
        now = time.time()
        for _ in range(TURN):
            try:
                data, ancillary, _, source = sock.recvmsg(2048, 64)
            except BlockingIOError:
                return
            except OSError as error:
                log.debug("dhcp: receive: %s", error)
                return
            for level, kind, value in ancillary:
                if level == socket.SOL_SOCKET and kind == SO_RXQ_OVFL:
                    self._dropped[sock.fileno()] = int.from_bytes(value, "little")
            self._handle(sock, port, data, source, now)

    def _handle(self, sock: socket.socket, port: int, data: bytes, source: tuple[str, int], now: float) -> None:
        try:
            message = parse(data)
        except Malformed:
            self.responder.counts["malformed"] += 1
            return
        self.responder.counts["received"] += 1
        reply, contact = self.responder.respond(message, now, source=(number(source[0]), source[1]), port=port)
        if reply is not None:
            self._send(sock, reply)
        if contact is not None:
            self._on_transfer(transfer(contact, now))

    def _send(self, sock: socket.socket, reply: Reply) -> None:
        try:
            if reply.way is Way.LINK and self.sockets.link is not None:
                frame = datagram(self.responder.config.server_ip, reply)
                self.sockets.link.sendto(frame, (self.sockets.interface, ETH_P_IP, 0, 0, reply.mac))
            elif reply.way is Way.ROUTED:
                sock.sendto(reply.data, (dotted(reply.address), reply.port))
            else:
                sock.sendto(reply.data, ("255.255.255.255", reply.port))
        except OSError as error:
            # The client asks again; the count tells that something is wrong with the link.
            self.responder.counts["send_errors"] += 1
            log.debug("dhcp: send to %s: %s", dotted(reply.address), error)


def transfer(contact: Contact, now: float) -> Transfer:
    return Transfer(
        stage="dhcp",
        outcome=Outcome.FAILED if contact.kind in ("IGNORED", "DECLINE") else Outcome.DONE,
        at=now,
        peer=contact.address,
        wwid=contact.mac,
        node=contact.node,
        sent=contact.kind,
        detail=contact.detail,
    )


def datagram(source: str, reply: Reply) -> bytes:
    """IPv4 and UDP headers around the reply, as the packet socket wants it (RFC 791, 768)."""
    size = 8 + len(reply.data)
    addresses = number(source).to_bytes(4, "big") + reply.address.to_bytes(4, "big")
    udp = struct.pack("!4H", SERVER_PORT, reply.port, size, 0) + reply.data
    check = checksum(addresses + struct.pack("!2H", 17, size) + udp) or 0xFFFF
    head = struct.pack("!BBHHHBBH", 0x45, 0x10, 20 + size, 0, 0, 64, 17, 0) + addresses
    head = head[:10] + checksum(head).to_bytes(2, "big") + head[12:]
    return head + udp[:6] + check.to_bytes(2, "big") + udp[8:]


def checksum(data: bytes) -> int:
    """RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


async def probe(interface: str, *, seconds: float = 3.0) -> list[str]:
    """Ask the link whether another DHCP server answers: the addresses of those that do.

    The question is a DISCOVER from a made-up MAC (locally administered), with the broadcast flag; no REQUEST
    follows, so nothing is leased.
    """
    loop = asyncio.get_running_loop()
    chaddr = bytes((0x02,)) + os.urandom(5)
    xid = secrets.randbits(32)
    found: set[str] = set()
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode() + b"\0")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("", CLIENT_PORT))

        def readable() -> None:
            while True:
                try:
                    data, source = sock.recvfrom(2048)
                except OSError:
                    return
                server = answered(data, chaddr, xid)
                if server is not None:
                    found.add(server or source[0])

        options = {
            Option.KIND: bytes((Kind.DISCOVER,)),
            55: bytes((1, 3, 6, 54)),
            60: b"PXEClient:Arch:00007:UNDI:003000",
        }
        question = Message(xid=xid, flags=BROADCAST_FLAG, chaddr=chaddr, options={**options, 93: b"\0\7"})
        loop.add_reader(sock.fileno(), readable)
        try:
            # Twice: one lost packet must not make two servers on one network.
            for _ in range(2):
                sock.sendto(build(question), ("255.255.255.255", SERVER_PORT))
                await asyncio.sleep(seconds / 2)
        finally:
            loop.remove_reader(sock.fileno())
    except OSError as error:
        raise bind_error(CLIENT_PORT, interface, error) from error
    finally:
        sock.close()
    return sorted(found)


def answered(data: bytes, chaddr: bytes, xid: int) -> str | None:
    """The server behind an answer to our question ("" when it does not say), None for any other packet."""
    try:
        message = parse(data)
    except Malformed:
        return None
    if message.op != REPLY or message.xid != xid or message.chaddr != chaddr:
        return None
    server = message.address(Option.SERVER_ID) or message.siaddr
    return dotted(server) if server else ""
