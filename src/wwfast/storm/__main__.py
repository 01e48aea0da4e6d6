"""The player of nodes, as a process of its own: a plan as JSON on stdin, one JSON line per event on stdout."""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from dataclasses import asdict
from typing import Any

from wwfast.storm.driver import Driver
from wwfast.storm.plan import Plan
from wwfast.storm.script import follow


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
    nodes, sources = plan.nodes(follow)
    driver = Driver(
        (plan.address, plan.port), nodes, sources, plan.jitter, frozenset(plan.stalling), plan.stall_after, plan.seed
    )
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
