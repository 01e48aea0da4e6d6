"""Floods of strangers, and a node beside them: it has its answers, and what they take is bounded and comes back."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from benchmarks._head import PORT, RELAY, SERVER, Askers, Link, Server, site

from wwfast.storm.link import source
from wwfast.system.locks import waited
from wwfast.system.run import run

pytestmark = [pytest.mark.root, pytest.mark.slow]

FLOODS: dict[str, dict[str, Any]] = {
    "discover": {"server": SERVER, "relay": RELAY, "rate": 2000.0, "seconds": 60, "first": 0},
    "pipeline": {"server": SERVER, "port": PORT, "connections": 30, "depth": 1000, "seconds": 60},
    "netascii": {"server": SERVER, "count": 1000, "file": "snponly.efi", "seconds": 60},
}
LOCK = Path("/run/wwfast-tests/floods")
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
WAIT = 2000.0  # ms for 99 of 100 boot scripts; the benchmark has the figures
FLOODED = 120.0  # MiB that strangers may take
DESCRIPTORS = 8  # more than before that may still be open half a minute later


def memory(server: Server) -> float:
    """MiB of the server and its helpers: what they share counts once."""
    mine = [server.pid]
    for pid in mine:
        for task in Path(f"/proc/{pid}/task").iterdir():
            mine += map(int, (task / "children").read_text().split())
    sizes = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in mine]
    return sum(int(line.split()[1]) for text in sizes for line in text.splitlines() if line.startswith("Pss:")) / 1024


def descriptors(server: Server) -> int:
    return len(list(Path(f"/proc/{server.pid}/fd").iterdir()))


@pytest.fixture(scope="module")
def flooded() -> Iterator[tuple[Server, Askers]]:
    """A server with a range of addresses, and who asks it."""
    # One flood at a time on a machine: that of another run would be part of what is measured.
    # In memory: a disk that other tests keep busy has a script that is the first of its node wait for 3 s.
    with waited(LOCK), tempfile.TemporaryDirectory(prefix="wwfast-floods-", dir=MEMORY) as root, Link() as link:
        # Who binds no address of its own asks from node 0's.
        run(["ip", "-netns", link.nodes, "route", "replace", f"{SERVER}/32", "dev", "n0", "src", source(0)])
        site(Path(root), 100)
        with Server(Path(root), link, firmware=True) as server:
            yield server, Askers(link)


@pytest.mark.timeout(120, func_only=True)  # the floods of another run are waited for before
@pytest.mark.parametrize("flood", FLOODS)
def test_flood_of_strangers_leaves_a_node_its_answers(flooded: tuple[Server, Askers], flood: str) -> None:
    server, askers = flooded
    before = descriptors(server), memory(server)
    with askers.meanwhile(flood, **FLOODS[flood]) as said:
        time.sleep(1)
        node = askers.run("boots", server=SERVER, port=PORT, nodes=100, rate=20.0, seconds=6.0)
        most = memory(server)
    print(f"{flood}: {said}; a node: {node}; MiB {before[1]:.0f}, then {most:.0f}")
    assert node["failed"] == 0
    assert node["p99"] <= WAIT
    assert most - before[1] <= FLOODED
    deadline = time.monotonic() + 30
    while descriptors(server) > before[0] + DESCRIPTORS:
        assert time.monotonic() < deadline, "what strangers opened stays open"
