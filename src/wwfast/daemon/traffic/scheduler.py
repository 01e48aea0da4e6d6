"""Whose turn it is: nodes are served in waves, not all at once (sans-IO; the HTTP server asks and tells).

Equal downloads that share a link all end when the last does; served a few at a time they end at half that on
average, and the last no later (floor of the mean: (N+1)/2N of the makespan). So:

- Admission is per node. From its first object over `small` bytes a node holds one ticket for its whole set
  (kernel, image, kmods, overlays); anything smaller goes at once. One that comes back after a pause, as from
  stage-1 when its kernel has started, waits again, before nearly all others.
- `width` nodes are in service, adapted to the fewest that keep the link full. A node without progress for
  STALL seconds gives up its slot, not its connection.
- About HOLD seconds of work next in line is held open unanswered: Retry-After has a grain of whole seconds and
  would leave the link idle. Beyond that iPXE is told when to come again and keeps its place; nobody else is.
- Shares (clusters) are served alike by bytes, whatever the number of their nodes; within one, first come first
  served.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass
from enum import Enum, auto
from itertools import count
from typing import NamedTuple

from wwfast.daemon.traffic.width import NARROWEST, Width
from wwfast.net.http.admission import GO, WAIT, Patience, Verdict

SMALL = 1 << 20  # bytes
HOLD = 10.0  # s of work held open in front of the link
STALL = 2.0
GAP = 0.1  # s between two objects of one set during which the slot is kept
REST = 60.0  # s that a place outlives a broken connection: stage-1 pauses for up to 48, and connects for up to 10
BOOT = 120.0  # s that a ticket outlives the last object: a kernel with many drivers starts before stage-1 goes on
SHORT_WAIT = 3.0  # UEFI and GRUB: headers 4 s late are the last that are safe
HELD_AT_MOST = 50.0  # iPXE gives up after 120 s without data
RETRIES_PER_SECOND = 500  # what coming again may cost us in all; sooner is better while the rate still grows
FIRST_RATE = 1.25e9  # bytes/s assumed before anything was measured; too much only holds more connections open


class State(Enum):
    WAITING = auto()  # connected, unanswered
    AWAY = auto()  # told to come again, or its connection broke: the place is kept until `until`
    SERVED = auto()
    RESTING = auto()  # between the objects of its set: with its slot for GAP seconds, then without


class Standing(NamedTuple):
    """What /status and the boot console show: `place` 0 is in service, `eta` seconds until it is."""

    place: int
    eta: float


@dataclass(slots=True)
class Ticket:
    key: str
    share: str
    seq: float  # whose turn is before whose, in its share
    size: int
    patience: Patience
    asked: float
    state: State = State.WAITING
    until: float = 0.0
    moved: float = 0.0  # last progress
    stalled: bool = False
    sent: int = 0  # of the whole set

    @property
    def queued(self) -> bool:
        return self.state is State.WAITING or self.state is State.AWAY


class WaveScheduler:
    """Implements net.http.admission.Admission. Times are seconds of one monotonic clock given by the caller."""

    def __init__(self, width: int = NARROWEST) -> None:
        self.tickets: dict[str, Ticket] = {}
        self.rate = 0.0  # bytes/s of the link while there was a queue, 0 until measured
        self._width = Width(width)
        self._seq = count()
        self._served: set[str] = set()  # SERVED, and RESTING while it has its slot
        self._queues: dict[str, list[tuple[float, str]]] = {}  # share -> heap of WAITING
        self._returned: dict[str, float] = {}  # share -> seq of the last one that came back
        self._clocks: dict[str, float] = {}  # share -> bytes given to it, as in start-time fair queueing
        self._hasty: deque[tuple[float, str]] = deque()  # Patience.SHORT, by the time they asked
        self._went: list[str] = []  # nodes that go by a new request while an older one still waits, to be told
        self._queued = 0
        self._queued_work = 0.0
        self._set_size = 0.0  # bytes of a whole set, learned
        self._held_work = 0.0  # of those WAITING
        self._ahead: dict[str, tuple[int, float]] = {}  # place, bytes to be sent before it
        self._swept = 0.0

    # --- what the server says --------------------------------------------------------------------------------

    def ask(self, key: str, share: str, size: int, patience: Patience, now: float) -> Verdict:
        ticket = self.tickets.get(key)
        if ticket is not None and key in self._served:
            ticket.state = State.SERVED
            ticket.moved = now
            self._charge(ticket.share, size)
            return GO
        if size <= SMALL:
            return GO
        waits = ticket is not None and ticket.state is State.WAITING  # by another connection
        if ticket is None:
            ticket = self.tickets[key] = Ticket(key, share, next(self._seq), size, patience, now, State.AWAY)
            self._enqueue(ticket, self._queued + 1, self._in_service() + self._queued_work)
        elif ticket.state is State.RESTING:
            ticket.state, ticket.size, ticket.seq = State.AWAY, size, self._turn_of_returned(ticket.share)
            self._enqueue(ticket, 1, self._in_service())
        ticket.patience, ticket.asked = patience, now
        if ticket.state is State.AWAY:
            ticket.state = State.WAITING
            self._held_work += self._work(ticket)
            heapq.heappush(self._queue(ticket.share), (ticket.seq, key))
        if self._occupied(now) < self._width.now and self._first() == key:
            self._admit(ticket, now)
            if waits:
                self._went.append(key)
            return GO
        eta = self._seconds(self._ahead[key][1])
        if patience is Patience.RETRIES and not waits and eta > HOLD and self._seconds(self._held_work) > HOLD:
            return self._send_away(ticket, self._come_again(eta), now)
        if patience is Patience.SHORT:
            self._hasty.append((now, key))
        return WAIT

    def progress(self, key: str, sent: int, now: float) -> None:
        ticket = self.tickets.get(key)
        if ticket is not None:
            ticket.moved = now
            ticket.stalled = False
            ticket.sent += sent

    def finished(self, key: str, last: bool, now: float) -> None:
        ticket = self.tickets.get(key)
        if ticket is None or ticket.queued:
            return
        if last:
            self._drop(ticket)
        elif ticket.state is State.SERVED:
            ticket.state = State.RESTING
            ticket.until = now + BOOT
            ticket.moved = now

    def left(self, key: str, now: float) -> None:
        ticket = self.tickets.get(key)
        if ticket is not None and ticket.state is State.WAITING:
            self._away(ticket, now + REST)

    def tick(self, sent: int, now: float) -> list[tuple[str, Verdict]]:
        verdicts = [(key, GO) for key in self._went]
        self._went.clear()
        for key in list(self._served):
            ticket = self.tickets[key]
            if ticket.state is State.SERVED and now - ticket.moved > STALL:
                ticket.stalled = True
            elif ticket.state is State.RESTING and now - ticket.moved >= GAP:
                self._served.discard(key)
        rate = self._width.measure(sent, now, queued=self._first() is not None)
        if rate:
            self.rate = rate if not self.rate else 0.7 * self.rate + 0.3 * rate
        while self._hasty and now - self._hasty[0][0] >= SHORT_WAIT:
            asked, key = self._hasty.popleft()
            hasty = self.tickets.get(key)
            if hasty is not None and hasty.state is State.WAITING and hasty.asked == asked:
                self._admit(hasty, now)
                verdicts.append((key, GO))
        room = self._width.now - self._occupied(now)
        while room > 0 and (first := self._first()) is not None:
            self._admit(self.tickets[first], now)
            verdicts.append((first, GO))
            room -= 1
        if now - self._swept >= 1.0:
            self._swept = now
            verdicts += self._sweep(now)
        return verdicts

    # --- what others may know --------------------------------------------------------------------------------

    @property
    def width(self) -> int:
        return self._width.now

    def standing(self, key: str) -> Standing | None:
        """Place and ETA of a node (at most a second old), or None when it is not known here."""
        ticket = self.tickets.get(key)
        if ticket is None:
            return None
        if not ticket.queued:
            return Standing(0, 0.0)
        place, work = self._ahead.get(key, (0, 0.0))  # a thread may ask (/status) while it is admitted
        return Standing(place, self._seconds(work))

    def outlook(self, key: str) -> Standing:
        """Where a node stands, or would if it asked for something large now."""
        known = self.standing(key)
        if known is not None or not self._queued:
            return known or Standing(0, 0.0)
        return Standing(self._queued + 1, self._seconds(self._in_service() + self._queued_work))

    @property
    def figures(self) -> dict[str, float]:
        """For /status."""
        return {"width": self.width, "served": len(self._served), "queued": self._queued, "rate": self.rate}

    # --- inside ----------------------------------------------------------------------------------------------

    def _queue(self, share: str) -> list[tuple[float, str]]:
        queue = self._queues.setdefault(share, [])
        if not queue:  # it had nothing to ask for: being idle earns no credit
            busy = [self._clocks.get(name, 0.0) for name, other in self._queues.items() if other]
            if busy:
                self._clocks[share] = max(self._clocks.get(share, 0.0), min(busy))
        return queue

    def _first(self) -> str | None:
        """The waiting node whose turn is next; forgets queue entries that no longer wait."""
        best: str | None = None
        least = 0.0, ""
        for share, queue in self._queues.items():
            while queue and not self._waits(queue[0]):
                heapq.heappop(queue)
            clock = self._clocks.get(share, 0.0), share  # of two alike the same one as in `_sweep`
            if queue and (best is None or clock < least):
                best, least = queue[0][1], clock
        return best

    def _waits(self, entry: tuple[float, str]) -> bool:
        ticket = self.tickets.get(entry[1])
        return ticket is not None and ticket.seq == entry[0] and ticket.state is State.WAITING

    def _occupied(self, now: float) -> int:
        """Slots in use. A stalled node has none, and one between two objects only for a moment."""
        slots = 0
        for key in self._served:
            ticket = self.tickets[key]
            if not ticket.stalled and (ticket.state is State.SERVED or now - ticket.moved < GAP):
                slots += 1
        return slots

    def _turn_of_returned(self, share: str) -> float:
        """Two that come back, then one that is new, and so on: with those who come back first the link idles while the
        last kernels start (500 nodes, 4 s: 5 s), and one by one new ones start long before their image can be sent."""
        queue = self._queue(share)
        first = queue[0][0] - 0.5 if queue else 0.0
        self._returned[share] = max(first, self._returned.get(share, 0.0) + 0.5) if queue else first
        return self._returned[share]

    def _enqueue(self, ticket: Ticket, place: int, ahead: float) -> None:
        self._queued += 1
        self._queued_work += self._work(ticket)
        self._ahead[ticket.key] = (place, ahead)

    def _admit(self, ticket: Ticket, now: float) -> None:
        self._queued -= 1
        self._queued_work -= self._work(ticket)
        self._held_work -= self._work(ticket)
        ticket.state = State.SERVED
        ticket.moved = now
        self._served.add(ticket.key)
        del self._ahead[ticket.key]
        self._charge(ticket.share, ticket.size)

    def _charge(self, share: str, size: int) -> None:
        self._clocks[share] = self._clocks.get(share, 0.0) + size

    def _come_again(self, eta: float) -> int:
        """Half the way to its turn, in case the link turns out faster; at once while nothing is known."""
        grain = 1 + self._queued // RETRIES_PER_SECOND
        return grain if not self.rate else max(grain, min(5 * grain, int((eta - HOLD / 2) / 2)))

    def _send_away(self, ticket: Ticket, seconds: int, now: float) -> Verdict:
        self._away(ticket, now + seconds + REST)
        return Verdict(False, seconds)

    def _away(self, ticket: Ticket, until: float) -> None:
        self._held_work -= self._work(ticket)
        ticket.state = State.AWAY
        ticket.until = until

    def _drop(self, ticket: Ticket) -> None:
        del self.tickets[ticket.key]
        self._ahead.pop(ticket.key, None)
        if ticket.queued:
            self._queued -= 1
        else:
            self._served.discard(ticket.key)
            if ticket.sent:
                self._set_size = 0.9 * self._set_size + 0.1 * ticket.sent if self._set_size else float(ticket.sent)

    def _work(self, ticket: Ticket) -> float:
        """Bytes its turn will take: the object it asked for, or what is left of what whole sets turned out to be."""
        return max(float(ticket.size), self._set_size - ticket.sent)

    def _in_service(self) -> float:
        served = (self.tickets[key] for key in self._served)
        sets = ((max(float(ticket.size), self._set_size), ticket) for ticket in served if not ticket.stalled)
        return sum(max(0.0, whole - ticket.sent) for whole, ticket in sets)

    def _seconds(self, work: float) -> float:
        return work / (self.rate or FIRST_RATE)

    def _sweep(self, now: float) -> list[tuple[str, Verdict]]:
        """Once a second: forget those who went, spare iPXE's patience, tell everybody's place anew."""
        verdicts: list[tuple[str, Verdict]] = []
        waiting: dict[str, list[Ticket]] = {}
        for ticket in list(self.tickets.values()):
            if ticket.state in (State.AWAY, State.RESTING) and now > ticket.until:
                self._drop(ticket)
            elif ticket.queued:
                held = now - ticket.asked if ticket.state is State.WAITING else 0.0
                if ticket.patience is Patience.RETRIES and held > HELD_AT_MOST:
                    soon = self._seconds(self._ahead[ticket.key][1]) <= HOLD
                    if not soon or held > 2 * HELD_AT_MOST:
                        verdicts.append((ticket.key, self._send_away(ticket, 1, now)))
                waiting.setdefault(ticket.share, []).append(ticket)
        for queue in waiting.values():
            queue.sort(key=lambda ticket: ticket.seq, reverse=True)
        clocks = [(self._clocks.get(share, 0.0), share) for share in waiting]
        heapq.heapify(clocks)
        before = work = self._in_service()
        self._ahead = {}
        self._held_work = 0.0  # sums anew: what a set weighs may have been learned better meanwhile
        while clocks:
            clock, share = heapq.heappop(clocks)
            ticket = waiting[share].pop()
            self._ahead[ticket.key] = (len(self._ahead) + 1, work)
            size = self._work(ticket)
            work += size
            if ticket.state is State.WAITING:
                self._held_work += size
            if waiting[share]:
                heapq.heappush(clocks, (clock + size, share))
        self._queued_work = work - before
        return verdicts
