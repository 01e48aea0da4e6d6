"""Finds callbacks that kept an event loop for too long, by the CPU time of the loop's thread: the machine is shared.

In the process of the tests `install()` is called by conftest; a program that a test starts finds sitecustomize.py
beside this file in PYTHONPATH, and the folder for what is found in LOOPWATCH_DIR. Knows nothing of wwfast.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIMIT = 0.05  # seconds of CPU in one callback
#: The same where nobody could look meanwhile: the interpreter was held, or the hypervisor had taken the processor away,
#: which counts as CPU time (50 ms in a tick that does nothing, once beside virtual machines).
UNSEEN = 0.1
FOLDER = "LOOPWATCH_DIR"
LOOK = 0.01  # seconds between two looks at a callback under way

#: What may take longer, by a function in the stack ("file:function"), and why.
ALLOWED = {
    "app.py:start": "nobody is served yet; with a predecessor, that one serves meanwhile",
    "test_": "a callback of a test's own",
}

found: list[dict[str, Any]] = []


class Turn:
    """The callback that a loop is in."""

    __slots__ = ("__weakref__", "callback", "clock", "collected", "forgives", "ident", "since", "stack")

    def __init__(self, forgives: bool) -> None:
        self.ident = threading.get_ident()
        self.clock = time.pthread_getcpuclockid(self.ident)
        self.callback: object = None
        self.since = 0.0
        self.collected = 0.0  # by the garbage collector: in a process of tests the heap is theirs
        self.forgives = forgives
        self.stack: list[str] = []

    def run(self, callback: Callable[..., object], given: tuple[object, ...]) -> object:
        if self.callback is not None:  # a callback that runs another one
            return callback(*given)
        self.stack, self.collected = [], 0.0
        self.since = time.thread_time()
        self.callback = callback
        try:
            return callback(*given)
        finally:
            self.callback = None
            used = time.thread_time() - self.since - (self.collected if self.forgives else 0.0)
            if used > (LIMIT if self.stack else UNSEEN):
                report(used, callback, self.stack)

    def look(self) -> None:
        """From another thread: what is it doing, when it is late?"""
        try:
            late = self.callback is not None and time.clock_gettime(self.clock) - self.since - self.collected > LIMIT
        except OSError:
            return  # the thread has ended
        frame = sys._current_frames().get(self.ident) if late and not self.stack else None
        if frame is not None:
            stack = [f"{Path(at.filename).name}:{at.name}" for at in traceback.extract_stack(frame)]
            below = max((index for index, name in enumerate(stack) if name == "loopwatch.py:run"), default=-1)
            self.stack = stack[below + 1 :]  # what the loop runs, not what runs the loop


_turns: weakref.WeakSet[Turn] = weakref.WeakSet()
_here = threading.local()
_looks: list[threading.Thread] = []


def report(used: float, callback: object, stack: list[str]) -> None:
    named = getattr(callback, "__qualname__", None) or repr(callback)
    said = [*stack, named]
    if any(word.startswith(name) for name in ALLOWED for word in said):
        return
    entry = {"ms": round(used * 1000), "callback": named, "stack": stack[-12:], "program": sys.argv[:4]}
    found.append(entry)
    if folder := os.environ.get(FOLDER):
        with (Path(folder) / str(os.getpid())).open("a") as file:
            file.write(json.dumps(entry) + "\n")


def _look() -> None:
    while True:
        time.sleep(LOOK)
        for turn in list(_turns):
            turn.look()


def _collecting(phase: str, info: dict[str, int]) -> None:
    turn = getattr(_here, "turn", None)
    if turn is None:
        return
    if phase == "start":
        _here.began = time.thread_time()
    elif hasattr(_here, "began"):
        turn.collected += time.thread_time() - _here.began


def install(uvloop: Any, *, forgives: bool) -> None:
    """Watch every loop that uvloop makes from now on. `forgives`: the collector's time is nobody's fault."""
    if hasattr(uvloop, "unwatched"):
        return

    def turn() -> Turn:
        mine: Turn | None = getattr(_here, "turn", None)
        if mine is None:
            mine = _here.turn = Turn(forgives)
            _turns.add(mine)
            if not _looks:
                _looks.append(threading.Thread(target=_look, name="loopwatch", daemon=True))
                _looks[0].start()
        return mine

    def timed(callback: Callable[..., object]) -> Callable[..., object]:
        def run(*given: object) -> object:
            return turn().run(callback, given)

        run.__qualname__ = getattr(callback, "__qualname__", None) or repr(callback)
        return run

    class Loop(uvloop.Loop):  # type: ignore[misc,name-defined]
        def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:
            return super().call_soon(timed(callback), *args, context=context)

        def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> Any:
            return super().call_soon_threadsafe(timed(callback), *args, context=context)

        def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> Any:
            return super().call_later(delay, timed(callback), *args, context=context)

        def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:
            return super().call_at(when, timed(callback), *args, context=context)

        def add_reader(self, fd: Any, callback: Any, *args: Any) -> Any:
            return super().add_reader(fd, timed(callback), *args)

        def add_writer(self, fd: Any, callback: Any, *args: Any) -> Any:
            return super().add_writer(fd, timed(callback), *args)

        def add_signal_handler(self, signum: Any, callback: Any, *args: Any) -> Any:
            return super().add_signal_handler(signum, timed(callback), *args)

    uvloop.unwatched = uvloop.run
    uvloop.run = lambda main, **options: uvloop.unwatched(main, **{"loop_factory": Loop, **options})
    uvloop.new_event_loop = Loop
    gc.callbacks.append(_collecting)
