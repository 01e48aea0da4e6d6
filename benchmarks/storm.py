"""Boot storms over a shaped link: wwfast's waves against the floor of the link and against nginx.

Server and nodes are in two namespaces joined by a veth pair with a tbf of 2.5 Gbit/s. Every node fetches script,
kernel, image, system and runtime overlay from its own address as iPXE does; 5 % of them check every digest.
The floor counts what the link counts: Ethernet, IP and TCP headers of full segments.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks._harness import ROOT, Bench
from benchmarks._http_peers import Server, conditions, fill, versions
from wwfast.storm.link import SENDING, SERVER, Link
from wwfast.storm.node import CLIENT, IPXE, Step
from wwfast.storm.plan import Plan, hwaddr

RATE = 2.5e9  # bit/s
WIRE = 1514 / 1448  # bytes on the link per byte of body, in full segments with timestamps
PORT = 9873
KERNEL = 2 << 20
STALLING = 0.05
DRAW = ("ours", "nginx")


@dataclass
class Outcome:
    """One storm: seconds, over the nodes that were not made to stall."""

    mean: float
    last: float
    lost: int
    floor_mean: float
    floor_last: float
    restarts: int
    told_to_wait: int
    finished: list[float]
    failures: list[str]
    cpu_per_gb: float
    rss: float


def run(bench: Bench) -> None:
    versions()
    bench.peer("nginx", "nginx", "-v")
    bench.peers |= {**conditions(), "link": f"tbf {RATE / 1e9} Gbit/s, burst 256 KB, 20 ms; {' '.join(SENDING)}"}
    big, many = (40, 80) if bench.quick else (500, 2000)
    curves: dict[str, list[float]] = {}
    lost = 0
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="wwbench-") as name:
        tree = Path(name)
        fill(tree / "kernel", KERNEL, 1)
        overlays(tree, many)
        for count, size, label in ((big, 32 << 20, "500"), (many, 8 << 20, "2000")):
            fill(tree / "image", size, 2)
            ours, nginx = (storm(tree, kind, count) for kind in ("ours", "nginx"))
            lost += ours.lost
            report(bench, label, count, size, ours, nginx)
            curves |= {f"wwfast {count}": ours.finished, f"nginx {count}": nginx.finished}
            if label == "500":
                lost += variants(bench, tree, count, nginx)
    bench.record("4-lost", "nodes lost, over all variants", float(lost), unit="nodes", target="0")
    faults(bench)
    if bench.args.curves:
        from wwfast.storm.chart import curves as draw

        draw(curves, bench.args.curves, f"{RATE / 1e9} Gbit/s: nodes with their full set over time")


def arguments(parser: Any) -> None:
    parser.add_argument("--curves", type=Path, metavar="FILE.png", help="draw the completion curves")


def overlays(tree: Path, count: int) -> None:
    """Scripts and overlays, no two alike."""
    for index in range(count):
        mac = hwaddr(index)
        (tree / f"{mac}.ipxe").write_text(f"#!ipxe\necho {mac}\n" * 8)
        (tree / f"{mac}.system").write_text(f"system overlay of {mac}\n" * 800)
        (tree / f"{mac}.runtime").write_text(f"runtime overlay of {mac}\n" * 100)


STAGES = ("ipxe", "kernel", "image", "system", "runtime")
SET = [Step(stage, f"/{stage}/{{mac}}", CLIENT if stage == "runtime" else IPXE) for stage in STAGES]


def plan(tree: Path, count: int, steps: Sequence[Step], **more: Any) -> Plan:
    expect: dict[str, str] = {}
    for step in steps:
        if (file := tree / step.target.split("/")[1]).exists():
            start, _, last = step.span.partition("-")
            data = file.read_bytes()[int(start or 0) : int(last) + 1 if last else None]
            expect[step.stage] = hashlib.sha256(data).hexdigest()
    return Plan(SERVER, PORT, count, steps, expect=expect, **more)


def storm(
    tree: Path,
    kind: str,
    count: int,
    steps: Sequence[Step] = SET,
    *,
    stalling: bool = False,
    restart: bool = False,
    rate: float | None = RATE,
) -> Outcome:
    """Play one storm; with `restart` the server is replaced when a third of the bytes are through."""
    every = round(1 / STALLING)
    victims = [index for index in range(count) if index % every == 7] if stalling else []
    played = plan(tree, count, steps, stalling=victims, stall_after=KERNEL + (4 << 20))
    second: Server | None = None
    peak = 0.0
    with Link(rate) as link, Server(kind, tree, PORT, within=link.server) as server:
        before = server.cpu()
        player = link.play(
            [sys.executable, "-m", "wwfast.storm"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
        )
        assert player.stdin is not None
        assert player.stdout is not None
        player.stdin.write(json.dumps(asdict(played)).encode())
        player.stdin.close()
        total = count * sum((tree / name).stat().st_size for name in ("kernel", "image"))
        result: dict[str, Any] = {}
        cpu = 0.0
        try:
            for line in player.stdout:
                result = json.loads(line)
                if server.process.poll() is None:
                    peak = max(peak, server.rss())
                    cpu = server.cpu() - before
                if restart and second is None and result["received"] > total / 3:
                    second = replace(server)
        finally:
            if second is not None:
                second.stop()
            player.wait(30)
    if "records" not in result:
        raise SystemExit("the simulator ended early")
    records = [record for index, record in enumerate(result["records"]) if index not in set(victims)]
    finished = sorted(record["finished"] for record in records)
    wire = sum(sum(record["size"].values()) for record in records) * WIRE * 8
    floor = wire / (rate or RATE)
    failures = [record["failure"] for record in records if record["failure"]]
    etags = [record["etag"].get("system") for record in records]
    if kind == "ours" and not failures and len(set(etags)) != len(etags):  # nginx's are of time and size alone
        raise SystemExit("two nodes got the same system overlay")
    return Outcome(
        sum(finished) / len(finished),
        finished[-1],
        len(failures),
        floor * (len(records) + 1) / (2 * len(records)),
        floor,
        sum(record["restarts"] for record in records),
        sum(record["told_to_wait"] for record in records),
        finished,
        failures,
        cpu / (result["received"] / 1e9),
        peak,
    )


def replace(server: Server) -> Server:
    """Restart: ours hands its sockets to a new process and drains; nginx is told to reload, its own way to do it."""
    if server.kind == "nginx":
        subprocess.run(["nginx", "-p", server.work, "-c", server.work / "nginx.conf", "-s", "reload"], check=True)
        return server
    successor = Server(server.kind, server.tree, server.port, within=server.within, policy=server.policy)
    successor.work = server.work
    successor.start()
    return successor


def report(bench: Bench, label: str, count: int, size: int, ours: Outcome, nginx: Outcome) -> None:
    what = f"{count} nodes x {size >> 20} MiB"
    bench.record(
        f"4-floor-mean-{label}", f"{what}: mean to full set", ours.mean, theirs=ours.floor_mean,
        peer="floor (N+1)/2N", target="<= 1.10 x",
    )  # fmt: skip
    bench.record(
        f"4-floor-last-{label}", f"{what}: last node", ours.last, theirs=ours.floor_last, peer="floor bytes/link",
        target="<= 1.03 x",
    )  # fmt: skip
    bench.record(
        f"4-nginx-mean-{label}", f"{what}: mean to full set", ours.mean, theirs=nginx.mean, peer="nginx",
        target="<= 0.65 x",
    )  # fmt: skip
    bench.note(
        f"{what}: nginx mean/last {nginx.mean / nginx.last:.2f}, last {nginx.last:.1f} s; 503 sent by wwfast "
        f"{ours.told_to_wait}; server CPU s/GB {ours.cpu_per_gb:.2f} (nginx {nginx.cpu_per_gb:.2f}), "
        f"RSS MiB {ours.rss:.0f} (nginx {nginx.rss:.0f})"
    )


def variants(bench: Bench, tree: Path, count: int, nginx: Outcome) -> int:
    """5 % of the clients stall for ever; the server is restarted in the middle."""
    stalled = storm(tree, "ours", count, stalling=True)
    bench.record(
        "4-stalled-last", f"{count} nodes, 5 % stall for ever: last of the others", stalled.last,
        theirs=stalled.floor_last, peer="floor of the others",
    )  # fmt: skip
    restarted = storm(tree, "ours", count, restart=True)
    bench.record(
        "4-restart-last", f"{count} nodes, daemon restarted in the middle: last", restarted.last, theirs=nginx.last,
        peer="nginx, not restarted", target="<= nginx + 10 s",
    )  # fmt: skip
    bench.note(f"restart: {restarted.restarts} connections were made anew, {restarted.lost} nodes lost")
    return stalled.lost + restarted.lost


def faults(bench: Bench) -> None:
    """What must be noticed: a transfer that is cut short, and a body that is not what was published."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="wwbench-") as name:
        tree = Path(name)
        fill(tree / "kernel", KERNEL, 1)
        fill(tree / "image", 4 << 20, 2)
        overlays(tree, 20)
        cut, wrong = hwaddr(3), hwaddr(0)  # node 0 checks digests
        fill(tree / f"{wrong}.image", 4 << 20, 3)
        (tree / f"{cut}.image.cut").touch()
        fill(tree / f"{cut}.image", 4 << 20, 2)
        outcome = storm(tree, "ours", 20)
        bench.note(
            f"faults put in: 1 wrong body, 1 cut transfer; reported: {outcome.failures}, {outcome.restarts} restarts"
        )
        if outcome.failures != ["image: wrong digest"] or outcome.restarts < 1:
            raise SystemExit("the benchmark does not see the faults that were put in")
