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
import time
from collections.abc import Callable
from dataclasses import dataclass

from wwfast._ext.dhcp import Receiver, frame, send, send_frames
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
from wwfast.net.dhcp.responder import Responder
from wwfast.net.dhcp.terms import (
    CLIENT_PORT,
    PROXY_PORT,
    REFUSED,
    SERVER_PORT,
    Contact,
    Way,
)
from wwfast.net.isolation import isolated
from wwfast.net.listen import bind_error, grow_receive_buffer, grow_send_buffer
from wwfast.net.transfer import Outcome, Transfer
from wwfast.system.run import run

log = logging.getLogger(__name__)

PROBE_SECONDS = 3.0
SO_RXQ_OVFL = 40


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
    proxy: socket.socket
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
        grow_receive_buffer(sock)
        grow_send_buffer(sock)
        sock.bind(("", port))
    except OSError as error:
        sock.close()
        raise bind_error(port, interface, error) from error
    return sock


def open_sockets(
    interface: str,
    *,
    port: int = SERVER_PORT,
    proxy_port: int = PROXY_PORT,
    listen: Callable[[str, int], socket.socket] = listening,
) -> DhcpSockets:
    """All sockets for one interface; raises what `listen` does."""
    server = listen(interface, port)
    try:
        proxy = listen(interface, proxy_port)
    except WwfastError:
        server.close()
        raise
    try:
        link = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
    except PermissionError:
        return DhcpSockets(interface, server, proxy, None)  # no CAP_NET_RAW: those without an address get a broadcast
    grow_send_buffer(link)
    return DhcpSockets(interface, server, proxy, link)


class DhcpServer:
    """Runs a Responder on its sockets inside the running event loop; `on_contact` is told (contact, Unix time)."""

    def __init__(
        self,
        sockets: DhcpSockets,
        responder: Responder,
        *,
        on_contact: Callable[[Contact, float], None] = lambda contact, now: None,
    ) -> None:
        self.sockets = sockets
        self.responder = responder
        self._on_contact = on_contact
        self._index = socket.if_nametoindex(sockets.interface)
        self._source = number(responder.config.server_ip)
        self._receivers = [(Receiver(sock.fileno()), sock, port) for sock, port in self._listening()]
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Answer; again after pause()."""
        self._loop = asyncio.get_running_loop()
        for receiver, sock, port in self._receivers:
            self._loop.add_reader(sock.fileno(), self._readable, receiver, sock, port)

    def pause(self) -> None:
        """Read nothing for now: the kernel keeps what comes."""
        if self._loop is not None:
            for sock, _ in self._listening():
                self._loop.remove_reader(sock.fileno())
            self._loop = None

    def stop(self) -> None:
        """Stop answering and close the sockets."""
        self.pause()
        self.sockets.close()

    def stats(self) -> dict[str, object]:
        """Counters since the start; `dropped` are packets that the kernel could not keep for us."""
        responder = self.responder
        return {
            **responder.counts,
            "dropped": sum(receiver.dropped for receiver, _, _ in self._receivers),
            "leases": len(responder.leases),
            "range": responder.leases.size,
            "not_written": responder.leases.trouble,
            "other_servers": sorted(responder.others),
        }

    def _listening(self) -> list[tuple[socket.socket, int]]:
        return [(self.sockets.server, SERVER_PORT), (self.sockets.proxy, PROXY_PORT)]

    def _readable(self, receiver: Receiver, sock: socket.socket, port: int) -> None:
        """One batch: other work of the event loop gets its turn before the next."""
        try:
            packets = receiver.receive()
        except BlockingIOError:
            return
        except OSError as error:
            log.debug("dhcp: receive: %s", error)
            return
        self._answer(sock, port, packets, time.time())

    def _answer(self, sock: socket.socket, port: int, packets: list[tuple[bytes, int, int]], now: float) -> None:
        """Answer a batch as one: the replies leave together, then those who want to know are told."""
        counts, respond = self.responder.counts, self.responder.respond
        datagrams: list[tuple[bytes, int, int]] = []
        frames: list[tuple[bytes, bytes]] = []
        contacts: list[Contact] = []
        counts["received"] += len(packets)
        for data, address, source_port in packets:
            try:
                reply, contact = respond(parse(data), now, source=(address, source_port), port=port)
                if reply is not None and reply.way is Way.LINK and self.sockets.link is not None:
                    data = frame(self._source, SERVER_PORT, reply.address, reply.port, reply.data)
                    frames.append((data, reply.mac))
                elif reply is not None:
                    # Without a packet socket, one that has no address yet is reached by a broadcast.
                    address = 0xFFFFFFFF if reply.way is Way.LINK else reply.address
                    datagrams.append((reply.data, address, reply.port))
            except Malformed:
                counts["malformed"] += 1
            except Exception as error:
                self._failed("answering DHCP", error)
            else:
                if contact is not None:
                    contacts.append(contact)
        failed = send(sock.fileno(), datagrams)
        if frames and self.sockets.link is not None:
            failed += send_frames(self.sockets.link.fileno(), self._index, frames)
        if failed:
            # The clients ask again; the count tells that something is wrong with the link.
            counts["send_errors"] += failed
        for contact in contacts:
            try:
                self._on_contact(contact, now)
            except Exception as error:
                self._failed("telling of DHCP", error)

    def _failed(self, part: str, error: Exception) -> None:
        """The others of the batch are answered, and told of, all the same."""
        self.responder.counts["failed"] += 1
        if self._loop is not None:
            isolated(self._loop, part, error)


def transfer(contact: Contact, now: float) -> Transfer:
    return Transfer(
        stage="dhcp",
        outcome=Outcome.FAILED if contact.kind in REFUSED else Outcome.DONE,
        at=now,
        peer=contact.address,
        wwid=contact.mac,
        node=contact.node,
        sent=contact.kind,
        detail=contact.detail,
    )


async def probe(interface: str, *, seconds: float = PROBE_SECONDS) -> list[str]:
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
