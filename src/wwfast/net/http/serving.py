"""What all connections of one server share: handler, limits, and who decides whose turn it is."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from wwfast.net.http.admission import Admission, Verdict
from wwfast.net.http.files import FileCache, Run
from wwfast.net.http.message import Request, Response
from wwfast.net.isolation import isolated
from wwfast.net.restraint import Restraint
from wwfast.net.shares import Shares
from wwfast.net.transfer import Transfer

# One turn of those who sent more than one request at once, a request each. Fresh clients are read between two turns:
# beside 50 connections of 3,000 pipelined requests each they wait for this and for one request of each.
TURN_SECONDS = 0.001
HASTY_SECONDS = 2.0  # that a connection may be idle when three of four are taken
SAID = (20, 1)  # lines of the log about bad requests of one address: at once, and a second
PART = "serving HTTP connections"

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


class Task(Protocol):
    def cancel(self) -> object: ...


class Loop(Protocol):
    """Of an event loop, what connections need. Tests have one that does everything at once."""

    def call_soon(self, callback: Callable[..., object], /, *args: Any) -> object: ...
    def create_task(self, coroutine: Coroutine[Any, Any, None], /) -> Task: ...
    def call_exception_handler(self, context: dict[str, Any], /) -> None: ...


class Member(Protocol):
    """A connection, as what is shared sees it."""

    def turn(self) -> None: ...
    def proceed(self) -> None: ...
    def admitted(self, verdict: Verdict, /) -> None: ...
    def abandon(self) -> None: ...


class Serving:
    """`begin` gives it the loop and the files; from then on it is used on that loop alone."""

    def __init__(
        self,
        handler: Handler,
        limits: Limits,
        on_transfer: OnTransfer,
        scheduler: Admission | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.handler = handler
        self.limits = limits
        self.on_transfer = on_transfer
        self.scheduler = scheduler
        self.clock = clock
        self.stall_seconds = limits.stall_seconds
        self.draining = False
        self.held = 0  # bytes kept of requests to come
        self.places = Shares(limits.connections)
        self.restraint = Restraint(*SAID)
        self.waiting: dict[str, list[Member]] = {}  # those whose turn has not come, by node
        self._queue: deque[Member] = deque()
        self._turning = False

    def begin(self, loop: Loop, run: Run) -> None:
        self.loop = loop
        self.files = FileCache(run)

    @property
    def haste(self) -> float:
        """Seconds by which idle connections end sooner, when connections become few."""
        return self.limits.idle_seconds - HASTY_SECONDS if 4 * self.places.total >= 3 * self.places.limit else 0.0

    def step(self, member: Member, step: Callable[..., None], *given: object) -> None:
        """One step of a connection: what fails in it ends that connection, and no other notices."""
        try:
            step(*given)
        except Exception as error:
            isolated(self.loop, PART, error)
            member.abandon()

    def tell(self, event: Transfer) -> None:
        """Whoever sends goes on sending, whatever becomes of the news of it."""
        try:
            self.on_transfer(event)
        except Exception as error:
            isolated(self.loop, "telling of HTTP transfers", error)

    def queue(self, member: Member) -> None:
        """It has more requests: it gets its next turn after all others that wait for theirs."""
        self._queue.append(member)
        if not self._turning:
            self._turning = True
            self.loop.call_soon(self._turns)

    def _turns(self) -> None:
        end = self.clock() + TURN_SECONDS
        self._turning = False
        for _ in range(len(self._queue)):
            member = self._queue.popleft()
            self.step(member, member.turn)
            if self.clock() > end:
                break
        if self._queue and not self._turning:
            self._turning = True
            self.loop.call_soon(self._turns)

    def wait(self, key: str, member: Member) -> None:
        """Until the scheduler lets the node `key` go."""
        self.waiting.setdefault(key, []).append(member)

    def stop_waiting(self, key: str, member: Member) -> None:
        others = self.waiting.get(key, [])
        if member in others:
            others.remove(member)
            if not others:
                del self.waiting[key]
                if self.scheduler is not None:
                    self.scheduler.left(key, self.clock())

    def admit(self, sent: int, now: float) -> None:
        """Ask the scheduler who may go; `sent`: bytes that all connections have sent so far."""
        if self.scheduler is None:
            return
        try:
            verdicts = list(self.scheduler.tick(sent, now))
        except Exception as error:
            isolated(self.loop, "scheduling downloads", error)
            return
        for key, verdict in verdicts:
            for member in self.waiting.pop(key, []):
                self.step(member, member.admitted, verdict)
                self.step(member, member.proceed)
