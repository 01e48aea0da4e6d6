"""Hearing on the event loop that something changed on the disk, and looking at it in a thread.

What inotify has to say is read in the thread as well: the directories are looked at then, and one of them may be on a
dead file server.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from pathlib import Path
from typing import Protocol

from wwfast.daemon.life.supervision import Supervisor
from wwfast.system.watch import Watch

LOOK_SECONDS = 2.0
OVERLAYS = "watching overlays"


class Ear:
    """`heard` is called on the loop when `fileno` has something to tell; after that it is silent until resume()."""

    def __init__(self, fileno: Callable[[], int], heard: Callable[[], None]) -> None:
        self._fileno = fileno
        self._heard = heard
        self._listening = self._closed = False

    def resume(self) -> None:
        """Hear of what happens from now on, or has happened since a thread looked."""
        if not self._listening and not self._closed and self._fileno() >= 0:
            self._listening = True
            asyncio.get_running_loop().add_reader(self._fileno(), self._readable)

    def _readable(self) -> None:
        self._deafen()
        self._heard()

    def _deafen(self) -> None:
        if self._listening:
            self._listening = False
            asyncio.get_running_loop().remove_reader(self._fileno())

    def close(self) -> None:
        """Hear no more. Safe to repeat."""
        self._deafen()
        self._closed = True


class Notices(Ear):
    """A Watch of our own."""

    def __init__(self, heard: Callable[[], None]) -> None:
        self._watch = Watch()
        self._reading = threading.Lock()
        super().__init__(self._watch.fileno, heard)

    def take(self, places: Iterable[tuple[Path | str, bool]]) -> bool:
        """In a thread: whether anything happened since the last time, as far as that can be known. Watches `places`
        (where, and whether what is written into files counts) from now on."""
        happened = False
        with self._reading:
            if not self._closed:
                happened = self._watch.changed()
                for place, contents in places:
                    happened |= self._watch.add([place], contents=contents)
        self._let_go()
        return happened

    def close(self) -> None:
        super().close()
        self._let_go()

    def _let_go(self) -> None:
        """Close the descriptor once nobody hears; where a thread reads just now, that thread does."""
        if self._closed and self._reading.acquire(blocking=False):
            self._watch.close()
            self._reading.release()


class Watchful(Protocol):
    """What has a watch of its own, and answers from memory as long as it has heard of nothing."""

    def fileno(self) -> int: ...
    def heard(self) -> None:
        """Something happened: nothing is known to be fresh until look()."""
        ...

    def look(self) -> None:
        """In a thread: what happened."""
        ...


class Looking:
    """Lets `watchful` look in a thread, at once when something happened, and every LOOK_SECONDS for where inotify does
    not work."""

    def __init__(self, watchful: Watchful, supervisor: Supervisor, executor: Executor) -> None:
        self._watchful = watchful
        self._supervisor = supervisor
        self._executor = executor
        self._wanted = asyncio.Event()
        self._ear = Ear(watchful.fileno, self._heard)

    def start(self) -> None:
        self._ear.resume()
        self._supervisor.keep(OVERLAYS, self._turn)

    def close(self) -> None:
        self._ear.close()

    def _heard(self) -> None:
        self._watchful.heard()
        self._wanted.set()

    async def _turn(self) -> None:
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await self._wanted.wait()
        except TimeoutError:
            pass
        self._wanted.clear()
        try:
            work = asyncio.get_running_loop().run_in_executor(self._executor, self._watchful.look)
            await self._supervisor.attend(OVERLAYS, work)
        finally:
            self._ear.resume()
