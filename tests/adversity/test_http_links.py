"""Bad links: packets lost, answers late, connections cut in the middle; and what storms over them leave behind."""

from __future__ import annotations

import hashlib
import queue
import random
import re
import resource
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from support.httpserver import OCTETS, artefact, get, read_response, running
from wwfast.net.http.message import Request, Response
from wwfast.net.transfer import Outcome
from wwfast.storm.cluster import PORT, Head, prepare
from wwfast.storm.link import SERVER, Link, sources
from wwfast.storm.plan import Plan
from wwfast.storm.play import PIPE, SCRIPT, follow

BODY = random.Random(5).randbytes(6_000_001)
DELAY = 0.05
NODES = 16
GROWTH = 24  # MiB that the server may gain by two more storms: less than one image of 8 MiB for each of four nodes


class Proxy:
    """Hands on every byte after `delay` seconds, each way; resets its first connection after `cut` bytes of answer."""

    def __init__(self, port: int, delay: float, cut: int = 0) -> None:
        self._target, self._delay, self._cut = port, delay, cut
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open: list[socket.socket] = [self._listener]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket()
            server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)  # what is cut is not all on its way yet
            server.connect(("127.0.0.1", self._target))
            self._open += [client, server]
            cut, self._cut = self._cut, 0
            for source, sink, limit in ((client, server, 0), (server, client, cut)):
                pieces: queue.Queue[tuple[float, bytes]] = queue.Queue(256)
                self._start(self._read, source, pieces)
                self._start(self._write, sink, pieces, limit, source)

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments)
        thread.start()
        self._threads.append(thread)

    def _read(self, source: socket.socket, pieces: queue.Queue[tuple[float, bytes]]) -> None:
        while True:
            try:
                data = source.recv(65536)
            except OSError:
                data = b""
            pieces.put((time.monotonic() + self._delay, data))
            if not data:
                return

    def _write(
        self, sink: socket.socket, pieces: queue.Queue[tuple[float, bytes]], limit: int, source: socket.socket
    ) -> None:
        total = 0
        while True:
            due, data = pieces.get()
            time.sleep(max(0.0, due - time.monotonic()))
            try:
                if data:
                    sink.sendall(data)
                else:
                    sink.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # read on, so that the other side is not held up
            if not data:
                return
            total += len(data)
            if limit and total >= limit:
                limit = 0
                for one in (sink, source):
                    with suppress(OSError):
                        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        one.shutdown(socket.SHUT_RD)  # wakes who reads it
                    one.close()

    def close(self) -> None:
        for one in self._open:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            one.close()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()


@contextmanager
def proxy(port: int, delay: float, cut: int = 0) -> Iterator[Proxy]:
    one = Proxy(port, delay, cut)
    try:
        yield one
    finally:
        one.close()


def test_http_over_a_slow_path_keeps_one_connection(tmp_path: Path) -> None:
    big = artefact(tmp_path, BODY, pieces=3)

    def handler(request: Request) -> Response:
        return Response(body=big if request.path == "/big" else b"#!ipxe\n", content_type=OCTETS)

    with running(handler) as server, proxy(server.port, DELAY) as way, socket.socket() as sock:
        sock.settimeout(20)
        sock.connect(("127.0.0.1", way.port))
        for _ in range(2):
            begin = time.monotonic()
            sock.sendall(get("/script"))
            assert read_response(sock)[2] == b"#!ipxe\n"
            assert time.monotonic() - begin >= 2 * DELAY
            sock.sendall(get("/big"))
            assert hashlib.sha256(read_response(sock)[2]).digest() == hashlib.sha256(BODY).digest()
        assert server.server.connections == 1


def test_http_download_that_is_cut_is_told_of_and_resumed(tmp_path: Path) -> None:
    body = BODY * 12  # more than the buffers on the way hold: what they take counts as sent
    big = artefact(tmp_path, body, pieces=3)
    out = tmp_path / "out"

    def handler(_: Request) -> Response:
        return Response(body=big, content_type=OCTETS, stage="image", wwid="52:54:00:00:00:01")

    with running(handler) as server, proxy(server.port, 0.0, cut=2_000_000) as way:
        url = f"http://127.0.0.1:{way.port}/big"
        words = ["curl", "-sf", "--noproxy", "*", "-o", out, "-C", "-", url]
        first = subprocess.run(words, check=False, timeout=60)
        assert first.returncode in (18, 56), "cut: partial file, or a reset"
        assert 0 < out.stat().st_size < len(body)
        subprocess.run(words, check=True, timeout=60)
        assert hashlib.sha256(out.read_bytes()).digest() == hashlib.sha256(body).digest()
        outcomes = [event.outcome for event in server.events]
        assert Outcome.FAILED in outcomes
        assert outcomes[-1] is Outcome.DONE


def figures(head: Head) -> tuple[int, float]:
    """Open descriptors and resident MiB of the server."""
    assert head.process is not None
    base = Path(f"/proc/{head.process.pid}")
    resident = int((base / "statm").read_text().split()[1]) * resource.getpagesize()
    return len(list((base / "fd").iterdir())), resident / (1 << 20)


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_http_storms_over_a_lossy_link_lose_no_node_and_leave_nothing_behind(tmp_path: Path) -> None:
    prepare(tmp_path, sources(NODES), 4)
    plan = Plan(SERVER, PORT, NODES, [SCRIPT], checked=1.0)
    rules = (
        "table inet loss { chain out { type filter hook output priority 0; numgen random mod 50 < 1 counter drop; };"
    )
    rules += " chain in { type filter hook input priority 0; numgen random mod 50 < 1 counter drop; }; }"
    with Link() as link, Head(tmp_path, link) as head:
        link.run(["nft", rules], package="nftables")
        seen: list[tuple[int, float]] = []
        for _ in range(3):
            report = follow(plan, lambda argv: link.play(argv, stdin=PIPE, stdout=PIPE), lambda event: None)
            assert report.failures == []
            assert report.twins() == 0
            assert len(report.times("runtime")) == NODES
            deadline = time.monotonic() + 20
            while seen and figures(head)[0] > seen[0][0] and time.monotonic() < deadline:
                time.sleep(0.1)
            seen.append(figures(head))
        lost = [int(n) for n in re.findall(r"packets (\d+)", link.run(["nft", "list", "ruleset"]).stdout.decode())]
    assert len(lost) == 2
    assert all(lost), "packets were lost both ways"
    descriptors, resident = zip(*seen, strict=True)
    assert max(descriptors) <= descriptors[0], "a storm leaves no descriptor open"
    assert resident[-1] - resident[0] < GROWTH
