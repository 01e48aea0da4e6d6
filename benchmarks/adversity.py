"""A bad week: floods, pipelines, kills, endless templates, and what a well-behaved node notices of them.

The server is the real one, alone on a core and in a namespace; who asks runs as processes of their own on another core
(see _head.py). p99 rows: one node asks for its boot script 20 times a second on new connections while the row's fault
goes on; the wait counts from when the request was due.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks._harness import Bench
from benchmarks._head import PORT, RELAY, SERVER, Askers, Link, Server, site
from benchmarks._http_peers import build
from support.soak import IMAGE, NODES, OVERLAY, Site, judge, read
from wwfast.run import run as sh
from wwfast.storm.link import source

RANGE = 65_536
RATE = 20.0  # boot scripts a second of the one who behaves
LEAD = 1.0  # s that a fault has before the first of them
OLD = 0.5  # s after which an acknowledged lease must survive a kill
TOLD = {"target": "<= 50", "unit": "ms"}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", help="rows whose id begins so")


def run(bench: Bench) -> None:
    build("load")
    rows: dict[str, Callable[[Bench], None]] = {
        "1-exhausted-p99": exhausted,
        "2-pipeline-p99": pipeline,
        "3-status-p99": status,
        "5-lease-lost": leases,
        "6-soak": soak,
        "7-netascii-rss": netascii,
    }
    for id, row in rows.items():
        if id.startswith(bench.args.only or ""):
            row(bench)


@contextlib.contextmanager
def scene(nodes: int, **conf: Any) -> Iterator[tuple[Path, Link, Askers]]:
    """A site of so many nodes and the link; everything that still runs on it ends with it."""
    with tempfile.TemporaryDirectory(prefix="wwbench-") as name, Link() as link:
        # Who binds no address of its own asks from node 0's.
        sh(["ip", "-netns", link.nodes, "route", "replace", f"{SERVER}/32", "dev", "n0", "src", source(0)])
        site(Path(name), nodes, **conf)
        yield Path(name), link, Askers(link)


def behaved(askers: Askers, nodes: int, seconds: float) -> dict[str, Any]:
    time.sleep(LEAD)
    return askers.run("boots", server=SERVER, port=PORT, nodes=nodes, rate=RATE, seconds=seconds)


def record(bench: Bench, id: str, name: str, runs: list[dict[str, Any]]) -> None:
    bench.record(id, f"a boot script {name}, p99 of {runs[0]['count']}", [run["p99"] for run in runs], **TOLD)
    failed = sum(run["failed"] for run in runs)
    halves = ", ".join(f"{run['p50']:.1f}" for run in runs)
    bench.note(f"{id}: p50 {halves} ms, {failed} scripts failed")


def exhausted(bench: Bench) -> None:
    """Every address of the range is leased; new machines ask for one."""
    rate, seconds = 5000.0, 5.0 if bench.quick else 20.0
    with scene(100) as (root, link, askers), Server(root, link, firmware=True):
        log = str(root / "acked")
        bound = askers.run("bind", server=SERVER, relay=RELAY, first=0, count=RANGE, seconds=150, file=log)
        bench.note(f"1: {bound['acked']} of {RANGE} addresses leased in {bound['seconds']:.0f} s")
        runs, rates = [], []
        for turn in range(bench.runs(3)):
            ask = {"rate": rate, "seconds": 300, "first": (turn + 2) * 10_000_000}
            with askers.meanwhile("discover", server=SERVER, relay=RELAY, **ask) as said:
                runs.append(behaved(askers, 100, seconds))
            rates.append(said["rate"])
    record(bench, "1-exhausted-p99", f"while a full range is asked {min(rates):.0f} times a second", runs)


def pipeline(bench: Bench) -> None:
    connections, depth = 50, 3000
    with scene(100) as (root, link, askers), Server(root, link, firmware=True):
        runs = []
        for _ in range(bench.runs(3)):
            ask = {"connections": connections, "depth": depth, "seconds": 300}
            with askers.meanwhile("pipeline", server=SERVER, port=PORT, **ask) as said:
                runs.append(behaved(askers, 100, 5.0 if bench.quick else 20.0))
    bench.note(f"2: {said['rate']:.0f} pipelined answers a second, {said['closed']} connections ended by the server")
    record(bench, "2-pipeline-p99", f"while {connections} connections pipeline {depth} requests each", runs)


def status(bench: Bench) -> None:
    nodes, count = 1000 if bench.quick else 10_000, 16
    seconds = 5.0 if bench.quick else 20.0
    with scene(nodes) as (root, link, askers), Server(root, link, firmware=True):
        runs, done = [], {}
        for _ in range(bench.runs(3)):
            words = [SERVER, str(PORT), "/status", str(count), str(seconds + LEAD + 1)]
            load = askers.play([build("load"), *words])
            runs.append(behaved(askers, nodes, seconds))
            done = json.loads(load.communicate(timeout=60)[0])
    each = done["bytes"] / max(done["requests"], 1) / 1e6
    bench.note(f"3: {done['requests'] / done['seconds']:.1f} status/s of {each:.1f} MB, {done['failed']} failed")
    record(bench, "3-status-p99", f"while {count} ask for /status of {nodes} nodes", runs)


def leases(bench: Bench) -> None:
    """SIGKILL under load, restart, and everybody who was acknowledged asks again without saying what he had."""
    kills = 5 if bench.quick else 50
    chance = random.Random(5)
    lost, acked, other = [], 0, 0
    with scene(100, first="10.212.0.0", last="10.213.255.255") as (root, link, askers):
        for turn in range(kills):
            clients = {"server": SERVER, "relay": RELAY, "first": turn * 10_000}
            wanted = f"10.{212 + turn // 25}.{turn % 25 * 10}.1"  # a place of its own for each turn: 2,560 addresses
            with Server(root, link, firmware=True) as server:
                ask = {"count": 2500, "seconds": 60, "rate": 1000, "wanted": wanted, "file": str(root / "acked")}
                with askers.meanwhile("bind", **clients, **ask):
                    time.sleep(chance.uniform(1.0, 3.0))
                    killed = time.monotonic()
                    server.kill()
            with Server(root, link, firmware=True):
                again = {"count": 2500, "seconds": 20, "only_offers": True, "file": str(root / "offered")}
                askers.run("bind", **clients, **again)
            had = {number: address for when, number, address in lines(root / "acked") if when <= killed - OLD}
            has = {number: address for _, number, address in lines(root / "offered")}
            acked += len(had)
            lost.append(sum(has.get(number) != address for number, address in had.items()))
            other += sum(1 for number in had if number not in has)
    bench.note(f"5: {acked} leases acknowledged more than {OLD} s before their kill; {other} clients without any offer")
    bench.record(
        "5-lease-lost", f"acknowledged leases older than {OLD} s lost in {kills} kills under load", float(sum(lost)),
        unit="leases", target="<= 0",
    )  # fmt: skip


def lines(file: Path) -> Iterator[tuple[float, int, str]]:
    """What `bind` wrote: when, which machine, which address."""
    for line in file.read_text().splitlines():
        when, number, address = line.split()
        yield float(when), int(number), address


def soak(bench: Bench) -> None:
    """Nodes poll while everything changes; every answer is looked at."""
    nodes, seconds = (200, 60.0) if bench.quick else (2000, 600.0)
    early = seconds / 10
    with tempfile.TemporaryDirectory(prefix="wwbench-") as name, Link() as link:
        changing = Site(Path(name), nodes)
        changing.prepare()
        with Server(changing.root, link, firmware=True) as server:
            ask = {"nodes": nodes, "rate": nodes / 10, "seconds": 2 * seconds, "file": f"{name}/seen"}
            with Askers(link).meanwhile("support.soak", server=SERVER, port=PORT, **ask) as said:
                began = time.monotonic()
                change(changing, began + early)
                first = server.descriptors(), server.rss()
                change(changing, began + seconds)
                last = server.descriptors(), server.rss()
        stale = judge(changing.changes, read(Path(name) / "seen"))
    for what in (said["wrong"] + stale)[:5]:
        bench.note(f"6: {what}")
    bench.note(
        f"6: {said['asked']} questions, {len(changing.changes)} changes; descriptors {first[0]}, then {last[0]}; "
        f"resident {first[1]:.0f} MiB, then {last[1]:.0f}"
    )
    what = f"{nodes} nodes polling for {seconds / 60:.0f} min while nodes.conf, overlays and images change"
    bench.record(
        "6-soak-fds", f"{what}: descriptors at the end less those after a tenth", float(last[0] - first[0]),
        unit="descriptors", target="<= 8",
    )  # fmt: skip
    bench.record(
        "6-soak-stale", "the same: wrong or stale answers", float(said["wrongs"] + len(stale)), unit="answers",
        target="<= 0",
    )  # fmt: skip


def change(changing: Site, end: float) -> None:
    """Change something every second until then; an image is built every half minute."""
    for number in itertools.count():
        if time.monotonic() >= end:
            return
        changing.change(IMAGE if number % 30 == 15 else (NODES, OVERLAY)[number % 2])
        time.sleep(max(0.0, min(1.0, end - time.monotonic())))


def netascii(bench: Bench) -> None:
    count = 1000 if bench.quick else 5000
    growths = []
    with scene(100) as (root, link, askers):
        for _ in range(bench.runs(3)):
            with Server(root, link, firmware=True) as server:
                before = most = server.rss()
                with askers.meanwhile("netascii", server=SERVER, count=count, file="snponly.efi", seconds=60) as said:
                    end = time.monotonic() + (5 if bench.quick else 15)
                    while time.monotonic() < end:
                        most = max(most, server.rss())
                        time.sleep(0.05)
                growths.append(most - before)
    bench.note(f"7: {said['data']} of {count} requests got a first block, {said['refused']} a refusal")
    bench.record(
        "7-netascii-rss", f"resident memory for {count} unproven netascii requests", growths, unit="MiB",
        target="<= 80",
    )  # fmt: skip
