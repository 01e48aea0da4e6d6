"""Nothing that must go on ends in silence: tasks are started again, and what fails is counted and told.

A trouble has a name (what does not work) and its last error. It is in the log, once a minute at most, in /status and so
in `wwfast doctor`, until the same thing works again.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from wwfast.errors import WwfastError, cause

log = logging.getLogger(__name__)

FIRST_PAUSE, MOST_PAUSE = 0.5, 30.0  # s before a task that failed goes on; doubled each time
LOOK_SECONDS = 10.0  # between two looks at what has a thread of its own
LOG_SECONDS = 60.0  # between two lines about one trouble
SLOW_SECONDS = 60.0  # work in a thread that takes longer is told: a dead file server keeps a thread for ever
STRAY_SECONDS = 600.0  # an error of no task's is told so long: nothing says when it is over
MOST = 64  # troubles kept
WORDS = 300  # characters of an error that are told

Result = TypeVar("Result")


@dataclass(slots=True)
class Trouble:
    """What does not work now; times in Unix seconds. `ends` is 0 where success ends it."""

    error: str
    since: float
    last: float
    count: int = 1
    ends: float = 0.0
    logged: float = float("-inf")

    def as_json(self) -> dict[str, object]:
        return {"error": self.error, "since": round(self.since, 3), "last": round(self.last, 3), "count": self.count}


class Supervisor:
    """The tasks of one daemon, and what is wrong with them. Troubles may be told from any thread."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._troubles: dict[str, Trouble] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._probes: dict[str, Callable[[], str]] = {}

    def keep(self, name: str, turn: Callable[[], Awaitable[None]]) -> None:
        """Run `turn` again and again, until stop(); after one that failed with a pause that grows."""
        self._tasks[name] = asyncio.get_running_loop().create_task(self._keep(name, turn), name=name)

    async def _keep(self, name: str, turn: Callable[[], Awaitable[None]]) -> None:
        pause = FIRST_PAUSE
        while True:
            try:
                await turn()
            except Exception as error:
                self.failed(name, error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, MOST_PAUSE)
            else:
                self.well(name)
                pause = FIRST_PAUSE

    def stop(self) -> None:
        """End the tasks. Safe to repeat."""
        while self._tasks:
            self._tasks.popitem()[1].cancel()

    async def attend(self, name: str, work: asyncio.Future[Result]) -> Result:
        """The result of work in a thread; tells of it when it takes too long."""
        while not (await asyncio.wait([work], timeout=SLOW_SECONDS))[0]:
            self.failed(name, WwfastError(f"has not ended for {SLOW_SECONDS:g} s: is a disk or file server stuck?"))
        return work.result()

    def probe(self, name: str, ask: Callable[[], str]) -> None:
        """`ask` says what is wrong now with something that has a thread of its own, or ""."""
        self._probes[name] = ask

    @contextmanager
    def guarded(self, name: str) -> Iterator[None]:
        """What fails inside is told, and no more: for steps after which the next one must come."""
        try:
            yield
        except Exception as error:
            self.failed(name, error)
        else:
            self.well(name)

    def failed(self, name: str, error: BaseException, *, ends: float = 0.0) -> None:
        """Count, and log with what came meanwhile; with `ends` the trouble is over at that Unix time."""
        now = self._clock()
        with self._lock:
            trouble = self._troubles.get(name)
            if trouble is None:
                self._expire(now)
                if len(self._troubles) >= MOST:  # of strays: what tasks can fail in is less
                    del self._troubles[min(self._troubles, key=lambda key: self._troubles[key].ends or float("inf"))]
                trouble = self._troubles[name] = Trouble("", now, now, 0)
            trouble.error, trouble.last, trouble.ends = told(error), now, ends
            trouble.count += 1
            silent = time.monotonic() < trouble.logged + LOG_SECONDS
            if not silent:
                trouble.logged = time.monotonic()
            count = trouble.count
        if not silent:
            expected = isinstance(error, (OSError, sqlite3.Error, WwfastError))
            log.error("%s failed (%d times): %s", name, count, told(error), exc_info=None if expected else error)

    def well(self, name: str) -> None:
        """It works: its trouble, if any, is over."""
        if name not in self._troubles:
            return
        with self._lock:
            trouble = self._troubles.pop(name, None)
        if trouble is not None:
            log.info("%s works again after %.0f s", name, self._clock() - trouble.since)

    def troubles(self) -> dict[str, dict[str, object]]:
        """For /status: what does not work now."""
        self._ask()
        with self._lock:
            self._expire(self._clock())
            return {name: trouble.as_json() for name, trouble in self._troubles.items()}

    def _expire(self, now: float) -> None:
        for name in [name for name, trouble in self._troubles.items() if trouble.ends and trouble.ends <= now]:
            del self._troubles[name]

    async def look(self) -> None:
        """A turn of `keep`: what probes find is in the log though nobody asks."""
        await asyncio.sleep(LOOK_SECONDS)
        self._ask()

    def _ask(self) -> None:
        for name, ask in self._probes.items():
            with self.guarded(name):
                if wrong := ask():
                    raise WwfastError(wrong)

    def uncaught(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """The loop's exception handler: an error in a callback, in a part of a server (`net.isolation`), or of a task
        that nobody waited for."""
        error = context.get("exception") or RuntimeError(context.get("message", ""))
        task = context.get("task") or context.get("future")
        name = task.get_name() if isinstance(task, asyncio.Task) else context.get("part", "event loop")
        self.failed(name, error, ends=self._clock() + STRAY_SECONDS)

    def uncaught_in_thread(self, what: threading.ExceptHookArgs) -> None:
        """threading.excepthook: a thread of ours has died."""
        name = f"thread {what.thread.name}" if what.thread is not None else "a thread"
        self.failed(name, what.exc_value or RuntimeError("ended"), ends=self._clock() + STRAY_SECONDS)


class Threads(ThreadPoolExecutor):
    """Threads that can tell when work in them does not end."""

    def __init__(self, threads: int, name: str) -> None:
        super().__init__(threads, thread_name_prefix=name)
        self._most = threads
        self._since: dict[object, float] = {}

    def submit(self, fn: Callable[..., Result], /, *args: Any, **named: Any) -> Future[Result]:
        def timed() -> Result:
            key = object()
            self._since[key] = time.monotonic()
            try:
                return fn(*args, **named)
            finally:
                del self._since[key]

        return super().submit(timed)

    def stuck(self) -> str:
        """For Supervisor.probe: how many threads have worked at the same thing for SLOW_SECONDS, or ""."""
        late = time.monotonic() - SLOW_SECONDS
        count = sum(began < late for began in list(self._since.values()))
        if not count:
            return ""
        return f"{count} of {self._most} threads have not ended for {SLOW_SECONDS:g} s: is a disk or file server stuck?"


def told(error: BaseException) -> str:
    """One bounded line for the log and for everybody who may ask: of an unexpected error only its kind, for its text
    may quote what it stumbled over."""
    if isinstance(error, WwfastError):
        text = error.message
    elif isinstance(error, (OSError, sqlite3.Error)):
        text = cause(error)
    else:
        text = f"unexpected {type(error).__name__}, see the log"
    text = "".join(char if char.isprintable() else " " for char in text)
    return text if len(text) <= WORDS else text[:WORDS] + "..."
