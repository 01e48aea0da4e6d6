"""A restart without a gap: the old process hands its listening sockets to the new one (SCM_RIGHTS).

The kernel keeps one queue of connections per listening socket, so none is refused in between. The new process gets
the sockets while the old one still serves them; when it is ready to start, it says so, and the old one stops
accepting, writes down what the other must know, and confirms. What is under way the old one finishes. A new process
that cannot start changes nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from wwfast.errors import WwfastError

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST = 64  # sockets
PATIENCE = 5.0  # s for the other side to answer
LETTING_GO = 30.0  # s for the other side to write down its state
READY = b"ready"


class Sockets:
    """Listening sockets by name: those of a predecessor where it has one of that name, else opened."""

    def __init__(self, taken: Mapping[str, socket.socket] | None = None) -> None:
        self._taken = dict(taken or {})
        self.held: dict[str, socket.socket] = {}

    def __contains__(self, name: str) -> bool:
        """Whether a predecessor has it, so that whatever is to be asked before opening it was asked."""
        return name in self._taken or name in self.held

    def get(self, name: str, opened: Callable[[], socket.socket]) -> socket.socket:
        one = self.held[name] = self._taken.pop(name) if name in self._taken else opened()
        return one

    def close_rest(self) -> None:
        """Close what the predecessor had and nobody asked for: the configuration changed."""
        while self._taken:
            self._taken.popitem()[1].close()


class Predecessor:
    """The server that runs already. It goes on until release(); close() without that leaves it as it was."""

    def __init__(self, line: socket.socket, sockets: dict[str, socket.socket]) -> None:
        self._line = line
        self.sockets = sockets

    def release(self) -> None:
        """Make it stop accepting; returns when it has written down its state. Blocks. Raises WwfastError."""
        with self._line:
            try:
                self._line.settimeout(LETTING_GO)
                self._line.send(READY)
                done = self._line.recv(1) == b""
            except OSError:
                done = False
        if not done:
            raise WwfastError(
                f"the running server did not let go of its sockets within {LETTING_GO:g} s",
                hint="stop it, then start this one without --replace",
            )

    def close(self) -> None:
        self._line.close()
        for one in self.sockets.values():
            one.close()


def find(path: Path) -> Predecessor | None:
    """The server that offers its sockets at `path`; None when there is none."""
    line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    line.settimeout(PATIENCE)
    try:
        with _short(path) as name:
            line.connect(name)
        data, fds, _, _ = socket.recv_fds(line, 1 << 16, MOST, socket.MSG_CMSG_CLOEXEC)
    except OSError:
        data, fds = b"", []
    if not data:
        line.close()
        return None
    taken = {name: socket.socket(fileno=fd) for name, fd in zip(json.loads(data), fds, strict=True)}
    for one in taken.values():
        one.setblocking(False)
    return Predecessor(line, taken)


class Offer:
    """Gives `sockets` to whoever of the same user connects to `path`; once it is ready, `on_taken`, and no more."""

    def __init__(self, path: Path, sockets: Mapping[str, socket.socket], on_taken: Callable[[], None]) -> None:
        if len(sockets) > MOST:
            raise ValueError(f"more than {MOST} sockets")
        self._path, self._sockets, self._on_taken = path, dict(sockets), on_taken
        self._line: socket.socket | None = None
        self._peers: set[socket.socket] = set()

    def start(self) -> None:
        """Begin to offer, on the running event loop."""
        path = self._path
        path.parent.mkdir(parents=True, exist_ok=True)
        line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        fresh = path.with_name(path.name + ".new")
        fresh.unlink(missing_ok=True)
        with _short(fresh) as name:
            line.bind(name)
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
        _, uid, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        names = json.dumps(list(self._sockets)).encode()
        try:
            if uid not in (0, os.geteuid()):
                raise PermissionError
            socket.send_fds(peer, [names], [one.fileno() for one in self._sockets.values()])
        except OSError:
            peer.close()
            return
        peer.setblocking(False)
        self._peers.add(peer)
        asyncio.get_running_loop().add_reader(peer.fileno(), self._said, peer)

    def _said(self, peer: socket.socket) -> None:
        try:
            ready = peer.recv(len(READY)) == READY
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            ready = False
        if not ready:
            self._forget(peer)
            return
        # Closing the line is the confirmation, so this peer is the last to be let go of.
        self._peers.discard(peer)
        asyncio.get_running_loop().remove_reader(peer.fileno())
        self.close()
        try:
            self._on_taken()
        finally:
            peer.close()

    def _forget(self, peer: socket.socket) -> None:
        asyncio.get_running_loop().remove_reader(peer.fileno())
        self._peers.discard(peer)
        peer.close()

    def close(self) -> None:
        """Stop offering; the path stays, it may already be the successor's."""
        for peer in list(self._peers):
            self._forget(peer)
        if self._line is not None:
            asyncio.get_running_loop().remove_reader(self._line.fileno())
            self._line.close()
            self._line = None


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name of `path` that fits into the 108 bytes of a socket address, however deep the path."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
