"""Overlays that are made while requests wait for them: one job for all who ask for the same, in threads of its own.

A request that waits holds no thread. The job goes on when nobody waits any more: whoever comes again finds it made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wwfast.archive.artefact import Artefact
    from wwfast.nodes.model import Node
    from wwfast.nodes.registry import Snapshot

Make = Callable[["Snapshot", "Node", str, str], "Artefact"]


class Making:
    """`make(snapshot, node, context, format)` is called in threads of `executor`."""

    def __init__(self, make: Make, executor: Executor) -> None:
        self._make = make
        self._executor = executor
        self._jobs: dict[tuple[int, str, str, str], asyncio.Future[Artefact]] = {}

    def __len__(self) -> int:
        """Jobs that are being made or wait for a thread."""
        return len(self._jobs)

    async def get(
        self, snapshot: Snapshot, node: Node, context: str, fmt: str, seconds: float | None
    ) -> Artefact | None:
        """The artefact, or None when it is not made within `seconds`. Raises what `make` raises."""
        key = (id(snapshot), node.id, context, fmt)  # a job holds its snapshot, so the number is its own
        job = self._jobs.get(key)
        if job is None:
            loop = asyncio.get_running_loop()
            job = self._jobs[key] = loop.run_in_executor(self._executor, self._make, snapshot, node, context, fmt)
            job.add_done_callback(lambda done: self._over(key, done))
        await asyncio.wait([job], timeout=seconds)
        return job.result() if job.done() else None

    def _over(self, key: tuple[int, str, str, str], job: asyncio.Future[Artefact]) -> None:
        del self._jobs[key]
        if not job.cancelled():
            job.exception()  # looked at, if only here: whoever waited may have gone
