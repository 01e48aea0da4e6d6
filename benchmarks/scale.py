"""Many racks: how long the last node takes, and what the head's link carries, with nginx as the cache of each rack.

The real server, unmodified nginx with what `wwfast cache nginx` writes, and simulated nodes that play the scripts and
the lists they are sent, in namespaces with shaped links (wwfast.storm.racks). Nodes check nothing but lengths and 5 %
of the digests; kernels start at once.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks._harness import Bench
from benchmarks._http_peers import Server, conditions, fill, versions
from wwfast.boot.blobs import Names
from wwfast.boot.resolve import Resolver
from wwfast.nodes.registry import Registry
from wwfast.paths import Paths
from wwfast.racks import asking
from wwfast.storm import play
from wwfast.storm.cluster import PORT, Head, prepare
from wwfast.storm.link import SENDING, SERVER, Link, sources
from wwfast.storm.node import Step
from wwfast.storm.plan import Plan
from wwfast.storm.report import Report

IMAGE = 6  # MiB
KERNEL = 256 << 10
RACK = 50  # nodes
RACK_RATE = 40e6  # bit/s; the head's link is a tenth of the sum
BLOB, CLIENTS, ROUNDS = 256, 32, 5  # MiB, at once, times
NODE_RATE = 250e3  # bit/s of each of two heads for each node: all have what they need after two minutes
SHARED_RATE = 300e6  # bit/s of every link, where caches are compared with none


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", choices=("flat", "caches", "failover", "blob"), help="one group of rows")


def run(bench: Bench) -> None:
    versions()
    bench.peer("nginx", "nginx", "-v")
    bench.peers |= {**conditions(), "links": " ".join(SENDING)}
    for rows in (flat, caches, failover, blob):
        if bench.args.only in (None, rows.__name__):
            rows(bench)


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


def failover(bench: Bench) -> None:
    """Rows 3: two heads, of which one falls silent when half of the time is over that it takes with both."""
    count = 4 * RACK if bench.quick else 1000
    both = heads(count)
    one = heads(count, play.Fail(0, both.seconds / 2))
    if both.failures:
        raise SystemExit("\n".join(both.failures[:5]))
    bench.record(
        "3-failover-lost", f"of {count} nodes those that one of two heads took with it", len(one.failures),
        unit="nodes", target="<= 0",
    )  # fmt: skip
    bench.record(
        "3-failover-last", f"{count} nodes, one of two heads silent from half time on: time to the last", one.seconds,
        theirs=both.seconds, peer="both heads", target="<= 1.7 x",
    )  # fmt: skip
    bench.note(f"nodes went to another head {one.moved} times, {both.moved} with both there")


def heads(count: int, fail: play.Fail | None = None) -> Report:
    """Without caches, so that all nodes wait for a head all the time."""
    return play.in_racks(
        count,
        count // RACK,
        head_rate=count * NODE_RATE,
        rack_rate=1e9,
        image_mib=IMAGE,
        cached=False,
        kernel=KERNEL,
        heads=2,
        fail=fail,
        on_progress=lambda _: None,
    )


def blob(bench: Bench) -> None:
    """Row 5: one large blob to many caches at once, as nginx sends a file of that size; no link is shaped."""
    size, rounds = (32, 1) if bench.quick else (BLOB, ROUNDS)
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="wwbench-") as name:
        root, tree = Path(name, "head"), Path(name, "tree")
        tree.mkdir()
        fill(tree / "image", size << 20)
        prepare(root, sources(1), size, overlays="hostname", caches={"10.0.0.0/8": "http://10.210.0.9:80"})
        paths = Paths.at(root)
        standing = Resolver(paths).resolve(Registry(paths).snapshot())
        image = max(asking.blobs(standing, "storm", Names(paths.blobs).of), key=lambda each: each.size)
        ours: list[float] = []
        theirs: list[float] = []
        for _ in range(rounds):
            with Link() as link, Head(root, link) as head:
                play.named(head)
                ours.append(fetched(link, f"/blob/{image.name}"))
            with Link() as link, Server("nginx", tree, PORT, within=link.server):
                theirs.append(fetched(link, "/image/x"))
    bench.record(
        "5-blob", f"{CLIENTS} clients fetch a blob of {size} MiB", ours,
        unit="GB/s", better="higher", theirs=theirs, peer="nginx", target=">= 1.0 x",
    )  # fmt: skip


def fetched(link: Link, target: str) -> float:
    """GB/s of all clients together, who throw away what they get."""
    plan = Plan(SERVER, PORT, CLIENTS, [Step("blob", target)], "uefi", checked=0.0)
    report = play.follow(plan, lambda argv: link.play(argv, stdin=play.PIPE, stdout=play.PIPE), lambda _: None)
    if report.failures:
        raise SystemExit(report.failures[0])
    return report.received / report.seconds / 1e9
