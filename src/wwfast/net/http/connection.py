"""One peer (sans-IO): bytes come in, the handler is asked, and answers go out, at once what is small, by the pump what
is not. It knows no socket: what it reads and writes by is a Wire, what it shares with others is Serving.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable
from enum import Enum, auto
from functools import partial

from wwfast.archive.artefact import Artefact
from wwfast.net.http.admission import Verdict, patience
from wwfast.net.http.answer import NO_SPANS, Answer
from wwfast.net.http.head import Head, HeadError, HeadReader
from wwfast.net.http.message import NOTHING, Request, Response, render_head
from wwfast.net.http.serving import Serving, Task
from wwfast.net.http.wire import Sending, Wire
from wwfast.net.isolation import isolated
from wwfast.net.names import tame
from wwfast.net.transfer import Outcome

log = logging.getLogger(__name__)

ANSWERING = "answering HTTP requests"
LINGER = 2.0  # seconds to let a refused client read why


class State(Enum):
    READING = auto()  # between requests, or in the middle of a head
    HANDLING = auto()  # an asynchronous handler, or a thread that opens files, is at work
    WAITING = auto()  # its node's turn has not come
    SENDING = auto()  # the pump has it
    LINGERING = auto()  # refused; what it still sends is thrown away
    CLOSED = auto()


#: Every way from one state to another, and what takes it there. An answer sent at once changes nothing.
TRANSITIONS: dict[State, dict[State, str]] = {
    State.READING: {
        State.HANDLING: "the answer is not there yet, or its files are not open",
        State.WAITING: "the scheduler says: not yet",
        State.SENDING: "the answer is large, or the peer slow to take it",
        State.LINGERING: "no request, or too much of one",
        State.CLOSED: "the peer has gone, or was idle for too long",
    },
    State.HANDLING: {
        State.READING: "the answer is there, or its files are open",
        State.CLOSED: "the peer has gone",
    },
    State.WAITING: {
        State.READING: "the scheduler says: go, or come again",
        State.CLOSED: "the peer has gone, or the server stops",
    },
    State.SENDING: {
        State.READING: "all is sent",
        State.CLOSED: "the peer has gone, or takes nothing for too long",
    },
    State.LINGERING: {State.CLOSED: "the peer has read why, or time is up"},
    State.CLOSED: {},
}


class Connection:
    """All methods run on the event loop. `on_closed` is called once, when nothing is left to do."""

    __slots__ = (
        "answer",
        "asked",
        "begun",
        "deadline",
        "held",
        "on_closed",
        "peer",
        "port",
        "queued",
        "reader",
        "reading",
        "sending",
        "serving",
        "state",
        "task",
        "why",
        "wire",
    )

    def __init__(
        self, serving: Serving, wire: Wire, peer: str, port: int, on_closed: Callable[[Connection], None]
    ) -> None:
        self.serving = serving
        self.wire = wire
        self.peer, self.port = peer, port
        self.on_closed = on_closed
        self.reader = HeadReader(serving.limits.head_bytes)
        self.state = State.READING
        self.deadline = serving.clock() + serving.limits.head_seconds
        self.answer: Answer | None = None
        self.sending: Sending | None = None
        self.task: Task | None = None
        self.reading = True
        self.asked = False  # it has sent a request
        self.begun = True  # the time for a head runs; only a whole one stops it, whatever else comes
        self.queued = False  # it waits for its turn among those with more requests
        self.held = 0  # bytes of the reader that the server counts
        self.why = ""
        wire.watch(True)

    def _enter(self, state: State) -> None:
        if state is not self.state:
            assert state in TRANSITIONS[self.state], f"{self.state.name} -> {state.name}"
            self.state = state

    # --- reading ---------------------------------------------------------------------------------------------

    def readable(self) -> None:
        data = self.wire.receive(self.serving.limits.head_bytes)
        if data is not None:
            self.received(data)

    def received(self, data: bytes) -> None:
        """Bytes of the peer; none when there will be no more."""
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
            if self.held > self.serving.limits.head_bytes:
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
                if self.serving.draining:
                    head = head._replace(keep_alive=False)
                self._handle(head)
                if self.state is State.READING and len(self.reader):
                    self.queued = True
                    self.serving.queue(self)
            elif not self.begun:
                self.begun = True
                self.deadline = self.serving.clock() + self.serving.limits.head_seconds
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
        self.serving.held += size - self.held
        self.held = size
        if grown and self.serving.held > self.serving.limits.held_bytes:
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
            self.wire.watch(False)
            self.reading = False

    # --- answering -------------------------------------------------------------------------------------------

    def _handle(self, head: Head) -> None:
        request = Request(head.method, head.path, head.query, head.headers, self.peer, self.port)
        try:
            result = self.serving.handler(request)
        except Exception as error:
            isolated(self.serving.loop, ANSWERING, error)
            result = Response(500)
        self._take(head, result)

    def _take(self, head: Head, result: Response | Awaitable[Response]) -> None:
        if isinstance(result, Response):
            self._respond(head, result)
        else:
            self._enter(State.HANDLING)
            self.task = self.serving.loop.create_task(self._await(head, result))

    async def _await(self, head: Head, result: Awaitable[Response]) -> None:
        try:
            response = await result
        except Exception as error:
            isolated(self.serving.loop, ANSWERING, error)
            response = Response(500)
        self.task = None
        if self.state is State.HANDLING:
            self._enter(State.READING)
            self.serving.step(self, self._respond, head, response)
            self.serving.step(self, self.proceed)

    def _respond(self, head: Head, response: Response) -> None:
        answer = self.answer = Answer.to(head, response)
        serving = self.serving
        if (
            serving.scheduler is not None
            and response.wwid
            and response.waits
            and answer.length
            and head.method == "GET"
            and isinstance(response.body, Artefact)
        ):
            answer.key = response.wwid
            kind = patience(head.headers.get("user-agent", ""))
            now = serving.clock()
            self.admitted(serving.scheduler.ask(response.wwid, response.share, answer.length, kind, now))
            return
        self._send()

    def admitted(self, verdict: Verdict) -> None:
        """The scheduler has spoken: go, wait, or come again."""
        answer = self.answer
        assert answer is not None
        if verdict.go:
            self._enter(State.READING)
            self._send()
        elif verdict.retry_after:
            self._enter(State.READING)
            again = Response(503, headers={"Retry-After": str(verdict.retry_after)})
            self.answer = Answer.empty(answer.head, again, answer.keep_alive)
            self._send()
        else:
            self._enter(State.WAITING)
            self.serving.wait(answer.key, self)

    def refuse(self, status: int, why: str) -> None:
        """Say what was wrong with the bytes, then close without cutting the answer off."""
        if self.serving.restraint.allows(self.peer):
            log.info("%s refused with %d: %s", self.peer, status, why)
        fields = {"Allow": "GET, HEAD, POST"} if status == 405 else NOTHING
        # One that was right may be refused so, and curl that is to try again has written what it got (boot.dracut).
        body = b"" if status in (408, 503) else f"{why}\n".encode()
        data = render_head(status, "text/plain; charset=utf-8", len(body), fields, keep_alive=False)
        try:
            self.wire.send(data + body)
            self.wire.finish()
        except OSError:
            self.close()
            return
        self._enter(State.LINGERING)
        self.begun = True
        self.reader.clear()
        self._hold()
        self.deadline = self.serving.clock() + LINGER

    def _load(self, answer: Answer, body: Artefact) -> None:
        self._enter(State.HANDLING)
        whole = answer.size <= self.serving.limits.inline_bytes
        self.serving.files.load(body, partial(self._loaded, answer), whole=whole)

    def _loaded(self, answer: Answer, error: OSError | None) -> None:
        """The thread has opened the files, or could not."""
        if self.state is not State.HANDLING or self.answer is not answer:
            return  # the client has gone
        self._enter(State.READING)
        if error is None:
            self.serving.step(self, self._send)
        else:
            self.serving.step(self, self._unreadable, answer, error)
        self.serving.step(self, self.proceed)

    def _unreadable(self, answer: Answer, error: OSError) -> None:
        """Ask once more for what can be sent; where there is nothing, say so."""
        response = answer.response
        why = f"{error.filename}: {error.strerror or error}"
        if self.serving.restraint.allows(self.peer):
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
        memory = answer.head_bytes()
        answer.before = -len(memory)
        answer.began = self.serving.clock()
        part, spans = b"", NO_SPANS
        if answer.head.method == "GET" and answer.length:
            body = answer.parts(self.serving.files, self.serving.limits.inline_bytes)
            if body is None:
                assert isinstance(answer.response.body, Artefact)
                self._load(answer, answer.response.body)
                return
            part, spans = body
            if len(part) <= self.serving.limits.inline_bytes:
                memory += part
                part = b""
        if not spans and not part:
            try:
                done = self.wire.send(memory)
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
        self._enter(State.SENDING)
        self.deadline = answer.began + self.serving.stall_seconds
        answer.told = answer.began
        self.sending = self.wire.pump(memory, part, spans, self)

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
        self._enter(State.READING)
        self.deadline = self.serving.clock() + self.serving.limits.idle_seconds
        if not answer.keep_alive:
            self.close()
        elif not self.reading and len(self.reader) <= self.serving.limits.head_bytes:
            self.wire.watch(True)
            self.reading = True

    def _broken(self, why: str) -> None:
        self._tell(Outcome.FAILED, detail=why)
        self._forget()
        self.close()

    def _count(self, sending: Sending) -> None:
        """Bring what was sent of the body up to date and tell the scheduler."""
        answer = self.answer
        assert answer is not None
        new = answer.count(sending.sent)
        if new and answer.key and self.serving.scheduler is not None:
            self.serving.scheduler.progress(answer.key, new, self.serving.clock())

    def _forget(self) -> None:
        """Let go of the answer's files and turn."""
        answer = self.answer
        if answer is None:
            return
        self.answer = None
        answer.release()
        if answer.key and self.serving.scheduler is not None:
            whole = answer.sent == answer.length
            self.serving.scheduler.finished(answer.key, answer.response.last and whole, self.serving.clock())

    def _tell(self, outcome: Outcome, detail: str = "") -> None:
        answer = self.answer
        if answer is not None and answer.is_told(outcome):
            self.serving.tell(answer.event(outcome, self.peer, detail))

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
                self.deadline = now + self.serving.stall_seconds
                if now - answer.told >= 1.0:
                    answer.told = now
                    self._tell(Outcome.PROGRESS)
            elif now > self.deadline:
                self.close("no progress")
        elif self.queued or self.state is State.HANDLING or self.state is State.WAITING:
            return
        elif now > self.deadline or (self.asked and not self.begun and now > self.deadline - self.serving.haste):
            if self.state is State.READING and len(self.reader):
                self.refuse(408, "the request head took too long")
            else:
                self.close()

    def abandon(self) -> None:
        """After an unexpected error: close, and if that fails as well, with nothing left to tell or to give back."""
        try:
            self.close("an internal error")
        except Exception as error:
            isolated(self.serving.loop, ANSWERING, error)
            self.answer = self.task = None
            self.close()

    def close(self, why: str = "") -> None:
        """Close now; with the pump at work, shut down and close when it reports."""
        if self.state is State.CLOSED:
            return
        if self.sending is not None:
            self.why = self.why or why
            self.wire.cut()
            self.deadline = self.serving.clock() + self.serving.stall_seconds
            return
        if self.answer is not None:
            if self.state is State.WAITING:
                self.serving.stop_waiting(self.answer.key, self)
                self.answer.key = ""  # it had no turn that could be over
            self._tell(Outcome.FAILED, detail=why)
            self._forget()
        if self.task is not None:
            self.task.cancel()
            self.task = None
        self._stop_reading()
        self._enter(State.CLOSED)
        self._hold()
        self.wire.close()
        self.on_closed(self)
