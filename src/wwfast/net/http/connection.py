"""One accepted socket: reads heads, asks the handler, and sends, at once what is small, by the pump what is not."""

from __future__ import annotations

import asyncio
import logging
import os
import select
import socket
import time
from collections.abc import Awaitable
from enum import Enum, auto
from functools import partial
from typing import TYPE_CHECKING

from wwfast.archive.artefact import Artefact
from wwfast.net.http.admission import Verdict, patience
from wwfast.net.http.answer import Answer
from wwfast.net.http.conditions import cut
from wwfast.net.http.head import Head, HeadError, HeadReader
from wwfast.net.http.message import NOTHING, Request, Response, render_head
from wwfast.net.isolation import isolated
from wwfast.net.names import tame
from wwfast.net.transfer import Outcome

if TYPE_CHECKING:
    from wwfast._ext.pump import Sending
    from wwfast.net.http.server import HttpServer

log = logging.getLogger(__name__)

ANSWERING = "answering HTTP requests"
NO_SPANS: list[tuple[int, int, int]] = []
LINGER = 2.0  # seconds to let a refused client read why


class State(Enum):
    READING = auto()  # between requests, or in the middle of a head
    HANDLING = auto()  # an asynchronous handler is at work
    WAITING = auto()  # its node's turn has not come
    SENDING = auto()  # the pump has it
    LINGERING = auto()  # refused; what it still sends is thrown away
    CLOSED = auto()


class Connection:
    """One accepted socket. All methods run on the event loop."""

    __slots__ = (
        "answer",
        "asked",
        "begun",
        "deadline",
        "fd",
        "held",
        "local",
        "peer",
        "port",
        "queued",
        "reader",
        "reading",
        "sending",
        "server",
        "sock",
        "state",
        "task",
        "why",
    )

    def __init__(self, server: HttpServer, sock: socket.socket, peer: str, port: int, now: float) -> None:
        self.server = server
        self.sock = sock
        self.fd = sock.fileno()
        self.peer, self.port = peer, port
        self.local = ""
        self.reader = HeadReader(server.limits.head_bytes)
        self.state = State.READING
        self.deadline = now + server.limits.head_seconds
        self.answer: Answer | None = None
        self.sending: Sending | None = None
        self.task: asyncio.Task[None] | None = None
        self.reading = True
        self.asked = False  # it has sent a request
        self.begun = True  # the time for a head runs; only a whole one stops it, whatever else comes
        self.queued = False  # it waits for its turn among those with more requests
        self.held = 0  # bytes of the reader that the server counts
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
        if self.state is State.READING and not self.queued:
            self.proceed(data)
        else:
            self.reader.feed(data)
            self._hold()
            if self.held > self.server.limits.head_bytes:
                self._stop_reading()

    def proceed(self, data: bytes = b"") -> None:
        """Answer one request that has arrived whole; with more of them, queue for the next turn."""
        if self.state is State.READING and not self.queued and (data or len(self.reader)):
            try:
                head = self.reader.take(data) if data else self.reader.next()
            except HeadError as error:
                self.refuse(error.status, str(error))
                return
            if head is not None:
                self.begun = False
                self.asked = True
                if self.server.draining:
                    head = head._replace(keep_alive=False)
                self._handle(head)
                if self.state is State.READING and len(self.reader):
                    self.queued = True
                    self.server.queue(self)
            elif not self.begun:
                self.begun = True
                self.deadline = time.monotonic() + self.server.limits.head_seconds
        self._hold()

    def turn(self) -> None:
        """The others have had theirs."""
        self.queued = False
        self.proceed()

    def _hold(self) -> None:
        """Have the server count what is kept of requests to come; with too much of all clients, keep no more."""
        size = len(self.reader) if self.state is not State.CLOSED else 0
        if size == self.held:
            return
        grown = size > self.held
        self.server.held += size - self.held
        self.held = size
        if grown and self.server.held > self.server.limits.held_bytes:
            if self.state is State.READING and not self.queued:
                self.refuse(503, "too many unfinished requests")
            else:
                self._stop_reading()

    def _ended(self) -> None:
        """The peer sends no more. A response under way is finished; the pump notices when nobody reads it."""
        if self.queued:
            self._stop_reading()  # until the next answer: what has come is answered first
        elif self.state is State.SENDING or (self.state is State.HANDLING and self.answer is not None):
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
        except Exception as error:
            isolated(self.server.loop, ANSWERING, error)
            result = Response(500)
        self._take(head, result)

    def _take(self, head: Head, result: Response | Awaitable[Response]) -> None:
        if isinstance(result, Response):
            self._respond(head, result)
        else:
            self.state = State.HANDLING
            self.task = self.server.loop.create_task(self._await(head, result))

    async def _await(self, head: Head, result: Awaitable[Response]) -> None:
        try:
            response = await result
        except Exception as error:
            isolated(self.server.loop, ANSWERING, error)
            response = Response(500)
        self.task = None
        if self.state is State.HANDLING:
            self.state = State.READING
            self.server.step(self, self._respond, head, response)
            self.server.step(self, self.proceed)

    def _respond(self, head: Head, response: Response) -> None:
        answer = self.answer = Answer.to(head, response)
        server = self.server
        if (
            server.scheduler is not None
            and response.wwid
            and response.waits
            and answer.length
            and head.method == "GET"
            and isinstance(response.body, Artefact)
        ):
            answer.key = response.wwid
            kind = patience(head.headers.get("user-agent", ""))
            now = time.monotonic()
            self.admitted(server.scheduler.ask(response.wwid, response.share, answer.length, kind, now))
            return
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
            self.answer = Answer.empty(answer.head, again, answer.keep_alive)
            self._send()
        else:
            self.state = State.WAITING
            self.server.waiting.setdefault(answer.key, []).append(self)

    def refuse(self, status: int, why: str) -> None:
        """Say what was wrong with the bytes, then close without cutting the answer off."""
        if self.server.restraint.allows(self.peer):
            log.info("%s refused with %d: %s", self.peer, status, why)
        fields = {"Allow": "GET, HEAD"} if status == 405 else NOTHING
        data = render_head(status, "text/plain; charset=utf-8", len(why) + 1, fields, keep_alive=False)
        try:
            self.sock.send(data + why.encode() + b"\n")
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()
            return
        self.state, self.begun = State.LINGERING, True
        self.reader.clear()
        self._hold()
        self.deadline = time.monotonic() + LINGER

    def _body(self, answer: Answer) -> tuple[bytes, list[tuple[int, int, int]]] | None:
        """What of the body goes out from memory, and the spans of files for the rest; None where a thread must open or
        read them first."""
        body, start, end = answer.response.body, answer.start, answer.start + answer.length
        if isinstance(body, bytes):
            return body[start:end], []
        if answer.size <= self.server.limits.inline_bytes:
            whole = self.server.files.whole(body)
            return (whole[start:end], []) if whole is not None else None
        opened = self.server.files.opened(body)
        if opened is None:
            return None
        opened.hold()
        answer.files = opened.files
        return b"", opened.spans if answer.status != 206 else cut(opened.spans, start, answer.length)

    def _load(self, answer: Answer, body: Artefact) -> None:
        self.state = State.HANDLING
        whole = answer.size <= self.server.limits.inline_bytes
        self.server.files.load(body, partial(self._loaded, answer), whole=whole)

    def _loaded(self, answer: Answer, error: OSError | None) -> None:
        """The thread has opened the files, or could not."""
        if self.state is not State.HANDLING or self.answer is not answer:
            return  # the client has gone
        self.state = State.READING
        if error is None:
            self.server.step(self, self._send)
        else:
            self.server.step(self, self._unreadable, answer, error)
        self.server.step(self, self.proceed)

    def _unreadable(self, answer: Answer, error: OSError) -> None:
        """Ask once more for what can be sent; where there is nothing, say so."""
        response = answer.response
        why = f"{error.filename}: {error.strerror or error}"
        if self.server.restraint.allows(self.peer):
            log.error("%s cannot be sent: %s", tame(response.sent or answer.head.path), why)
        if response.again is not None:
            self._forget()
            self._take(answer.head._replace(keep_alive=answer.keep_alive), response.again())
            return
        self._tell(Outcome.FAILED, detail=why)
        self._forget()
        self.answer = Answer.empty(answer.head, Response(500), answer.keep_alive)
        self._send()

    def _send(self) -> None:
        answer = self.answer
        assert answer is not None
        response = answer.response
        memory = answer.head_bytes()
        answer.before = -len(memory)
        answer.began = time.monotonic()
        part, spans = b"", NO_SPANS
        if answer.head.method == "GET" and answer.length:
            body = self._body(answer)
            if body is None:
                assert isinstance(response.body, Artefact)
                self._load(answer, response.body)
                return
            part, spans = body
            if len(part) <= self.server.limits.inline_bytes:
                memory += part
                part = b""
        if not spans and not part:
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
        self.sending = self.server.pump.send(self.fd, memory, part, spans, self)

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
        elif not self.reading and len(self.reader) <= self.server.limits.head_bytes:
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
        if answer is not None and answer.told_of:
            self.server.tell(answer.event(outcome, self.peer, detail))

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
        elif self.queued or self.state is State.HANDLING or self.state is State.WAITING:
            return
        elif now > self.deadline or (self.asked and not self.begun and now > self.deadline - self.server.haste):
            if self.state is State.READING and len(self.reader):
                self.refuse(408, "the request head took too long")
            else:
                self.close()

    def abandon(self) -> None:
        """After an unexpected error: close, and if that fails as well, with nothing left to tell or to give back."""
        try:
            self.close("an internal error")
        except Exception as error:
            isolated(self.server.loop, ANSWERING, error)
            self.answer = self.task = None
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
            if self.state is State.WAITING:
                self.answer.key = ""  # it had no turn that could be over
            self._forget()
        if self.task is not None:
            self.task.cancel()
            self.task = None
        self._stop_reading()
        self.state = State.CLOSED
        self._hold()
        self.sock.close()
        self.server.closed(self)
