"""GET /status: what the timeline knows, as JSON, made away from the loop and shared by all who ask at that time.

Ten thousand nodes are 2.5 MB. They are made node by node in a thread, so that the interpreter is never kept for long,
and a node that is up or was never seen costs nothing until something happens to it. Whoever asks while an answer is in
the making gets the next one, which tells all that happened before; between two there is a pause twice as long as one
takes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

import msgspec

from wwfast.daemon.state.timeline import NodeStatus, Timeline

PAUSE = 2.0  # times what the last answer took

encode = msgspec.json.encode


class Board:
    """`problems` are entries that could not be resolved or built: shown as the error of that node; `standing` tells
    place and ETA of a MAC in the download queue; `memory` is that of a node in MiB, 0 where it is not known; `figures`
    is what else there is to tell."""

    def __init__(
        self,
        timeline: Timeline,
        *,
        problems: Callable[[], Mapping[str, str]] = dict,
        standing: Callable[[str], tuple[int, float] | None] = lambda _wwid: None,
        figures: Callable[[], Mapping[str, object]] = dict,
        memory: Callable[[str], int] = lambda _node: 0,
    ) -> None:
        self._timeline = timeline
        self._problems = problems
        self._standing = standing
        self._figures = figures
        self._memory = memory
        self._next: asyncio.Task[bytes] | None = None  # not begun: whoever asks now may share it
        self._turn = asyncio.Lock()
        self._rested = 0.0

    async def ask(self) -> bytes:
        """All nodes, as they are now or a little later. Costs the loop next to nothing."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_task(self._make())
        return await asyncio.shield(self._next)

    async def _make(self) -> bytes:
        async with self._turn:
            await asyncio.sleep(max(0.0, self._rested - time.monotonic()))
            self._next = None
            figures = self._figures()
            begun = time.monotonic()
            try:
                return await asyncio.to_thread(self.whole, figures)
            finally:
                ended = time.monotonic()
                self._rested = ended + PAUSE * (ended - begun)

    def whole(self, figures: Mapping[str, object]) -> bytes:
        """All nodes. From any thread."""
        now = self._timeline.now()
        problems = self._problems()
        entries, strangers = self._timeline.entries(), self._timeline.strangers()
        missing = problems.keys() - {entry.node for entry in entries}
        entries += [NodeStatus(name) for name in sorted(missing)]
        nodes = b",\n".join([self._piece(entry, now, problems.get(entry.node, "")) for entry in entries])
        unknown = b",\n".join([self._piece(entry, now) for entry in strangers])
        rest = encode(figures)[1:-1]
        return b'{"nodes":{\n%b\n},"unknown":{\n%b\n}%b%b}\n' % (nodes, unknown, b"," if rest else b"", rest)

    def one(self, node: str) -> bytes:
        """One node with the stages of its boot, and the figures."""
        entry, problem = self._timeline.of(node), self._problems().get(node, "")
        if entry is None and problem:
            entry = NodeStatus(node)
        nodes = {} if entry is None else {node: self._shown(entry, self._timeline.now(), problem, detail=True)}
        return encode({"nodes": nodes, **self._figures()}) + b"\n"

    def _piece(self, entry: NodeStatus, now: float, problem: str = "") -> bytes:
        """`"name":{...}`, kept while nothing happens to a node that stands still."""
        changes = entry.changes
        if not entry.still or problem or self._place(entry):
            return encode(entry.node) + b":" + encode(self._shown(entry, now, problem))
        if entry.told[0] != changes:
            entry.told = (changes, encode(entry.node) + b":" + encode(self._shown(entry, now, problem)))
        return entry.told[1]

    def _shown(self, entry: NodeStatus, now: float, problem: str, *, detail: bool = False) -> dict[str, object]:
        shown = entry.as_json(now, detail=detail)
        if place := self._place(entry):
            shown |= {"place": place[0], "eta": round(place[1], 1)}
        if memory := self._memory(entry.node):
            shown["memory"] = memory
        if problem:
            shown |= {"error": problem, "failed": True}
        return shown

    def _place(self, entry: NodeStatus) -> tuple[int, float] | None:
        place = self._standing(entry.wwid) if entry.wwid else None
        return place if place is not None and place[0] else None
