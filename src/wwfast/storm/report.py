"""What a storm came to: per stage when half, 90 %, 99 % and the last of the nodes were through, and what went wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any

STAGES = ("dhcp", "tftp", "dhcp-ipxe", "ipxe", "kernel", "initramfs", "stage1", "image", "kmods", "system", "runtime")


@dataclass
class Report:
    """`records` are storm.node.Record as dictionaries; seconds count from the start."""

    records: Sequence[dict[str, Any]]
    received: int
    server_cpu: float = 0.0  # s
    server_rss: float = 0.0  # MiB, at most
    head_bytes: int = 0  # that the head's link carried, where there are racks
    fetched: int = 0  # bytes of it that caches had from the head
    notes: list[str] = field(default_factory=list)

    @property
    def stages(self) -> list[str]:
        found = {stage for record in self.records for stage in record["done"]}
        return [stage for stage in STAGES if stage in found] + sorted(found - set(STAGES))

    def times(self, stage: str) -> list[float]:
        return sorted(record["done"][stage] for record in self.records if stage in record["done"])

    @property
    def failures(self) -> list[str]:
        """`NODE: WHY` of each node that did not get its full set."""
        return [f"{record['name']}: {record['failure']}" for record in self.records if record["failure"]]

    @property
    def told_to_wait(self) -> int:
        return sum(record["told_to_wait"] for record in self.records)

    @property
    def restarts(self) -> int:
        return sum(record["restarts"] for record in self.records)

    @property
    def cached(self) -> int:
        """Bytes that a node has from caches, at most."""
        return max((sum(record["size"][stage] for stage in record["cached"]) for record in self.records), default=0)

    @property
    def elsewhere(self) -> int:
        """Times that a cache failed and somebody else was asked."""
        return sum(record["elsewhere"] for record in self.records)

    @property
    def moved(self) -> int:
        """Times that a head failed and another one was asked."""
        return sum(record["moved"] for record in self.records)

    @property
    def seconds(self) -> float:
        return max((record["finished"] for record in self.records), default=0.0)

    def rows(self) -> list[tuple[str, ...]]:
        """Stage, nodes, t50, t90, t99, last."""
        rows = []
        for stage in self.stages:
            times = self.times(stage)
            marks = (f"{quantile(times, share):.1f}" for share in (0.5, 0.9, 0.99, 1.0))
            rows.append((stage, str(len(times)), *marks))
        return rows

    def twins(self) -> int:
        """How many nodes share their system overlay with another: there must be none."""
        etags = [record["etag"]["system"] for record in self.records if record["etag"].get("system")]
        return len(etags) - len(set(etags))

    def as_json(self) -> dict[str, Any]:
        return {
            "nodes": len(self.records),
            "seconds": self.seconds,
            "bytes": self.received,
            "stages": {
                stage: {
                    "nodes": len(times),
                    "t50": quantile(times, 0.5),
                    "t90": quantile(times, 0.9),
                    "t99": quantile(times, 0.99),
                    "last": times[-1],
                }
                for stage, times in ((stage, self.times(stage)) for stage in self.stages)
            },
            "failures": self.failures,
            "told to wait": self.told_to_wait,
            "restarts": self.restarts,
            "caches that failed": self.elsewhere,
            "heads that failed": self.moved,
            "bytes of the head's link": self.head_bytes,
            "server cpu seconds": self.server_cpu,
            "server rss mib": self.server_rss,
        }


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value that `share` of the (ordered) values do not exceed."""
    return ordered[max(0, ceil(len(ordered) * share) - 1)] if ordered else 0.0
