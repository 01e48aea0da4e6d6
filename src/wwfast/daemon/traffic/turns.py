"""Turns at a cache in a rack: nodes fetch an image from it a few at a time, as they do from this server (sans-IO).

Its link is not ours, so nothing of it is measured here. Its rate is a setting, and what nodes report of the images that
they have says how much of it one takes: as many go at a time as fill it. All that come while a cache fails go at once,
for they are going to ask somebody else.
"""

from __future__ import annotations

import math
from itertools import islice
from typing import NamedTuple

from wwfast.daemon.traffic.width import NARROWEST, WIDEST

UNKNOWN = 600.0  # s that a turn may last while nobody has reported one
TIMES = 4  # the mean: as long may one last, then its node is taken for dead
SHORTEST = 60.0  # s
COUNTED = 1.0  # s between two counts of the places: one for each ask would be quadratic in those that wait
FAILING = 60.0  # s that a cache is taken for failing after a node lost it
WEIGHT = 0.2  # of the last report, in means


class Place(NamedTuple):
    """1 is the next one; `eta` are seconds until its turn."""

    place: int
    eta: float


class Turns:
    """Of one cache; `rate` is bytes a second. Times are seconds of one monotonic clock given by the caller."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._served: dict[str, float] = {}  # since when
        self._waiting: dict[str, None] = {}  # in their order
        self._places: dict[str, int] = {}  # when counted, or when it came since
        self._counted = -math.inf
        self._failing = -math.inf  # until when
        self._each = 0.0  # bytes a second that one node takes, 0 until reported
        self._mean = 0.0  # seconds of a turn

    def ask(self, node: str, now: float) -> bool:
        """Whether it goes at once; else it has a place, and `admitted` names it: now, or one day."""
        if node in self._served or now < self._failing:
            self._waiting.pop(node, None)
            self._served.setdefault(node, now)
            return True
        if node not in self._waiting:
            self._waiting[node] = None
            self._places[node] = len(self._waiting)
        return False

    def left(self, node: str) -> None:
        """It waits no more."""
        self._waiting.pop(node, None)

    def over(self, node: str, came: int, now: float) -> None:
        """It has its image, of which so many bytes came from here."""
        self._waiting.pop(node, None)
        since = self._served.pop(node, None)
        if since is None or not came or now <= since:
            return
        self._mean = _mixed(self._mean, now - since)
        self._each = _mixed(self._each, came / (now - since))

    def lost(self, node: str, now: float) -> None:
        """The cache failed a node which had its turn."""
        if self._served.pop(node, None) is not None:
            self._failing = now + FAILING

    def admitted(self, now: float) -> list[str]:
        """Those whose turn it is from now on."""
        longest = max(SHORTEST, TIMES * self._mean) if self._mean else UNKNOWN
        for node in [node for node, since in self._served.items() if now - since > longest]:
            del self._served[node]
        room = len(self._waiting) if now < self._failing else max(0, self.width - len(self._served))
        first = list(islice(self._waiting, room))
        for node in first:
            del self._waiting[node]
            self._served[node] = now
        if now - self._counted >= COUNTED:
            self._places, self._counted = {node: place for place, node in enumerate(self._waiting, 1)}, now
        return first

    @property
    def width(self) -> int:
        """How many may fetch at a time."""
        return min(WIDEST, max(NARROWEST, math.ceil(self._rate / self._each))) if self._each else NARROWEST

    @property
    def figures(self) -> dict[str, int]:
        """For /status."""
        return {"width": self.width, "served": len(self._served), "queued": len(self._waiting)}

    def place(self, node: str) -> Place | None:
        """Of one that waits, at most a second old; None of others. A thread may ask."""
        place = self._places.get(node) if node in self._waiting else None
        if place is None:
            return None
        return Place(place, math.ceil(place / self.width) * self._mean)


def _mixed(mean: float, last: float) -> float:
    return (1 - WEIGHT) * mean + WEIGHT * last if mean else last
