"""What the daemon tells of itself: every transfer to the timeline and the log, and the figures of /status."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from wwfast.boot.stages import Stage
from wwfast.daemon.boot.addresses import Addresses
from wwfast.daemon.boot.guard import Guard
from wwfast.daemon.life.supervision import Supervisor
from wwfast.daemon.state.timeline import Timeline
from wwfast.daemon.traffic.racks import Racks
from wwfast.daemon.traffic.scheduler import WaveScheduler
from wwfast.net.http.server import HttpServer
from wwfast.net.restraint import Restraint
from wwfast.net.tftp.server import TftpServer
from wwfast.net.transfer import Outcome, Transfer

if TYPE_CHECKING:
    from wwfast.nodes.registry import Registry
    from wwfast.overlays.making.service import OverlayService

log = logging.getLogger(__name__)

# Ends of transfers that are told of one address, and of all together: at once, and a second. A boot has some ten.
EACH = (100, 5)
ALL = (5000, 500)
GOING_ON = frozenset((Outcome.STARTED, Outcome.PROGRESS, Outcome.DONE))


@dataclass(slots=True)
class Report:
    """The servers are there as far as they are started."""

    registry: Registry
    overlays: OverlayService
    timeline: Timeline
    guard: Guard
    supervisor: Supervisor
    scheduler: WaveScheduler | None
    http: HttpServer | None = None
    tftp: TftpServer | None = None
    dhcp: Addresses | None = None
    heads: Callable[[], dict[str, object]] = dict
    racks: Racks = field(default_factory=Racks)
    each: Restraint = field(default_factory=lambda: Restraint(*EACH))
    all: Restraint = field(default_factory=lambda: Restraint(*ALL))
    summaries: Restraint = field(default_factory=lambda: Restraint(1, 0.1))
    held_back: int = 0

    def record(self, event: Transfer) -> None:
        """Never raises: whoever sends goes on sending."""
        with self.supervisor.guarded("recording transfers"):
            if event.stage == Stage.BLOB:
                self._carry(event)
                return
            ends = event.outcome in (Outcome.DONE, Outcome.FAILED, Outcome.TOLD, Outcome.NOTED)
            told = not ends or self.each.allows(event.peer or event.wwid)
            if event.refused and not told:
                return
            if not event.node and not event.wwid:
                event = self._named(event)
            node = self.registry.snapshot().nodes.get(event.node) if event.wwid else None
            if node is None or event.stage == Stage.DHCP or self.guard.is_own(node, event.wwid, event.peer):
                self.timeline.record(event)
            else:
                self.timeline.attempt(event)
            if node is not None and event.outcome in GOING_ON:
                done = event.outcome is Outcome.DONE and event.status == 200
                self.guard.went_on(node, event.stage, event.wwid, event.peer, done=done)
            if ends and told and self.all.allows():
                self._log(event)

    def _carry(self, event: Transfer) -> None:
        """What a cache fetches is no node's: a slice of 8 MiB each, so it is counted and not logged."""
        self.racks.carried.fetched(event.peer, event.answered)

    def _log(self, event: Transfer) -> None:
        log.log(
            logging.INFO if event.outcome in (Outcome.DONE, Outcome.NOTED) else logging.WARNING,
            "%s %s %s %s %d/%d bytes%s in %.2f s %s",
            event.node or event.wwid or event.peer,
            event.stage,
            event.outcome.value,
            event.sent,
            event.sent_bytes,
            event.total_bytes,
            f" to {event.peer}" if event.peer else "",
            event.seconds,
            event.detail,
        )
        held_back = self.each.held_back + self.all.held_back
        if held_back > self.held_back and self.summaries.allows():
            log.warning("%d events more, of sources with too many of them, are not told", held_back - self.held_back)
            self.held_back = held_back

    def _named(self, event: Transfer) -> Transfer:
        """TFTP and UEFI HTTP boot know only an address: add the MAC or node behind it."""
        snapshot = self.registry.snapshot()
        node = snapshot.by_ip(event.peer)
        if node is not None:
            return replace(event, node=node.id)
        mac = self.dhcp.owner(event.peer) if self.dhcp is not None else ""
        owner = snapshot.by_mac(mac) if mac else None
        return replace(event, wwid=mac, node=owner.id if owner else "")

    def problems(self) -> dict[str, str]:
        """What keeps nodes from getting what they should, though nobody asked yet: entries and overlays."""
        snapshot = self.registry.snapshot()
        found = {problem.id: problem.message for problem in snapshot.problems if problem.kind == "node"}
        for (node, _), failure in list(self.overlays.failures.items()):  # builders add to it meanwhile
            if node in snapshot.nodes:
                found[node] = failure.message
        return found

    def standing(self, wwid: str) -> tuple[int, float] | None:
        return self.racks.place(wwid) or (self.scheduler.standing(wwid) if self.scheduler is not None else None)

    def outlook(self, wwid: str) -> tuple[int, float]:
        return self.scheduler.outlook(wwid) if self.scheduler is not None else (0, 0.0)

    def figures(self) -> dict[str, object]:
        """What /status has beside the nodes."""
        found: dict[str, object] = {
            "pid": os.getpid(),
            "registry error": str(self.registry.error or ""),
            "troubles": self.supervisor.troubles(),
        }
        if self.http is not None:
            found["http"] = dict(self.http.figures)
        if caches := self.racks.figures:
            found["caches"] = caches
        found |= self.heads()
        if self.scheduler is not None:
            found["queue"] = self.scheduler.figures
        if self.dhcp is not None and self.dhcp.server is not None:
            found["dhcp"] = self.dhcp.server.stats()
        if self.tftp is not None:
            found["tftp"] = self.tftp.stats()
        return found
