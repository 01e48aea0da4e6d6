"""Waiting for what has to happen: at once on a free machine, within a minute on one that has much else to do."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 60.0  # seconds; only a test that fails waits them out


def until(true: Callable[[], object], seconds: float = PATIENCE, why: Callable[[], str] = str) -> None:
    """Look every 20 ms; fails with the words of `why` after so many seconds."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, why() or "it did not happen in time"
        time.sleep(0.02)
