"""nodes.conf as it is on the disk: read again when it changes, in a thread; the last good registry stays.

inotify tells of changes. Where it cannot (a network file system) the file is looked at every few seconds, and whether
the directories were made again is looked at everywhere. All looking is done in the thread.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from wwfast.daemon.life.supervision import Supervisor
from wwfast.daemon.notices import Notices

if TYPE_CHECKING:
    from wwfast.nodes.registry import Registry, Snapshot
    from wwfast.paths import Paths

log = logging.getLogger(__name__)

DEBOUNCE = 0.05  # an editor's rename and chmod are one change
LOOK_SECONDS = 2.0
READING, WATCHING = "reading nodes.conf", "watching nodes.conf"


class Follower:
    """Keeps `registry` what the file says; `on_loaded` is told each snapshot that was taken in, on the loop."""

    def __init__(
        self,
        registry: Registry,
        paths: Paths,
        supervisor: Supervisor,
        executor: Executor,
        on_loaded: Callable[[Snapshot], Awaitable[None]],
        aside: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """Within `aside` others leave the processor to the reading."""
        self._aside = aside
        self._registry = registry
        self._paths = paths
        self._supervisor = supervisor
        self._executor = executor
        self._on_loaded = on_loaded
        self._wanted = asyncio.Event()
        self._notices = Notices(self._wanted.set)

    async def load(self) -> Snapshot:
        """The first reading. Raises ConfigError when there is nothing good."""
        loop = asyncio.get_running_loop()
        snapshot = await loop.run_in_executor(self._executor, self._load)
        self._notices.resume()  # what is edited while we start (DHCP listens for 3 s) is not to be missed
        await self._on_loaded(snapshot)
        return snapshot

    def start(self) -> None:
        self._supervisor.keep(READING, self._read)
        self._supervisor.keep(WATCHING, self._look)

    def reload(self) -> None:
        """Read the file again, soon (SIGHUP)."""
        self._wanted.set()

    def close(self) -> None:
        """Safe to repeat."""
        self._notices.close()

    def _load(self) -> Snapshot:
        """In a thread. What stays is kept from the collector: looking at 10,000 nodes took it 75 ms, in which nobody
        was answered. An old snapshot has no cycles and goes when its last user lets it go."""
        self._take()  # first: what is edited while we read is heard of again
        with self._aside():
            snapshot = self._registry.reload()
            gc.collect()
        gc.freeze()
        return snapshot

    async def _read(self) -> None:
        await self._wanted.wait()
        await asyncio.sleep(DEBOUNCE)
        self._wanted.clear()
        try:
            work = asyncio.get_running_loop().run_in_executor(self._executor, self._load)
            snapshot = await self._supervisor.attend(READING, work)
            await self._on_loaded(snapshot)
        except Exception:
            self._wanted.set()  # what changed is still to be taken in
            raise
        finally:
            self._notices.resume()
        if self._registry.error:
            log.error("nodes.conf was not reloaded, the last good one stays: %s", self._registry.error)
            return
        log.info("nodes.conf: %d nodes", len(snapshot.nodes))

    async def _look(self) -> None:
        await asyncio.sleep(LOOK_SECONDS)
        # Where inotify does not work, and directories made again.
        work = asyncio.get_running_loop().run_in_executor(self._executor, self._take)
        if await self._supervisor.attend(WATCHING, work):
            self.reload()

    def _take(self) -> bool:
        """Watch the file (which may have other names, or be mounted there), where it is, and where links lead to it;
        whether something happened there. Of a mirror who mirrors tells, and nobody else is to be heard."""
        if self._paths.mirror is not None:
            return False
        places = (self._paths.etc, self._paths.nodes_conf.resolve().parent, self._paths.nodes_conf)
        return self._notices.take((place, True) for place in places)
