"""How many nodes are served at a time: the fewest that keep the link full, found by trying."""

from __future__ import annotations

EPOCH = 0.5  # s of measurement for one step
NARROWEST, WIDEST = 8, 4096  # 4 or 5 at 2.5 Gbit/s left 5 % of the link idle in the gaps between two objects
GAIN = 1.03  # more slots must bring this much
LOSS = 0.98  # fewer slots may cost this much
PATIENCE = 4  # epochs between trials, doubled by every trial to narrow that failed
LONGEST = 64


class Width:
    """`now` is the number of slots. A trial compares one epoch with the epoch before it, after one to settle."""

    def __init__(self, start: int) -> None:
        self.now = max(NARROWEST, start)
        self._since: float | None = None
        self._sent = 0
        self._base = 0.0
        self._before: int | None = None  # the width to go back to while a trial runs
        self._up = True
        self._settle = 0
        self._pause = 0
        self._patience = PATIENCE

    def measure(self, sent: int, now: float, *, queued: bool) -> float:
        """Take the total of bytes sent; the rate of an epoch that ended with this call, otherwise 0.

        Only time in which nodes were waiting says anything about the link.
        """
        if not queued or self._since is None:
            self._since, self._sent = now, sent
            return 0.0
        if now - self._since < EPOCH:
            return 0.0
        rate = (sent - self._sent) / (now - self._since)
        self._since, self._sent = now, sent
        self._step(rate)
        return rate

    def _step(self, rate: float) -> None:
        if self._settle:
            self._settle -= 1
        elif self._before is not None:
            self._judge(rate)
        elif self._pause or not rate:
            self._pause = max(0, self._pause - 1)
        else:
            self._try(rate)

    def _try(self, rate: float) -> None:
        step = self.now // 2 if self._up else -max(1, self.now // 4)
        width = min(WIDEST, max(NARROWEST, self.now + step))
        if width == self.now:
            self._up = not self._up
            self._pause = self._patience
            return
        self._base, self._before, self.now, self._settle = rate, self.now, width, 1

    def _judge(self, rate: float) -> None:
        good = rate >= self._base * (GAIN if self._up else LOSS)
        if good:
            self._patience = PATIENCE
        else:
            assert self._before is not None
            self.now, self._settle = self._before, 1
            if not self._up:
                self._patience = min(LONGEST, 2 * self._patience)
            self._up = not self._up
            self._pause = self._patience
        self._before = None
