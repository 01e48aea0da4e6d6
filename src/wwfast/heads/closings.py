"""Boots that ended at one head are over at the other: which ones, since it last heard of them."""

from __future__ import annotations

import threading
import time
from collections import deque

MOST = 20_000  # of them are remembered: more nodes than a head has
Closed = tuple[str, float]  # MAC, and how many seconds ago: two clocks need not agree


class Closings:
    """Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: deque[tuple[int, str, float]] = deque(maxlen=MOST)
        self._number = 0

    def note(self, mac: str) -> None:
        with self._lock:
            self._number += 1
            self._kept.append((self._number, mac, time.monotonic()))

    def after(self, number: int) -> tuple[list[Closed], int]:
        """Those after that one, and the number of the last. A number of an earlier process is none."""
        now = time.monotonic()
        with self._lock:
            number = number if number <= self._number else 0
            return [(mac, now - at) for each, mac, at in self._kept if each > number], self._number
