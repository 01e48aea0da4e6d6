"""What the bytes of a connection travel by. TLS is to be another Wire, in place before a connection knows of anything.

The state machine (`connection`) reads and writes by these few methods and knows no socket; the tests give it one of
their own.
"""

from __future__ import annotations

import select
import socket
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from wwfast._ext.pump import Pump

Spans = list[tuple[int, int, int]]  # descriptor, offset, length


class Sending(Protocol):
    """A body that others are sending: bytes so far, of head and body; `error` is a number of errno, in the end."""

    @property
    def sent(self) -> int: ...
    @property
    def error(self) -> int: ...


class Wire(Protocol):
    """One peer. Nothing here waits."""

    def receive(self, limit: int) -> bytes | None:
        """What has come; nothing (b"") when the peer sends no more or has gone, None when there is nothing yet."""

    def send(self, data: bytes) -> int:
        """How much of it was taken, 0 when there is no room. Raises OSError when the peer has gone."""

    def pump(self, memory: bytes, part: bytes, spans: Spans, context: object) -> Sending:
        """Have it sent, in this order; when it is over, `context.reported(sending)` is called."""

    def watch(self, wanted: bool) -> None:
        """Whether to tell of bytes that come."""

    def finish(self) -> None:
        """Nothing more will be sent. Raises OSError."""

    def cut(self) -> None:
        """Neither way; what the pump is sending ends soon, and is reported."""

    def close(self) -> None: ...


class SocketWire:
    """An accepted, non-blocking socket. `poller` tells what has come, `pump` sends what is large."""

    __slots__ = ("_poller", "_pump", "_watched", "fd", "sock")

    def __init__(self, sock: socket.socket, poller: select.epoll, pump: Pump) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self._poller = poller
        self._pump = pump
        self._watched = False

    def receive(self, limit: int) -> bytes | None:
        try:
            return self.sock.recv(limit)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            return b""

    def send(self, data: bytes) -> int:
        try:
            return self.sock.send(data)
        except (BlockingIOError, InterruptedError):
            return 0

    def pump(self, memory: bytes, part: bytes, spans: Spans, context: object) -> Sending:
        return self._pump.send(self.fd, memory, part, spans, context)

    def watch(self, wanted: bool) -> None:
        if wanted and not self._watched:
            self._poller.register(self.fd, select.EPOLLIN)
        elif self._watched and not wanted:
            self._poller.unregister(self.fd)
        self._watched = wanted

    def finish(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def close(self) -> None:
        self.watch(False)
        self.sock.close()
