"""A sender and a receiver on a network that loses, repeats and reorders, with a clock that jumps."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from random import Random

from wwfast.net.tftp.transfer import Receiver


class Line:
    """Packets of both directions in flight; `fate(packet, index)` gives the delays of its copies (none: lost)."""

    def __init__(self, fate: Callable[[bytes, int], list[float]]) -> None:
        self.fate = fate
        self.carried: list[tuple[str, bytes]] = []
        self._flying: list[tuple[float, int, str, bytes]] = []
        self._count = itertools.count()

    def put(self, to: str, packets: list[bytes], now: float) -> None:
        for data in packets:
            index = next(self._count)
            self.carried.append((to, data))
            for delay in self.fate(data, index):
                heapq.heappush(self._flying, (now + delay, next(self._count), to, data))

    def next(self) -> float:
        return self._flying[0][0] if self._flying else float("inf")

    def take(self) -> tuple[str, bytes]:
        _, _, to, data = heapq.heappop(self._flying)
        return to, data


def perfect(data: bytes, index: int) -> list[float]:
    return [0.001]


def awful(
    seed: int, *, lose: float = 0.0, repeat: float = 0.0, jitter: float = 0.0
) -> Callable[[bytes, int], list[float]]:
    random = Random(seed)

    def fate(data: bytes, index: int) -> list[float]:
        if random.random() < lose:
            return []
        copies = 2 if random.random() < repeat else 1
        return [0.001 + random.random() * jitter for _ in range(copies)]

    return fate


def fetch(sender, receiver: Receiver, line: Line, *, limit: float = 600.0) -> float:
    """Run both machines until neither waits for anything: the virtual seconds it took.

    The receiver's first request is taken as delivered: `sender` is the transfer that it started.
    """
    now = 0.0
    receiver.start(now)
    line.put("receiver", sender.start(now), now)
    while now < limit:
        waits = [line.next()]
        waits += [] if sender.done or sender.failed else [sender.deadline]
        waits += [] if receiver.done or receiver.error else [receiver.deadline]
        if min(waits) == float("inf"):
            break
        now = max(now, min(waits))
        if line.next() <= now:
            to, data = line.take()
            if to == "receiver":
                line.put("sender", [reply for reply in receiver.receive(data, now) if reply[1] != 1], now)
            else:
                line.put("receiver", sender.receive(data, now), now)
        else:
            line.put("receiver", sender.tick(now), now)
            line.put("sender", [reply for reply in receiver.tick(now) if reply[1] != 1], now)
    return now
