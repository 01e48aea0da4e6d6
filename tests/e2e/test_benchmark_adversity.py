"""The well-behaved node of `benchmarks adversity` sees what happens to it, and only that."""

from __future__ import annotations

import os
import signal
import time

import pytest
from benchmarks._head import PORT, SERVER
from benchmarks.adversity import scene


@pytest.mark.root
@pytest.mark.slow
def test_a_server_that_stands_still_is_seen_in_every_request_that_was_due_meanwhile() -> None:
    with scene(5, dhcp=False) as place, place.server() as server:
        ask = {"server": SERVER, "port": PORT, "nodes": 5, "rate": 20.0, "seconds": 4.0}
        boots = place.askers.start("boots", ask)
        time.sleep(2.0)
        os.kill(server.pid, signal.SIGSTOP)
        time.sleep(1.0)
        os.kill(server.pid, signal.SIGCONT)
        met = place.askers.answer(boots, 30.0)
    assert met["count"] == 80
    assert met["failed"] == 0
    assert 700 < met["p99"] < 5000
    # 20 of 80 were due while it stood still: one client that waits for each answer would have asked once.
    assert 10 <= sum(wait > 50 for wait in met["waits"]) <= 60
