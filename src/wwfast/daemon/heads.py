"""This head among others: what it has for those that follow it, or how it follows one."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING

from wwfast.daemon.boot.guard import Guard
from wwfast.daemon.leading import Leader
from wwfast.daemon.life.supervision import Supervisor
from wwfast.daemon.mirroring import Mirroring
from wwfast.daemon.upkeep import Upkeep
from wwfast.errors import WwfastError
from wwfast.heads import key
from wwfast.heads.closings import Closed, Closings
from wwfast.heads.editions import Editions
from wwfast.heads.following import Following
from wwfast.heads.peers import Peers

if TYPE_CHECKING:
    from wwfast.config.settings import Settings
    from wwfast.nodes.registry import Registry
    from wwfast.overlays.making.service import OverlayService
    from wwfast.paths import Paths

log = logging.getLogger(__name__)

LEADING = "answering heads that follow"


class Heads:
    """Nothing, where there is no key. `reload` has nodes.conf read again."""

    def __init__(
        self,
        paths: Paths,
        settings: Settings,
        registry: Registry,
        upkeep: Upkeep,
        overlays: OverlayService,
        guard: Guard,
        supervisor: Supervisor,
        reload: Callable[[], None],
        follow: str = "",
    ) -> None:
        self._upkeep, self._guard, self._supervisor, self._reload = upkeep, guard, supervisor, reload
        self._closings = Closings()
        self._peers = Peers()
        self.following: Following | None = None
        self._mirroring: Mirroring | None = None
        self._leader: Leader | None = None
        self._editions = Editions(paths, registry.snapshot, lambda: upkeep.standing, overlays)
        if follow:
            self.following = Following(
                paths, follow, settings.wwfast.follow_port, os.uname().nodename, overlays.results
            )
            self.following.closings = self._closings
        elif key.place(paths).exists():
            self._lead(paths, settings, overlays)
        if self.following is not None or self._leader is not None:
            guard.ended = self._closings.note

    def _lead(self, paths: Paths, settings: Settings, overlays: OverlayService) -> None:
        address = settings.ipaddr, settings.wwfast.follow_port
        try:
            context = key.context(key.place(paths), ssl.PROTOCOL_TLS_SERVER)
        except WwfastError as error:  # nodes boot all the same
            self._supervisor.failed(LEADING, error)
            return
        self._leader = Leader(
            address, context, self._editions, overlays.results, self._peers, self._closings, self._heard_of
        )

    def first(self) -> None:
        """Before anything is served: what was mirrored last, or a whole first mirror. Raises WwfastError."""
        if self.following is not None and not self.following.resume():
            log.info("there is no mirror yet: fetching all that %s has", self.following.whose)
            self.following.turn()

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        if (leader := self._leader) is not None:
            leader.start()
            self._supervisor.probe(LEADING, lambda: leader.trouble)
        if self.following is not None:
            self._mirroring = Mirroring(self.following, self._supervisor, self._switched, self._heard)
            self._mirroring.start()

    def close(self) -> None:
        """Safe to repeat."""
        if self._leader is not None:
            self._leader.close()
        if self._mirroring is not None:
            self._mirroring.close()

    def _switched(self) -> None:
        self._reload()
        self._upkeep.refresh()

    def _heard_of(self, closed: Closed) -> None:
        """In a thread of the leader."""
        self._loop.call_soon_threadsafe(self._heard, closed)

    def _heard(self, closed: Closed) -> None:
        self._guard.ended_elsewhere(*closed)

    def away(self) -> list[str]:
        """Addresses of heads that do not answer: nodes are not sent there."""
        if self.following is not None:
            return [self.following.head] if self.following.unheard else []
        return self._peers.silent()

    def figures(self) -> dict[str, object]:
        """For /status."""
        if self.following is not None:
            it = self.following
            said = {"url": it.url, "revision": it.revision, "missing": it.missing, "said": it.said}
            return {"following": said}
        if self._leader is not None:
            return {"peers": self._peers.figures(self._editions.revision)}
        return {}
