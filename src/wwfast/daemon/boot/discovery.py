"""An unknown hardware address at the script stage takes a discoverable node, if it may.

It must be a valid address, and our DHCP must have seen it within five minutes (with an external DHCP server there
is no such proof). Claims run one after the other through the locked store, so two unknown addresses take two nodes.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import Executor
from typing import TYPE_CHECKING

from wwfast.daemon.boot.guard import Guard
from wwfast.daemon.boot.identity import is_mac
from wwfast.errors import WwfastError

if TYPE_CHECKING:
    from wwfast.nodes.edit.store import Store
    from wwfast.nodes.model import Node
    from wwfast.nodes.registry import Registry

log = logging.getLogger(__name__)

SEEN_SECONDS = 300.0
# Simulated nodes (`wwfast storm`) use this locally administered prefix: never discovered, never kept.
STORM_PREFIX = "02:77:77:"


class Discovery:
    def __init__(self, registry: Registry, store: Store, guard: Guard, executor: Executor) -> None:
        self._registry = registry
        self._store = store
        self._guard = guard
        self._executor = executor
        self._one = asyncio.Lock()

    async def claim(self, wwid: str) -> Node | None:
        """The node that now owns `wwid`, or None. Never raises: the node then gets the unconfigured script."""
        if not is_mac(wwid) or wwid.startswith(STORM_PREFIX) or not self._guard.seen_within(wwid, SEEN_SECONDS):
            return None
        snapshot = self._registry.snapshot()
        if not snapshot.discoverable() or snapshot.left_out(wwid):
            return None
        loop = asyncio.get_running_loop()
        async with self._one:
            known = self._registry.snapshot().by_mac(wwid)
            if known is not None:
                return known
            try:
                name = await loop.run_in_executor(self._executor, self._store.claim, wwid)
                if name is None:
                    return None
                snapshot = await loop.run_in_executor(self._executor, self._registry.reload)
            except WwfastError as error:
                log.error("discovery of %s: %s", wwid, error)
                return None
            log.info("node %s is %s (discovered)", name, wwid)
            return snapshot.nodes.get(name)
