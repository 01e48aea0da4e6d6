"""Who follows this head: what each said last, and when."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

from wwfast.heads.words import Report
from wwfast.net.names import REASON, tame

MOST = 16  # who has the key may call himself as he likes
SILENT = 10.0  # s, of five polls, after which a head counts as gone


@dataclass(slots=True)
class Peer:
    """`current_at`: when it last served what this head has (monotonic seconds)."""

    address: str
    report: Report
    seen: float
    current_at: float


@dataclass(slots=True)
class Peers:
    """Thread-safe."""

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _known: dict[str, Peer] = field(default_factory=dict)

    def heard(self, address: str, report: Report, revision: str) -> None:
        """`revision` is what this head has now."""
        now, name = time.monotonic(), tame(report.name) or address
        with self._lock:
            former = self._known.pop(name, None)
            current = now if report.revision == revision else former.current_at if former else now
            self._known[name] = Peer(address, report, now, current)
            while len(self._known) > MOST:
                del self._known[next(iter(self._known))]

    def silent(self) -> list[str]:
        """Addresses of those that were there and are not."""
        now = time.monotonic()
        with self._lock:
            return [peer.address for peer in self._known.values() if now - peer.seen > SILENT]

    def figures(self, revision: str) -> dict[str, dict[str, Any]]:
        """For /status, by name."""
        now = time.monotonic()
        with self._lock:
            return {
                name: {
                    "address": peer.address,
                    "version": tame(peer.report.version),
                    "revision": tame(peer.report.revision),
                    "behind": 0.0 if peer.report.revision == revision else round(now - peer.current_at, 1),
                    "missing": peer.report.missing,
                    "seen": round(now - peer.seen, 1),
                    "silent": now - peer.seen > SILENT,
                    "said": tame(peer.report.said, REASON),
                }
                for name, peer in self._known.items()
            }
