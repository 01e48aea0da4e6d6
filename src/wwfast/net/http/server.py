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
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from wwfast._ext.pump import Pump
from wwfast.errors import WwfastError
from wwfast.net.http.admission import Admission
from wwfast.net.http.connection import Connection, State
from wwfast.net.http.files import FileCache
from wwfast.net.http.message import Request, Response
from wwfast.net.isolation import isolated
from wwfast.net.restraint import Restraint
from wwfast.net.shares import Shares
from wwfast.net.transfer import Transfer

log = logging.getLogger(__name__)

TCP_NOTSENT_LOWAT = 25
SO_MAX_PACING_RATE = 47
SLICES = 20  # connections are looked after once a second, a slice of them every 1/SLICES s
TICK = 1 / SLICES
EVENTS = 256  # connections read per turn of the loop
# One turn of those who sent more than one request at once, a request each. Fresh clients are read between two turns:
# beside 50 connections of 3,000 pipelined requests each they wait for this and for one request of each.
TURN_SECONDS = 0.001
HASTY_SECONDS = 2.0  # that a connection may be idle when three of four are taken
SAID = (20, 1)  # lines of the log about bad requests of one address: at once, and a second
ACCEPTS = 64  # connections taken per wake-up of a listener
OPENERS = 4  # threads that open files; one that waits for a dead file server leaves three
SERVING = "serving HTTP connections"
IN_USE = "another server may be running there: ss -ltnp; from a wwfast server, `wwfast server --replace` takes over"

Handler = Callable[[Request], "Response | Awaitable[Response]"]
OnTransfer = Callable[[Transfer], None]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server spends on its clients. Seconds and bytes."""

    connections: int = 50_000
    head_bytes: int = 16 << 10
    held_bytes: int = 64 << 20  # of all requests that have not come whole or have not had their turn
    head_seconds: float = 10.0  # from the first byte of a head to its last
    idle_seconds: float = 75.0  # between requests; iPXE keeps a connection 10 s
    stall_seconds: float = 600.0  # without progress; GRUB opens the next file 41 s before it reads it
    inline_bytes: int = 64 << 10
    send_threads: int = 2
    turn_bytes: int = 2 << 20
    unsent_bytes: int = 256 << 10  # kept short so that the order of service means something
    pacing_bytes: int = 0  # per second and client; 0 is without. Some NICs under iPXE hang at full rate


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
        self.handler = handler
        self.on_transfer = on_transfer
        self.limits = limits or Limits()
        self.scheduler = scheduler
        self.stall_seconds = self.limits.stall_seconds
        self.draining = False
        self._prepared = self._paused = False
        self._closed = False
        self.held = 0  # bytes kept of requests to come
        self.waiting: dict[str, list[Connection]] = {}
        self._connections: dict[int, Connection] = {}  # by descriptor
        self._places = Shares(self.limits.connections)
        self.restraint = Restraint(*SAID)
        self._queue: deque[Connection] = deque()
        self._turning = False
        self._slices: list[set[Connection]] = [set() for _ in range(SLICES)]
        self._turn = 0
        self._timer: asyncio.TimerHandle | None = None

    def prepare(self) -> None:
        """All that can fail of start(), on the running event loop. Raises OSError."""
        self.loop = asyncio.get_running_loop()
        self._openers = ThreadPoolExecutor(OPENERS, "files")
        self.files = FileCache(self._run)
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
    def haste(self) -> float:
        """Seconds by which idle connections end sooner, when connections become few."""
        return self.limits.idle_seconds - HASTY_SECONDS if 4 * self._places.total >= 3 * self._places.limit else 0.0

    @property
    def figures(self) -> Mapping[str, int]:
        """For /status: open connections, transfers under way, nodes kept waiting, bytes sent, refused."""
        return {
            "connections": len(self._connections),
            "transfers": len(self.pump),
            "waiting": len(self.waiting),
            "sent": self.pump.total,
            "refused": self._places.refused,
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
        if not self.draining:
            self.draining = True
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
        self.stall_seconds = quiet
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
        self.files.close()
        self._openers.shutdown(wait=False, cancel_futures=True)

    def closed(self, connection: Connection) -> None:
        del self._connections[connection.fd]
        self._places.give(connection.peer)
        self._slices[connection.fd % SLICES].remove(connection)

    def stop_waiting(self, connection: Connection) -> None:
        answer = connection.answer
        if answer is None:
            return
        others = self.waiting.get(answer.key, [])
        if connection in others:
            others.remove(connection)
            if not others:
                del self.waiting[answer.key]
                if self.scheduler is not None:
                    self.scheduler.left(answer.key, time.monotonic())

    def _accept(self, listener: socket.socket) -> None:
        now = time.monotonic()
        for _ in range(ACCEPTS):
            try:
                sock, address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                # Out of descriptors: the backlog keeps the client until one is free.
                if self.restraint.allows():
                    log.error("cannot accept: %s", error.strerror)
                self.loop.remove_reader(listener.fileno())
                self.loop.call_later(0.1, self._resume, listener)
                return
            peer, port = address[0].removeprefix("::ffff:"), address[1]
            if not self._places.take(peer):
                sock.close()
                continue
            try:
                sock.setblocking(False)
                connection = Connection(self, sock, peer, port, now)
            except Exception as error:
                isolated(self.loop, SERVING, error)
                self._places.give(peer)
                sock.close()
                continue
            self._connections[connection.fd] = connection
            self._slices[connection.fd % SLICES].add(connection)

    def _resume(self, listener: socket.socket) -> None:
        if not self.draining and not self._paused:
            self.loop.add_reader(listener.fileno(), self._accept, listener)

    def _readable(self) -> None:
        for fd, _ in self.poller.poll(0, EVENTS):
            connection = self._connections.get(fd)
            if connection is not None:
                self.step(connection, connection.readable)

    def step(self, connection: Connection, step: Callable[..., None], *given: object) -> None:
        """One step of a connection: what fails in it ends that connection, and no other notices."""
        try:
            step(*given)
        except Exception as error:
            isolated(self.loop, SERVING, error)
            connection.abandon()

    def tell(self, event: Transfer) -> None:
        """Whoever sends goes on sending, whatever becomes of the news of it."""
        try:
            self.on_transfer(event)
        except Exception as error:
            isolated(self.loop, "telling of HTTP transfers", error)

    def queue(self, connection: Connection) -> None:
        """It has more requests: it gets its next turn after all others that wait for theirs."""
        self._queue.append(connection)
        if not self._turning:
            self._turning = True
            self.loop.call_soon(self._turns)

    def _turns(self) -> None:
        end = time.monotonic() + TURN_SECONDS
        self._turning = False
        for _ in range(len(self._queue)):
            connection = self._queue.popleft()
            self.step(connection, connection.turn)
            if time.monotonic() > end:
                break
        if self._queue and not self._turning:
            self._turning = True
            self.loop.call_soon(self._turns)

    def _reports(self) -> None:
        for sending in self.pump.reports():
            self.step(sending.context, sending.context.reported, sending)
        self._admit(time.monotonic())

    def _tick(self) -> None:
        now = time.monotonic()
        self._timer = self.loop.call_later(TICK, self._tick)
        self._turn = (self._turn + 1) % SLICES
        if not self._turn:
            self.files.tend()
        for connection in list(self._slices[self._turn]):
            self.step(connection, connection.look_after, now)
        self._admit(now)

    def _run(self, work: Callable[[], object], then: Callable[[Any], None]) -> None:
        """For the files: `work` in a thread, what it returns to `then` on the loop."""

        def done(future: Future[object]) -> None:
            if not self._closed and not future.cancelled():
                with suppress(RuntimeError):  # the loop has ended
                    self.loop.call_soon_threadsafe(then, future.result())

        self._openers.submit(work).add_done_callback(done)

    def _admit(self, now: float) -> None:
        if self.scheduler is None:
            return
        try:
            verdicts = list(self.scheduler.tick(self.pump.total, now))
        except Exception as error:
            isolated(self.loop, "scheduling downloads", error)
            return
        for key, verdict in verdicts:
            for connection in self.waiting.pop(key, []):
                self.step(connection, connection.admitted, verdict)
                self.step(connection, connection.proceed)
