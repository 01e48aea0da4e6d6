"""Two heads in the test's own process: one that has a site, and one that follows it, over loopback."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from support.daemon import Serving, serving, tiny_site, write_conf
from support.patience import until
from wwfast.heads import key
from wwfast.paths import Paths


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Heads:
    """`first` is a whole site, `second` has nothing but the key and a warewulf.conf of its own."""

    def __init__(self, place: Path, **settings: Any) -> None:
        self.port = free_port()
        self.first, second = tiny_site(Paths.at(place / "first")), Paths.at(place / "second")
        own = {"follow port": self.port, **settings}
        write_conf(self.first, wwfast=own)
        second.etc.mkdir(parents=True)
        write_conf(second, wwfast=own)
        key.make(self.first)
        key.place(second).parent.mkdir(mode=0o700)
        shutil.copy(key.place(self.first), key.place(second))
        self.second = second.followed()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @contextmanager
    def leading(self) -> Iterator[Serving]:
        with serving(self.first) as running:
            until(lambda: LEADING not in running.status()["troubles"])
            yield running

    @contextmanager
    def leading_badly(self) -> Iterator[Serving]:
        """A first head with whom something is wrong."""
        with serving(self.first) as running:
            yield running

    @contextmanager
    def following(self, url: str = "") -> Iterator[Serving]:
        self.second.following.parent.mkdir(parents=True, exist_ok=True)
        self.second.following.write_text(f"{url or self.url}\n")
        with serving(self.second, url or self.url) as running:
            yield running


LEADING = "answering heads that follow"


class Wire:
    """Between both heads: counts what comes from the first one, ends after `most` bytes, or lets nothing through."""

    def __init__(self, port: int) -> None:
        self.port, self.came, self.most, self.silent = port, 0, 1 << 40, False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._listener.getsockname()[1]}"

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(near)
            try:
                far = socket.create_connection(("127.0.0.1", self.port))
            except OSError:
                near.close()
                continue
            self._open.append(far)
            for ends in ((near, far, False), (far, near, True)):
                thread = threading.Thread(target=self._carry, args=ends)
                thread.start()
                self._threads.append(thread)

    def _carry(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        try:
            while data := source.recv(1 << 16):
                self.came += len(data) if counted else 0
                if counted and self.came > self.most:
                    break
                if not self.silent:
                    target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads[:1]:
            thread.join()
        for end in self._open:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join()
        for end in self._open:
            end.close()
