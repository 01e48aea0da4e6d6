"""Run one storm: the player of nodes in a process of its own, its events handed on as they come."""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from wwfast.errors import WwfastError
from wwfast.paths import Paths
from wwfast.storm.cluster import KERNEL, PORT, Head, Heads, prepare, wwfast
from wwfast.storm.link import SERVER, Link, source, sources
from wwfast.storm.node import Step
from wwfast.storm.plan import Plan
from wwfast.storm.racks import Fabric, shares
from wwfast.storm.report import Report
from wwfast.system.run import Process, run, start

PIPE = -1  # subprocess.PIPE
NAMED_SECONDS = 60.0
OnProgress = Callable[[dict[str, Any]], None]
SCRIPT = Step("ipxe", "/ipxe/{mac}", leads=True)


def own(
    count: int,
    *,
    profile: str,
    jitter: float,
    rate: float | None,
    image_mib: int,
    clusters: int,
    firmware: bool = False,
    on_progress: OnProgress,
) -> Report:
    """A storm against a server of our own in a namespace; needs root. Raises WwfastError."""
    plan = Plan(SERVER, PORT, count, [SCRIPT], profile, jitter, firmware=firmware)
    with tempfile.TemporaryDirectory(prefix="wwfast-storm-") as name:
        root = Path(name)
        on_progress({"doing": f"making an image of {image_mib} MiB and {count} nodes"})
        prepare(root, sources(count), image_mib, clusters, firmware=firmware)
        with Link(rate) as link, Head(root, link, firmware=firmware) as head:
            before, most = head.usage()[0], 0.0
            cpu = 0.0

            def observe(event: dict[str, Any]) -> None:
                nonlocal most, cpu
                used, resident = head.usage()
                cpu, most = used - before, max(most, resident)
                on_progress(event)

            report = follow(plan, lambda argv: link.play(argv, stdin=PIPE, stdout=PIPE), observe)
            report.server_cpu, report.server_rss = cpu, most
    if twins := report.twins():
        report.notes.append(f"{twins} nodes got the system overlay of another node")
    return report


def in_racks(
    count: int,
    racks: int,
    *,
    profile: str = "bios",
    jitter: float = 0.0,
    head_rate: float | None,
    rack_rate: float | None,
    image_mib: int,
    cached: bool,
    kernel: int = KERNEL,
    heads: int = 1,
    fail: Fail | None = None,
    on_progress: OnProgress,
) -> Report:
    """A storm in racks, with nginx as the cache of each where they are `cached`, and with several `heads`, of which one
    may fall silent; needs root. Raises WwfastError."""
    with (
        tempfile.TemporaryDirectory(prefix="wwfast-storm-") as name,
        Fabric(racks, head_rate, rack_rate, heads) as fabric,
    ):
        root = Path(name) / "head"
        parts = shares(count, fabric.racks)
        addresses = [
            source(at, rack.network) for rack, part in zip(fabric.racks, parts, strict=True) for at in range(part)
        ]
        on_progress({"doing": f"making an image of {image_mib} MiB, {count} nodes and {racks} racks"})
        caches = {str(rack.network): rack.url for rack in fabric.racks} if cached else {}
        all_heads = [seat.address for seat in fabric.heads] if heads > 1 else []
        # A table of thousands of hosts would be what the links carry most of.
        rate = round((rack_rate or 0) / 1e6)
        prepare(
            root, addresses, image_mib, overlays="hostname", caches=caches, cache_rate=rate, kernel=kernel,
            heads=all_heads,
        )  # fmt: skip
        if cached:
            _cache(fabric, Path(name), root)
        with Heads(root, fabric.heads, caches, rate) as running:
            if cached:
                for head in running:
                    named(head)
            before, cpu = fabric.sent(), running[0].usage()[0]
            with failing(fabric, running, fail):
                report = _together(fabric, _plans(fabric, parts, profile, jitter), on_progress)
            used, resident = running[0].usage() if running[0].runs else (cpu, 0.0)
            report.server_cpu, report.server_rss, report.head_bytes = used - cpu, resident, fabric.sent() - before
            carried = (each for head in running if head.runs for each in head.status().get("caches", {}).values())
            report.fetched = sum(each["fetched"] for each in carried)
    return report


def _cache(fabric: Fabric, place: Path, root: Path) -> None:
    for rack in fabric.racks:
        folder = place / f"rack{rack.number}"
        made = run(wwfast(root, "cache", "nginx", rack.url, "--directory", folder / "kept")).stdout.decode()
        fabric.cache(rack, folder, made)


class Fail(NamedTuple):
    """Which head falls silent (0 is the first), or is `killed`, so many seconds after nodes began."""

    head: int
    seconds: float
    killed: bool = False


@contextmanager
def failing(fabric: Fabric, running: Sequence[Head], fail: Fail | None) -> Iterator[None]:
    if fail is None:
        yield
        return
    end = running[fail.head].kill if fail.killed else partial(fabric.silence, fail.head)
    timer = threading.Timer(fail.seconds, end)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def _together(fabric: Fabric, plans: Sequence[Plan], on_progress: OnProgress) -> Report:
    """One report of all racks."""
    racks = len(fabric.racks)
    with ThreadPoolExecutor(racks) as players:
        tell = Together(racks, on_progress)
        jobs = [
            players.submit(follow, plan, partial(rack.play, stdin=PIPE, stdout=PIPE), tell.of(rack.number))
            for rack, plan in zip(fabric.racks, plans, strict=True)
        ]
        reports = [job.result() for job in jobs]
    return Report([each for part in reports for each in part.records], sum(part.received for part in reports))


def _plans(fabric: Fabric, parts: Sequence[int], profile: str, jitter: float) -> list[Plan]:
    """All begin at the first head. A machine whose script does not come begins anew: DHCP tells it another head."""
    firsts = [0, *itertools.accumulate(parts)]
    others = [f"http://{head.address}:{PORT}{SCRIPT.target}" for head in fabric.heads] if fabric.heads[1:] else []
    script = SCRIPT._replace(others=others)
    return [
        Plan(
            SERVER, PORT, part, [script], profile, jitter, first=first, network=str(rack.network), seed=rack.number + 1
        )
        for rack, part, first in zip(fabric.racks, parts, firsts, strict=False)
    ]


def named(head: Head) -> None:
    """Wait until the server has named what nodes boot with, for as long as it is read."""
    deadline = time.monotonic() + NAMED_SECONDS
    while not Paths.at(head.root).blobs.exists():
        if time.monotonic() > deadline or head.process is None or head.process.poll() is not None:
            raise WwfastError("the server of the storm has found no names by content")
        time.sleep(0.05)


class Together:
    """One progress of many players."""

    def __init__(self, count: int, on_progress: OnProgress) -> None:
        self._last: list[dict[str, Any]] = [{} for _ in range(count)]
        self._received = 0
        self._done: Counter[str] = Counter()
        self._tell = on_progress
        self._lock = threading.Lock()

    def of(self, number: int) -> OnProgress:
        def told(event: dict[str, Any]) -> None:
            with self._lock:
                before, self._last[number] = self._last[number], event
                self._received += event.get("received", 0) - before.get("received", 0)
                self._done.update(event.get("done", {}))
                self._done.subtract(before.get("done", {}))
                self._tell({"received": self._received, "done": dict(self._done)})

        return told


def remote(address: str, port: int, count: int, *, profile: str, jitter: float, on_progress: OnProgress) -> Report:
    """A storm against a server that runs already: from this machine's own address, HTTP alone."""
    plan = Plan(address, port, count, [SCRIPT], profile, jitter, own_addresses=False)
    return follow(plan, lambda argv: start(argv, stdin=PIPE, stdout=PIPE), on_progress)


def follow(plan: Plan, begin: Callable[[Sequence[str]], Process], on_progress: OnProgress) -> Report:
    """Start the player with `begin`, hand on its events, return what it came to."""
    player = begin([sys.executable, "-m", "wwfast.storm"])
    assert player.stdin is not None
    assert player.stdout is not None
    event: dict[str, Any] = {}
    try:
        player.stdin.write(json.dumps(asdict(plan)).encode())
        player.stdin.close()
        for line in player.stdout:
            event = json.loads(line)
            if "records" not in event:
                on_progress(event)
    finally:
        player.kill()
        player.wait()
        player.stdout.close()
    if "records" not in event:
        raise WwfastError("the simulator of the nodes ended early")
    return Report(event["records"], event["received"])
