"""The player of nodes, as a process of its own: a plan as JSON on stdin, one JSON line per event on stdout."""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from dataclasses import asdict
from typing import Any

from wwfast.storm import dhcp
from wwfast.storm.driver import Driver
from wwfast.storm.link import RELAY
from wwfast.storm.plan import Plan, hwaddr
from wwfast.storm.script import Script


def say(event: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def progress(driver: Driver) -> None:
    done: dict[str, int] = {}
    for client in driver.clients:
        for stage in client.node.record.done:
            done[stage] = done.get(stage, 0) + 1
    say({"received": driver.received, "done": done})


def main() -> None:
    plan = Plan(**json.load(sys.stdin))
    nodes, sources = plan.nodes(lambda mac: Script(mac).follow)
    driver = Driver(nodes, sources, plan.jitter, frozenset(plan.stalling), plan.stall_after, plan.seed)
    if plan.firmware:
        driver.began = time.monotonic()
        macs = [bytes.fromhex(hwaddr(index).replace(":", "")) for index in range(plan.count)]
        through: dict[str, int] = {}

        def tell(stage: str, count: int) -> None:
            through[stage] = count
            say({"received": 0, "done": through})

        came = dhcp.boot(plan.address, RELAY, macs, sources, plan.profile, tell)
        driver.received = came.received
        for index, node in enumerate(nodes):
            node.record.done.update(came.times[index])
            node.record.failure = came.failures.get(index, "")
    records = asyncio.run(driver.run(progress))  # not uvloop: it does not tell of a connection that was reset
    usage = resource.getrusage(resource.RUSAGE_SELF)
    say(
        {
            "records": [asdict(record) for record in records],
            "received": driver.received,
            "cpu": usage.ru_utime + usage.ru_stime,
        }
    )


if __name__ == "__main__":
    main()
