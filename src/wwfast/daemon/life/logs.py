"""The log is written by a thread: a terminal or journal that does not take what is written keeps nobody else.

What does not fit meanwhile is dropped, and how much that was is in the log as soon as it is taken again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import QueueHandler
from queue import SimpleQueue

MOST = 4096  # records that wait to be written
FLUSH_SECONDS = 2.0  # at the end

Record = logging.LogRecord


class Aside(QueueHandler):
    """Hands records over to `writers`, in a thread of its own until close()."""

    def __init__(self, writers: list[logging.Handler], most: int = MOST) -> None:
        self._records: SimpleQueue[Record | None] = SimpleQueue()
        super().__init__(self._records)
        self._writers = writers
        self._most = most
        self.dropped = 0
        self._told = 0
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def enqueue(self, record: Record) -> None:
        if self._records.qsize() >= self._most:
            self.dropped += 1
        else:
            self._records.put(record)

    def _write(self) -> None:
        while (record := self._records.get()) is not None:
            self._handle(record)
            if self.dropped != self._told:
                count, self._told = self.dropped - self._told, self.dropped
                said = "%d lines of the log were dropped: they came faster than they could be written"
                self._handle(Record("wwfast.log", logging.WARNING, "", 0, said, (count,), None))

    def _handle(self, record: Record) -> None:
        for writer in self._writers:
            if record.levelno >= writer.level:
                writer.handle(record)  # its own errors it tells on stderr, as ever

    def close(self) -> None:
        """Write what waits, for at most FLUSH_SECONDS."""
        self._records.put(None)
        self._thread.join(FLUSH_SECONDS)
        super().close()


@contextmanager
def aside() -> Iterator[None]:
    """What is logged within goes through a thread."""
    root = logging.getLogger()
    writers = root.handlers[:]
    handler = Aside(writers)
    root.handlers[:] = [handler]
    try:
        yield
    finally:
        root.handlers[:] = writers
        handler.close()
