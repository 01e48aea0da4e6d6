"""How much is said about one source: so many times at once, then so many a second. Bounded in sources as well."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

SOURCES = 4096  # remembered; the one longest not heard of is forgotten, and may speak up again


class Restraint:
    """Token buckets, one for each source."""

    def __init__(self, burst: float, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._burst = burst
        self._rate = per_second
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, and when that was
        self.held_back = 0

    def allows(self, source: str = "") -> bool:
        """Whether one more of `source` is to be told; counts it in `held_back` when not."""
        now = self._clock()
        left, then = self._left.pop(source, (self._burst, now))
        left = min(self._burst, left + (now - then) * self._rate)
        allowed = left >= 1
        self._left[source] = (left - allowed, now)
        if len(self._left) > SOURCES:
            self._left.popitem(last=False)
        self.held_back += not allowed
        return allowed
