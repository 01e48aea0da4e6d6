"""Run one storm: the player of nodes in a process of its own, its events handed on as they come."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from wwfast.errors import WwfastError
from wwfast.storm.cluster import PORT, Head, prepare
from wwfast.storm.link import SERVER, Link
from wwfast.storm.node import Step
from wwfast.storm.plan import Plan
from wwfast.storm.report import Report
from wwfast.system.run import Process, start

PIPE = -1  # subprocess.PIPE
OnProgress = Callable[[dict[str, Any]], None]
SCRIPT = Step("ipxe", "/ipxe/{mac}")


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
    plan = Plan(SERVER, PORT, count, [SCRIPT], profile, jitter, script=True, firmware=firmware)
    with tempfile.TemporaryDirectory(prefix="wwfast-storm-") as name:
        root = Path(name)
        on_progress({"doing": f"making an image of {image_mib} MiB and {count} nodes"})
        prepare(root, count, image_mib, clusters, firmware=firmware)
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


def remote(address: str, port: int, count: int, *, profile: str, jitter: float, on_progress: OnProgress) -> Report:
    """A storm against a server that runs already: from this machine's own address, HTTP alone."""
    plan = Plan(address, port, count, [SCRIPT], profile, jitter, own_addresses=False, script=True)
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
