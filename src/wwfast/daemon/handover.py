"""A restart without a gap: the old process hands its listening sockets to the new one (SCM_RIGHTS).

The kernel keeps one queue of connections per listening socket, so none is refused in between. The old process
stops accepting when its sockets are taken, finishes what is under way, and ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

MOST = 64  # sockets
PATIENCE = 5.0  # s for the other side to answer


def take(path: Path) -> dict[str, socket.socket]:
    """The sockets that the process behind `path` gives away, by name; empty when there is none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line:
        line.settimeout(PATIENCE)
        try:
            line.connect(str(path))
            data, fds, _, _ = socket.recv_fds(line, 1 << 16, MOST)
        except OSError:
            return {}
        names = json.loads(data) if data else []
        taken = {name: socket.socket(fileno=fd) for name, fd in zip(names, fds, strict=True)}
        for one in taken.values():
            one.setblocking(False)
        return taken


class Offer:
    """Gives `sockets` away, once, to the first process of the same user that connects to `path`; then `on_taken`."""

    def __init__(self, path: Path, sockets: Mapping[str, socket.socket], on_taken: Callable[[], None]) -> None:
        if len(sockets) > MOST:
            raise ValueError(f"more than {MOST} sockets")
        self._path, self._sockets, self._on_taken = path, dict(sockets), on_taken
        self._line: socket.socket | None = None

    def start(self) -> None:
        """Begin to offer, on the running event loop."""
        path = self._path
        path.parent.mkdir(parents=True, exist_ok=True)
        line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        fresh = path.with_name(path.name + ".new")
        fresh.unlink(missing_ok=True)
        line.bind(str(fresh))
        fresh.chmod(0o600)
        line.listen(1)
        fresh.rename(path)  # the predecessor's offer, if any, ends here
        self._line = line
        asyncio.get_running_loop().add_reader(line.fileno(), self._asked)

    def _asked(self) -> None:
        assert self._line is not None
        try:
            peer, _ = self._line.accept()
        except (BlockingIOError, InterruptedError):
            return
        with peer:
            _, uid, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            if uid not in (0, os.geteuid()):
                return
            try:
                socket.send_fds(
                    peer, [json.dumps(list(self._sockets)).encode()], [one.fileno() for one in self._sockets.values()]
                )
            except OSError:
                return
        self.close()
        self._on_taken()

    def close(self) -> None:
        """Stop offering; the path stays, it may already be the successor's."""
        if self._line is not None:
            asyncio.get_running_loop().remove_reader(self._line.fileno())
            self._line.close()
            self._line = None
