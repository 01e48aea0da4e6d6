"""The caches of warewulf.conf, as this server knows them: what each carried, and whose turn it is where it matters."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from wwfast.daemon.traffic.carried import Carried, came
from wwfast.daemon.traffic.turns import Place, Turns

if TYPE_CHECKING:
    from wwfast.config.settings import Cache

LOOK_SECONDS = 1.0
MEGABIT = 1e6 / 8  # bytes


class Racks:
    """Of the loop's thread. Nodes are named by their hardware address."""

    def __init__(self, caches: Sequence[Cache] = ()) -> None:
        self.carried = Carried(cache.url for cache in caches)
        self._turns = {cache.url: Turns(cache.rate * MEGABIT) for cache in caches if cache.rate}
        self._held: dict[str, list[asyncio.Future[None]]] = {}

    @property
    def takes_turns(self) -> bool:
        return bool(self._turns)

    async def turn(self, url: str, node: str) -> None:
        """Come back when the node may fetch its image from this cache."""
        turns = self._turns.get(url)
        if turns is None or turns.ask(node, time.monotonic()):
            return
        future = asyncio.get_running_loop().create_future()
        held = self._held.setdefault(node, [])
        held.append(future)
        self._admit([turns])
        try:
            await future
        finally:
            held.remove(future)
            if not held and self._held.get(node) is held:
                del self._held[node]

    def heard(self, node: str, query: Mapping[str, str]) -> None:
        """What stage-1 of a node tells beside its words: what it had from where, or which cache it asks no more."""
        now, carried = time.monotonic(), query.get("carried")
        if (turns := self._turns.get(query.get("lost", ""))) is not None:
            turns.lost(node, now)
        if carried is not None:
            self.carried.told(carried)
            given = came(carried)
            for url, turns in self._turns.items():
                turns.over(node, given.get(url, 0), now)
        self._admit(self._turns.values())

    async def look(self) -> None:
        """Once a second: turns of nodes that are taken for dead."""
        await asyncio.sleep(LOOK_SECONDS)
        self._admit(self._turns.values())

    def _admit(self, all_turns: Iterable[Turns]) -> None:
        """Tell those whose turn it is."""
        now = time.monotonic()
        for turns in all_turns:
            while admitted := turns.admitted(now):
                for node in admitted:
                    held = self._held.pop(node, [])
                    if not held:  # it has gone, and comes again if it lives
                        turns.over(node, 0, now)
                    for future in held:
                        if not future.done():
                            future.set_result(None)

    def place(self, node: str) -> Place | None:
        """None of one that does not wait for a cache."""
        return next((place for it in self._turns.values() if (place := it.place(node)) is not None), None)

    @property
    def figures(self) -> dict[str, dict[str, int]]:
        """For /status."""
        found = self.carried.figures
        for url, turns in self._turns.items():
            found[url] |= turns.figures
        return found
