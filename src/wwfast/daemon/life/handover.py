"""A restart without a gap: the old process hands its listening sockets and its state to the new one.

The kernel keeps one queue of requests per socket, so none is refused or lost in between. In order:

1. The new process gets copies of the sockets (SCM_RIGHTS) and prepares everything, reading none of them.
2. It says that it is ready. The old one stops reading, writes its state down and sends it, in a file in memory: what
   cannot be written to the disk just now is handed over all the same.
3. The new one reads and says so, in one turn of its loop. Only then does the old one close its sockets.
4. What the old one answers from its second step on, and the new one must know, goes over a line between them (`relay`).

Whoever fails before the last word, dies or takes too long has changed nothing: the old one reads on. The last word
cannot be said to one who does not listen any more, so there are never two who read.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import select
import socket
import struct
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from wwfast.daemon.life.relay import Relay
from wwfast.errors import WwfastError
from wwfast.system.folders import folder

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger(__name__)

VERSION = 2  # of what is said; both sides must speak the same
MOST = 64  # sockets
PEERS = 8  # that prepare at the same time
PATIENCE = 5.0  # s for the old one to answer
PREPARING = 300.0  # s for the new one to prepare
LETTING_GO = 15.0  # s for the old one to write down its state
TAKING = 10.0  # s for the new one to read after that: nobody does in this time
ENDING = 1.0  # s from the last descriptor that a dying process closes to its end
READY, READING = b"ready", b"reading"

State = dict[str, Any]


class Sockets:
    """Listening sockets by name: those of a predecessor where it has one of that name, else opened.

    `former` is what the predecessor found out before it opened them, `facts` what holds for ours.
    """

    def __init__(self, taken: Mapping[str, socket.socket] | None = None, former: Iterable[str] = ()) -> None:
        self._taken = dict(taken or {})
        self.held: dict[str, socket.socket] = {}
        self.former = frozenset(former)
        self.facts: set[str] = set()

    def get(self, name: str, opened: Callable[[], socket.socket]) -> socket.socket:
        one = self.held[name] = self._taken.pop(name) if name in self._taken else opened()
        return one

    def close_rest(self) -> None:
        """Close what the predecessor had and nobody asked for: the configuration changed."""
        while self._taken:
            self._taken.popitem()[1].close()

    def close(self) -> None:
        """Close all that no server has taken over."""
        self.close_rest()
        while self.held:
            self.held.popitem()[1].close()


class Predecessor:
    """The server that runs already. It goes on until take(); close() before that leaves it as it was. `relay`, of
    release(), is whose it is from take() on: the line for relay.attend."""

    def __init__(self, line: socket.socket, process: int, sockets: Sockets) -> None:
        self._line = line
        self._process = process  # a pidfd, or -1
        self.sockets = sockets
        self.relay: socket.socket | None = None
        self._taken = False

    def release(self) -> State | None:
        """Make it stop reading; its state, None when it has died. Blocks. Raises WwfastError."""
        try:
            self._line.settimeout(LETTING_GO)
            self.relay, far = socket.socketpair()
            with far:
                socket.send_fds(self._line, [READY], [far.fileno()])
            data, fds, _, _ = socket.recv_fds(self._line, 1 << 10, 1, socket.MSG_CMSG_CLOEXEC)
        except OSError:
            data, fds = b"", []
        if data and fds:
            with open(fds[0], "rb") as file:  # noqa: PTH123 - a descriptor
                file.seek(0)
                state: State = json.load(file)
                return state
        if self._has_died():
            return None
        raise WwfastError(
            f"the running server did not let go within {LETTING_GO:g} s, and goes on",
            hint="see its log; or stop it, then start this one without --replace",
        )

    def take(self) -> None:
        """Say that we read. Raises WwfastError when the predecessor waits no more: then we must not."""
        try:
            self._line.settimeout(0)
            self._line.send(READING)
        except OSError as error:
            if not self._has_died():
                raise WwfastError(
                    f"this server was not ready within {TAKING:g} s after the running one let go, which goes on",
                    hint="see its log, and the load of this machine",
                ) from error
        self._taken = True
        self._close_line()

    def close(self) -> None:
        """Give up. The sockets are closed by whoever uses them."""
        if self.relay is not None and not self._taken:
            self.relay.close()
        self._close_line()

    def _close_line(self) -> None:
        self._line.close()
        _close(self._process)
        self._process = -1

    def _has_died(self) -> bool:
        return self._process >= 0 and bool(select.select([self._process], [], [], ENDING)[0])


def find(path: Path) -> Predecessor | None:
    """The server that offers its sockets at `path`; None when there is none. Raises WwfastError for one that does not
    answer, or speaks another version."""
    with ExitStack() as undo:
        line = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        line.settimeout(PATIENCE)
        try:
            with _short(path) as name:
                line.connect(name)
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            return None
        except OSError as error:
            raise _silent(path, error) from error
        try:
            process = _process(line)
            undo.callback(_close, process)
            data, fds, _, _ = socket.recv_fds(line, 1 << 16, MOST, socket.MSG_CMSG_CLOEXEC)
            received = [undo.enter_context(socket.socket(fileno=fd)) for fd in fds]
            offer = json.loads(data)
            if not isinstance(offer, dict) or offer.get("version") != VERSION:
                raise WwfastError(
                    "the running server is of another version, which cannot hand over to this one; it goes on",
                    hint="restart it: systemctl restart wwfast",
                )
            sockets = Sockets(dict(zip(offer["sockets"], received, strict=True)), offer["facts"])
        except (OSError, ValueError, KeyError) as error:
            raise _silent(path, error) from error
        for one in received:
            one.setblocking(False)
        undo.pop_all()
        return Predecessor(line, process, sockets)


class Holder(Protocol):
    """The server whose sockets are offered."""

    def pause(self) -> None:
        """Read no request, and keep the sockets."""
        ...

    async def state(self, relay: Relay | None) -> State:
        """What the next one must know, written down as far as that works; what it must know after that goes to `relay`,
        where it listens to one. Bounded in time; never raises."""
        ...

    def resume(self) -> None:
        """Nobody took over: read on."""
        ...

    def let_go(self) -> None:
        """Another server reads: close the sockets, finish what is under way."""
        ...


class Offer:
    """Offers `sockets` to whoever of the same user connects to `path`, until one has taken over."""

    def __init__(self, path: Path, sockets: Sockets, holder: Holder) -> None:
        if len(sockets.held) > MOST:
            raise ValueError(f"more than {MOST} sockets")
        self._path, self._sockets, self._holder = path, sockets, holder
        self._line: socket.socket | None = None
        self._ours: tuple[int, int] | None = None  # the file at `path`, as long as it is ours
        self._peers: set[asyncio.Task[None]] = set()
        self.handing = False  # a successor has said that it is ready, and we read nothing
        self._closed = False

    def publish(self) -> None:
        """Be found at `path`, on the running event loop: whoever was there before is not any more. To be repeated:
        does nothing while it is so."""
        if self._closed or self.handing or (self._ours is not None and self._ours == _identity(self._path)):
            return
        path = self._path
        folder(path.parent)
        line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            fresh = path.with_name(path.name + ".new")
            fresh.unlink(missing_ok=True)
            with _short(fresh) as name:
                line.bind(name)
            fresh.chmod(0o600)
            line.listen(PEERS)
            fresh.rename(path)
        except OSError:
            line.close()
            raise
        self._close_line()
        self._line, self._ours = line, _identity(path)
        asyncio.get_running_loop().add_reader(line.fileno(), self._asked, line)

    def _asked(self, line: socket.socket) -> None:
        try:
            peer, _ = line.accept()
        except OSError:
            return
        if len(self._peers) >= PEERS:
            peer.close()
            return
        peer.setblocking(False)
        task = asyncio.get_running_loop().create_task(self._attend(peer), name="handing over")
        self._peers.add(task)
        task.add_done_callback(self._peers.discard)

    async def _attend(self, peer: socket.socket) -> None:
        """One successor, from its question to its end or ours."""
        with peer:
            try:
                _, uid, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
                if uid not in (0, os.geteuid()):
                    return
                names, ours = list(self._sockets.held), [one.fileno() for one in self._sockets.held.values()]
                offer = {"version": VERSION, "sockets": names, "facts": sorted(self._sockets.facts)}
                socket.send_fds(peer, [json.dumps(offer).encode()], ours)
                if not await _readable(peer, PREPARING):
                    return
                said, fds, _, _ = socket.recv_fds(peer, 64, 1, socket.MSG_CMSG_CLOEXEC)
            except OSError:
                return
            lines = [socket.socket(fileno=fd) for fd in fds]
            if said == READY and not self.handing and not self._closed:
                await self._hand(peer, lines)
            else:
                for line in lines:
                    line.close()

    async def _hand(self, peer: socket.socket, lines: list[socket.socket]) -> None:
        self.handing = True
        log.info("another server is ready to take over")
        relay = None
        try:
            relay = await Relay.over(lines[0]) if lines else None
            self._holder.pause()
            _send_state(peer, await self._holder.state(relay))
            await _readable(peer, TAKING)
        except OSError as error:
            log.warning("cannot hand over: %s", error)
        finally:
            self.handing = False
            if _last_word(peer):
                self.close(but=asyncio.current_task())
                self._holder.let_go()
            else:
                if relay is not None:
                    relay.close()
                if not self._closed:
                    log.warning("the other server did not take over; this one goes on")
                    self._holder.resume()

    def close(self, *, but: asyncio.Task[None] | None = None) -> None:
        """Stop offering; the path stays, it may already be the successor's."""
        self._closed = True
        for task in self._peers - {but}:
            task.cancel()
        self._close_line()

    def _close_line(self) -> None:
        if self._line is not None:
            asyncio.get_running_loop().remove_reader(self._line.fileno())
            self._line.close()
            self._line = self._ours = None


def _send_state(peer: socket.socket, state: State) -> None:
    """In a file in memory, whatever its size: a packet of this socket holds some 200 kB."""
    fd = os.memfd_create("state", os.MFD_CLOEXEC)
    with open(fd, "wb") as file:  # noqa: PTH123 - a descriptor
        file.write(json.dumps(state).encode())
        file.flush()
        socket.send_fds(peer, [b"state"], [fd])


async def _readable(peer: socket.socket, seconds: float) -> bool:
    """Whether there is something to read within `seconds`. Reading is the caller's: what was read before a time limit
    struck must not be lost."""
    loop = asyncio.get_running_loop()
    something = asyncio.Event()
    loop.add_reader(peer.fileno(), something.set)
    try:
        async with asyncio.timeout(seconds):
            await something.wait()
        return True
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(peer.fileno())


def _last_word(peer: socket.socket) -> bool:
    """Hear no more; whether the other side had said before that it reads. What it says from now on fails there."""
    try:
        peer.shutdown(socket.SHUT_RDWR)
        return peer.recv(64) == READING
    except OSError:
        return False


def _process(line: socket.socket) -> int:
    """A descriptor of the process at the other end, readable when it has ended; -1 where that cannot be had."""
    pid, _, _ = struct.unpack("3i", line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    try:
        return os.pidfd_open(pid)
    except OSError:
        return -1


def _close(descriptor: int) -> None:
    if descriptor >= 0:
        os.close(descriptor)


def _silent(path: Path, error: Exception) -> WwfastError:
    return WwfastError(
        f"the server that runs does not hand over at {path}: {error}",
        hint="see its log; or stop it, then start this one without --replace",
    )


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        st = path.stat()
    except OSError:
        return None
    return st.st_dev, st.st_ino


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name of `path` that fits into the 108 bytes of a socket address, however deep the path."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
