"""The HTTP transport against nginx and a bare sendfile loop: bulk, small objects, ten thousand open downloads.

Every server runs with two senders on the loopback; the client is benchmarks/native/load.c for all, one thread.
"""

from __future__ import annotations

import http.client
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks._harness import Bench
from benchmarks._http_peers import Server, build, conditions, fill, free_port, load, versions

BULK = 64 << 20
SMALL = 16 << 10
OPEN = 10_000
OPEN_SIZE = 1536 << 10


def run(bench: Bench) -> None:
    versions()
    bench.peer("nginx", "nginx", "-v")
    bench.peers |= conditions()
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="wwbench-") as name:
        tree = Path(name)
        fill(tree / "image", BULK)
        fill(tree / "small", SMALL)
        fill(tree / "open", OPEN_SIZE)
        (tree / "script").write_bytes(b"#!ipxe\n" + b"echo boot\n" * 100)
        bulk(bench, tree)
        small(bench, tree)
        many(bench, tree)


def bulk(bench: Bench, tree: Path) -> None:
    seconds = 2.0 if bench.quick else 5.0
    rates: dict[str, list[float]] = {"ours": [], "nginx": [], "bare": []}
    costs: dict[str, list[float]] = {"ours": [], "nginx": [], "bare": []}
    with (
        Server("ours", tree, free_port(), policy="fair") as ours,
        Server("nginx", tree, free_port()) as nginx,
        Server("bare", tree, free_port()) as bare,
    ):
        for _ in range(bench.runs(5)):
            for kind, server in (("ours", ours), ("nginx", nginx), ("bare", bare)):
                before = server.cpu()
                done = load(server.port, "/image", 16, seconds)
                if done["failed"]:
                    raise SystemExit(f"{kind}: {done['failed']} downloads failed")
                rates[kind].append(done["bytes"] / done["seconds"] / 1e9)
                costs[kind].append((server.cpu() - before) / (done["bytes"] / 1e9))
    speed = {"unit": "GB/s", "better": "higher"}
    bench.record(
        "1-bulk-nginx", "64 MiB downloads, 16 at a time", rates["ours"], theirs=rates["nginx"], peer="nginx",
        target=">= 1.0 x", **speed,
    )  # fmt: skip
    bench.record(
        "1-bulk-bare", "the same", rates["ours"], theirs=rates["bare"], peer="bare sendfile loop in C",
        target=">= 0.9 x", **speed,
    )  # fmt: skip
    bench.record(
        "1-cpu-nginx", "server CPU of the same", costs["ours"], theirs=costs["nginx"], peer="nginx", unit="CPU s/GB",
        target="<= 1.0 x",
    )  # fmt: skip


def small(bench: Bench, tree: Path) -> None:
    seconds = 2.0 if bench.quick else 5.0
    with Server("ours", tree, free_port(), policy="fair") as ours, Server("nginx", tree, free_port()) as nginx:

        def rate(server: Server) -> float:
            done = load(server.port, "/small", 256, seconds)
            if done["failed"]:
                raise SystemExit(f"{server.kind}: {done['failed']} requests failed")
            return float(done["requests"] / done["seconds"])

        bench.compare(
            "2-small", "16 KiB objects, keep-alive, 256 connections", ours=lambda: rate(ours),
            theirs=lambda: rate(nginx), peer="nginx", unit="requests/s", better="higher", target=">= 0.8 x",
        )  # fmt: skip


def many(bench: Bench, tree: Path) -> None:
    """Ten thousand downloads are kept open at a trickle while new nodes ask for their script, then all are finished."""
    count = 1000 if bench.quick else OPEN
    seconds = 4.0 if bench.quick else 12.0
    waits: list[float] = []
    most = 0.0
    with Server("ours", tree, free_port(), policy="fair") as ours:
        argv = [build("load"), "127.0.0.1", str(ours.port), "/open", str(count), str(seconds), "hold"]
        client = subprocess.Popen(argv, stdout=subprocess.PIPE)
        time.sleep(2.0)
        while client.poll() is None:
            begin = time.perf_counter()
            connection = http.client.HTTPConnection("127.0.0.1", ours.port, timeout=30)
            connection.request("GET", "/script", headers={"User-Agent": "iPXE/1.21.1"})
            if connection.getresponse().read(7) != b"#!ipxe\n":
                raise SystemExit("the script is not what was asked for")
            connection.close()
            waits.append((time.perf_counter() - begin) * 1000)
            most = max(most, ours.rss())
            time.sleep(0.01)
        assert client.stdout is not None
        import json

        done = json.loads(client.stdout.read())
    waits.sort()
    if done["held"] < count:
        bench.note(f"3: only {done['held']} of {count} downloads were open at the end of the trickle")
    bench.record("3-failed", f"{count} open downloads that fail", float(done["failed"]), unit="downloads", target="0")
    bench.record("3-rss", "resident memory of the server meanwhile, at most", most, unit="MiB", target="<= 150")
    bench.record(
        "3-script-p99", f"a new node's script meanwhile, p99 of {len(waits)}", waits[int(len(waits) * 0.99)], unit="ms",
        target="<= 50",
    )  # fmt: skip
