"""Who is at the server meanwhile, each as a process of its own: `python -m benchmarks._strangers KIND JSON`.

Every kind takes its arguments as one JSON object, works until its time is over or its standard input is closed, and
prints one JSON object. What it needs of its core is far below one core; `late` and the rates reached say whether that
held. Relays ask from port 67, as relays do.
"""

from __future__ import annotations

import json
import math
import os
import select
import selectors
import socket
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks._udp import most_files
from wwfast.net.dhcp.packet import Kind, Malformed, Message, Option, build, dotted, number, parse
from wwfast.net.tftp import packet
from wwfast.net.tftp.packet import Opcode
from wwfast.storm.dhcp import FIRMWARE
from wwfast.storm.link import NODES, source
from wwfast.storm.plan import hwaddr

CHADDR = slice(28, 34)
SINK = 1 << 18
WAIT = 10.0  # s after which a well-behaved client gives up
RETRY = 1.0  # s until a client of the range asks again


def told_to_end() -> bool:
    return bool(select.select([0], [], [], 0)[0])


def stranger(index: int) -> bytes:
    """The MAC of a machine that is in no nodes.conf."""
    return b"\x02\x57" + index.to_bytes(4, "big")


# -- the one who behaves ---------------------------------------------------------------------------------------------


class Boot:
    """One request of a boot script, from `due` to its last byte."""

    def __init__(self, server: tuple[str, int], index: int, due: float) -> None:
        self.due = due
        self.request = f"GET /ipxe/{hwaddr(index)}?uuid= HTTP/1.1\r\nHost: h\r\nUser-Agent: iPXE/1.21.1\r\n\r\n"
        self.mac = hwaddr(index).encode()
        self.data = b""
        self.sock = socket.socket()
        self.sock.setblocking(False)
        self.sock.bind((source(index), 0))
        self.sock.connect_ex(server)

    def step(self, poll: selectors.BaseSelector, events: int) -> bool | None:
        """Whether the script came, None while it is on its way. Raises OSError."""
        if events & selectors.EVENT_WRITE:
            self.sock.send(self.request.encode())
            poll.modify(self.sock, selectors.EVENT_READ, self)
            return None
        part = self.sock.recv(SINK)
        self.data += part
        head, _, body = self.data.partition(b"\r\n\r\n")
        if part and (not body or len(body) < content_length(head)):
            return None
        return head.startswith(b"HTTP/1.1 200 ") and body.startswith(b"#!ipxe\n") and self.mac in body


def boots(server: str, port: int, nodes: int, rate: float, seconds: float) -> dict[str, Any]:
    """A boot script every 1/`rate` s, each on a connection of its own, none waiting for another.

    A wait counts from when the request was due. A script that does not come within WAIT has failed, and waited so long.
    Runs before everything else on its core (SCHED_FIFO): the other strangers there are not what is measured.
    """
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    waits: list[float] = []
    came = asked = 0
    began = time.monotonic()
    with selectors.EpollSelector() as poll:
        while asked < round(rate * seconds) or poll.get_map():
            now = time.monotonic()
            if asked < round(rate * seconds) and now >= began + asked / rate:
                boot = Boot((server, port), asked * 7919 % nodes, began + asked / rate)
                poll.register(boot.sock, selectors.EVENT_WRITE, boot)
                asked += 1
            got: list[tuple[Boot, bool]] = []
            for key, events in poll.select(0.001 if poll.get_map() else 0.0005):
                try:
                    outcome = key.data.step(poll, events)
                except OSError:
                    outcome = False
                if outcome is not None:
                    got.append((key.data, outcome))
            now = time.monotonic()
            done = {boot for boot, _ in got}
            late = [key.data for key in poll.get_map().values() if now - key.data.due > WAIT and key.data not in done]
            for boot, good in [*got, *((boot, False) for boot in late)]:
                poll.unregister(boot.sock)
                boot.sock.close()
                came += good
                waits.append((now - boot.due if good else WAIT) * 1000)
    waits.sort()
    figures = {"p50": quantile(waits, 0.5), "p99": quantile(waits, 0.99)}
    return {"count": asked, "failed": asked - came, **figures, "waits": waits}


def quantile(ordered: list[float], share: float) -> float:
    return ordered[math.ceil(len(ordered) * share) - 1]


def content_length(head: bytes) -> int:
    return next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))


def get(server: str, port: int, target: str, index: int, wait: float = WAIT) -> bytes:
    """One request from the address of node `index`. Raises OSError, ValueError when the answer is not a whole 200."""
    with socket.create_connection((server, port), timeout=wait, source_address=(source(index), 0)) as sock:
        sock.sendall(f"GET {target} HTTP/1.1\r\nHost: head\r\nUser-Agent: iPXE/1.21.1\r\n\r\n".encode())
        head, _, body = _until_head(sock).partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 "):
            raise ValueError(head.partition(b"\r\n")[0].decode("ascii", "replace"))
        size = content_length(head)
        parts = [body]
        left = size - len(body)
        while left:
            part = sock.recv(min(left, SINK))
            if not part:
                raise ValueError(f"{left} of {size} bytes are missing")
            parts.append(part)
            left -= len(part)
        return b"".join(parts)


def _until_head(sock: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        part = sock.recv(SINK)
        if not part:
            raise ValueError("closed without an answer")
        data += part
    return data


# -- DHCP ------------------------------------------------------------------------------------------------------------


def relay_socket(server: str, relay: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, 33, 16 << 20)  # SO_RCVBUFFORCE
    sock.bind((relay, 67))
    sock.connect((server, 67))
    return sock


def say(kind: Kind, mac: bytes, xid: int, relay: str, options: dict[int, bytes]) -> bytes:
    """What a relay passes on of a PXE ROM."""
    said = {Option.KIND: bytes((kind,)), 55: bytes((1, 3, 66, 67)), **FIRMWARE["bios"], **options}
    return build(Message(xid=xid, hops=1, giaddr=number(relay), chaddr=mac, options=said))


def discover(server: str, relay: str, rate: float, seconds: float, first: int) -> dict[str, Any]:
    """DISCOVERs of `rate` new machines a second; nobody listens to the answers."""
    form = bytearray(say(Kind.DISCOVER, stranger(0), 1, relay, {}))
    asked = 0
    with relay_socket(server, relay) as sock:
        began = time.monotonic()
        while (elapsed := time.monotonic() - began) < seconds and not told_to_end():
            for _ in range(asked, round(elapsed * rate)):
                form[CHADDR] = stranger(first + asked)
                try:
                    sock.send(form)
                except OSError:  # no port there: the server ended
                    pass
                asked += 1
            time.sleep(0.002)
    return {"rate": asked / elapsed}


class Client:
    """A machine on its way to a lease; `wanted` is an address it asks for, 0 for any."""

    __slots__ = ("address", "due", "mac", "server", "wanted")

    def __init__(self, mac: bytes, wanted: int) -> None:
        self.mac, self.wanted = mac, wanted
        self.address, self.server = 0, b""
        self.due = 0.0

    def say(self, xid: int, relay: str) -> bytes:
        if self.address:
            options = {Option.REQUESTED_ADDRESS: self.address.to_bytes(4, "big"), Option.SERVER_ID: self.server}
            return say(Kind.REQUEST, self.mac, xid, relay, options)
        wanted = {Option.REQUESTED_ADDRESS: self.wanted.to_bytes(4, "big")} if self.wanted else {}
        return say(Kind.DISCOVER, self.mac, xid, relay, wanted)


def bind(
    server: str, relay: str, first: int, count: int, seconds: float, file: str,
    wanted: str = "", rate: float = 0.0, window: int = 64, only_offers: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Machines `first`.. that take a lease each, at most `window` under way and `rate` new ones a second.

    Machine n asks for the address `wanted` + n, which has nothing to do with its MAC: only a server that remembers
    it gives it again. Every acknowledgement is a line of `file` (monotonic seconds, number, address) before the next
    packet is read. With `only_offers` nothing is requested: the line is what was offered.
    """
    running: dict[int, Client] = {}
    started = acked = 0
    with relay_socket(server, relay) as sock, Path(file).open("w") as lines:
        sock.setblocking(False)
        began = time.monotonic()
        while acked < count and (now := time.monotonic()) - began < seconds and not told_to_end():
            allowed = min(count, round((now - began) * rate)) if rate else count
            while started < allowed and len(running) < window:
                started += 1
                asks = number(wanted) + started - 1 if wanted else 0
                running[started] = Client(stranger(first + started - 1), asks)
            for xid, client in running.items():
                if client.due <= now:
                    client.due = now + RETRY
                    _send(sock, client.say(xid, relay))
            select.select([sock], [], [], 0.002)
            for message in _heard(sock):
                client = running.get(message.xid)
                if client is None or message.chaddr != client.mac:
                    continue
                offered = message.kind == Kind.OFFER and not client.address
                if message.kind == Kind.ACK or (offered and only_offers):
                    lines.write(f"{time.monotonic()} {message.xid - 1} {dotted(message.yiaddr)}\n")
                    acked += 1
                    del running[message.xid]
                elif offered:
                    client.address, client.server = message.yiaddr, message.options[Option.SERVER_ID]
                    client.due = time.monotonic() + RETRY
                    _send(sock, client.say(message.xid, relay))
            lines.flush()
    return {"acked": acked, "seconds": time.monotonic() - began}


def _send(sock: socket.socket, data: bytes) -> None:
    try:
        sock.send(data)
    except OSError:  # no port there, or the queue is full: said again later
        pass


def _heard(sock: socket.socket) -> Iterator[Message]:
    """At most a window's worth, so that the acknowledgements so far are written down soon."""
    for _ in range(64):
        try:
            yield parse(sock.recv(2048))
        except (OSError, Malformed):
            return


# -- HTTP ------------------------------------------------------------------------------------------------------------


class Pipe:
    """A connection that asks the same `depth` times at once, reads all answers, and begins again."""

    def __init__(self, server: str, port: int, index: int, request: bytes, answers: int) -> None:
        self.sock = socket.create_connection((server, port), source_address=(source(index), 0), timeout=WAIT)
        self.sock.setblocking(False)
        self.request, self.answers = request, answers
        self.sent = self.got = 0

    def send(self) -> bool:
        """Whether all is sent."""
        try:
            self.sent += self.sock.send(memoryview(self.request)[self.sent : self.sent + SINK])
        except BlockingIOError:
            pass
        return self.sent == len(self.request)

    def receive(self, sink: bytearray) -> bool:
        """Whether all answers of this round are there. Raises OSError when the server closed."""
        size = self.sock.recv_into(sink, min(SINK, self.answers - self.got))
        if not size:
            raise ConnectionResetError("closed")
        self.got += size
        if self.got < self.answers:
            return False
        self.sent = self.got = 0
        return True


def pipeline(server: str, port: int, connections: int, depth: int, seconds: float) -> dict[str, Any]:
    """`connections` that send `depth` requests of a boot script each without waiting, over and over."""
    target = f"/ipxe/{hwaddr(0)}"
    request = f"GET {target} HTTP/1.1\r\nHost: head\r\nUser-Agent: iPXE/1.21.1\r\n\r\n".encode()
    with socket.create_connection((server, port), timeout=WAIT) as probe:
        probe.sendall(request)
        time.sleep(0.2)
        size = len(probe.recv(SINK))
    answered = closed = 0
    sink = bytearray(SINK)
    both = selectors.EVENT_READ | selectors.EVENT_WRITE
    with selectors.EpollSelector() as poll:

        def begin() -> None:
            pipe = Pipe(server, port, len(poll.get_map()), request * depth, size * depth)
            poll.register(pipe.sock, both, pipe)

        for _ in range(connections):
            begin()
        began = time.monotonic()
        while (elapsed := time.monotonic() - began) < seconds and not told_to_end():
            for key, events in poll.select(0.1):
                pipe: Pipe = key.data
                try:
                    if events & selectors.EVENT_WRITE and pipe.send():
                        poll.modify(pipe.sock, selectors.EVENT_READ, pipe)
                    if events & selectors.EVENT_READ:
                        before = pipe.got
                        whole = pipe.receive(sink)
                        answered += pipe.answers - before if whole else pipe.got - before
                        if whole:
                            poll.modify(pipe.sock, both, pipe)
                except OSError:  # a server may end such a connection: the next one comes
                    poll.unregister(pipe.sock)
                    pipe.sock.close()
                    closed += 1
                    begin()
    return {"rate": answered / size / elapsed, "closed": closed}


def overlays(server: str, port: int, nodes: int, stage: str, seconds: float) -> dict[str, Any]:
    """Every node asks for its overlay, 16 at a time, again until it has it or the time is over; who has none."""
    end = time.monotonic() + seconds

    def fetch(index: int) -> bool:
        while (left := end - time.monotonic()) > 0:
            try:
                get(server, port, f"/{stage}/{hwaddr(index)}?compress=zst", index, left)
                return True
            except (OSError, ValueError):
                time.sleep(min(1.0, left))
        return False

    with ThreadPoolExecutor(16) as pool:
        got = list(pool.map(fetch, range(nodes)))
    return {"lost": [index for index, has in enumerate(got) if not has], "seconds": time.monotonic() - end + seconds}


def served(server: str, port: int, index: int, text: str, seconds: float) -> dict[str, Any]:
    """The moment (monotonic) at which the boot script of node `index` says `text`; asked every 10 ms."""
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if text.encode() in get(server, port, f"/ipxe/{hwaddr(index)}?uuid=", index):
                break
        except (OSError, ValueError):
            pass
        time.sleep(0.01)
    return {"when": time.monotonic()}


# -- TFTP ------------------------------------------------------------------------------------------------------------


def netascii(server: str, count: int, file: str, seconds: float) -> dict[str, Any]:
    """`count` read requests in netascii from 250 addresses; nobody acknowledges anything."""
    most_files()
    request = packet.request(file, mode="netascii")
    kinds: dict[int, int] = {}
    with selectors.EpollSelector() as poll:
        for index in range(count):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.bind((str(NODES[1 + index % 250]), 0))
            sock.sendto(request, (server, 69))
            poll.register(sock, selectors.EVENT_READ)
            if index % 50 == 49:
                time.sleep(0.01)  # 5,000 a second
        end = time.monotonic() + seconds
        while time.monotonic() < end and not told_to_end():
            for key, _ in poll.select(0.2):
                assert isinstance(key.fileobj, socket.socket)
                kind = packet.opcode(key.fileobj.recv(2048))
                kinds[kind] = kinds.get(kind, 0) + 1
                poll.unregister(key.fileobj)  # stays open: nobody tells the server that this peer is gone
    return {"data": kinds.get(Opcode.DATA, 0), "refused": kinds.get(Opcode.ERROR, 0)}


KINDS: dict[str, Callable[..., dict[str, Any]]] = {
    kind.__name__: kind for kind in (boots, discover, bind, pipeline, overlays, served, netascii)
}

if __name__ == "__main__":
    print(json.dumps(KINDS[sys.argv[1]](**json.loads(sys.argv[2]))))
