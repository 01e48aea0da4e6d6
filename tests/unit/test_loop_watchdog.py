"""The watchdog of the loops finds what it is there to find, in this process and in one that a test starts."""

from __future__ import annotations

import subprocess
import sys

import pytest

from support import watchdog

BUSY = """
import asyncio, time, uvloop
def keep_the_loop(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
async def work():
    await asyncio.sleep(0)
    keep_the_loop(0.15)
async def main():
    loop = asyncio.get_running_loop()
    loop.call_soon(keep_the_loop, 0.01)
    loop.call_soon(time.sleep, 0.2)
    loop.call_later(0.01, {late})
    await asyncio.sleep(0.1)
uvloop.run(main())
"""
CALLBACK = BUSY.format(late="keep_the_loop, 0.15")
TASK = BUSY.format(late="lambda: asyncio.ensure_future(work())")


@pytest.mark.parametrize("source", [CALLBACK, TASK], ids=["callback", "step of a task"])
@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "in a program"])
def test_watchdog_finds_the_callback_that_kept_a_loop_and_no_other(source: str, elsewhere: bool) -> None:
    if elsewhere:
        subprocess.run([sys.executable, "-c", source], check=True)
    else:
        exec(compile(source, "daemon.py", "exec"), {})
    (entry,) = watchdog.taken()
    assert 100 <= entry["ms"] < 1000
    assert any("keep_the_loop" in name for name in (entry["callback"], *entry["stack"])), entry
