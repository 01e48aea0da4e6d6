"""The sockets of the HTTP server."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from support.httpserver import artefact, get, read_response, running
from wwfast.errors import WwfastError
from wwfast.net.http import server as module
from wwfast.net.http.admission import GO, WAIT, Patience, Verdict
from wwfast.net.http.message import Response
from wwfast.net.http.server import OPENERS, listen


def test_http_server_listens_where_it_is_told_and_nowhere_else() -> None:
    (first,) = listen([("127.0.0.1", 0)])
    with first:
        host, port = first.getsockname()
        assert (host, port > 0) == ("127.0.0.1", True)
        (other,) = listen([("127.0.0.2", port)])
        with other:
            assert other.getsockname() == ("127.0.0.2", port)


def test_http_server_says_where_another_listens_and_leaves_nothing_open() -> None:
    (first,) = listen([("127.0.0.1", 0)])
    with first:
        port = first.getsockname()[1]
        with pytest.raises(WwfastError, match=f"cannot listen on 127.0.0.1:{port}") as caught:
            listen([("127.0.0.2", port), ("127.0.0.1", port)])
        assert "wwfast server --replace" in (caught.value.hint or "")
        (again,) = listen([("127.0.0.2", port)])
        again.close()


class Later:
    """A scheduler that lets nobody go when asked, and all of them when `open` is set and it is asked who may."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.asked = threading.Event()
        self._waiting: list[str] = []

    def ask(self, key: str, share: str, size: int, patience: Patience, now: float) -> Verdict:
        self._waiting.append(key)
        self.asked.set()
        return WAIT

    def tick(self, sent: int, now: float) -> list[tuple[str, Verdict]]:
        if not self.open.is_set():
            return []
        keys, self._waiting = self._waiting, []
        return [(key, GO) for key in keys]

    def progress(self, key: str, sent: int, now: float) -> None:
        pass

    finished = left = progress


def test_http_server_asks_who_may_go_though_nothing_is_sent(tmp_path: Path) -> None:
    """The first node of all waits while nobody else's transfer could remind the server of it."""
    later, body = Later(), artefact(tmp_path, b"x" * 5000)
    with running(lambda request: Response(body=body, wwid="n1"), scheduler=later) as server, server.connect() as one:
        one.sendall(get("/image"))
        assert later.asked.wait(20)
        later.open.set()
        assert read_response(one)[::2] == (200, b"x" * 5000)


def test_http_server_tells_of_a_client_that_it_cannot_take_and_takes_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, Any]] = []
    wire, failing = module.SocketWire, [True]

    def made(*given: Any) -> Any:
        if failing.pop() if failing else False:
            raise RuntimeError("no wire")
        return wire(*given)

    monkeypatch.setattr(module, "SocketWire", made)
    with running(lambda request: Response(body=b"here")) as server:
        server.call(lambda: server.loop.set_exception_handler(lambda loop, context: told.append(context)))
        with server.connect() as first:
            assert first.recv(1) == b"", "closed, and not left hanging"
        assert [(each["part"], str(each["exception"])) for each in told] == [(module.PART, "no wire")]
        with server.connect() as one:
            one.sendall(get("/"))
            assert read_response(one)[2] == b"here"
        assert server.call(lambda: server.server.serving.places.total) <= 1, "it gave its place back"


def test_http_server_ends_though_a_file_cannot_be_opened_and_opens_no_more(tmp_path: Path) -> None:
    """Of a network disk whose server is gone: the threads that open files hang in the kernel."""
    stuck, opened = threading.Event(), list[str]()
    with running(lambda request: Response(body=b"")) as this:
        for _ in range(OPENERS):
            this.call(lambda: this.server._run(lambda: stuck.wait(30), opened.append))
        this.call(lambda: this.server._run(lambda: opened.append("later"), lambda _: None))
        begun = time.monotonic()
        this.call(this.server.close)
        assert time.monotonic() - begun < 10
    stuck.set()
    this.server._openers.shutdown(wait=True)
    assert opened == []
