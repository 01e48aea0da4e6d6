"""DHCP against Kea, driven by Kea's own perfdhcp; and ten thousand nodes that ask at once.

perfdhcp plays a relay (as it always does) whose clients are unknown, so both servers give addresses from a range.
Kea: memfile with persistence, multi-threaded, no lease file clean-up during the run. Ours: leases in SQLite.
perfdhcp shares the cores with the server; `6-ceiling` is what it reaches with a server that does nothing but answer.
"""

from __future__ import annotations

import contextlib
import json
import re
import statistics
from functools import partial
from typing import Any

from benchmarks._harness import ROOT, Bench, alternate
from benchmarks._udp import PYTHON, Namespace, network, ours, program, ready

ADDRESS, NETMASK = "10.96.0.1", "255.240.0.0"
FIRST, LAST = "10.97.0.1", "10.99.255.254"
KEA: dict[str, Any] = {
    "interfaces-config": {"interfaces": ["eth0"], "dhcp-socket-type": "udp"},
    "multi-threading": {"enable-multi-threading": True, "thread-pool-size": 2, "packet-queue-size": 64},
    "valid-lifetime": 3600,
    "subnet4": [{"subnet": "10.96.0.0/12", "pools": [{"pool": f"{FIRST} - {LAST}"}]}],
    "loggers": [{"name": "kea-dhcp4", "severity": "FATAL"}],
}
#: Exchanges offered per second: the rate is the most answered at any of them.
OFFERED = (3000, 6000, 9000, 12000, 15000)
REFLECTOR = ROOT / "benchmarks/_reflector.py"
NODES = """
import json, sys
from wwfast.storm.dhcp import flood
ask = json.loads(sys.argv[1])
print(json.dumps(flood(**ask)))
"""


def answered(space: Namespace, offered: int, seconds: int) -> float:
    """Exchanges of four packets a second that perfdhcp completed within its drop time of one second."""
    text = space.run(
        "perfdhcp", "-4", "-l", "eth0", "-r", str(offered), "-R", "150000", "-p", str(seconds), ADDRESS,
        check=False, timeout=seconds + 60,
    )  # fmt: skip
    rate = re.search(r"Rate: ([\d.]+) 4-way", text)
    assert rate is not None, text
    assert "non unique addresses: 0" in text, text
    return float(rate[1])


def run(bench: Bench) -> None:
    program("perfdhcp", "kea-admin")
    kea = program("kea-dhcp4", "kea-dhcp4-server")
    bench.peer("kea-dhcp4", kea, "-V")
    with network() as net:
        space, clients = net.join("server", f"{ADDRESS}/12"), net.join("clients", "10.96.0.2/12")
        space.run("mkdir", "-p", "/run/kea", "/run/lock/kea")
        config = net.folder / "kea.json"
        started = 0

        @contextlib.contextmanager
        def running(name: str):
            """A fresh server with an empty lease store."""
            nonlocal started
            started += 1
            store = net.folder / f"leases-{started}"
            if name == "kea":
                leases = {"type": "memfile", "persist": True, "name": f"{store}.csv", "lfc-interval": 0}
                config.write_text(json.dumps({"Dhcp4": {**KEA, "lease-database": leases}}))
                server = ready(space, kea, "-c", config, port=67)
            elif name == "reflector":
                server = ready(space, PYTHON, REFLECTOR, ADDRESS, FIRST, port=67)
            else:
                server = ours(
                    space, address=ADDRESS, netmask=NETMASK, first=FIRST, last=LAST, tftp=False, database=f"{store}.db"
                )
            with server:
                yield

        def rate(name: str) -> float:
            best = 0.0
            for offered in OFFERED:
                with running(name):
                    best = max(best, answered(clients, offered, 2 if bench.quick else 4))
            return best

        works = [partial(rate, name) for name in ("ours", "kea", "reflector")]
        mine, theirs, ceiling = alternate(works, 1 if bench.quick else 3)
        bench.record(
            "6-rate", "exchanges of unknown clients, most of all offered rates", mine, theirs=theirs,
            peer="kea memfile", unit="exchanges/s", better="higher", target=">= Kea and >= 10,000",
        )  # fmt: skip
        bench.record(
            "6-ceiling", "the same; theirs: a server that keeps nothing, perfdhcp's own limit", mine, theirs=ceiling,
            peer="reflector", unit="exchanges/s", better="higher", target="none: it bounds 6-rate here",
        )  # fmt: skip

        count = 1000 if bench.quick else 10000
        seconds, duplicates, missing = [], [], []
        for _ in range(bench.runs(3)):
            with running("ours"):
                ask = {"server": ADDRESS, "relay": "10.96.0.2", "count": count}
                got = json.loads(clients.run(PYTHON, "-c", NODES, json.dumps(ask), timeout=120).splitlines()[-1])
            seconds.append(got["seconds"])
            duplicates.append(float(got["duplicates"]))
            missing.append(float(got["missing"]))
        assert statistics.median(missing) == 0, f"{missing} nodes without an address"
        bench.record("6-all", f"{count} nodes ask at once: the last has its address", seconds, target="<= 5 s")
        bench.record(
            "6-duplicates", f"addresses given to two of {count} nodes", duplicates, unit="addresses", target="0"
        )
        # Prove that a duplicate would be seen: one node is given the address of another.
        with running("ours"):
            ask = {"server": ADDRESS, "relay": "10.96.0.2", "count": 100, "inject": True}
            got = json.loads(clients.run(PYTHON, "-c", NODES, json.dumps(ask), timeout=60).splitlines()[-1])
        assert got["duplicates"] == 1, "an injected duplicate went unseen"
        bench.note("an injected duplicate was reported")
