"""Names by content for what nodes boot with: found out in a thread, to be looked up on the loop."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from wwfast.boot.blobs import Cancelled, Names, gather
from wwfast.daemon.life.supervision import Supervisor

if TYPE_CHECKING:
    from wwfast.boot.loader.binaries import BootFiles
    from wwfast.boot.standing import Blobs, Standing
    from wwfast.daemon.upkeep import Upkeep
    from wwfast.nodes.registry import Registry
    from wwfast.paths import Paths

NAMING, KEEPING = "naming what nodes boot with by its content", "keeping names by content"


class Naming:
    """Gives the standing of `upkeep` its `blobs`; those of the former one stay until it has them."""

    def __init__(
        self, paths: Paths, registry: Registry, files: BootFiles, supervisor: Supervisor, executor: Executor
    ) -> None:
        self._registry = registry
        self._files = files
        self._supervisor = supervisor
        self._executor = executor
        self._ended = threading.Event()
        self._names = Names(paths.blobs, self._ended.is_set)
        self._wanted = asyncio.Event()

    def start(self, upkeep: Upkeep) -> None:
        self._upkeep = upkeep
        self._wanted.set()
        self._supervisor.keep(NAMING, self._turn)

    def refresh(self) -> None:
        """What nodes boot with may be something else."""
        self._wanted.set()

    def close(self) -> None:
        """Safe to repeat."""
        self._ended.set()

    async def _turn(self) -> None:
        await self._wanted.wait()
        self._wanted.clear()
        upkeep = self._upkeep
        work = asyncio.get_running_loop().run_in_executor(self._executor, self._gather, upkeep.standing)
        with suppress(Cancelled):
            found = await work
            upkeep.standing = replace(upkeep.standing, blobs=found)

    def _gather(self, standing: Standing) -> Blobs:
        """In the thread, for as long as it takes: a large image on a slow disk is no trouble."""
        nodes = self._registry.snapshot().nodes.values()
        found = gather(standing, nodes, self._files.bodies(), self._names)
        if found.named != standing.blobs.named:
            with self._supervisor.guarded(KEEPING):
                self._names.keep(found.named)
        return found
