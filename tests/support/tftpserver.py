"""A real TFTP server on a loopback port, in a thread of the test with a loop of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvloop

from wwfast.net.tftp.server import TftpServer, open_socket
from wwfast.net.transfer import Transfer


class RunningTftp:
    """`port` to ask, `events` as they came, `server` for its counters."""

    def __init__(self, files: dict[str, bytes], **options: int) -> None:
        self.events: list[Transfer] = []
        self._loop = uvloop.new_event_loop()
        sock = open_socket("127.0.0.1", 0)
        self.port: int = sock.getsockname()[1]
        self.server = TftpServer([sock], lambda name, peer: files.get(name), on_transfer=self.events.append, **options)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.call_soon(self.server.start)
        self._loop.run_forever()

    def on_loop(self, work: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(work)

    def close(self) -> None:
        done = threading.Event()

        def stop() -> None:
            self.server.stop()
            self._loop.stop()
            done.set()

        self._loop.call_soon_threadsafe(stop)
        done.wait(5)
        self._thread.join(5)
        self._loop.close()


@contextmanager
def running_tftp(files: dict[str, bytes], **options: int) -> Iterator[RunningTftp]:
    made = RunningTftp(files, **options)
    try:
        yield made
    finally:
        made.close()
