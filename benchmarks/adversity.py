"""A bad week: floods, pipelines, kills, endless templates, and what a well-behaved node notices of them.

The server is the real one, alone on a core and in a namespace; who asks runs as processes of their own on another core
(see _head.py). p99 rows: one node asks for its boot script 20 times a second on new connections while the row's fault
goes on; the wait counts from when the request was due.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks._harness import Bench
from benchmarks._head import ASKERS, PORT, RELAY, SERVER, Askers, Link, Server, pinned
from benchmarks._head import site as write_site
from benchmarks._http_peers import build
from support.soak import Site
from support.soak import soak as polling
from wwfast.paths import Paths
from wwfast.storm.link import source
from wwfast.system.run import run as sh

RANGE = 65_536
RATE = 20.0  # boot scripts a second of the one who behaves
LEAD = 1.0  # s that a fault has before the first of them
LEASES = 2500  # of one kill
OLD = 0.5  # s after which an acknowledged lease must survive a kill


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", metavar="ID", help="the rows whose id begins so")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long the soak takes (10)")


def run(bench: Bench) -> None:
    build("load")
    rows: dict[str, Callable[[Bench], None]] = {
        "1-exhausted-p99": exhausted,
        "2-pipeline-p99": pipeline,
        "3-status-p99": status,
        "4-bad-template": templates,
        "5-lease-lost": leases,
        "6-soak": soak,
        "7-netascii-rss": netascii,
        "8-edit-served": edits,
    }
    for id, row in rows.items():
        if id.startswith(bench.args.only or ""):
            row(bench)


class Scene:
    """A site, its link, its askers; `server()` as often as wanted. What still runs on the link ends with it."""

    def __init__(self, root: Path, link: Link, nodes: int, *, dhcp: bool) -> None:
        self.root, self.link, self.nodes, self.dhcp = root, link, nodes, dhcp
        self.askers = Askers(link)

    def server(self) -> Server:
        return Server(self.root, self.link, firmware=self.dhcp)

    def behaved(self, server: Server, seconds: float, lead: float = LEAD) -> dict[str, Any]:
        """What the well-behaved node meets, `lead` s from now; `cpu` is the server's share of its core meanwhile."""
        time.sleep(lead)
        before, began = server.usage()[0], time.monotonic()
        met = self.askers.run("boots", server=SERVER, port=PORT, nodes=self.nodes, rate=RATE, seconds=seconds)
        return {**met, "cpu": (server.usage()[0] - before) / (time.monotonic() - began)}


@contextlib.contextmanager
def scene(nodes: int, *, dhcp: bool = True, **conf: Any) -> Iterator[Scene]:
    with tempfile.TemporaryDirectory(prefix="wwbench-") as name, Link() as link:
        # Who binds no address of its own asks from node 0's.
        sh(["ip", "-netns", link.nodes, "route", "replace", f"{SERVER}/32", "dev", "n0", "src", source(0)])
        write_site(Path(name), nodes, dhcp=dhcp, **conf)
        yield Scene(Path(name), link, nodes, dhcp=dhcp)


class Waits:
    """One p99 row: what the well-behaved node met without the fault and, `runs` times, with it."""

    def __init__(self, bench: Bench, place: Scene, server: Server, runs: int = 3) -> None:
        self.bench, self.place, self.server = bench, place, server
        self.seconds = 5.0 if bench.quick else 20.0
        self.count = bench.runs(runs)
        self.idle = place.behaved(server, self.seconds, 0.0)
        self.met: list[dict[str, Any]] = []

    def measure(self) -> None:
        self.met.append(self.place.behaved(self.server, self.seconds))

    def record(self, id: str, name: str) -> None:
        waits = [met["p99"] for met in self.met]
        what = f"a boot script {name}, p99 of {self.met[0]['count']}"
        self.bench.record(id, what, waits, unit="ms", target="<= 50")
        failed = sum(met["failed"] for met in self.met)
        median, busy = (statistics.median(met[key] for met in self.met) for key in ("p50", "cpu"))
        self.bench.note(
            f"{id}: p50 {median:.1f} ms, {failed} scripts failed, server {busy:.0%} of its core; without the fault p99 "
            f"{self.idle['p99']:.1f} ms"
        )


def exhausted(bench: Bench) -> None:
    """Every address of the range is leased; new machines ask for one."""
    with scene(100) as place, place.server() as server:
        relay = {"server": SERVER, "relay": RELAY}
        ask = {"first": 0, "count": RANGE, "seconds": 150, "file": str(place.root / "acked")}
        bound = place.askers.run("bind", **relay, **ask)
        bench.note(f"1: {bound['acked']} of {RANGE} addresses leased in {bound['seconds']:.0f} s")
        waits, rates = Waits(bench, place, server), []
        for turn in range(waits.count):
            ask = {"rate": 5000.0, "seconds": 300, "first": (turn + 2) * 10_000_000}
            with place.askers.meanwhile("discover", **relay, **ask) as said:
                waits.measure()
            rates.append(said["rate"])
    waits.record("1-exhausted-p99", f"while a full range is asked {min(rates):.0f} times a second")


def pipeline(bench: Bench) -> None:
    connections, depth = 50, 3000
    with scene(100) as place, place.server() as server:
        waits = Waits(bench, place, server)
        for _ in range(waits.count):
            ask = {"connections": connections, "depth": depth, "seconds": 300}
            with place.askers.meanwhile("pipeline", server=SERVER, port=PORT, **ask) as said:
                waits.measure()
    bench.note(f"2: {said['rate']:.0f} pipelined answers a second, {said['closed']} connections ended by the server")
    waits.record("2-pipeline-p99", f"while {connections} connections pipeline {depth} requests each")


def status(bench: Bench) -> None:
    nodes, count = 1000 if bench.quick else 10_000, 16
    with scene(nodes) as place, place.server() as server:
        waits = Waits(bench, place, server)
        done: dict[str, Any] = {}
        for _ in range(waits.count):
            words = [SERVER, str(PORT), "/status", str(count), str(LEAD + waits.seconds + 1)]
            load = place.askers.play([build("load"), *words])
            waits.measure()
            done = place.askers.answer(load, 120)
    each = done["bytes"] / max(done["requests"], 1) / 1e6
    bench.note(f"3: {done['requests'] / done['seconds']:.1f} status/s of {each:.1f} MB, {done['failed']} failed")
    waits.record("3-status-p99", f"while {count} ask for /status of {nodes} nodes")


#: One node's template loops, another's backtracks, a third's prints without end.
BAD = {3: "loops", 7: "backtracks", 11: "prints"}
BAD_TEMPLATE = """\
{% if id == "n00003" %}{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}{% endif %}
{% if id == "n00007" %}{{ ("a" * 60 ~ "b") | regex_findall("^(a+)+$") }}{% endif %}
{% if id == "n00011" %}{% for a in range(90000) %}{% for b in range(90000) %}{{ "x" * 1000 }}{% endfor %}{% endfor %}
{% endif %}{{ id }}
"""


def templates(bench: Bench) -> None:
    """Nodes whose templates never end, among many who want their overlays."""
    nodes, patience = (1000, 20.0) if bench.quick else (10_000, 120.0)
    with scene(nodes, dhcp=False, secure=False) as place:
        overlay(place, "bad", BAD_TEMPLATE)
        with place.server() as server:
            waits = Waits(bench, place, server, 1)
            ask = {"nodes": nodes, "stage": "system", "seconds": patience}
            overlays = place.askers.start("overlays", {"server": SERVER, "port": PORT, **ask})
            waits.measure()
            got = place.askers.answer(overlays, patience + 60)
    lost = [index for index in got["lost"] if index not in BAD]
    bench.note(f"4: all others had theirs, or {patience:.0f} s were over, after {got['seconds']:.1f} s")
    bench.record(
        "4-bad-template-lost", f"of {nodes} nodes without an overlay because of another's template",
        float(len(lost)), unit="nodes", target="<= 0",
    )  # fmt: skip
    waits.record("4-bad-template-p99", f"while templates of {len(BAD)} nodes never end")


def overlay(place: Scene, name: str, template: str) -> None:
    """Every node's system overlay has a site overlay `name` of this one template, from the next start on."""
    paths = Paths.at(place.root)
    folder = paths.site_overlays / name / "rootfs/etc"
    folder.mkdir(parents=True)
    (folder / f"{name}.j2").write_text(template)
    text = paths.nodes_conf.read_text()
    paths.nodes_conf.write_text(text.replace("system overlay: [hostname", f"system overlay: [{name}, hostname"))


def edits(bench: Bench) -> None:
    """An edit of nodes.conf that changes every boot script, while every overlay is built."""
    nodes = 1000 if bench.quick else 10_000
    taken, built = [], []
    with scene(nodes, dhcp=False, secure=False) as place:
        overlay(place, "work", "")
        conf = Paths.at(place.root).nodes_conf
        template = Paths.at(place.root).site_overlays / "work/rootfs/etc/work.j2"
        text = conf.read_text()
        with place.server():
            http = {"server": SERVER, "port": PORT}
            for turn in range(bench.runs(5)):
                template.write_text(f"{{% for n in range(100) %}}{{{{ id }}}} {{{{ n }}}} {turn}\n{{% endfor %}}")
                ask = {"nodes": nodes, "stage": "system", "seconds": 120}
                overlays = place.askers.start("overlays", {**http, **ask})
                new = place.root / "new.conf"
                new.write_text(text.replace("  default:\n", f"  default:\n    kernel: {{args: [turn={turn}]}}\n", 1))
                served = place.askers.start("served", {**http, "index": 1, "text": f" turn={turn} ", "seconds": 60})
                time.sleep(LEAD)
                began = time.monotonic()
                new.replace(conf)
                taken.append(place.askers.answer(served, 90)["when"] - began)
                built.append(place.askers.answer(overlays, 180)["seconds"])
    bench.note(f"8: building took {', '.join(f'{each:.1f}' for each in built)} s")
    bench.record(
        "8-edit-served", f"from an edit to its being served while {nodes} overlays are built", taken, target="<= 0.5"
    )


def leases(bench: Bench) -> None:
    """SIGKILL under load, restart, and everybody who was acknowledged asks again without saying what he had.

    The last turn is a stop instead: it shows that nothing is lost where nothing may be.
    """
    kills = 5 if bench.quick else 50
    chance = random.Random(5)
    lost: list[int] = []
    acked = 0
    with scene(100, first="10.212.0.0", last="10.215.255.255") as place:
        for turn in range(kills + 1):
            with place.server() as server, loaded(place, turn):
                time.sleep(chance.uniform(1.0, 3.0))
                ended = time.monotonic() - OLD
                (server.kill if turn < kills else server.stop)()
            with place.server():
                again = {"count": LEASES, "seconds": 20, "only_offers": True, "file": str(place.root / "offered")}
                place.askers.run("bind", server=SERVER, relay=RELAY, first=turn * LEASES, **again)
            had = {number: address for when, number, address in lines(place.root / "acked") if when <= ended}
            has = {number: address for _, number, address in lines(place.root / "offered")}
            acked += len(had)
            lost.append(sum(has.get(number) != address for number, address in had.items()))
    if lost.pop():
        raise SystemExit("leases were lost in a stop, not a kill: the benchmark or the server is wrong")
    bench.note(f"5: {acked} leases were acknowledged more than {OLD} s before their kill")
    bench.record(
        "5-lease-lost", f"acknowledged leases older than {OLD} s lost in {kills} kills under load", float(sum(lost)),
        unit="leases", target="<= 0",
    )  # fmt: skip


def loaded(place: Scene, turn: int) -> contextlib.AbstractContextManager[dict[str, Any]]:
    """New machines take leases while the body runs, each asking for an address of its own."""
    wanted = f"10.{212 + turn // 25}.{turn % 25 * 10}.1"
    ask = {"count": LEASES, "seconds": 60, "rate": 1000, "wanted": wanted, "file": str(place.root / "acked")}
    return place.askers.meanwhile("bind", server=SERVER, relay=RELAY, first=turn * LEASES, **ask)


def lines(file: Path) -> Iterator[tuple[float, int, str]]:
    """What `bind` wrote: when, which machine, which address."""
    for line in file.read_text().splitlines():
        when, number, address = line.split()
        yield float(when), int(number), address


def soak(bench: Bench) -> None:
    """Nodes poll while everything changes; every answer is looked at."""
    nodes, minutes = (200, 1.0) if bench.quick else (2000, bench.args.minutes)
    with tempfile.TemporaryDirectory(prefix="wwbench-") as name, Link() as link:
        site = Site(Path(name), nodes)
        site.prepare()
        with Server(site.root, link, firmware=True) as server, pinned(ASKERS):
            early, late = polling(site, server, link, 60 * minutes, nodes / 10)
    wrong = early.wrong + late.wrong
    for what in wrong[:5]:
        bench.note(f"6: {what}")
    bench.note(
        f"6: {early.asked + late.asked} questions, {len(site.changes)} changes; descriptors {early.descriptors} "
        f"after a tenth, {late.descriptors} at the end; resident {early.rss:.0f} MiB, then {late.rss:.0f}"
    )
    what = f"{nodes} nodes polling for {minutes:.0f} min while nodes.conf, overlays and images change"
    bench.record(
        "6-soak-fds", f"{what}: descriptors at the end less those after a tenth",
        float(late.descriptors - early.descriptors), unit="descriptors", target="<= 8",
    )  # fmt: skip
    bench.record("6-soak-stale", f"{what}: wrong or stale answers", float(len(wrong)), unit="answers", target="<= 0")


def netascii(bench: Bench) -> None:
    count = 1000 if bench.quick else 5000
    growths = []
    with scene(100) as place:
        for _ in range(bench.runs(3)):
            with place.server() as server:
                before = most = server.rss()
                with place.askers.meanwhile(
                    "netascii", server=SERVER, count=count, file="snponly.efi", seconds=60
                ) as said:
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
