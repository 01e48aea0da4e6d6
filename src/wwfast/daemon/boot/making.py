"""What is made while requests wait for it: one job for all who ask for the same, in threads of its own.

A request that waits holds no thread. The job goes on when nobody waits any more: whoever comes again finds it made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from concurrent.futures import Executor
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from wwfast.archive.artefact import Artefact
    from wwfast.nodes.model import Node
    from wwfast.nodes.registry import Snapshot
    from wwfast.overlays.making.messages import Write

KEPT = 256  # templates of scripts that are known to end

Make = Callable[["Snapshot", "Node", str, str], "Artefact"]
T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


class Jobs(Generic[K, T]):
    """Work in threads of `executor`, by key."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._jobs: dict[K, asyncio.Future[T]] = {}

    def __len__(self) -> int:
        """Jobs that are being done or wait for a thread."""
        return len(self._jobs)

    async def done(self, key: K, work: Callable[[], T], seconds: float | None) -> T | None:
        """What `work` comes to, or None when that takes longer than `seconds`. Raises what it raises."""
        job = self._jobs.get(key)
        if job is None:
            job = self._jobs[key] = asyncio.get_running_loop().run_in_executor(self._executor, work)
            job.add_done_callback(lambda done: self._over(key, done))
        await asyncio.wait([job], timeout=seconds)
        return job.result() if job.done() else None

    def _over(self, key: K, job: asyncio.Future[T]) -> None:
        del self._jobs[key]
        if not job.cancelled():
            job.exception()  # looked at, if only here: whoever waited may have gone


class Making(Jobs[tuple[int, str, str, str], "Artefact"]):
    """Overlays: `make(snapshot, node, context, format)` is called in threads."""

    def __init__(self, make: Make, executor: Executor) -> None:
        super().__init__(executor)
        self._make = make

    async def get(
        self, snapshot: Snapshot, node: Node, context: str, fmt: str, seconds: float | None
    ) -> Artefact | None:
        """The artefact, or None when it is not made within `seconds`. Raises what `make` raises."""
        key = (id(snapshot), node.id, context, fmt)  # a job holds its snapshot, so the number is its own
        return await self.done(key, partial(self._make, snapshot, node, context, fmt), seconds)


class Deriving(Jobs[tuple[str, str], bool]):
    """Images, brought into a form that they were not built in: `make(reference, format)` is called in threads."""

    def __init__(self, make: Callable[[str, str], None], executor: Executor) -> None:
        super().__init__(executor)
        self._make = make

    async def get(self, reference: str, fmt: str, seconds: float | None) -> bool:
        """Whether it is there within `seconds`. Raises what `make` raises."""

        def work() -> bool:
            self._make(reference, fmt)
            return True

        return bool(await self.done((reference, fmt), work, seconds))


class Writing(Jobs[object, str]):
    """Scripts of a site's templates: `write(script)` is called in threads.

    A template that is new is run for one node first: where it never ends, one worker is held up until that is known.
    """

    MOST = 4096  # scripts under way, whoever asks for them

    def __init__(self, write: Callable[[Write], str], executor: Executor) -> None:
        super().__init__(executor)
        self._write = write
        self._tried: set[object] = set()

    async def get(self, script: Write, seconds: float | None) -> str | None:
        """The script, or None when it is not made within `seconds`. Raises what `write` raises."""
        template = (script.path, script.source)
        if (first := self._jobs.get(template)) is not None:
            await asyncio.wait([first], timeout=seconds)
        if template in self._jobs or len(self) >= self.MOST:
            return None
        key = object() if template in self._tried else template
        return await self.done(key, partial(self._write, script), seconds)

    def _over(self, key: object, job: asyncio.Future[str]) -> None:
        super()._over(key, job)
        if isinstance(key, tuple):
            self._tried = {*self._tried, key} if len(self._tried) < KEPT else {key}
