"""The TFTP sockets: requests in the event loop, transfers in the native engine, files from memory.

Transfers do not get a port each but share a few; a peer is told apart by its own address and port, and repeated
requests from one port (PXE ROMs always use the same) go to the ports in turn. Ten thousand transfers need no
ten thousand descriptors, and acknowledgements arrive in batches.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from wwfast._ext.tftp import Engine
from wwfast.net.isolation import isolated
from wwfast.net.listen import bind_error, grow_receive_buffer, grow_send_buffer
from wwfast.net.shares import Shares
from wwfast.net.tftp import packet
from wwfast.net.tftp.crowd import Unproven
from wwfast.net.tftp.packet import Error, Opcode, Refused, Request
from wwfast.net.transfer import Outcome, Transfer

log = logging.getLogger(__name__)

Peer = tuple[str, int]
Report = tuple[int, str, int, int, str]  # of Transfers.drain()
PORT = 69
#: Data ports for each served address.
DATA_PORTS = 4
#: Requests answered before other work of the event loop gets its turn.
TURN = 128
#: While acknowledgements wait, requests do: started transfers first (one retry breeds more). Firmware repeats its
#: request after 1 to 4 s and gives up after five or more; a second of waiting is nothing to it.
PAUSE = 0.005
MOST_PAUSE = 1.0
#: Ends of transfers told before other work of the event loop gets its turn.
TOLD = 256
#: Transfers under way; one costs some 2 KiB beside the file, which all share. One address may have half of them.
RUNNING = 32768
#: Those of them that have not been acknowledged yet.
UNPROVEN = 16384
#: Files kept as netascii, which changes their line ends.
TEXTS = 16
#: Files kept beyond their last transfer.
ALIVE = 64
#: blksize for a path MTU that could not be learnt: Ethernet.
BLKSIZE = 1468
IP_MTU = 14


@dataclass(slots=True)
class _Running:
    """One transfer; holds the bytes that the engine sends from."""

    peer: Peer
    local: int
    request: bytes
    name: str
    data: bytes
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

    `sockets` are bound to the addresses served. `name` has no leading slash and no way out of the tree. Every
    transfer is told to `on_transfer`, except size probes (a client that aborts after our OACK) and names in `optional`
    that are not found.
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        lookup: Callable[[str, str], bytes | None],
        *,
        on_transfer: Callable[[Transfer], None] = lambda event: None,
        optional: Collection[str] = (),
        running: int = RUNNING,
        unproven: int = UNPROVEN,
    ) -> None:
        self.sockets = list(sockets)
        self._lookup = lookup
        self._on_transfer = on_transfer
        self._optional = optional
        self._counts: Counter[str] = Counter()
        self._running: dict[int, _Running] = {}
        self._places = Shares(running)
        self._unproven = Unproven(unproven)
        self._texts: dict[str, tuple[bytes, bytes]] = {}  # by name: the file and its netascii form
        self._alive: dict[int, bytes] = {}  # files that packets on their way out may point to
        self._ends: deque[Report] = deque()
        self._peers: dict[Peer, int] = {}
        self._data: list[socket.socket] = []
        self._ports: dict[str, list[int]] = {}
        self._next = 0
        for sock in self.sockets:
            address = sock.getsockname()[0]
            if address not in self._ports:
                self._ports[address] = [len(self._data) + index for index in range(DATA_PORTS)]
                self._data += [self._data_socket(address) for _ in range(DATA_PORTS)]
        self._scratch = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._engine = Engine([sock.fileno() for sock in self._data])
        self._thread = threading.Thread(target=self._engine.serve, name="tftp", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._paused = False

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        self._loop.add_reader(self._engine.fileno, self._drain)
        self.resume()

    def pause(self) -> None:
        """Read no requests for now: the kernel keeps them."""
        self._paused = True
        for sock in self.sockets:
            if self._loop is not None:
                self._loop.remove_reader(sock.fileno())

    def resume(self) -> None:
        self._paused = False
        for sock in self.sockets:
            if self._loop is not None:
                sock.setblocking(False)
                self._loop.add_reader(sock.fileno(), self._requested, sock)

    def stop_accepting(self) -> None:
        """Take no more requests; transfers under way go on."""
        for sock in self.sockets:
            if self._loop is not None:
                self._loop.remove_reader(sock.fileno())
            sock.close()
        self.sockets.clear()

    def stop(self) -> None:
        """Forget what is under way and close the sockets. Safe to repeat."""
        self.stop_accepting()
        if self._loop is not None:
            self._loop.remove_reader(self._engine.fileno)
            self._loop = None
            self._engine.stop()
            self._thread.join()
            self._engine.close()
        for sock in (*self._data, self._scratch):
            sock.close()

    @property
    def alive(self) -> bool:
        """Whether the thread that sends is there."""
        return self._thread.is_alive()

    @property
    def running(self) -> int:
        """Transfers under way."""
        return len(self._running)

    def stats(self) -> dict[str, int]:
        """Counters since the start, and the transfers under way."""
        engine = self._engine
        return {
            **self._counts,
            "running": engine.live,
            "unproven": len(self._unproven),
            "turned_away": self._places.refused,
            "resent": engine.resent,
            "unknown_tid": engine.strangers,
            "send_errors": engine.send_errors,
        }

    def _data_socket(self, address: str) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        grow_receive_buffer(sock)
        grow_send_buffer(sock)
        sock.bind((address, 0))
        return sock

    def _requested(self, sock: socket.socket) -> None:
        if self._engine.busy and self._loop is not None:
            self._loop.remove_reader(sock.fileno())
            self._loop.call_later(PAUSE, self._resume, sock, time.monotonic() + MOST_PAUSE)
            return
        self._read_requests(sock)

    def _resume(self, sock: socket.socket, until: float) -> None:
        if self._loop is None or self._paused or sock not in self.sockets:
            return
        if self._engine.busy and time.monotonic() < until:
            self._loop.call_later(PAUSE, self._resume, sock, until)
            return
        self._loop.add_reader(sock.fileno(), self._requested, sock)
        self._read_requests(sock)

    def _read_requests(self, sock: socket.socket) -> None:
        ports = self._ports[sock.getsockname()[0]]
        for _ in range(TURN):
            try:
                data, peer = sock.recvfrom(packet.MAX_REQUEST)
            except OSError:
                return
            self._next += 1
            local = ports[self._next % len(ports)]
            try:
                self._begin(data, peer, local)
            except Refused as refused:
                self._counts["refused"] += 1
                self._error(local, peer, refused)
            except Exception as error:
                self._failed("answering TFTP", error)
                self._error(local, peer, Refused(Error.UNDEFINED, "internal error"))

    def _begin(self, data: bytes, peer: Peer, local: int) -> None:
        former = self._running.get(self._peers.get(peer, 0))
        if (
            former is not None
            and former.request == data
            and self._engine.again(former.local, _number(peer[0]), peer[1])
        ):
            self._counts["repeated"] += 1
            return
        request = packet.parse_request(data)
        if request.opcode == Opcode.WRQ:
            raise Refused(Error.ACCESS, "this server is read-only")
        if request.mode not in ("octet", "netascii"):
            raise Refused(Error.ILLEGAL, "unknown mode")
        name = packet.plain_name(request.name)
        content = self._lookup(name, peer[0])
        if content is None:
            self._absent(name, peer)
            self._error(local, peer, Refused(Error.NOT_FOUND, "no such file"))
            return
        if request.mode == "netascii":
            content = self._text(name, content)
        self._start(_Running(peer, local, data, name, content, time.time()), request)

    def _text(self, name: str, content: bytes) -> bytes:
        """The file as netascii has it, the same bytes for all who ask."""
        kept = self._texts.get(name)
        if kept is None or kept[0] is not content:
            self._texts.pop(name, None)
            if len(self._texts) >= TEXTS:
                del self._texts[next(iter(self._texts))]
            kept = self._texts[name] = (content, packet.netascii(content))
        return kept[1]

    def _absent(self, name: str, peer: Peer) -> None:
        if name in self._optional:
            self._counts["probes"] += 1
            return
        self._counts["not_found"] += 1
        detail = f"{name}: no such file"
        self._news(Transfer("tftp", Outcome.FAILED, time.time(), peer[0], sent="NOT_FOUND", detail=detail))

    def _start(self, running: _Running, request: Request) -> None:
        peer = running.peer
        if self._engine.kept >= 2 * self._places.limit or not self._places.take(peer[0]):
            return  # it asks again
        terms = packet.negotiate(request, len(running.data), max_blksize=self._max_blksize(peer))
        try:
            begun = self._engine.start(
                running.local,
                _number(peer[0]),
                peer[1],
                running.data,
                terms.blksize,
                terms.windowsize,
                terms.timeout,
                packet.oack(terms.oack) if terms.oack else b"",
            )
        except MemoryError:
            self._places.give(peer[0])
            raise
        self._running[begun] = running
        self._alive.setdefault(id(running.data), running.data)
        if len(self._alive) > ALIVE:
            del self._alive[next(iter(self._alive))]
        self._peers[peer] = begun
        self._counts["started"] += 1
        victim = self._unproven.add(begun, peer[0])
        if victim is not None:
            self._displace(victim)

    def _displace(self, number: int) -> None:
        """Give up a transfer that nobody has acknowledged, unless that is on its way to us."""
        running = self._running[number]
        if self._engine.forget(number, running.local, _number(running.peer[0]), running.peer[1]):
            self._counts["displaced"] += 1
            self._gone(number)

    def _gone(self, number: int) -> None:
        running = self._running.pop(number)
        self._places.give(running.peer[0])
        if self._peers.get(running.peer) == number:
            del self._peers[running.peer]

    def _max_blksize(self, peer: Peer) -> int:
        """What fits into one packet on the way to the peer: fragments are lost on PXE ROMs."""
        try:
            self._scratch.connect(peer)
            return max(self._scratch.getsockopt(socket.IPPROTO_IP, IP_MTU) - packet.HEADERS, 512)
        except OSError:
            return BLKSIZE

    def _drain(self) -> None:
        waiting = bool(self._ends)
        self._ends.extend(self._engine.drain())
        if not waiting:
            self._tell_ends()

    def _tell_ends(self) -> None:
        for _ in range(min(TOLD, len(self._ends))):
            try:
                self._ended(*self._ends.popleft())
            except Exception as error:
                self._failed("ending TFTP transfers", error)
        if self._ends and self._loop is not None:
            self._loop.call_soon(self._tell_ends)

    def _ended(self, number: int, what: str, sent: int, code: int, text: str) -> None:
        running = self._running.get(number)
        if running is None:
            return  # displaced meanwhile
        self._unproven.remove(number)
        if what == "begun":
            self._tell(running, Outcome.STARTED, 0)
            return
        self._gone(number)
        if what == "done":
            self._counts["done"] += 1
            self._tell(running, Outcome.DONE, len(running.data), text)
        elif code == Error.OPTIONS and not sent:
            self._counts["probes"] += 1
        else:
            self._counts["failed"] += 1
            self._tell(running, Outcome.FAILED, sent, text)

    def _tell(self, running: _Running, outcome: Outcome, sent: int, detail: str = "") -> None:
        now = time.time()
        self._news(
            Transfer(
                stage="tftp",
                outcome=outcome,
                at=now,
                peer=running.peer[0],
                sent=running.name,
                sent_bytes=sent,
                total_bytes=len(running.data),
                seconds=now - running.started,
                detail=detail,
            )
        )

    def _news(self, event: Transfer) -> None:
        """Transfers go on, whatever becomes of the news of them."""
        try:
            self._on_transfer(event)
        except Exception as error:
            self._failed("telling of TFTP", error)

    def _failed(self, part: str, error: Exception) -> None:
        """One request's fault: the others are answered all the same."""
        self._counts["errors"] += 1
        if self._loop is not None:
            isolated(self._loop, part, error)

    def _error(self, local: int, peer: Peer, refused: Refused) -> None:
        try:
            self._data[local].sendto(packet.error(refused.code, refused.text), peer)
        except OSError as error:
            log.debug("tftp: send to %s: %s", peer, error)


def _number(address: str) -> int:
    return int.from_bytes(socket.inet_aton(address), "big")
