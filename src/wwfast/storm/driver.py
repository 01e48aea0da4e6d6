"""Plays simulated nodes through real sockets on one event loop, each from an address of its own.

Bodies that no digest is wanted of are thrown away in the kernel (MSG_TRUNC), so that the client's copy is not what
is measured. Source addresses must be local to the namespace: `ip route add local NET dev lo`.
"""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from wwfast.storm.node import Action, Kind, Record, SimNode

CHUNK = 1 << 20
#: Bytes of a body for which a client is woken, or all that is left. With 50 nodes behind 40 Mbit/s each segment of 3 KB
#: woke one: 5,000 such nodes took both cores of the machine, and 3.4 times as long as 100.
ENOUGH = 32 << 10
IP_BIND_ADDRESS_NO_PORT = 24
#: As curl has them of stage-1 (`--keepalive-time 3`), with Linux's nine probes; ms until a request that nobody hears is
#: given up, for which stage-1 sets `tcp_retries2`.
PROBES = (
    ((socket.SOL_SOCKET, socket.SO_KEEPALIVE), 1),
    ((socket.IPPROTO_TCP, socket.TCP_KEEPIDLE), 3),
    ((socket.IPPROTO_TCP, socket.TCP_KEEPINTVL), 3),
    ((socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT), 30_000),
)


@dataclass
class Client:
    """One node on the event loop."""

    node: SimNode
    driver: Driver
    source: str
    stall_after: int | None = None  # stop reading for ever after so many bytes
    sock: socket.socket | None = None
    timer: asyncio.TimerHandle | None = None
    connecting: bool = False
    enough: int = 1  # bytes without which nothing is readable
    received: int = 0
    heard: float = 0.0
    stalled: bool = False
    over: bool = False

    def obey(self, action: Action) -> None:
        if action.kind is Kind.READ:
            return
        if action.kind is Kind.SEND:
            assert self.sock is not None
            try:
                self.sock.send(action.data)  # a request fits an empty send buffer
            except OSError as error:
                self.lost(error.strerror or str(error))
        elif action.kind is Kind.SLEEP:
            if self.timer is not None:
                self.timer.cancel()
            self.timer = self.driver.loop.call_later(action.seconds, self.rested)
        elif action.kind is Kind.CONNECT:
            self.close()
            self.connect(action)
        else:
            self.over = True
            self.close()
            self.driver.finished(self)

    def start(self) -> None:
        self.obey(self.node.start())

    def rested(self) -> None:
        self.timer = None
        if not self.over:
            self.obey(self.node.on_rested())

    def connect(self, action: Action) -> None:
        address, _, port = action.host.rpartition(":")
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.sock = sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.node.profile.window)
            if action.probes:
                for option, value in PROBES:
                    sock.setsockopt(*option, value)
            if action.low and self.source:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind((self.source, 1000 + self.driver.random.randrange(23)))
            elif self.source:
                sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
                sock.bind((self.source, 0))
            status = sock.connect_ex((address.strip("[]"), int(port)))
        except OSError as error:
            status = error.errno or errno.EIO
        if status not in (0, errno.EINPROGRESS):
            self.lost(os.strerror(status))
            return
        self.connecting, self.enough = True, 1
        self.heard = time.monotonic()
        self.driver.loop.add_writer(sock.fileno(), self.writable)

    def writable(self) -> None:
        assert self.sock is not None
        self.driver.loop.remove_writer(self.sock.fileno())
        self.connecting = False
        status = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if status:
            self.lost(os.strerror(status))
            return
        self.driver.loop.add_reader(self.sock.fileno(), self.readable)
        self.obey(self.node.on_connected())

    def readable(self) -> None:
        sock, node, driver = self.sock, self.node, self.driver
        assert sock is not None
        left = node.body_left
        try:
            if not left:
                data: bytes | memoryview = sock.recv(4096)
                size = len(data)
            elif node.sees_bodies:
                size = sock.recv_into(driver.buffer, min(left, CHUNK))
                data = driver.buffer[:size]
            else:
                size = sock.recv_into(driver.buffer, min(left, CHUNK), socket.MSG_TRUNC)
                data = b""
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.lost(error.strerror or str(error))
            return
        if not size:
            self.lost("the server closed the connection")
            return
        self.received += size
        driver.received += size
        self.heard = now = time.monotonic()
        if self.stall_after is not None and self.received >= self.stall_after:
            self.stalled = self.over = True
            driver.loop.remove_reader(sock.fileno())  # the socket stays open and full
            driver.finished(self)
            return
        self.obey(node.on_body(size, now) if left and not data else node.on_data(data, now))
        if self.sock is sock:
            self.await_enough(sock)

    def await_enough(self, sock: socket.socket) -> None:
        enough = max(1, min(self.node.body_left, ENOUGH))
        if enough != self.enough:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, enough)
            self.enough = enough

    def lost(self, why: str) -> None:
        self.close()
        self.obey(self.node.on_lost(why, time.monotonic()))

    def close(self) -> None:
        if self.sock is not None:
            if self.connecting:
                self.driver.loop.remove_writer(self.sock.fileno())
                self.connecting = False
            else:
                self.driver.loop.remove_reader(self.sock.fileno())
            self.sock.close()
            self.sock = None


@dataclass
class Driver:
    """Runs `nodes`; `sources[i]` is the address of node i, or empty."""

    nodes: Sequence[SimNode]
    sources: Sequence[str]
    jitter: float = 0.0  # s over which the nodes are switched on
    stalling: frozenset[int] = frozenset()  # nodes that stall for ever
    stall_after: int = 1 << 20
    seed: int = 1
    received: int = 0
    clients: list[Client] = field(default_factory=list)
    began: float = 0.0  # monotonic; when it is 0, that of run()

    async def run(self, on_progress: Callable[[Driver], None] | None = None, every: float = 0.5) -> list[Record]:
        """Until every node is done, failed or stalled for ever. Times in the records are relative to the start."""
        self.loop = asyncio.get_running_loop()
        self.random = Random(self.seed)
        self.buffer = memoryview(bytearray(CHUNK))
        self._all_over = asyncio.Event()
        self._faults: list[BaseException] = []
        self.loop.set_exception_handler(self._failed)
        self._left = len(self.nodes)
        _allow_files(len(self.nodes) + 64)
        self.began = self.began or time.monotonic()
        for index, node in enumerate(self.nodes):
            stall = self.stall_after if index in self.stalling else None
            client = Client(node, self, self.sources[index] if self.sources else "", stall)
            self.clients.append(client)
            self.loop.call_later(self.random.random() * self.jitter, client.start)
        while not self._all_over.is_set():
            try:
                await asyncio.wait_for(self._all_over.wait(), every)
            except TimeoutError:
                self._watch()
            if on_progress is not None:
                on_progress(self)
        for client in self.clients:
            client.close()
        if self._faults:
            raise self._faults[0]
        for client in self.clients:
            record = client.node.record
            record.done = {stage: at - self.began for stage, at in record.done.items()}
            record.finished -= self.began
            if client.stalled:
                record.failure = "stalled"
        return [client.node.record for client in self.clients]

    def _failed(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """An error of ours in a callback: its node would never be done."""
        self._faults.append(context.get("exception") or RuntimeError(context["message"]))
        self._all_over.set()

    def finished(self, client: Client) -> None:
        self._left -= 1
        if not self._left:
            self._all_over.set()

    def _watch(self) -> None:
        now = time.monotonic()
        for client in self.clients:
            if client.sock is not None and not client.over and now - client.heard > client.node.patience:
                client.lost(f"nothing came for {client.node.patience:.0f} s")


def _allow_files(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (count, max(hard, count)))
        except (ValueError, PermissionError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
