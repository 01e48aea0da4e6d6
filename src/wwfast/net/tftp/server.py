"""The TFTP sockets: requests on the given ones, transfers on a port of their own, files from memory."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from wwfast.net.listen import bind_error, grow_receive_buffer
from wwfast.net.tftp import packet
from wwfast.net.tftp.packet import Error, Opcode, Refused
from wwfast.net.tftp.transfer import Sender
from wwfast.net.transfer import Outcome, Transfer

log = logging.getLogger(__name__)

Peer = tuple[str, int]
PORT = 69
TICK = 0.02
TURN = 256


@dataclass(slots=True)
class _Running:
    sender: Sender
    name: str
    started: float


def open_socket(address: str, port: int = PORT) -> socket.socket:
    """A socket for requests. Raises WwfastError naming the port when it is taken or privileged."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        grow_receive_buffer(sock)
        sock.bind((address, port))
    except OSError as error:
        sock.close()
        raise bind_error(port, address or "any address", error) from error
    return sock


class TftpServer:
    """Answers read requests with what `lookup(name, peer address)` returns; None is "not found".

    `name` has no leading slash and no way out of the tree. Every transfer is told to `on_transfer`, except size
    probes (a client that aborts after our OACK).
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        lookup: Callable[[str, str], bytes | None],
        *,
        on_transfer: Callable[[Transfer], None] = lambda event: None,
    ) -> None:
        self.sockets = list(sockets)
        self._lookup = lookup
        self._on_transfer = on_transfer
        self._counts: Counter[str] = Counter()
        self._running: dict[Peer, _Running] = {}
        self._data: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._data = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._data.bind((self.sockets[0].getsockname()[0], 0))
        self._loop.add_reader(self._data.fileno(), self._acknowledged)
        for sock in self.sockets:
            sock.setblocking(False)
            self._loop.add_reader(sock.fileno(), self._requested, sock)
        self._timer = self._loop.call_later(TICK, self._tick)

    def stop(self) -> None:
        if self._loop is None or self._data is None or self._timer is None:
            return
        self._timer.cancel()
        for sock in (*self.sockets, self._data):
            self._loop.remove_reader(sock.fileno())
            sock.close()
        self._loop = None

    def stats(self) -> dict[str, int]:
        return {**self._counts, "running": len(self._running)}

    def _requested(self, sock: socket.socket) -> None:
        for _ in range(TURN):
            try:
                data, peer = sock.recvfrom(1024)
            except OSError:
                return
            try:
                self._begin(data, peer)
            except Refused as refused:
                self._counts["refused"] += 1
                self._send(packet.error(refused.code, refused.text), peer)

    def _begin(self, data: bytes, peer: Peer) -> None:
        request = packet.parse_request(data)
        if request.opcode == Opcode.WRQ:
            raise Refused(Error.ACCESS, "this server is read-only")
        if request.mode not in ("octet", "netascii"):
            raise Refused(Error.ILLEGAL, "unknown mode")
        name = packet.plain_name(request.name)
        content = self._lookup(name, peer[0])
        now = time.time()
        if content is None:
            self._counts["not_found"] += 1
            self._on_transfer(
                Transfer("tftp", Outcome.FAILED, now, peer[0], sent="NOT_FOUND", detail=f"{name}: no such file")
            )
            self._send(packet.error(Error.NOT_FOUND, "no such file"), peer)
            return
        if request.mode == "netascii":
            content = packet.netascii(content)
        sender = Sender(content, packet.negotiate(request, len(content)), time.monotonic())
        self._running[peer] = _Running(sender, name, now)
        self._counts["started"] += 1
        self._event(Outcome.STARTED, peer, self._running[peer])
        for reply in sender.start(time.monotonic()):
            self._send(reply, peer)

    def _acknowledged(self) -> None:
        assert self._data is not None
        for _ in range(TURN):
            try:
                data, peer = self._data.recvfrom(1024)
            except OSError:
                return
            running = self._running.get(peer)
            if running is None:
                self._send(packet.error(Error.UNKNOWN_TID, "unknown transfer"), peer)
                continue
            self._out(peer, running, running.sender.receive(data, time.monotonic()))

    def _tick(self) -> None:
        assert self._loop is not None
        now = time.monotonic()
        for peer, running in list(self._running.items()):
            if now >= running.sender.deadline:
                self._out(peer, running, running.sender.tick(now))
        self._timer = self._loop.call_later(TICK, self._tick)

    def _out(self, peer: Peer, running: _Running, replies: list[bytes]) -> None:
        for reply in replies:
            self._send(reply, peer)
        sender = running.sender
        if sender.done:
            del self._running[peer]
            self._counts["done"] += 1
            self._event(Outcome.DONE, peer, running)
        elif sender.failed:
            del self._running[peer]
            if sender.acked == 0 and sender.error is not None and sender.error[0] == Error.OPTIONS:
                self._counts["probes"] += 1
                return
            self._counts["failed"] += 1
            self._event(Outcome.FAILED, peer, running, sender.error[1] if sender.error else "")

    def _event(self, outcome: Outcome, peer: Peer, running: _Running, detail: str = "") -> None:
        now = time.time()
        sender = running.sender
        self._on_transfer(
            Transfer(
                stage="tftp",
                outcome=outcome,
                at=now,
                peer=peer[0],
                sent=running.name,
                sent_bytes=min(sender.acked * sender.terms.blksize, len(sender.data)),
                total_bytes=len(sender.data),
                seconds=now - running.started,
                detail=detail,
            )
        )

    def _send(self, data: bytes, peer: Peer) -> None:
        assert self._data is not None
        try:
            self._data.sendto(data, peer)
        except OSError as error:
            log.debug("tftp: send to %s: %s", peer, error)
