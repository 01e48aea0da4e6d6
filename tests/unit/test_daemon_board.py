"""GET /status for many who ask at once, at ten thousand nodes."""

from __future__ import annotations

import asyncio
import json
import threading
import time

from wwfast.daemon.state.board import Board
from wwfast.daemon.state.timeline import Timeline
from wwfast.net.transfer import Outcome, Transfer


def event(node: str, stage: str, **more: str) -> Transfer:
    return Transfer(stage, Outcome.DONE, time.time(), "10.0.0.1", node=node, sent=f"{stage}.x", **more)


def cluster(count: int) -> Timeline:
    timeline = Timeline()
    timeline.seed([f"n{number}" for number in range(count)])
    return timeline


def test_status_is_made_once_for_all_who_ask_together() -> None:
    made = []
    board = Board(cluster(10), figures=lambda: {"made": made.append(1) or len(made)})  # type: ignore[func-returns-value]

    async def crowd() -> list[bytes]:
        return await asyncio.gather(*[board.ask() for _ in range(16)])

    assert len(set(asyncio.run(crowd()))) == len(made) == 1


def test_status_tells_what_happened_before_it_was_asked_for() -> None:
    begun, go = threading.Event(), threading.Event()
    timeline = cluster(3)

    def problems() -> dict[str, str]:  # called in the thread that makes an answer
        begun.set()
        go.wait(10)
        return {"n2": "no such image"}

    async def ask() -> tuple[bytes, bytes]:
        board = Board(timeline, problems=problems)
        first = asyncio.ensure_future(board.ask())
        while not begun.is_set():
            await asyncio.sleep(0.001)
        timeline.record(event("n1", "kernel"))
        second = asyncio.ensure_future(board.ask())
        await asyncio.sleep(0)
        go.set()
        return await first, await second

    first, second = asyncio.run(ask())
    assert json.loads(second)["nodes"]["n1"]["stage"] == "kernel"
    assert json.loads(first)["nodes"]["n2"]["error"] == "no such image"


def test_status_of_ten_thousand_nodes_takes_no_time_of_the_loop() -> None:
    timeline = cluster(10_000)
    for number in range(5000):
        timeline.record(event(f"n{number}", "runtime" if number % 2 else "image", wwid=f"52:54:00:00:{number:04x}"))
    board = Board(timeline)

    async def ask() -> tuple[bytes, float]:
        begin = time.thread_time()
        return await board.ask(), time.thread_time() - begin

    body, used = asyncio.run(ask())
    assert len(json.loads(body)["nodes"]) == 10_000
    assert used < 0.05


def test_status_keeps_what_stands_still_and_tells_what_moves() -> None:
    now = [1000.0]
    timeline = Timeline(lambda: now[0])
    timeline.seed(["up", "boots", "new"])
    board = Board(timeline)
    timeline.record(event("up", "runtime"))
    timeline.record(Transfer("image", Outcome.STARTED, 1000.0, "10.0.0.2", node="boots"))
    first = json.loads(board.whole({}))["nodes"]
    now[0] += 60
    second = json.loads(board.whole({}))["nodes"]
    assert (first["boots"]["stuck"], second["boots"]["stuck"]) == (0.0, 60.0)
    assert second["up"] == first["up"]
    timeline.record(event("up", "dhcp"))
    assert json.loads(board.whole({}))["nodes"]["up"]["stage"] == "dhcp"


def test_status_of_one_node_has_its_stages_however_often_it_asked_for_them() -> None:
    timeline = cluster(1)
    for _ in range(500):
        timeline.record(event("n0", "kernel"))
        timeline.record(event("n0", "image"))
    entry = json.loads(Board(timeline).one("n0"))["nodes"]["n0"]
    assert 10 < len(entry["boot"]) <= 32
    assert json.loads(Board(timeline).one("n1"))["nodes"] == {}
