"""Who may have which overlay (`warewulf: secure: true`).

The system overlay holds host keys and BMC passwords, the runtime overlay user databases and tokens. Both go only
to the address that our DHCP leased to that wwid, and only while the node boots; the runtime overlay at any time to a
privileged source port. With an external DHCP server the address and phase can't be known: then only the port is
checked, a boot loader gets no runtime overlay, and the server says so at start.

A node boots from the DHCP of its firmware or iPXE (which no ordinary user can send, see `net.dhcp.terms`) to its
first runtime fetch from a privileged port, or to `phase_seconds` after it last asked for, had or waited for a stage.
What was closed stays closed after a crash: it is on disk before that runtime overlay goes out. A clock that is set
(power came back, and chrony follows) neither ends a phase nor keeps one open: only what leaves the process is in Unix
seconds.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from wwfast.boot.stages import Stage
from wwfast.net.recent import Recent
from wwfast.nodes.model import address

if TYPE_CHECKING:
    from wwfast.nodes.model import Node

log = logging.getLogger(__name__)

PRIVILEGED = 1024
PHASE_SECONDS = 1800.0
#: Machines that are in no nodes.conf: what is known of them is for discovery, minutes after their DHCP.
STRANGERS = 4096
#: How long a runtime overlay waits for its closed phase to be on disk. A commit takes 5 ms; a disk that takes this long
#: is broken, and a node that gets no users because of it would be a second fault. The phase then ends by its time.
CLOSE_SECONDS = 2.0
#: Of a phase that goes on, a crash may forget so much: a storm's thousands of requests are not as many writes.
KEEP_SECONDS = 60.0


class Keeper(Protocol):
    """Writes phases down, behind the caller's back: MAC and Unix seconds of the boot's last stage."""

    def put(self, mac: str, at: float) -> None: ...
    def delete(self, mac: str) -> Future[bool]:
        """Done when it is on disk (True) or could not be written (False)."""
        ...


class Forgetful:
    """The keeper where phases protect nothing: nobody asks for them after a restart."""

    def put(self, mac: str, at: float) -> None:
        pass

    def delete(self, mac: str) -> Future[bool]:
        done: Future[bool] = Future()
        done.set_result(True)
        return done


@dataclass(slots=True)
class Phase:
    """A boot under way: when (by `Guard.clock`) were its DHCP, its last stage and what of that was kept; once the node
    has its system overlay after it asked for its image (`had_image`), nothing prolongs the phase. Where that is not
    known, as after a restart, it did ask."""

    asked: float
    last: float
    has_system: bool = False
    kept: float = float("-inf")
    had_image: bool = True


@dataclass(slots=True)
class Guard:
    """`leased(mac)` is the address our DHCP gave, or ""; `own_dhcp` whether our DHCP serves at all; `waits(mac)`
    whether the machine has a download, or a turn to come."""

    secure: bool
    own_dhcp: bool
    leased: Callable[[str], str] = lambda _mac: ""
    waits: Callable[[str], bool] = lambda _mac: False
    phase_seconds: float = PHASE_SECONDS
    keeper: Keeper = field(default_factory=Forgetful)
    clock: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    #: Closes a phase at another server, which knows what we know and takes over: True once it is. None while we serve.
    successor: Callable[[str], Awaitable[bool]] | None = None
    ended: Callable[[str], None] = lambda _mac: None  # is told of boots that ended here: other heads must know
    #: Both by last stage, oldest first. A flood of made-up machines costs those of nodes.conf nothing, nor the disk.
    _nodes: OrderedDict[str, Phase] = field(default_factory=OrderedDict)
    _strangers: Recent[Phase] = field(default_factory=lambda: Recent(STRANGERS))
    _seen: Recent[float] = field(default_factory=lambda: Recent(STRANGERS))
    _closing: dict[str, Future[bool]] = field(default_factory=dict)

    def restore(self, phases: Iterable[tuple[str, float]]) -> None:
        """After a restart: the nodes that were in the middle of a boot (MAC and Unix seconds) go on."""
        for mac, at in sorted(phases, key=lambda phase: phase[1]):
            last = self._from_unix(at)
            self._nodes[mac] = Phase(last, last, kept=last)
        self._expire(self.clock())

    def export(self) -> dict[str, list[tuple[str, float, float, bool]]]:
        """All that is known, for the guard of another process to adopt: (MAC, Unix seconds of DHCP and of the last
        stage, has its system)."""
        self._expire(self.clock())  # what waits begins anew there, where nobody knows that it does

        def told(mac: str, one: Phase) -> tuple[str, float, float, bool]:
            return mac, self._unix(one.asked), self._unix(one.last), one.has_system

        return {
            "nodes": [told(mac, one) for mac, one in self._nodes.items()],
            "strangers": [told(mac, one) for mac, one in self._strangers.items()],
            "seen": [told(mac, Phase(at, at)) for mac, at in self._seen.items()],
        }

    def adopt(self, state: dict[str, list[tuple[str, float, float, bool]]]) -> None:
        """Forget all and know this."""
        self._nodes.clear()
        for mac, asked, last, has_system in state["nodes"]:
            self._goes_on(mac, Phase(self._from_unix(asked), self._from_unix(last), has_system))
        for mac, asked, last, has_system in state["strangers"]:
            self._strangers.note(mac, Phase(self._from_unix(asked), self._from_unix(last), has_system))
        for mac, at, _, _ in state["seen"]:
            self._seen.note(mac, self._from_unix(at))

    def saw_dhcp(self, mac: str, *, boots: bool, known: bool = True) -> None:
        """Our DHCP was asked by `mac`; `boots` when firmware or iPXE was answered, not an operating system; `known`
        when the machine is a node's."""
        now = self.clock()
        self._expire(now)
        if not known:
            self._seen.note(mac, now)
        if not boots:
            return
        if known:
            self._goes_on(mac, Phase(now, now, had_image=False))
        else:
            self._strangers.note(mac, Phase(now, now, had_image=False))

    def seen_within(self, mac: str, seconds: float) -> bool:
        """Discovery takes only an address that our DHCP saw lately (or any, with an external DHCP server)."""
        return not self.own_dhcp or self.clock() - self._seen.get(mac, float("-inf")) <= seconds

    def boots_within(self, mac: str, seconds: float) -> bool:
        """Whether firmware or iPXE of this machine asked our DHCP so lately."""
        phase = self._phase(mac)
        return phase is not None and self.clock() - phase.asked <= seconds

    def went_on(self, node: Node, stage: str, wwid: str, peer_ip: str, *, done: bool = False) -> None:
        """The node asks for, receives or (`done`) has a stage of its boot: however long it takes, it is not over."""
        phase = self._phase(wwid)
        if phase is None or phase.has_system or stage == Stage.RUNTIME or peer_ip not in self._addresses(node, wwid):
            return
        phase.had_image = phase.had_image or stage == Stage.IMAGE
        phase.has_system = done and stage == Stage.SYSTEM and phase.had_image
        phase.last = self.clock()
        self._goes_on(wwid, phase)

    def refuses(self, node: Node, stage: Stage, wwid: str, peer_ip: str, peer_port: int) -> tuple[int, str] | None:
        """(status, reason) when this request may not have the overlay; None when it may."""
        if not self.secure or stage not in (Stage.SYSTEM, Stage.RUNTIME):
            return None
        root = peer_port < PRIVILEGED
        booting = self.own_dhcp and self._phase(wwid) is not None
        if stage is Stage.RUNTIME and not root and not booting:
            return 401, f"the runtime overlay of a node that does not boot is for privileged ports, not {peer_port}"
        if not self.own_dhcp:
            return None
        if peer_ip not in self._addresses(node, wwid):
            return 403, f"{peer_ip} is not the address of {wwid}"
        if stage is Stage.SYSTEM and not booting:
            return 403, f"{node.id} is not booting: it had no boot DHCP since its last runtime overlay"
        return None

    def closes(self, wwid: str, peer_port: int) -> bool:
        """Whether this fetch of the runtime overlay must wait for `fetched_runtime`: it is the first one by root of
        the running system, which no boot loader and no ordinary user can be."""
        return peer_port < PRIVILEGED and (wwid in self._closing or self._phase(wwid) is not None)

    async def fetched_runtime(self, wwid: str) -> None:
        """The node is up: its system overlay is closed until it boots again. Returns once that is on disk, or after
        CLOSE_SECONDS; where another server takes over, once it is closed there."""
        if self.successor is not None and await self.successor(wwid):
            self._nodes.pop(wwid, None)
            self._strangers.pop(wwid, None)
            return
        written = self._closing.get(wwid)
        if self._nodes.pop(wwid, None) or self._strangers.pop(wwid, None) or written is None:
            written = self._closing[wwid] = self.keeper.delete(wwid)
            self.ended(wwid)
        await asyncio.wait([asyncio.wrap_future(written)], timeout=CLOSE_SECONDS)
        if self._closing.get(wwid) is written:
            del self._closing[wwid]
        if not (written.done() and written.result()):
            log.error("%s is up, and that could not be written down: after a crash its system overlay is open", wwid)

    def ended_elsewhere(self, mac: str, seconds: float) -> None:
        """A boot ended at another head, so long ago; one that began later goes on."""
        for known in (self._nodes, self._strangers):
            phase = known.get(mac)
            if phase is not None and phase.asked <= self.clock() - seconds:
                known.pop(mac, None)
                self.keeper.delete(mac)

    def is_own(self, node: Node, wwid: str, peer_ip: str) -> bool:
        """Whether what asks in the name of a node can be that node; with an external DHCP server nobody knows."""
        if not self.own_dhcp or peer_ip in self._addresses(node, wwid):
            return True
        return any(peer_ip in (device.ipaddr, address(device.ipaddr6)) for device in node.network_devices.values())

    def believes(self, node: Node, wwid: str, peer_ip: str, peer_port: int) -> bool:
        """Whether what is said of a node is said by its boot or by root on it, and not by a user of some node."""
        booting = self.own_dhcp and self._phase(wwid) is not None
        return self.is_own(node, wwid, peer_ip) and (peer_port < PRIVILEGED or booting or not self.secure)

    def _addresses(self, node: Node, wwid: str) -> set[str]:
        """Where this machine may ask from."""
        allowed = {device.ipaddr for device in node.network_devices.values() if device.is_called(wwid)}
        allowed.add(self.leased(wwid))
        return allowed - {""}

    def _goes_on(self, mac: str, phase: Phase) -> None:
        """A node's phase, that was perhaps a stranger's until now."""
        self._strangers.pop(mac, None)
        self._nodes[mac] = phase
        self._nodes.move_to_end(mac)
        if phase.last - phase.kept >= KEEP_SECONDS or phase.has_system:
            phase.kept = phase.last
            self.keeper.put(mac, self._unix(phase.last))

    def _phase(self, mac: str) -> Phase | None:
        phase = self._nodes.get(mac) or self._strangers.get(mac)
        if phase is None or phase.last > self.clock() - self.phase_seconds or self._holds(mac, phase):
            return phase
        return None

    def _holds(self, mac: str, phase: Phase) -> bool:
        """Whether a phase is not over though it is old: the image that it asked for is still to come."""
        return phase.had_image and not phase.has_system and self.waits(mac)

    def _expire(self, now: float) -> None:
        """Let go of what has ended by itself."""
        while self._nodes and next(iter(self._nodes.values())).last <= now - self.phase_seconds:
            mac, phase = self._nodes.popitem(last=False)
            if self._holds(mac, phase):
                phase.last = now
                self._goes_on(mac, phase)
            else:
                self.keeper.delete(mac)

    def _unix(self, at: float) -> float:
        return self.wall() - (self.clock() - at)

    def _from_unix(self, at: float) -> float:
        """As old as it is by a clock that may have been set back meanwhile."""
        return self.clock() - max(0.0, self.wall() - at)
