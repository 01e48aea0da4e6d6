"""The state of every boot: one entry per node, made of the Transfer events of all protocols.

`stage` is the last stage whose bytes the node got; a failed one is told in `error` and does not advance it, so a
node whose image is withheld stays at KERNEL with the reason beside it. What was asked for in a node's name from an
address that is not its own moves nothing: of such attempts the number and the last are kept.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from wwfast.boot.stages import Stage
from wwfast.net.transfer import Outcome, Transfer

# Unknown addresses are kept for the admin to see, but a scanner must not fill the memory.
MAX_UNKNOWN = 1024
MAX_STAGES = 32  # of a boot; a whole one has ten or so, but one who asks for the same again and again has any number
STUCK_SECONDS = 120.0

_FIRMWARE = (Stage.DHCP, Stage.TFTP, Stage.EFIBOOT)
_BEGINS = (*_FIRMWARE, Stage.IPXE)


@dataclass(slots=True)
class StageRecord:
    """One stage of the running boot: bytes got and asked, Unix seconds of start, seconds taken."""

    stage: str
    sent: str
    at: float
    sent_bytes: int = 0
    total_bytes: int = 0
    seconds: float = 0.0
    outcome: str = Outcome.STARTED.value
    told: str = ""  # the last that the node itself said of it, mostly what went wrong


@dataclass(slots=True)
class Attempts:
    """Of others, in a node's name: how many ended, and the last one."""

    count: int = 0
    peer: str = ""
    stage: str = ""
    at: float = 0.0
    outcome: str = ""


@dataclass(slots=True)
class NodeStatus:
    """What is known of one node. `last_seen` 0 means never."""

    node: str
    stage: str = ""
    sent: str = ""
    ipaddr: str = ""
    wwid: str = ""
    last_seen: float = 0.0
    error: str = ""
    error_at: float = 0.0
    more: bool = False
    way: str = ""  # in which its image comes, and why
    boot: list[StageRecord] = field(default_factory=list)
    attempts: Attempts | None = None
    changes: int = 0  # counted, so that what was made of it can be known to be old
    told: tuple[int, bytes] = (-1, b"")  # what was made of it for /status, and after how many changes

    @property
    def current(self) -> StageRecord | None:
        last = self.boot[-1:]  # another thread may look while a boot begins anew
        return last[0] if last else None

    @property
    def still(self) -> bool:
        """Nothing of it moves with the time."""
        return self.up or not self.last_seen

    @property
    def up(self) -> bool:
        return self.stage == Stage.RUNTIME and not self.more

    def stuck(self, now: float) -> float:
        """Seconds since a node that has not come up was last heard of; 0 for one that is up or was never seen."""
        return 0.0 if self.still else now - self.last_seen

    def failed(self, now: float) -> bool:
        """A download was refused or cut and nothing came after it, or the boot stands still."""
        return bool(self.error) or self.stuck(now) > STUCK_SECONDS

    def as_json(self, now: float, *, detail: bool = False) -> dict[str, object]:
        """Warewulf's keys first; ours after them."""
        current = self.current
        entry: dict[str, object] = {
            "node name": self.node,
            "stage": self.stage,
            "sent": self.sent,
            "ipaddr": self.ipaddr,
            "last seen": int(self.last_seen),
            "bytes": current.sent_bytes if current else 0,
            "total": current.total_bytes if current else 0,
            "stuck": round(self.stuck(now), 1),
            "failed": self.failed(now),
        }
        if self.way:
            entry["way"] = self.way
        if self.error:
            entry["error"] = self.error
        if (others := self.attempts) is not None:
            entry["attempts"] = {
                "count": others.count,
                "ipaddr": others.peer,
                "stage": others.stage,
                "at": int(others.at),
                "outcome": others.outcome,
            }
        if detail:
            entry["boot"] = [
                {
                    "stage": record.stage,
                    "sent": record.sent,
                    "at": round(record.at, 3),
                    "bytes": record.sent_bytes,
                    "total": record.total_bytes,
                    "seconds": round(record.seconds, 3),
                    "outcome": record.outcome,
                    **({"told": record.told} if record.told else {}),
                }
                for record in self.boot
            ]
        return entry


class Timeline:
    """All nodes' states; fed from the event loop only. `known`: whether a node that was not seeded is one (it was
    discovered a moment ago), or has been removed while something was on its way to it."""

    def __init__(
        self, clock: Callable[[], float] = time.time, known: Callable[[str], bool] = lambda _node: False
    ) -> None:
        self._clock = clock
        self._known = known
        self._nodes: dict[str, NodeStatus] = {}
        self._unknown: OrderedDict[str, NodeStatus] = OrderedDict()

    def seed(self, names: Iterable[str]) -> None:
        """Known nodes keep their state; the ones no longer in nodes.conf are dropped."""
        self._nodes = {name: self._nodes.get(name) or NodeStatus(name) for name in names}

    def entry(self, node: str, wwid: str, peer: str) -> NodeStatus:
        if node and (node in self._nodes or self._known(node)):
            return self._nodes.setdefault(node, NodeStatus(node))
        key = wwid or peer
        entry = self._unknown.get(key)
        if entry is None:
            if len(self._unknown) >= MAX_UNKNOWN:
                self._unknown.popitem(last=False)
            entry = self._unknown[key] = NodeStatus(key)
        self._unknown.move_to_end(key)
        return entry

    def record(self, event: Transfer) -> None:
        """Take one event in. A firmware that starts over (DHCP after iPXE) starts a new boot."""
        entry = self.entry(event.node, event.wwid, event.peer)
        entry.changes += 1
        entry.last_seen = event.at
        entry.wwid = event.wwid or entry.wwid
        if event.stage != Stage.DHCP or not entry.ipaddr:
            entry.ipaddr = event.peer.split("%")[0]
        current = entry.current
        if event.outcome in (Outcome.TOLD, Outcome.NOTED):
            well = event.outcome is Outcome.NOTED
            entry.error, entry.error_at = "" if well else event.detail, event.at
            if current is not None:
                current.told = f"{current.told}; {event.detail}" if well and current.told else event.detail
                current.outcome = Outcome.DONE.value if well else current.outcome
            return
        if event.outcome is Outcome.FAILED:
            entry.error = f"{event.stage}: {event.detail or event.status}"
            entry.error_at = event.at
            if event.status >= 400:
                entry.sent = event.sent
                return
        done = current is not None and current.stage == event.stage and current.outcome == Outcome.DONE.value
        same = done and current is not None and current.total_bytes == event.total_bytes  # or a list, and what it lists
        if same and event.status == 206 and event.outcome in (Outcome.PROGRESS, Outcome.FAILED):
            return  # of several parts at a time the last one came first
        if current is None or current.stage != event.stage or done:
            self._begin(entry, event)
            current = entry.boot[-1]
        current.sent_bytes = event.sent_bytes
        current.total_bytes = event.total_bytes or current.total_bytes
        current.seconds = event.seconds if event.status != 206 else event.at - current.at
        current.outcome = event.outcome.value
        current.sent = event.sent or current.sent
        if event.outcome is not Outcome.FAILED:
            entry.stage = event.stage
            entry.more = event.more
            entry.sent = event.sent
            if event.stage == Stage.IPXE:
                entry.way = event.way
            if event.outcome is Outcome.DONE:
                # A script with a reason is the one that tells on the console why the node cannot boot.
                refused = event.stage == Stage.IPXE and event.detail
                entry.error = f"{event.stage}: {event.detail}" if refused else ""

    def attempt(self, event: Transfer) -> None:
        """Somebody else asked in the name of `event.node`: that says nothing of the node."""
        entry = self.entry(event.node, event.wwid, event.peer)
        if event.outcome in (Outcome.DONE, Outcome.FAILED):
            count = entry.attempts.count + 1 if entry.attempts is not None else 1
            entry.attempts = Attempts(count, event.peer, event.stage, event.at, event.outcome.value)
            entry.changes += 1

    def _begin(self, entry: NodeStatus, event: Transfer) -> None:
        began = entry.stage
        if event.stage == Stage.DHCP and began not in ("", *_BEGINS):
            entry.boot.clear()
        if event.stage == Stage.RUNTIME and entry.up and entry.boot and entry.boot[-1].stage == Stage.RUNTIME:
            entry.boot.pop()  # the periodic fetch of a node that is up: the boot itself stays readable
        elif event.stage == Stage.IPXE:
            kept = [record for record in entry.boot if record.stage in _FIRMWARE]
            entry.boot[:] = kept
        elif event.stage == Stage.DHCP and entry.boot and entry.boot[-1].stage == Stage.DHCP:
            entry.boot.pop()
        entry.boot.append(StageRecord(event.stage, event.sent, event.at - event.seconds))
        del entry.boot[: -MAX_STAGES if entry.node in self._nodes else -1]

    def now(self) -> float:
        return self._clock()

    def of(self, node: str) -> NodeStatus | None:
        return self._nodes.get(node)

    def entries(self) -> list[NodeStatus]:
        """Of all nodes; from any thread, as the following."""
        return list(self._nodes.values())

    def strangers(self) -> list[NodeStatus]:
        """Of addresses that no node has."""
        return list(self._unknown.values())
