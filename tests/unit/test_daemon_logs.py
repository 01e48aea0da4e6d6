"""The log of a server: whoever logs never waits for who writes it down."""

from __future__ import annotations

import logging
import os
import threading
from typing import ClassVar

from wwfast.daemon.life import logs


def test_log_that_nobody_takes_keeps_nobody_and_what_is_dropped_is_counted() -> None:
    """A pipe that is full and not read: a terminal that stands still, a journal that hangs."""
    read, write = os.pipe()
    stream = os.fdopen(write, "w")
    handler = logs.Aside([logging.StreamHandler(stream)], most=100)
    logger = logging.Logger("test")
    logger.addHandler(handler)
    done = threading.Event()

    def log() -> None:
        for number in range(2000):
            logger.error("%d %s", number, "x" * 1000)
        done.set()

    threading.Thread(target=log, daemon=True).start()
    assert done.wait(30), "it waits for the reader"
    assert handler.dropped
    found: list[str] = []
    with os.fdopen(read) as reader:
        taking = threading.Thread(target=lambda: found.extend(reader))
        taking.start()
        handler.close()
        stream.close()
        taking.join(30)
    lines = [line for line in found if not line[0].isdigit() or "dropped" in line]
    numbers = [int(line.split()[0]) for line in found if "dropped" not in line]
    assert numbers == sorted(numbers)
    assert numbers[0] == 0
    counted = sum(int(line.split()[0]) for line in lines)
    assert counted == handler.dropped == 2000 - len(numbers)


def test_log_is_whole_and_in_order_when_the_server_ends() -> None:
    class Kept(logging.Handler):
        said: ClassVar[list[str]] = []

        def emit(self, record: logging.LogRecord) -> None:
            self.said.append(record.getMessage())

    root = logging.getLogger()
    former, root.handlers[:] = root.handlers[:], [Kept()]
    try:
        with logs.aside():
            for number in range(500):
                root.error("line %d", number)
        assert Kept.said == [f"line {number}" for number in range(500)]
        assert isinstance(root.handlers[0], Kept)
    finally:
        root.handlers[:] = former
