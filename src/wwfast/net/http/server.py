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
import os
import select
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from wwfast._ext.pump import Pump, Sending
from wwfast.errors import WwfastError
from wwfast.net.http.admission import Admission, Verdict, patience
from wwfast.net.http.conditions import choose, cut
from wwfast.net.http.files import FileCache, OpenFile
from wwfast.net.http.head import Head, HeadError, HeadReader
from wwfast.net.http.message import NOTHING, Request, Response, render_head, validators
from wwfast.net.transfer import Outcome, Transfer
from wwfast.pack.artefact import Artefact

log = logging.getLogger(__name__)

TCP_NOTSENT_LOWAT = 25
SO_MAX_PACING_RATE = 47
SLICES = 20  # connections are looked after once a second, a slice of them every 1/SLICES s
TICK = 1 / SLICES
EVENTS = 256  # connections read per turn of the loop
ACCEPTS = 64  # connections taken per wake-up of a listener
LINGER = 2.0  # seconds to let a refused client read why
IN_USE = "another server may be running there: ss -ltnp; from a wwfast server, `wwfast server --replace` takes over"
PIPELINE = 4  # heads worth of bytes kept while a response is under way

Handler = Callable[[Request], "Response | Awaitable[Response]"]
OnTransfer = Callable[[Transfer], None]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server spends on its clients. Seconds and bytes."""

    connections: int = 50_000
    head_bytes: int = 16 << 10
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


class State(Enum):
    READING = auto()  # between requests, or in the middle of a head
    HANDLING = auto()  # an asynchronous handler is at work
    WAITING = auto()  # its node's turn has not come
    SENDING = auto()  # the pump has it
    LINGERING = auto()  # refused; what it still sends is thrown away
    CLOSED = auto()


@dataclass(slots=True)
class Answer:
    """A response under way: what is sent, and what events and the scheduler must be told about it."""

    response: Response
    head: Head
    status: int
    start: int
    length: int
    size: int  # of the whole body
    keep_alive: bool
    began: float = 0.0
    told: float = 0.0
    sent: int = 0
    before: int = 0  # bytes of the body sent ahead of the pump; negative for what of the head was not
    files: Sequence[OpenFile] = ()
    key: str = ""  # of the scheduler, when this answer went through it


class Connection:
    """One accepted socket. All methods run on the event loop."""

    __slots__ = (
        "answer",
        "asked",
        "deadline",
        "fd",
        "local",
        "peer",
        "port",
        "reader",
        "reading",
        "sending",
        "server",
        "sock",
        "state",
        "task",
        "why",
    )

    def __init__(self, server: HttpServer, sock: socket.socket, address: tuple[str, int], now: float) -> None:
        self.server = server
        self.sock = sock
        self.fd = sock.fileno()
        self.peer, self.port = address[0].removeprefix("::ffff:"), address[1]
        self.local = ""
        self.reader = HeadReader(server.limits.head_bytes)
        self.state = State.READING
        self.deadline = now + server.limits.head_seconds
        self.answer: Answer | None = None
        self.sending: Sending | None = None
        self.task: asyncio.Task[None] | None = None
        self.reading = True
        self.asked = False  # it has sent a request
        self.why = ""
        server.poller.register(self.fd, select.EPOLLIN)

    # --- reading ---------------------------------------------------------------------------------------------

    def readable(self) -> None:
        try:
            data = self.sock.recv(self.server.limits.head_bytes)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if self.state is State.LINGERING:
            if not data:
                self.close()
            return
        if not data:
            self._ended()
            return
        if self.state is not State.READING:
            self.reader.feed(data)
            if len(self.reader) > PIPELINE * self.server.limits.head_bytes:
                self._stop_reading()
            return
        if not len(self.reader):
            self.deadline = time.monotonic() + self.server.limits.head_seconds
        self.proceed(data)

    def proceed(self, data: bytes = b"") -> None:
        """Answer the requests that have arrived whole, until one cannot be answered at once."""
        while self.state is State.READING:
            try:
                head = self.reader.take(data) if data else self.reader.next()
            except HeadError as error:
                self.refuse(error.status, str(error))
                return
            if head is None:
                return
            data = b""
            self.asked = True
            if self.server.draining:
                head = head._replace(keep_alive=False)
            self._handle(head)

    def _ended(self) -> None:
        """The peer sends no more. A response under way is finished; the pump notices when nobody reads it."""
        if self.state is State.SENDING:
            self._stop_reading()
            if self.answer is not None:
                self.answer.keep_alive = False
        else:
            self.close("the client closed the connection")

    def _stop_reading(self) -> None:
        if self.reading:
            self.server.poller.unregister(self.fd)
            self.reading = False

    # --- answering -------------------------------------------------------------------------------------------

    def _handle(self, head: Head) -> None:
        if not self.local:
            self.local = self.sock.getsockname()[0].removeprefix("::ffff:")
        request = Request(head.method, head.path, head.query, head.headers, self.peer, self.port, self.local)
        try:
            result = self.server.handler(request)
        except Exception:
            log.exception("%s %s from %s", head.method, head.path, self.peer)
            result = Response(500)
        if isinstance(result, Response):
            self._respond(head, result)
        else:
            self.state = State.HANDLING
            self.task = self.server.loop.create_task(self._await(head, result))

    async def _await(self, head: Head, result: Awaitable[Response]) -> None:
        try:
            response = await result
        except Exception:
            log.exception("%s %s from %s", head.method, head.path, self.peer)
            response = Response(500)
        self.task = None
        if self.state is State.HANDLING:
            self.state = State.READING
            self._respond(head, response)
            self.proceed()

    def _respond(self, head: Head, response: Response) -> None:
        body = response.body
        size = response.size
        answer = Answer(response, head, response.status, 0, size, size, head.keep_alive)
        artefact = body if isinstance(body, Artefact) else None
        if head.conditional and response.status == 200:
            etag, mtime = (artefact.etag, artefact.mtime) if artefact else (response.etag, None)
            answer.status, answer.start, answer.length = choose(head.headers, size, etag, mtime)
            if head.method == "HEAD" and answer.status in (206, 416):  # RFC 9110 14.2: Range is for GET alone
                answer.status, answer.start, answer.length = 200, 0, size
        server = self.server
        if (
            artefact
            and server.scheduler is not None
            and response.wwid
            and response.waits
            and answer.length
            and head.method == "GET"
        ):
            answer.key = response.wwid
            verdict = server.scheduler.ask(
                response.wwid,
                response.share,
                answer.length,
                patience(head.headers.get("user-agent", "")),
                time.monotonic(),
            )
            self.answer = answer
            self.admitted(verdict)
            return
        self.answer = answer
        self._send()

    def admitted(self, verdict: Verdict) -> None:
        """The scheduler has spoken: go, wait, or come again."""
        answer = self.answer
        assert answer is not None
        if verdict.go:
            self.state = State.READING
            self._send()
        elif verdict.retry_after:
            self.state = State.READING
            again = Response(503, headers={"Retry-After": str(verdict.retry_after)})
            self.answer = Answer(again, answer.head, 503, 0, 0, 0, answer.keep_alive)
            self._send()
        else:
            self.state = State.WAITING
            self.server.waiting.setdefault(answer.key, []).append(self)

    def refuse(self, status: int, why: str) -> None:
        """Say what was wrong with the bytes, then close without cutting the answer off."""
        log.info("%s refused with %d: %s", self.peer, status, why)
        fields = {"Allow": "GET, HEAD"} if status == 405 else NOTHING
        data = render_head(status, "text/plain; charset=utf-8", len(why) + 1, fields, keep_alive=False)
        try:
            self.sock.send(data + why.encode() + b"\n")
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()
            return
        self.state = State.LINGERING
        self.deadline = time.monotonic() + LINGER

    def _head_bytes(self, answer: Answer) -> bytes:
        response, fields, known = answer.response, answer.response.headers, ""
        if isinstance(response.body, Artefact):
            known = validators(response.body.etag, response.body.mtime)
        elif response.etag:
            known = f"ETag: {response.etag}\r\n"
        if answer.status == 206:
            end = answer.start + answer.length - 1
            fields = {**fields, "Content-Range": f"bytes {answer.start}-{end}/{answer.size}"}
        elif answer.status == 416:
            fields = {**fields, "Content-Range": f"bytes */{answer.size}"}
        length = answer.size if answer.status == 304 else answer.length  # RFC 9110 8.6
        return render_head(answer.status, response.content_type, length, fields, known, keep_alive=answer.keep_alive)

    def _body(self, answer: Answer) -> tuple[bytes, list[tuple[int, int, int]]]:
        """What of the body goes out from memory, and the spans of files for the rest. Raises OSError."""
        body, start, end = answer.response.body, answer.start, answer.start + answer.length
        if isinstance(body, bytes):
            return body[start:end], []
        if answer.size <= self.server.limits.inline_bytes:
            return self.server.files.whole(body)[start:end], []
        parts = body.extents if answer.status != 206 else cut(body.extents, start, answer.length)
        answer.files, spans = self.server.files.spans(parts)
        return b"", spans

    def _send(self) -> None:
        answer = self.answer
        assert answer is not None
        response = answer.response
        memory = self._head_bytes(answer)
        answer.before = -len(memory)
        answer.began = time.monotonic()
        spans: list[tuple[int, int, int]] = []
        if answer.head.method == "GET":
            if answer.length:
                try:
                    part, spans = self._body(answer)
                except OSError as error:
                    why = f"{error.filename}: {error.strerror or error}"
                    log.error("%s cannot be sent: %s", response.sent or answer.head.path, why)
                    self._tell(Outcome.FAILED, detail=why)
                    self._forget()
                    self.answer = Answer(Response(500), answer.head, 500, 0, 0, 0, answer.keep_alive)
                    self._send()
                    return
                memory += part
            if response.effect is not None:
                response.effect()
        if not spans:
            try:
                done = self.sock.send(memory)
            except (BlockingIOError, InterruptedError):
                done = 0
            except OSError as error:
                self._broken(error.strerror or str(error))
                return
            if done == len(memory):
                answer.sent = answer.length
                self._finished()
                return
            memory = memory[done:]
            answer.before += done
        self._tell(Outcome.STARTED)
        self.state = State.SENDING
        self.deadline = answer.began + self.server.stall_seconds
        answer.told = answer.began
        self.sending = self.server.pump.send(self.fd, memory, spans, self)

    def reported(self, sending: Sending) -> None:
        """The pump is through with it."""
        self.sending = None
        answer = self.answer
        assert answer is not None
        self._count(sending)
        if sending.error:
            self._broken(self.why or os.strerror(sending.error))
            return
        self._finished()
        self.proceed()

    def _finished(self) -> None:
        answer = self.answer
        assert answer is not None
        failed = answer.status >= 400
        self._tell(Outcome.FAILED if failed else Outcome.DONE)
        self._forget()
        self.state = State.READING
        self.deadline = time.monotonic() + self.server.limits.idle_seconds
        if not answer.keep_alive:
            self.close()
        elif not self.reading:
            self.server.poller.register(self.fd, select.EPOLLIN)
            self.reading = True

    def _broken(self, why: str) -> None:
        self._tell(Outcome.FAILED, detail=why)
        self._forget()
        self.close()

    def _count(self, sending: Sending) -> None:
        """Bring what was sent of the body up to date and tell the scheduler."""
        answer = self.answer
        assert answer is not None
        sent = max(0, answer.before + sending.sent)
        if sent > answer.sent and answer.key and self.server.scheduler is not None:
            self.server.scheduler.progress(answer.key, sent - answer.sent, time.monotonic())
        answer.sent = max(sent, answer.sent)

    def _forget(self) -> None:
        """Let go of the answer's files and turn."""
        answer = self.answer
        if answer is None:
            return
        self.answer = None
        for file in answer.files:
            file.release()
        if answer.key and self.server.scheduler is not None:
            whole = answer.sent == answer.length
            self.server.scheduler.finished(answer.key, answer.response.last and whole, time.monotonic())

    def _tell(self, outcome: Outcome, detail: str = "") -> None:
        answer = self.answer
        if answer is None or not answer.response.stage or answer.head.method == "HEAD":
            return
        response = answer.response
        sent = response.sent or (response.body.name if isinstance(response.body, Artefact) else "")
        seconds = 0.0 if outcome is Outcome.STARTED else time.monotonic() - answer.began
        self.server.on_transfer(
            Transfer(
                response.stage,
                outcome,
                time.time(),
                self.peer,
                response.wwid,
                response.node,
                sent,
                answer.sent,
                answer.length,
                seconds,
                answer.status,
                detail or response.detail,
            )
        )

    # --- time ------------------------------------------------------------------------------------------------

    def look_after(self, now: float) -> None:
        """Once a second: progress, stalls, idle and slow clients."""
        if self.state is State.SENDING:
            answer, sending = self.answer, self.sending
            assert answer is not None
            assert sending is not None
            before = answer.sent
            self._count(sending)
            if answer.sent > before:
                self.deadline = now + self.server.stall_seconds
                if now - answer.told >= 1.0:
                    answer.told = now
                    self._tell(Outcome.PROGRESS)
            elif now > self.deadline:
                self.close("no progress")
        elif self.state is State.HANDLING or self.state is State.WAITING:
            return
        elif now > self.deadline:
            if self.state is State.READING and len(self.reader):
                self.refuse(408, "the request head took too long")
            else:
                self.close()

    def close(self, why: str = "") -> None:
        """Close now; with the pump at work, shut down and close when it reports."""
        if self.state is State.CLOSED:
            return
        if self.sending is not None:
            self.why = self.why or why
            try:
                self.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            self.deadline = time.monotonic() + self.server.stall_seconds
            return
        if self.state is State.WAITING:
            self.server.stop_waiting(self)
        if self.answer is not None:
            self._tell(Outcome.FAILED, detail=why)
            answer, self.answer = self.answer, None
            for file in answer.files:
                file.release()
        if self.task is not None:
            self.task.cancel()
            self.task = None
        self._stop_reading()
        self.state = State.CLOSED
        self.sock.close()
        self.server.closed(self)


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
        self._closed = False
        self.refused = 0  # connections over the limit
        self.waiting: dict[str, list[Connection]] = {}
        self._connections: dict[int, Connection] = {}  # by descriptor
        self._slices: list[set[Connection]] = [set() for _ in range(SLICES)]
        self._turn = 0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to accept, on the running event loop."""
        self.loop = asyncio.get_running_loop()
        self.files = FileCache()
        self.pump = Pump(self.limits.send_threads, self.limits.turn_bytes)
        self.loop.add_reader(self.pump.fileno(), self._reports)
        # An epoll of our own behind one of the loop's: uvloop drops a descriptor in error without a word, so a
        # reset would not be noticed, and one call for all that are readable costs less than one for each.
        self.poller = select.epoll()
        self.loop.add_reader(self.poller.fileno(), self._readable)
        for one in self.sockets:
            one.setblocking(False)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit all of these
            one.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            one.setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, self.limits.unsent_bytes)
            if self.limits.pacing_bytes:
                one.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, self.limits.pacing_bytes)
            self.loop.add_reader(one.fileno(), self._accept, one)
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
            "waiting": len(self.waiting),
            "sent": self.pump.total,
            "refused": self.refused,
        }

    def stop_accepting(self) -> None:
        """Close our listening sockets. A process that has taken them over holds copies; else clients are refused."""
        if not self.draining:
            self.draining = True
            for one in self.sockets:
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
        """Close listeners and connections; transfers under way are cut and reported as failed. Safe to repeat."""
        if self._closed:
            return
        self._closed = True
        self.stop_accepting()
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

    def closed(self, connection: Connection) -> None:
        del self._connections[connection.fd]
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
                log.error("cannot accept: %s", error.strerror)
                self.loop.remove_reader(listener.fileno())
                self.loop.call_later(0.1, self._resume, listener)
                return
            if len(self._connections) >= self.limits.connections:
                self.refused += 1
                sock.close()
                continue
            sock.setblocking(False)
            connection = Connection(self, sock, address, now)
            self._connections[connection.fd] = connection
            self._slices[connection.fd % SLICES].add(connection)

    def _resume(self, listener: socket.socket) -> None:
        if not self.draining:
            self.loop.add_reader(listener.fileno(), self._accept, listener)

    def _readable(self) -> None:
        for fd, _ in self.poller.poll(0, EVENTS):
            connection = self._connections.get(fd)
            if connection is not None:
                connection.readable()

    def _reports(self) -> None:
        for sending in self.pump.reports():
            sending.context.reported(sending)
        self._admit(time.monotonic())

    def _tick(self) -> None:
        now = time.monotonic()
        self._timer = self.loop.call_later(TICK, self._tick)
        self._turn = (self._turn + 1) % SLICES
        for connection in list(self._slices[self._turn]):
            connection.look_after(now)
        self._admit(now)

    def _admit(self, now: float) -> None:
        if self.scheduler is not None:
            for key, verdict in self.scheduler.tick(self.pump.total, now):
                for connection in self.waiting.pop(key, []):
                    connection.admitted(verdict)
                    connection.proceed()
