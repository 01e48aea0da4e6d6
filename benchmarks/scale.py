"""Many racks: how long the last node takes, and what the head's link carries, with nginx as the cache of each rack.

The real server, unmodified nginx with what `wwfast cache nginx` writes, and simulated nodes that play the scripts and
the lists they are sent, in namespaces with shaped links (wwfast.storm.racks). Nodes check nothing but lengths and 5 %
of the digests; kernels start at once.
"""

from __future__ import annotations

from benchmarks._harness import Bench
from benchmarks._http_peers import conditions, versions
from wwfast.storm import play
from wwfast.storm.report import Report

IMAGE = 6  # MiB
KERNEL = 256 << 10
RACK = 50  # nodes
RACK_RATE = 40e6  # bit/s; the head's link is a tenth of the sum
SHARED_RATE = 300e6  # bit/s of every link, where caches are compared with none


def run(bench: Bench) -> None:
    versions()
    bench.peer("nginx", "nginx", "-v")
    bench.peers |= conditions()
    flat(bench)
    caches(bench)


def storm(nodes: int, racks: int, head: float, rack: float, *, cached: bool = True) -> Report:
    report = play.in_racks(
        nodes,
        racks,
        head_rate=head,
        rack_rate=rack,
        image_mib=IMAGE,
        cached=cached,
        kernel=KERNEL,
        on_progress=lambda _: None,
    )
    if report.failures:
        raise SystemExit("\n".join(report.failures[:5]))
    return report


def flat(bench: Bench) -> None:
    """Rows 1: the same time whatever the number of racks, and each byte once for each rack."""
    many = 4 if bench.quick else 100
    few, racks = (storm(count * RACK, count, RACK_RATE * count / 10, RACK_RATE) for count in (2, many))
    bench.record(
        "1-flat", f"{many * RACK} nodes in {many} racks: time to the last", racks.seconds,
        theirs=few.seconds, peer=f"{2 * RACK} nodes in 2 racks", target="<= 1.15 x",
    )  # fmt: skip
    size = racks.fetched / many / 2**20
    bench.record(
        "1-head-bytes", "what caches fetched from the head: MiB a rack", size,
        unit="MiB", theirs=racks.cached / 2**20, peer="image, kernel and stage-1, once", target="<= 1.05 x",
    )  # fmt: skip
    bench.note(
        f"the head's link carried {racks.head_bytes / many / 2**20:.2f} MiB a rack, with scripts, overlays and TCP; "
        f"caches that failed: {racks.elsewhere}"
    )


def caches(bench: Bench) -> None:
    """Row 2: with a cache in each rack, and without."""
    racks = 2 if bench.quick else 20
    without, cached = (storm(racks * RACK, racks, SHARED_RATE, SHARED_RATE, cached=wanted) for wanted in (False, True))
    bench.record(
        "2-caches", f"{racks * RACK} nodes, {racks} caches, all links alike: time to the last", cached.seconds,
        theirs=without.seconds, peer="without caches", target="<= 0.12 x",
    )  # fmt: skip
