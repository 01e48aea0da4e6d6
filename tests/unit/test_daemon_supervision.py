"""What must go on goes on: a task that fails is started again, and everybody who asks is told."""

from __future__ import annotations

import asyncio
import gc
import logging
import sqlite3
import threading
from collections.abc import Callable

import pytest
import uvloop

from wwfast.daemon.life import supervision
from wwfast.daemon.life.supervision import Supervisor, told
from wwfast.errors import WwfastError


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    "error", [sqlite3.OperationalError("disk I/O error"), OSError(28, "No space left"), RuntimeError("a bug")]
)
def test_a_task_that_fails_is_told_and_goes_on_until_it_works(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(supervision, "FIRST_PAUSE", 0.01)
    works = asyncio.Event()
    turns = 0

    async def turn() -> None:
        nonlocal turns
        turns += 1
        await asyncio.sleep(0)
        if not works.is_set():
            raise error

    async def main() -> None:
        supervisor = Supervisor()
        supervisor.keep("saving", turn)
        await until(lambda: turns > 3)
        trouble = supervisor.troubles()["saving"]
        assert trouble["error"] == told(error)
        assert int(str(trouble["count"])) >= 3
        works.set()
        await until(lambda: not supervisor.troubles())
        supervisor.stop()
        await asyncio.sleep(0)
        seen = turns
        await asyncio.sleep(0.02)
        assert turns == seen

    uvloop.run(main())


def test_a_failing_task_waits_longer_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def recorded(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    async def turn() -> None:
        raise ValueError

    async def main() -> None:
        monkeypatch.setattr(supervision.asyncio, "sleep", recorded)
        supervisor = Supervisor()
        supervisor.keep("work", turn)
        while len(pauses) < 10:
            await sleep(0)
        supervisor.stop()

    uvloop.run(main())
    assert pauses[:3] == [supervision.FIRST_PAUSE, supervision.FIRST_PAUSE * 2, supervision.FIRST_PAUSE * 4]
    assert max(pauses) == supervision.MOST_PAUSE


def test_one_trouble_is_one_line_a_minute_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    supervisor = Supervisor()
    with caplog.at_level(logging.INFO):
        for _ in range(1000):
            supervisor.failed("saving", OSError(5, "Input/output error"))
        assert len(caplog.records) == 1
        supervisor.well("saving")
        supervisor.well("saving")
        assert len(caplog.records) == 2
    assert supervisor.troubles() == {}


def test_work_stuck_in_a_thread_is_told_while_it_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "SLOW_SECONDS", 0.02)
    free = threading.Event()

    async def main() -> None:
        supervisor = Supervisor()

        task = asyncio.ensure_future(
            supervisor.attend("reading", asyncio.get_running_loop().run_in_executor(None, free.wait))
        )
        await until(lambda: "reading" in supervisor.troubles())
        free.set()
        await task

    uvloop.run(main())


def test_errors_of_nobodys_are_counted_and_told_but_not_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Callbacks of the loop, tasks nobody waits for, threads: an unexpected error may quote what it stumbled over."""
    now = [1000.0]
    supervisor = Supervisor(lambda: now[0])

    def broken() -> None:
        raise RuntimeError("password is s3cret")

    async def lost() -> None:
        broken()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(supervisor.uncaught)
        loop.call_soon(broken)
        loop.call_later(0.001, broken)
        loop.run_in_executor(None, lambda: None).add_done_callback(lambda done: broken())
        task = loop.create_task(lost(), name="lost task")
        await asyncio.wait([task])
        del task
        await until(lambda: supervisor.troubles().get("event loop", {}).get("count") == 3)
        await until(lambda: gc.collect() >= 0 and "lost task" in supervisor.troubles())

    uvloop.run(main())
    monkeypatch.setattr(threading, "excepthook", supervisor.uncaught_in_thread)
    thread = threading.Thread(target=broken, name="builder")
    thread.start()
    thread.join()
    assert set(supervisor.troubles()) == {"event loop", "lost task", "thread builder"}
    assert "s3cret" not in str(supervisor.troubles())
    now[0] += supervision.STRAY_SECONDS + 1
    assert supervisor.troubles() == {}


def test_strays_are_bounded_and_never_keep_a_tasks_trouble_out() -> None:
    supervisor = Supervisor()
    supervisor.failed("saving", OSError(5, "first"))
    for number in range(1000):
        supervisor.failed(f"thread {number}", OSError(5, "stray"), ends=10**12 + number)
    supervisor.failed("reading", OSError(5, "last"))
    assert {"saving", "reading"} <= set(supervisor.troubles())
    assert len(supervisor.troubles()) == supervision.MOST


def test_what_is_told_is_one_bounded_line() -> None:
    assert told(WwfastError("a\x1b[31m\nb")) == "a [31m b"
    assert len(told(OSError("x" * 10_000))) < 400
