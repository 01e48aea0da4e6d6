"""Workers of a service: processes that are started when they are first asked.

A process with threads must not fork: there a helper does, one for all services of the process, which is started anew
(exec) and has no threads. A command without threads forks its workers itself.
"""

from __future__ import annotations

import atexit
import gc
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import chain
from mmap import mmap

import msgspec

from wwfast.errors import WwfastError
from wwfast.nodes.model import Node
from wwfast.overlays.making import worker
from wwfast.overlays.making.index import Shared
from wwfast.overlays.making.messages import PAGE, Answer, Message, answers, framed, received, said
from wwfast.system import records, run, signals

HELD_UP = 0.5  # seconds after which a worker that answers nothing counts no more, and another one may be started
NICE = 10  # of a server's workers, below the server: with one core an edit was taken in after 1.3 s
NICEST = 19  # of one that is held up: it gets what others leave
PATIENCE = 120.0  # seconds without an answer after which a worker is ended, whatever it waits for
STARTING = 30.0  # seconds for the helper to answer


class Died(Exception):
    """A worker ended without an answer: by which signal (0: none; -1: it was waited for too long), and which template
    it ran."""

    def __init__(self, number: int, where: str) -> None:
        super().__init__(number, where)
        self.number, self.where = number, where


class Stalled(Exception):
    """Several nodes were asked for, and one of them keeps the others."""


class Direct:
    """Forks this very process, which must have no threads. `start` gives a worker's process, and the ends of the pipes
    to it and from it; `end` kills it: by which signal it had ended before (0: it had not), and what it did last."""

    def __init__(
        self, inherit: Callable[[Hand], Callable[[mmap], worker.Worker]] | None = None, *, nice: int = 0
    ) -> None:
        self._nice = nice
        self._inherit = inherit  # tells a hand what its worker knows, and gives what makes that worker
        self._marks: dict[int, mmap] = {}
        self._ours: dict[int, tuple[int, int]] = {}  # our ends of the pipes of each

    def start(self, hand: Hand | None = None) -> tuple[int, int, int]:
        make = self._inherit(hand) if self._inherit is not None and hand is not None else None
        mark = mmap(-1, PAGE)
        source, to = os.pipe()
        of, sink = os.pipe()
        gc.freeze()  # a collector would walk what the child shares with us, and so copy it

        def work() -> int:
            try:
                for fd in (to, of, *chain.from_iterable(self._ours.values())):
                    os.close(fd)
                os.nice(self._nice)
                worker.settle()
                worker.serve(source, sink, mark, make(mark) if make is not None else None)
            except BrokenPipeError:
                return 1  # who asked is gone
            except BaseException:
                traceback.print_exc()
                return 1
            return 0

        with signals.held():
            pid = run.fork(work)
            os.close(source)
            os.close(sink)
            self._marks[pid] = mark
            self._ours[pid] = to, of
        return pid, to, of

    def release(self, pid: int) -> None:
        """Somebody else has its pipes now."""
        for fd in self._ours.pop(pid):
            os.close(fd)

    def end(self, pid: int) -> tuple[int, str]:
        mark = self._marks.pop(pid, None)
        if mark is None:  # of a helper before this one: its pipes are closed, so it ends by itself
            return 0, ""
        self._ours.pop(pid, None)  # closed by who had them
        gone, status = os.waitpid(pid, os.WNOHANG)
        if not gone:
            time.sleep(0.01)  # its pipes close a moment before it ends
            gone, status = os.waitpid(pid, os.WNOHANG)
        if not gone:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            status = 0
        return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, said(mark)


class Helper:
    """As Direct, by a process without threads that forks for us; all services of this process share it."""

    _lock = threading.Lock()
    there: tuple[int, run.Process, run.Packets] | None = None

    def start(self, hand: Hand) -> tuple[int, int, int]:
        data, (to, of) = self._ask(b"start")
        return int(data), to, of

    def end(self, pid: int) -> tuple[int, str]:
        try:
            number, _, where = self._ask(b"end %d" % pid)[0].decode().partition(" ")
        except WwfastError:
            return 0, ""
        return int(number), where

    @classmethod
    def _ask(cls, question: bytes) -> tuple[bytes, list[int]]:
        with cls._lock:
            for _ in range(2):
                try:
                    packets = cls._running()
                    packets.send(question)
                    data, descriptors = packets.receive(PAGE * 2)
                except OSError:
                    data = b""
                if data:
                    return data, descriptors
                cls._gone()
        raise WwfastError("the process that renders overlays does not start", hint="see the log; is there memory?")

    @classmethod
    def _gone(cls) -> None:
        there, cls.there = cls.there, None
        if there is not None:
            there[2].close()
            if there[0] == os.getpid():
                there[1].kill()
                there[1].wait()
            else:
                there[1].returncode = 0  # it is no child of this copy of its parent: nobody here waits for it

    @classmethod
    def _running(cls) -> run.Packets:
        if cls.there is None or cls.there[0] != os.getpid() or cls.there[1].poll() is not None:
            cls._gone()
            command = [sys.executable, "-m", "wwfast.overlays.making.crew"]
            cls.there = (os.getpid(), *run.converse(command, stderr=None, timeout=STARTING, tied=False))
            # It ends by itself when we do, but a moment later: whoever waited for us expects nothing of ours any more.
            atexit.unregister(cls._gone)
            atexit.register(cls._gone)
        return cls.there[2]


def help_others() -> int:
    """The helper: forks a worker for each packet that asks for one."""
    forks = Direct(nice=NICE)
    while True:
        words = os.read(0, PAGE).split()
        try:
            if words == [b"start"]:
                pid, to, of = forks.start()
                run.answer(b"%d" % pid, (to, of))
                forks.release(pid)
            elif len(words) == 2:
                number, where = forks.end(int(words[1]))
                run.answer(f"{number} {where}".encode())
            else:
                return 0
        except OSError:
            return 1


class Hand:
    """A place for a worker, and what the one that is there was told. Who is `busy` with it has it alone."""

    def __init__(self, direct: Direct | None) -> None:
        self._direct = direct
        self._forks: Direct | Helper = Helper()
        self.busy = False
        self.since = 0.0  # monotonic seconds: asked, and no answer yet
        self.pid = -1
        self._forget()

    def _forget(self) -> None:
        self.generation = self.looked = 0
        self.conf: object = None
        self.nodes: dict[str, Node] = {}
        self.shared: dict[bytes, Shared] = {}
        self._nice: int | None = None  # what it was before it was lowered

    def start(self) -> None:
        """Have a worker here. Raises WwfastError."""
        if self.pid < 0:
            self._forks = self._direct if self._direct is not None and threading.active_count() == 1 else Helper()
            self.pid, self._to, self._of = self._forks.start(self)
            os.set_blocking(self._to, False)

    def ask(self, messages: Iterable[Message], *, together: bool) -> list[Answer]:
        """Tell it these, the last of which asks. Where it answers nothing for HELD_UP seconds it is ended if several
        are asked for `together`, and gets only what others leave if not. Raises Died, Stalled."""
        self.since = time.monotonic()
        try:
            for each in messages:
                data = memoryview(framed(each))
                while data:
                    try:
                        data = data[os.write(self._to, data) :]
                    except BlockingIOError:
                        self._wait(self._to, select.POLLOUT)
            if not _ready(self._of, select.POLLIN, HELD_UP):
                if together:
                    raise Stalled
                self.lower()
            found: list[Answer] = records.unpacked(received(self._read), answers)
            return found
        except TimeoutError as error:
            raise Died(-1, self.end()[1]) from error
        except (OSError, EOFError, ValueError, msgspec.DecodeError) as error:
            raise Died(*self.end()) from error
        except BaseException:
            self.end()
            raise

    def _read(self, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            self._wait(self._of, select.POLLIN)
            more = os.read(self._of, length - len(data))
            if not more:
                raise EOFError
            data += more
        return bytes(data)

    @staticmethod
    def _wait(fd: int, what: int) -> None:
        if not _ready(fd, what, PATIENCE):
            raise TimeoutError

    @property
    def lowered(self) -> bool:
        return self._nice is not None

    def lower(self) -> None:
        """Behind all others, until it is raised."""
        if self._nice is None and self.pid >= 0:
            with suppress(OSError):
                before = os.getpriority(os.PRIO_PROCESS, self.pid)
                os.setpriority(os.PRIO_PROCESS, self.pid, NICEST)
                self._nice = before

    def lift(self) -> None:
        """As it was; one that may not (only root may) is ended."""
        if self._nice is not None and self.pid >= 0:
            try:
                os.setpriority(os.PRIO_PROCESS, self.pid, self._nice)
                self._nice = None
            except OSError:
                self.end()

    def end(self) -> tuple[int, str]:
        """Of the worker that was there: by which signal it had ended by itself (0: it had not), and which template it
        ran."""
        if self.pid < 0:
            return 0, ""
        pid, self.pid = self.pid, -1
        os.close(self._to)
        os.close(self._of)
        self._forget()
        return self._forks.end(pid)


def _ready(fd: int, what: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(fd, what)
    return bool(poll.poll(seconds * 1000))


if __name__ == "__main__":
    sys.exit(help_others())
