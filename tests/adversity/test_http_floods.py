"""Clients that ask for more than their turn: pipelined floods, trickles that cost a connection, unfinished heads."""

from __future__ import annotations

import select
import socket
import threading
import time
from contextlib import suppress

import pytest

from support.httpserver import Running, get, read_response, running
from wwfast.net.http.message import Request, Response
from wwfast.net.http.serving import Limits

MANY = 3000
WORK = 0.0002  # seconds of the loop's CPU that a request of these takes


class Counting:
    """Answers with the request's path and keeps the order; /gate waits for `open` with the loop held."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.open = threading.Event()

    def __call__(self, request: Request) -> Response:
        self.order.append(request.path)
        if request.path == "/gate":
            assert self.open.wait(20)
        end = time.thread_time() + WORK
        while time.thread_time() < end:
            pass
        return Response(body=request.path.encode())


def flood(server: Running, first: str, count: int = MANY) -> tuple[socket.socket, threading.Thread]:
    """A connection that gets `first` and `count` more requests as fast as it takes them."""
    sock = server.connect()
    data = get(first) + b"".join(get(f"/{number}") for number in range(count))

    def send() -> None:
        with suppress(OSError):  # who has seen enough closes it
            sock.sendall(data)

    thread = threading.Thread(target=send)
    thread.start()
    return sock, thread


def bodies(sock: socket.socket) -> bytes:
    """All that comes until the server closes, in one piece."""
    return b"".join(iter(lambda: sock.recv(1 << 16), b""))


def test_http_thousands_of_pipelined_requests_wait_for_one_of_another_client() -> None:
    handler = Counting()
    with running(handler) as server:
        greedy, sender = flood(server, "/gate")
        with server.connect() as other:
            other.sendall(get("/fair"))
            handler.open.set()
            assert read_response(other)[2] == b"/fair"
        assert handler.order.index("/fair") < 40
        greedy.close()
        sender.join(20)


def test_http_pipelining_connections_take_turns() -> None:
    handler = Counting()
    with running(handler) as server:
        held, *more = [flood(server, "/gate" if not number else "/first", 200) for number in range(3)]
        for sock, sender in more:
            sender.join(20)
            sock.shutdown(socket.SHUT_WR)
        handler.open.set()
        for sock, _ in more:
            with sock:
                assert bodies(sock).count(b"HTTP/1.1 200 OK") == 201
        seen = [handler.order[:300].count(f"/{number}") for number in range(50)]
        assert seen == [3] * 50, "each number comes from all three before anybody is far ahead"
        held[1].join(20)
        held[0].close()


def test_http_pipelined_requests_are_all_answered_in_order_though_the_client_sends_no_more() -> None:
    handler = Counting()
    handler.open.set()
    with running(handler) as server, server.connect() as sock:
        sock.sendall(b"".join(get(f"/{number}") for number in range(150)))
        sock.shutdown(socket.SHUT_WR)
        answer = bodies(sock)
        assert answer.count(b"HTTP/1.1 200 OK") == 150
        assert handler.order == [f"/{number}" for number in range(150)]


@pytest.mark.parametrize("before", [b"", get("/script")], ids=["at first", "after a request"])
@pytest.mark.parametrize("drop", [b"\r\n", b"A"], ids=["empty lines", "letters"])
def test_http_what_trickles_does_not_keep_a_connection(before: bytes, drop: bytes) -> None:
    with running(Counting(), limits=Limits(head_seconds=1.0, idle_seconds=60.0)) as server, server.connect() as sock:
        sock.sendall(before + drop)
        begin = time.monotonic()
        with pytest.raises(OSError):  # noqa: PT012 (whichever of the two notices first)
            while time.monotonic() < begin + 15:
                sock.settimeout(0.2)
                sock.sendall(drop)
                try:
                    if not sock.recv(1 << 16):
                        raise OSError
                except TimeoutError:
                    pass
        assert time.monotonic() - begin < 10


def test_http_idle_connections_end_sooner_when_connections_become_few() -> None:
    limits = Limits(connections=8, idle_seconds=600.0)
    handler = Counting()
    handler.open.set()
    with running(handler, limits=limits) as server:
        clients = [server.connect(source=f"127.0.0.{2 + number}") for number in range(6)]
        for sock in clients:
            sock.sendall(get("/script"))
            assert read_response(sock)[0] == 200
        ended, _, _ = select.select(clients, [], [], 60)
        assert [sock.recv(1) for sock in ended[:1]] == [b""]
        with server.connect(source="127.0.0.9") as sock:
            sock.sendall(get("/script"))
            assert read_response(sock)[0] == 200
        for sock in clients:
            sock.close()


def test_http_unfinished_heads_of_all_clients_together_are_bounded() -> None:
    with running(Counting(), limits=Limits(held_bytes=32 << 10)) as server:
        part = b"GET / HTTP/1.1\r\nA: " + b"a" * (12 << 10)
        clients = [server.connect() for _ in range(6)]
        for sock in clients:
            sock.sendall(part)
        statuses = []
        for sock in clients:
            sock.settimeout(0.5)
            try:
                status, _, body = read_response(sock)
                statuses.append(status)
                assert body == b"", "curl that tries again has it in front of what it gets then"
            except TimeoutError:
                statuses.append(0)
        assert statuses.count(0) == 2
        assert statuses.count(503) == 4
        with server.connect() as sock:
            sock.sendall(get("/whole"))
            assert read_response(sock)[2] == b"/whole"
        for sock in clients:
            sock.close()
