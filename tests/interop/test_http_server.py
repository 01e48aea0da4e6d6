"""The HTTP server as clients see it: raw sockets, curl and wget."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import random
import re
import select
import shutil
import socket
import struct
import subprocess
import threading
import time
from pathlib import Path

import pytest

from support.httpserver import OCTETS, artefact, get, read_response, running
from support.patience import until
from wwfast.archive.artefact import Artefact
from wwfast.daemon.traffic.scheduler import WaveScheduler
from wwfast.daemon.traffic.width import NARROWEST
from wwfast.net.http.message import Request, Response
from wwfast.net.http.serving import Limits
from wwfast.net.transfer import Outcome

BODY = random.Random(7).randbytes(6_000_001)


class Site:
    """Answers /big, /small, /text, /slow, /boom; remembers requests."""

    def __init__(self, tree: Path) -> None:
        self.big = artefact(tree, BODY, pieces=3)
        self.small = artefact(tree, BODY[:16384], name="small")
        self.requests: list[Request] = []

    def __call__(self, request: Request) -> Response | object:
        self.requests.append(request)
        if request.path == "/big":
            return Response(body=self.big, content_type=OCTETS, stage="image", wwid="52:54:00:00:00:01", node="n1")
        if request.path.startswith("/node/"):
            return Response(body=self.big, content_type=OCTETS, stage="image", wwid=request.path[6:])
        if request.path == "/small":
            return Response(body=self.small, content_type=OCTETS)
        if request.path == "/text":
            return Response(body=b"#!ipxe\n", etag='"t"', stage="ipxe")
        if request.path == "/slow":
            return self.slow()
        if request.path == "/boom":
            raise RuntimeError("a fault of the handler")
        return Response(404, stage="image", sent="NOT_FOUND")

    async def slow(self) -> Response:
        await asyncio.sleep(0.05)
        return Response(body=b"slow")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "tree")


def test_http_heads_are_what_grub_and_uefi_need(site: Site) -> None:
    with running(site) as server, server.connect() as sock:
        for target in ("/big", "/small", "/text", "/nothing", "//big"):
            sock.sendall(get(target, method="HEAD"))
            by_head = read_response(sock, head=True)
            sock.sendall(get(target))
            by_get = read_response(sock)
            assert by_head[0] == by_get[0]
            for answer in (by_head, by_get):
                assert {"Content-Type", "Content-Length", "Date"} <= set(answer[1]), "in this very case, for GRUB"
                assert "Transfer-Encoding" not in answer[1]
            assert by_head[1]["Content-Length"] == by_get[1]["Content-Length"] == str(len(by_get[2]))
        assert {event.stage for event in server.events} == {"image", "ipxe"}


def test_http_body_of_many_extents_arrives_whole_with_its_events(site: Site) -> None:
    with running(site) as server, server.connect() as sock:
        sock.sendall(get("/big"))
        status, headers, body = read_response(sock)
        assert (status, body) == (200, BODY)
        assert headers["ETag"] == '"image-digest"'
        assert headers["Last-Modified"] == "Tue, 14 Nov 2023 22:13:20 GMT"
        sock.sendall(get("/text"))
        read_response(sock)
        first, *_, last = [event for event in server.events if event.stage == "image"]
        assert (first.outcome, first.sent_bytes) == (Outcome.STARTED, 0)
        assert (last.outcome, last.sent_bytes, last.total_bytes) == (Outcome.DONE, len(BODY), len(BODY))
        assert (last.wwid, last.node, last.sent, last.status) == ("52:54:00:00:00:01", "n1", "image", 200)


@pytest.mark.parametrize("target", ["/big", "/small"])
def test_http_ranges_and_conditions(site: Site, target: str) -> None:
    whole = BODY if target == "/big" else BODY[:16384]
    with running(site) as server, server.connect() as sock:
        for start, end in ((0, 0), (5, 4999), (len(whole) // 3 - 5, len(whole) // 3 + 5), (1, len(whole) - 1)):
            sock.sendall(get(target, f"Range: bytes={start}-{end}"))
            status, headers, body = read_response(sock)
            assert (status, headers["Content-Range"]) == (206, f"bytes {start}-{end}/{len(whole)}")
            assert body == whole[start : end + 1]
        sock.sendall(get(target, f"Range: bytes={len(whole)}-"))
        status, headers, body = read_response(sock)
        assert (status, headers["Content-Range"], body) == (416, f"bytes */{len(whole)}", b"")
        name = "image" if target == "/big" else "small"
        sock.sendall(get(target, f'If-None-Match: "{name}-digest"'))
        assert read_response(sock)[0] == 304
        sock.sendall(get(target, "Range: bytes=0-9", 'If-Range: "old"'))
        assert read_response(sock)[2] == whole
        sock.sendall(get(target, "Range: bytes=0-9", method="HEAD"))
        assert read_response(sock, head=True)[0] == 200


def test_http_requests_arrive_in_pieces_or_all_at_once(site: Site) -> None:
    with running(site) as server, server.connect() as sock:
        for byte in get("/text"):
            sock.sendall(bytes([byte]))
        assert read_response(sock)[2] == b"#!ipxe\n"
        sock.sendall(get("/text") + get("/slow") + get("/small") + get("/text"))
        data = b""
        while data.count(b"#!ipxe") < 2:
            data += sock.recv(65536)
        order = [data.index(part) for part in (b"#!ipxe", b"slow", BODY[:64])]
        assert order == sorted(order)


def test_http_traversal_and_other_methods_are_refused(site: Site) -> None:
    with running(site) as server:
        for request, status in (
            (get("/../etc/passwd"), 400),
            (get("/a/%2e%2e/%2e%2e/etc/passwd"), 400),
            (get("/big", method="DELETE"), 405),
            (get("/big", "Content-Length: 3") + b"abc", 413),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        ):
            with server.connect() as sock:
                sock.sendall(request)
                answer = read_response(sock)
                assert (answer[0], answer[1]["Connection"]) == (status, "close")
                assert sock.recv(1) == b""
        assert site.requests == [], "the handler never saw them"


def test_http_fault_of_a_handler_is_a_500_and_the_connection_lives(site: Site) -> None:
    with running(site) as server, server.connect() as sock:
        sock.sendall(get("/boom"))
        assert read_response(sock)[0] == 500
        sock.sendall(get("/text"))
        assert read_response(sock)[0] == 200


def test_http_request_tells_addresses_and_first_query_values(site: Site) -> None:
    with running(site) as server, server.connect() as sock:
        sock.sendall(get("/text?wwid=52:54:00:00:00:01&wwid=x", "User-Agent: iPXE/1.21"))
        read_response(sock)
        (request,) = site.requests
        assert request.query == {"wwid": "52:54:00:00:00:01"}
        assert request.headers["user-agent"] == "iPXE/1.21"
        assert (request.peer_ip, request.peer_port) == sock.getsockname()


def test_http_replaced_file_stays_for_transfers_under_way(tmp_path: Path) -> None:
    old, new = os.urandom(8_000_000), os.urandom(8_000_000)
    made: list[Artefact] = [artefact(tmp_path, old)]
    with running(lambda _: Response(body=made[0], content_type=OCTETS)) as server:
        slow = server.connect(window=4096)
        with slow:
            slow.sendall(get("/"))
            slow.recv(100, 0)
            fresh = artefact(tmp_path / "new", new)
            (tmp_path / "new/image.0").replace(tmp_path / "image.0")
            made[0] = Artefact("image", "raw", made[0].extents, "other", ("raw",), fresh.mtime)
            with server.connect() as quick:
                quick.sendall(get("/"))
                assert read_response(quick)[2] == new
            rest = b""
            while len(rest) < len(old):
                rest += slow.recv(1 << 20)
                if rest.endswith(old[-100:]):
                    break
            assert rest.endswith(old[-1_000_000:])
    assert len(server.server.serving.files) == 0


def test_http_file_that_became_shorter_is_an_error_not_a_short_body(tmp_path: Path) -> None:
    made = artefact(tmp_path, b"x" * 5_000_000)
    with running(lambda _: Response(body=made, stage="image")) as server:
        os.truncate(tmp_path / "image.0", 1000)
        with server.connect() as sock:
            sock.sendall(get("/"))
            assert read_response(sock)[0] == 500
        assert server.events[0].outcome is Outcome.FAILED
        assert "image.0" in server.events[0].detail


@pytest.mark.parametrize("tool", ["curl", "wget"])
def test_http_downloads_by_curl_and_wget(site: Site, tool: str, tmp_path: Path) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    out = tmp_path / "out"
    with running(site) as server:
        url = f"http://127.0.0.1:{server.port}/big"
        command = {"curl": ["curl", "-sfo", out, url], "wget": ["wget", "-qO", out, url]}[tool]
        subprocess.run(command, check=True, timeout=60)
        assert out.read_bytes() == BODY
        with out.open("r+b") as file:
            file.truncate(1_000_000)
        resume = {"curl": ["curl", "-sfC", "-", "-o", out, url], "wget": ["wget", "-qcO", out, url]}[tool]
        subprocess.run(resume, check=True, timeout=60)
        assert hashlib.sha256(out.read_bytes()).digest() == hashlib.sha256(BODY).digest()
        assert any("range" in request.headers for request in site.requests)


def test_http_answers_everything_that_wrk_asks(site: Site) -> None:
    with running(site) as server:
        url = f"http://127.0.0.1:{server.port}/small"
        words = ["wrk", "-t", "2", "-c", "64", "-d", "1s", "--latency", url]
        said = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout
        assert "Non-2xx" not in said
        assert "Socket errors" not in said
        answered = re.search(r"(\d+) requests in", said)
        assert answered
        assert int(answered[1]) > 64
        assert len(site.requests) >= int(answered[1])


def test_http_drain_finishes_what_is_under_way_and_takes_nobody_new(site: Site) -> None:
    with running(site) as server:
        idle, busy = server.connect(), server.connect(window=4096)
        idle.sendall(get("/text"))
        read_response(idle)
        busy.sendall(get("/big"))
        assert busy.recv(10) == b"HTTP/1.1 2"
        drained = asyncio.run_coroutine_threadsafe(server.server.drain(20), server.loop)
        idle.settimeout(10)
        assert idle.recv(1) == b"", "an idle connection is closed at once"
        time.sleep(0.1)
        assert not drained.done()
        data = b""
        while piece := busy.recv(1 << 20):
            data += piece
        assert data.endswith(BODY[-1000:])
        drained.result(20)
        idle.close()
        busy.close()


def test_http_connections_of_machines_that_are_off_are_found_out_by_the_kernel(site: Site) -> None:
    """A handler that waits has no end of its own: without keepalive its connection would keep its place for ever."""
    with running(site) as server, server.connect() as sock:
        sock.sendall(get("/text"))
        read_response(sock)
        words = ["ss", "-tnoH", "state", "established", f"( sport = :{server.port} )"]
        assert "timer:(keepalive," in subprocess.run(words, capture_output=True, text=True, check=True).stdout


def test_http_little_lies_unsent_in_the_kernel_whoever_does_not_read(site: Site) -> None:
    """What is there already goes out before anything that is more urgent."""
    with running(site) as server, server.connect(window=4096) as sock:
        words = ["ss", "-tnH", "state", "established", f"( sport = :{server.port} )"]
        queued = [0]
        sock.sendall(get("/big"))
        assert sock.recv(1)

        def lies_still() -> bool:
            queued.append(int(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()[1]))
            return queued[-1] > 0 and queued[-5:] == 5 * queued[-1:]

        until(lies_still, 20.0)
        assert queued[-1] < 1 << 20


def test_http_server_that_is_closed_cuts_what_nobody_reads(site: Site) -> None:
    with running(site) as server, server.connect(window=4096) as sock:
        sock.sendall(get("/big"))
        assert sock.recv(1)
        asyncio.run_coroutine_threadsafe(server.server.close(), server.loop).result(20)
        assert (server.server.connections, server.events[-1].outcome) == (0, Outcome.FAILED)


def test_http_server_that_is_closed_leaves_no_thread(site: Site) -> None:
    before = set(threading.enumerate())
    with running(site) as server, server.connect() as sock:
        sock.sendall(get("/big"))
        read_response(sock)
        assert len(set(threading.enumerate()) - before) > 1, "its own, and those that open files"
    until(lambda: not set(threading.enumerate()) - before, 20.0)
    assert server.server.connections == 0


def test_http_loop_waits_for_nobody_who_has_gone_in_the_same_turn(site: Site) -> None:
    """The answer is sent and its connection is to close, and the client resets it before the loop looks at either."""
    waited = []
    with running(site) as server:
        for _ in range(3):
            held, go = threading.Event(), threading.Event()
            with server.connect() as sock:
                sock.sendall(get("/big", "Connection: close"))
                size = len(sock.recv(1))
                server.loop.call_soon_threadsafe(lambda held=held, go=go: (held.set(), go.wait(20)))
                assert held.wait(20)
                while size < len(BODY):  # and some of the head
                    size += len(sock.recv(1 << 20))
                assert select.select([server.server.pump.fileno()], [], [], 20)[0], "the pump is through with it"
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            begin = time.monotonic()
            go.set()
            server.call(lambda: None)
            waited.append(time.monotonic() - begin)
        assert server.server.connections == 0
    assert min(waited) < 0.5


def test_http_pacing_keeps_one_client_below_the_rate(site: Site) -> None:
    """SO_MAX_PACING_RATE: 6 MB at 8 MB/s take at least half a second, unpaced they take a tenth of that."""
    with running(site, limits=Limits(pacing_bytes=8_000_000)) as server, server.connect() as sock:
        begin = time.monotonic()
        sock.sendall(get("/big"))
        assert read_response(sock)[2] == BODY
        assert time.monotonic() - begin > 0.4


def test_http_drain_without_successor_waits_neither_for_the_dead_nor_for_the_queue(site: Site) -> None:
    """A machine that was switched off never closes its connection; one in the queue has nobody to serve it."""
    with running(site, scheduler=WaveScheduler()) as server:
        dead = [server.connect(window=4096) for _ in range(4 * NARROWEST)]
        for index, sock in enumerate(dead):
            sock.sendall(get(f"/node/{index}"))
        until(lambda: server.server.serving.waiting, 20.0)
        begin = time.monotonic()
        asyncio.run_coroutine_threadsafe(server.server.drain(60, 0.5), server.loop).result(30)
        assert time.monotonic() - begin < 20
        with socket.socket() as late:
            assert late.connect_ex(("127.0.0.1", server.port)) == errno.ECONNREFUSED
        for sock in dead:
            sock.close()
