"""Clients that stall, trickle, vanish, flood or never finish their request."""

from __future__ import annotations

import gc
import random
import socket
import struct
import time
from pathlib import Path

import pytest

from support.httpserver import OCTETS, artefact, get, read_response, running
from support.patience import until
from wwfast.daemon.traffic.scheduler import WaveScheduler
from wwfast.daemon.traffic.width import NARROWEST
from wwfast.net.http.answer import Answer
from wwfast.net.http.connection import Connection
from wwfast.net.http.message import Request, Response
from wwfast.net.http.serving import Limits
from wwfast.net.transfer import Outcome

BODY = random.Random(3).randbytes(20_000_000)


@pytest.fixture
def big(tmp_path: Path):  # type: ignore[no-untyped-def]
    made = artefact(tmp_path, BODY)

    def handler(request: Request) -> Response:
        if request.path == "/script":
            return Response(body=b"#!ipxe\n")
        wwid = request.query.get("wwid", "")
        return Response(body=made, content_type=OCTETS, stage="image", wwid=wwid, last=True)

    return handler


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def test_http_stalled_clients_cost_no_thread(big) -> None:  # type: ignore[no-untyped-def]
    with running(big) as server:
        stuck = [server.connect(window=4096) for _ in range(50)]
        for sock in stuck:
            sock.sendall(get("/image"))
        until(lambda: server.server.figures["transfers"] == 50, 15.0)
        for _ in range(3):
            with server.connect() as sock:
                sock.sendall(get("/script"))
                assert read_response(sock)[0] == 200
        for sock in stuck:
            sock.close()
        until(lambda: server.server.connections == 0, 15.0)
        assert sum(event.outcome is Outcome.FAILED for event in server.events) >= 50


def test_http_client_without_progress_is_closed_after_the_limit(big) -> None:  # type: ignore[no-untyped-def]
    with running(big, limits=Limits(stall_seconds=1.0)) as server, server.connect(window=4096) as sock:
        sock.sendall(get("/image"))
        until(lambda: any(event.outcome is Outcome.FAILED for event in server.events), 15.0)
        assert server.events[-1].detail == "no progress"
        until(lambda: server.server.connections == 0, 15.0)


def test_http_slowloris_and_idle_connections_are_closed(big) -> None:  # type: ignore[no-untyped-def]
    with running(big, limits=Limits(head_seconds=2.0, idle_seconds=2.0)) as server:
        silent, slow, done = server.connect(), server.connect(), server.connect()
        done.sendall(get("/script"))
        read_response(done)
        slow.sendall(b"GET / HTTP/1.1\r\n")
        status, _, body = read_response(slow)
        assert (status, body) == (408, b""), "curl writes what it got, and tries again"
        assert silent.recv(1) == done.recv(1) == b""
        for sock in (silent, slow, done):
            sock.close()
        until(lambda: server.server.connections == 0, 15.0)


def test_http_trickling_request_does_not_move_its_deadline(big) -> None:  # type: ignore[no-untyped-def]
    with running(big, limits=Limits(head_seconds=1.0)) as server, server.connect() as sock:
        begin = time.monotonic()
        with pytest.raises(OSError):  # noqa: PT012 (whichever of the two notices first)
            for byte in b"GET / HTTP/1.1\r\nA: " + b"x" * 200:
                sock.sendall(bytes([byte]))
                time.sleep(0.05)
            raise OSError
        assert time.monotonic() - begin < 8


def test_http_floods_of_header_are_refused(big) -> None:  # type: ignore[no-untyped-def]
    with running(big) as server:
        for flood in (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 100_000, b"A" * 1_000_000):
            with server.connect() as sock:
                try:
                    sock.sendall(flood)
                    status = read_response(sock)[0]
                except OSError:
                    status = 431  # it was closed while we still sent
                assert status == 431
        until(lambda: server.server.connections == 0, 15.0)


def test_http_resets_in_every_state_leave_nothing_behind(big) -> None:  # type: ignore[no-untyped-def]
    with running(big, scheduler=WaveScheduler()) as server:
        with server.connect() as sock:  # whatever is opened once for all
            sock.sendall(get("/image"))
            read_response(sock)
        until(lambda: server.server.connections == 0, 15.0)
        files = open_files()
        for round_ in range(120):
            sock = server.connect(window=4096)
            if round_ % 4:
                sock.sendall(get(f"/image?wwid=02:00:00:00:00:{round_:02x}")[: None if round_ % 4 > 1 else 9])
            if round_ % 4 == 3:
                sock.recv(100)
            reset(sock)
        until(lambda: server.server.connections == 0, 15.0)
        assert server.server.serving.waiting == {}
        gc.collect()
        until(lambda: open_files() <= files, 15.0)
        with server.connect() as sock:
            sock.sendall(get("/image?wwid=02:00:00:00:00:ff"))
            assert read_response(sock)[2] == BODY


def test_http_more_connections_than_one_address_may_hold_are_turned_away(big) -> None:  # type: ignore[no-untyped-def]
    with running(big, limits=Limits(connections=10)) as server:
        held = [server.connect() for _ in range(5)]
        until(lambda: server.server.connections == 5, 15.0)
        with server.connect() as sock:
            assert sock.recv(1) == b""
        with server.connect(source="127.0.0.2") as sock:
            sock.sendall(get("/script"))
            assert read_response(sock)[0] == 200, "the places that are left are for others"
        until(lambda: server.server.connections == 5, 15.0)
        assert server.server.figures["refused"] == 1
        held.pop().close()
        until(lambda: server.server.connections == 4, 15.0)
        with server.connect() as sock:
            sock.sendall(get("/script"))
            assert read_response(sock)[0] == 200
        for sock in held:
            sock.close()


def test_http_full_house_holds_ipxe_and_lets_scripts_through(big) -> None:  # type: ignore[no-untyped-def]
    """A node waits with its connection open, keeps its place, and gets its image when a slot is free."""
    with running(big, scheduler=WaveScheduler()) as server:
        stuck = []
        for index in range(NARROWEST):
            sock = server.connect(window=4096)
            sock.sendall(get(f"/image?wwid=02:00:00:00:01:{index:02x}", "User-Agent: iPXE/1.21.1"))
            stuck.append(sock)
        until(lambda: server.server.figures["transfers"] == NARROWEST, 15.0)
        with server.connect() as node:
            node.sendall(get("/image?wwid=02:00:00:00:02:00", "User-Agent: iPXE/1.21.1"))
            until(lambda: server.server.figures["waiting"] == 1, 15.0)
            with server.connect() as other:
                other.sendall(get("/script"))
                assert read_response(other)[0] == 200
            assert read_response(node)[2] == BODY, "the stalled ones gave up their slots"
        for sock in stuck:
            sock.close()


def alive() -> int:
    gc.collect()
    return sum(isinstance(thing, (Answer, Connection)) for thing in gc.get_objects())


def test_http_transfers_leave_no_memory_behind(big) -> None:  # type: ignore[no-untyped-def]
    before = alive()
    with running(big, scheduler=WaveScheduler()) as server:
        for round_ in range(60):
            with server.connect() as sock:
                sock.sendall(get(f"/image?wwid=02:00:00:00:03:{round_:02x}", "Range: bytes=0-2000000"))
                assert len(read_response(sock)[2]) == 2_000_001
        until(lambda: server.server.connections == 0, 15.0)
        assert len(server.server.pump) == 0
        assert server.server.serving.scheduler.tickets == {}  # type: ignore[union-attr]
        assert alive() <= before


def test_http_random_bytes_never_break_the_server(big) -> None:  # type: ignore[no-untyped-def]
    source = random.Random(11)
    seeds = [get("/script", "Range: bytes=0-1"), b"GET http://a/b?c=%zz HTTP/1.0\r\n\r\n", b"\0" * 30 + b"\r\n\r\n"]
    with running(big) as server:
        for _ in range(300):
            data = bytearray(source.choice(seeds))
            for _ in range(source.randrange(1, 6)):
                data[source.randrange(len(data))] = source.randrange(256)
            with server.connect() as sock:
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
                answer = b""
                try:
                    while piece := sock.recv(65536):
                        answer += piece
                except ConnectionResetError:
                    pass
                assert not answer or answer.startswith(b"HTTP/1.1 ")
                assert b" 500 " not in answer[:20]
        with server.connect() as sock:
            sock.sendall(get("/script"))
            assert read_response(sock)[0] == 200
