"""Who waits for a worker, and what is not tried again soon (sans-IO: threads wait here, workers are asked elsewhere).

As many lead as workers are wanted. Who leads asks one worker for several nodes at once, its own and those that wait
behind it, and hands on: a crowd costs few messages, not one for each node.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from wwfast.errors import WwfastError
from wwfast.nodes.model import Node
from wwfast.nodes.registry import Snapshot
from wwfast.overlays.making.index import Record

SHARE = 0.05  # seconds of work that a worker is given at once: the next to ask waits no longer than that
FIRST_GUESS = 0.005  # seconds that a node takes, before any was measured
COSTLY = 0.1  # seconds of a failure of a node's overlays from which on it rests
REST = 5  # times as long as it took; a template of 10 s on a loaded core is run once in minutes
LONGEST_REST = 3600.0


@dataclass(eq=False, slots=True)
class Wanted:
    """A node that somebody waits for. `called`: it was answered, or has to lead `batch`, itself among them."""

    snapshot: Snapshot
    node: Node
    context: str
    alone: bool = False  # together with others it was not answered
    answered: bool = False
    record: Record | None = None
    error: Exception | None = None
    batch: list[Wanted] = field(default_factory=list)
    called: threading.Event = field(default_factory=threading.Event)

    def answer(self, record: Record | None, error: Exception | None = None) -> None:
        self.record, self.error, self.answered = record, error, True
        self.called.set()

    def turn(self) -> list[Wanted]:
        """Wait: those to ask a worker for, or none when this one was answered."""
        self.called.wait()
        self.called.clear()
        batch, self.batch = self.batch, []
        return batch


class Crowd:
    """Thread-safe."""

    def __init__(self, leaders: int, most: int) -> None:
        """`most` nodes are asked for at once."""
        self._lock = threading.Lock()
        self._queue: deque[Wanted] = deque()
        self._free = self._leaders = leaders
        self._most = most
        self._each = FIRST_GUESS

    def join(self, wanted: Wanted) -> None:
        with self._lock:
            self._queue.append(wanted)
            self._call()

    def hand_on(self, unanswered: Iterable[Wanted] = ()) -> None:
        """Somebody else may lead; `unanswered` are asked for next, each alone."""
        with self._lock:
            for each in unanswered:
                each.alone = True
                self._queue.appendleft(each)
            self._free += 1
            self._call()

    def took(self, seconds: float, count: int) -> None:
        self._each += (seconds / count - self._each) / 4

    def _call(self) -> None:
        while self._free and self._queue:
            most = min(self._most, int(SHARE / self._each), -(-len(self._queue) // self._leaders))
            leader = self._queue.popleft()
            leader.batch = [leader]
            while not leader.alone and len(leader.batch) < most and self._queue and not self._queue[0].alone:
                leader.batch.append(self._queue.popleft())
            self._free -= 1
            leader.called.set()


@dataclass(slots=True)
class Tried:
    rest: float
    until: float
    message: str
    hint: str | None

    def error(self) -> WwfastError:
        return WwfastError(self.message, hint=self.hint)


class Costly:
    """Failures that took long: until something changes they are told again without being run, each time twice as long.
    Thread-safe. Keys are (node, context)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._generation = 0
        self.tried: dict[tuple[str, str], Tried] = {}

    def before(self, generation: int, key: tuple[str, str]) -> Tried | None:
        with self._lock:
            return self.tried.get(key) if self._generation == generation else None

    def failed(self, generation: int, key: tuple[str, str], seconds: float, error: WwfastError) -> None:
        with self._lock:
            if self._generation != generation:
                self._generation, self.tried = generation, {}
            before = self.tried.get(key)
            rest = min(max(seconds * REST, 2 * before.rest if before else 0.0), LONGEST_REST)
            self.tried[key] = Tried(rest, time.monotonic() + rest, error.message, error.hint)
