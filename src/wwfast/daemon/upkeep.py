"""Keeps what every node boots with (boot.standing) as the disk has it: built in a thread, swapped at once.

inotify tells of changes; every two seconds they are looked for where it cannot. From the moment that something was
heard until the thread has looked, requests wait for it, at most WAIT_SECONDS: what was published before a request is
what it is answered with. A disk that takes longer keeps nobody: the last good one is served.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import replace
from typing import TYPE_CHECKING

from wwfast.boot.loader.binaries import BootFiles
from wwfast.boot.resolve import Resolver
from wwfast.boot.standing import ServedImage
from wwfast.daemon.life.supervision import Supervisor
from wwfast.daemon.notices import LOOK_SECONDS, Notices

if TYPE_CHECKING:
    from wwfast.boot.standing import Standing
    from wwfast.nodes.registry import Registry
    from wwfast.paths import Paths

log = logging.getLogger(__name__)

WAIT_SECONDS = 2.0
RESOLVING, LOOKING = "looking up what nodes boot with", "watching images and kernels"
BINARIES = "reading iPXE binaries"


class Upkeep:
    """`standing` is the last one. `changed` is called in the thread when images may have, `taken` on the loop when
    there is a new standing."""

    def __init__(
        self,
        paths: Paths,
        registry: Registry,
        files: BootFiles,
        supervisor: Supervisor,
        executor: Executor,
        changed: Callable[[], None] = lambda: None,
        taken: Callable[[], None] = lambda: None,
    ) -> None:
        self.standing: Standing
        self._paths = paths
        self._registry = registry
        self._files = files
        self._supervisor = supervisor
        self._executor = executor
        self._changed, self._taken = changed, taken
        self._resolver = Resolver(paths)
        self._notices = Notices(self._heard)
        self._wanted = asyncio.Event()
        self._late = 0.0  # when requests stop waiting for what was heard of; 0: nothing was
        self._happened = False  # the thread's: something was found that was not taken in yet
        self._asked: set[str] = set()
        self._waiting: list[asyncio.Future[None]] = []

    async def load(self) -> None:
        """The first time."""
        loop = asyncio.get_running_loop()
        self.standing = await loop.run_in_executor(self._executor, self._resolve, ())
        self._notices.resume()

    def start(self) -> None:
        self._supervisor.keep(RESOLVING, self._turn)
        self._supervisor.keep(LOOKING, self._look)

    def close(self) -> None:
        """Safe to repeat."""
        self._notices.close()

    @property
    def behind(self) -> bool:
        """Something was heard that `standing` does not know yet, and it is worth waiting for."""
        return bool(self._late) and time.monotonic() < self._late

    def refresh(self) -> None:
        """nodes.conf changed."""
        self._wanted.set()

    async def caught_up(self, reference: str = "") -> None:
        """Wait until all that was published before this call is known, and the build `reference`; not for ever."""
        if reference:
            self._asked.add(reference)
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self._wanted.set()
        await asyncio.wait([waiter], timeout=WAIT_SECONDS)

    def _heard(self) -> None:
        self._late = time.monotonic() + WAIT_SECONDS
        self._wanted.set()

    async def _turn(self) -> None:
        await self._wanted.wait()
        self._wanted.clear()
        waiting, self._waiting = self._waiting, []
        asked, self._asked = tuple(self._asked), set()
        loop = asyncio.get_running_loop()
        try:
            work = loop.run_in_executor(self._executor, self._resolve, asked)
            self.standing = replace(await self._supervisor.attend(RESOLVING, work), blobs=self.standing.blobs)
            self._taken()
        except Exception:
            self._wanted.set()  # what changed is still to be taken in
            raise
        finally:
            self._late = 0.0
            self._notices.resume()
            for waiter in waiting:
                if not waiter.done():
                    waiter.set_result(None)

    async def _look(self) -> None:
        await asyncio.sleep(LOOK_SECONDS)
        work = asyncio.get_running_loop().run_in_executor(self._executor, self._take)
        if await self._supervisor.attend(LOOKING, work):
            self._wanted.set()

    def _take(self) -> bool:
        """In the thread: whether something happened that was not taken in yet."""
        places = [*self._resolver.places(self._registry.snapshot()), *((it, True) for it in self._files.places())]
        self._happened |= self._notices.take(places)
        return self._happened

    def _resolve(self, asked: tuple[str, ...]) -> Standing:
        """In the thread. Watched first: what happens while it is read is heard of again."""
        if self._take():
            with self._supervisor.guarded(BINARIES):
                self._files.refresh(self._paths.ipxe_source)
            self._happened = False
        former = self._resolver.former
        fresh = self._resolver.resolve(self._registry.snapshot(), asked)
        if _served(fresh) != _served(former):
            self._changed()
        return fresh


def _served(standing: Standing) -> dict[str, str]:
    """Builds by what nodes name."""
    return {name: image.build for name, image in standing.images.items() if isinstance(image, ServedImage)}
