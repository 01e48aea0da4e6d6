"""The HTTP server: owned non-blocking sockets on the event loop, large bodies through the native pump.

The loop thread accepts, parses and asks the handler; a body that fits `inline_bytes` is written at once, anything
larger, and whatever the socket did not take, goes to the pump. A client that stalls costs a socket, not a thread.

Events: `on_transfer` gets STARTED, PROGRESS (at most one a second) and DONE or FAILED for responses with a
`stage`. What was answered in one go has DONE alone, and an error status has FAILED alone. HEAD has none.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import select
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

from wwfast._ext.pump import Pump
from wwfast.errors import WwfastError
from wwfast.net.http.admission import Admission
from wwfast.net.http.connection import Connection, State
from wwfast.net.http.serving import PART, Handler, Limits, OnTransfer, Serving
from wwfast.net.http.wire import SocketWire
from wwfast.net.isolation import isolated

log = logging.getLogger(__name__)

TCP_NOTSENT_LOWAT = 25
SO_MAX_PACING_RATE = 47
SLICES = 20  # connections are looked after once a second, a slice of them every 1/SLICES s
TICK = 1 / SLICES
EVENTS = 256  # connections read per turn of the loop
ACCEPTS = 64  # connections taken per wake-up of a listener
OPENERS = 4  # threads that open files; one that waits for a dead file server leaves three
IN_USE = "another server may be running there: ss -ltnp; from a wwfast server, `wwfast server --replace` takes over"


def listen(addresses: Iterable[tuple[str, int]], backlog: int = 65535) -> list[socket.socket]:
    """Listening sockets. Raises WwfastError that names the address."""
    sockets: list[socket.socket] = []
    for host, port in addresses:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        one = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind((host, port))
            one.listen(backlog)
        except OSError as error:
            for other in [one, *sockets]:
                other.close()
            at = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            hint = IN_USE if error.errno == errno.EADDRINUSE else None
            raise WwfastError(f"cannot listen on {at}: {error.strerror}", hint=hint) from error
        sockets.append(one)
    return sockets


def has_ipv6() -> bool:
    """Whether this kernel listens on `::`: it may be built without IPv6, or started with it off."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as one:
            one.bind(("::", 0))
    except OSError as error:
        if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            raise
        return False
    return True


class HttpServer:
    """Serves `handler` on listening sockets. start(), then drain() or close(); one per event loop."""

    def __init__(
        self,
        sockets: Iterable[socket.socket],
        handler: Handler,
        *,
        on_transfer: OnTransfer = lambda _: None,
        limits: Limits | None = None,
        scheduler: Admission | None = None,
    ) -> None:
        self.sockets = list(sockets)
        self.limits = limits or Limits()
        self.serving = Serving(handler, self.limits, on_transfer, scheduler)
        self._prepared = self._paused = False
        self._closed = False
        self._connections: dict[int, Connection] = {}  # by descriptor
        self._slices: list[set[Connection]] = [set() for _ in range(SLICES)]
        self._turn = 0
        self._timer: asyncio.TimerHandle | None = None

    def prepare(self) -> None:
        """All that can fail of start(), on the running event loop. Raises OSError."""
        self.loop = asyncio.get_running_loop()
        self._openers = ThreadPoolExecutor(OPENERS, "files")
        self.serving.begin(self.loop, self._run)
        self.pump = Pump(self.limits.send_threads, self.limits.turn_bytes)
        # An epoll of our own behind one of the loop's: uvloop drops a descriptor in error without a word, so a
        # reset would not be noticed, and one call for all that are readable costs less than one for each.
        self.poller = select.epoll()
        self._prepared = True

    def start(self) -> None:
        """Begin to accept."""
        if not self._prepared:
            self.prepare()
        for one in self.sockets:
            one.setblocking(False)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit all of these
            one.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            one.setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, self.limits.unsent_bytes)
            if self.limits.pacing_bytes:
                one.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, self.limits.pacing_bytes)
        self.loop.add_reader(self.pump.fileno(), self._reports)
        self.loop.add_reader(self.poller.fileno(), self._readable)
        self.resume()
        self._timer = self.loop.call_later(TICK, self._tick)

    @property
    def connections(self) -> int:
        return len(self._connections)

    @property
    def figures(self) -> Mapping[str, int]:
        """For /status: open connections, transfers under way, nodes kept waiting, bytes sent, refused."""
        return {
            "connections": len(self._connections),
            "transfers": len(self.pump),
            "waiting": len(self.serving.waiting),
            "sent": self.pump.total,
            "refused": self.serving.places.refused,
        }

    def pause(self) -> None:
        """Accept nobody for now: the kernel keeps those who come."""
        self._paused = True
        for one in self.sockets:
            self.loop.remove_reader(one.fileno())

    def resume(self) -> None:
        self._paused = False
        for one in self.sockets:
            self._resume(one)

    def stop_accepting(self) -> None:
        """Close our listening sockets. A process that has taken them over holds copies; else clients are refused."""
        if not self.serving.draining:
            self.serving.draining = True
            for one in self.sockets:
                if self._prepared:
                    self.loop.remove_reader(one.fileno())
                one.close()

    async def drain(self, seconds: float, quiet: float | None = None) -> None:
        """Stop accepting, let responses under way finish for at most `seconds`, then close everything.

        `quiet`: no successor is at work, so whoever waits for its turn is let go at once, to start over later, and
        a client that makes no progress for so many seconds is not waited for.
        """
        self.stop_accepting()
        end = time.monotonic() + seconds
        if quiet is not None:
            self.hurry(quiet)
        while self._connections and time.monotonic() < end:
            for connection in list(self._connections.values()):
                # A new one may have its first request on the way: it is answered, or closed at its deadline.
                if connection.state is State.READING and connection.asked and not len(connection.reader):
                    connection.close()
            if self._connections:
                await asyncio.sleep(TICK)
        await self.close()

    def hurry(self, quiet: float) -> None:
        self.serving.stall_seconds = quiet
        latest = time.monotonic() + quiet
        for connection in list(self._connections.values()):
            connection.deadline = min(connection.deadline, latest)
            if connection.state is State.WAITING:
                connection.close("the server stopped")

    async def close(self) -> None:
        """Close listeners and connections; transfers under way are cut and reported as failed. Safe to repeat, and
        before start()."""
        if self._closed:
            return
        self._closed = True
        self.stop_accepting()
        if not self._prepared:
            return
        if self._timer is not None:
            self._timer.cancel()
        for connection in list(self._connections.values()):
            connection.close("the server stopped")
        while self._connections:  # those the pump had; it reports within a turn
            await asyncio.sleep(0.005)
        self.loop.remove_reader(self.pump.fileno())
        self.loop.remove_reader(self.poller.fileno())
        self.poller.close()
        self.pump.close()
        self.serving.files.close()
        self._openers.shutdown(wait=False, cancel_futures=True)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTS):
            try:
                sock, address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                # Out of descriptors: the backlog keeps the client until one is free.
                if self.serving.restraint.allows():
                    log.error("cannot accept: %s", error.strerror)
                self.loop.remove_reader(listener.fileno())
                self.loop.call_later(0.1, self._resume, listener)
                return
            peer, port = address[0].removeprefix("::ffff:"), address[1]
            if not self.serving.places.take(peer):
                sock.close()
                continue
            try:
                sock.setblocking(False)
                self._connect(sock, peer, port)
            except Exception as error:
                isolated(self.loop, PART, error)
                self.serving.places.give(peer)
                sock.close()

    def _connect(self, sock: socket.socket, peer: str, port: int) -> None:
        fd = sock.fileno()
        wire = SocketWire(sock, self.poller, self.pump)  # a listener with TLS makes another one here
        connection = Connection(self.serving, wire, peer, port, partial(self._closed_one, fd))
        self._connections[fd] = connection
        self._slices[fd % SLICES].add(connection)

    def _closed_one(self, fd: int, connection: Connection) -> None:
        del self._connections[fd]
        self.serving.places.give(connection.peer)
        self._slices[fd % SLICES].remove(connection)

    def _resume(self, listener: socket.socket) -> None:
        if not self.serving.draining and not self._paused:
            self.loop.add_reader(listener.fileno(), self._accept, listener)

    def _readable(self) -> None:
        for fd, _ in self.poller.poll(0, EVENTS):
            connection = self._connections.get(fd)
            if connection is not None:
                self.serving.step(connection, connection.readable)

    def _reports(self) -> None:
        for sending in self.pump.reports():
            self.serving.step(sending.context, sending.context.reported, sending)
        self.serving.admit(self.pump.total, time.monotonic())

    def _tick(self) -> None:
        now = time.monotonic()
        self._timer = self.loop.call_later(TICK, self._tick)
        self._turn = (self._turn + 1) % SLICES
        if not self._turn:
            self.serving.files.tend()
        for connection in list(self._slices[self._turn]):
            self.serving.step(connection, connection.look_after, now)
        self.serving.admit(self.pump.total, now)

    def _run(self, work: Callable[[], object], then: Callable[[Any], None]) -> None:
        """For the files: `work` in a thread, what it returns to `then` on the loop."""

        def done(future: Future[object]) -> None:
            if not self._closed and not future.cancelled():
                with suppress(RuntimeError):  # the loop has ended
                    self.loop.call_soon_threadsafe(then, future.result())

        self._openers.submit(work).add_done_callback(done)
