"""A restart hands listening sockets over: no connection is refused, what is under way is finished."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import uvloop

from support.daemon import MAC, NODES, overlay, tiny_image, write_conf
from support.httpserver import get, read_response
from support.patience import until
from wwfast.daemon.life.handover import Offer, Sockets, find
from wwfast.daemon.life.relay import Relay, attend
from wwfast.errors import WwfastError
from wwfast.net.http.message import Response
from wwfast.net.http.server import HttpServer, listen
from wwfast.paths import Paths
from wwfast.storm.cluster import PORT, Head, prepare, wwfast
from wwfast.storm.link import SERVER, Link, sources
from wwfast.storm.plan import Plan
from wwfast.storm.play import PIPE, SCRIPT, follow
from wwfast.system.run import Process, run

PAYLOAD = 24 << 20
STORM = 24  # nodes


STATE = {"leases": [["m", 1, 2.5, "x" * (1 << 20)]]}  # larger than any packet


class Holding:
    """One HTTP server as the holder of an offer."""

    def __init__(self, server: HttpServer) -> None:
        self.server = server
        self.taken = asyncio.Event()
        self.resumed = asyncio.Event()
        self.relay: Relay | None = None

    def pause(self) -> None:
        self.server.pause()

    async def state(self, relay: Relay | None) -> dict[str, Any]:
        self.relay = relay
        return STATE

    def resume(self) -> None:
        self.server.resume()
        self.resumed.set()

    def let_go(self) -> None:
        self.server.stop_accepting()
        self.taken.set()


def test_http_restart_hands_over_the_listening_socket(tmp_path: Path) -> None:
    way = tmp_path / "handover"
    answers: list[bytes] = []

    async def restart() -> None:
        loop = asyncio.get_running_loop()
        sockets = Sockets()
        listener = sockets.get("http", lambda: listen([("127.0.0.1", 0)])[0])
        port = listener.getsockname()[1]
        old = HttpServer([listener], lambda _: Response(body=b"old"))
        old.start()
        holder = Holding(old)
        offer = Offer(way, sockets, holder)
        offer.publish()

        def client() -> None:
            for _ in range(200):
                with socket.create_connection(("127.0.0.1", port), 10) as sock:
                    sock.sendall(get("/"))
                    answers.append(read_response(sock)[2])

        thread = threading.Thread(target=client)
        thread.start()
        while len(answers) < 20:
            await asyncio.sleep(0.01)
        shy = await loop.run_in_executor(None, find, way)
        assert shy is not None
        shy.close()  # it could not start: nothing has changed
        shy.sockets.close()
        predecessor = await loop.run_in_executor(None, find, way)
        assert predecessor is not None
        assert not holder.taken.is_set()
        state = await loop.run_in_executor(None, predecessor.release)
        assert state == STATE
        assert not holder.taken.is_set()
        new = HttpServer([predecessor.sockets.get("http", pytest.fail)], lambda _: Response(body=b"new"))
        new.start()
        predecessor.take()
        await holder.taken.wait()
        assert holder.relay is not None
        assert predecessor.relay is not None
        ended: list[str] = []

        async def end(mac: str) -> None:
            ended.append(mac)

        hearing = loop.create_task(attend(predecessor.relay, end))
        many = {f"52:54:00:00:{at >> 8:02x}:{at & 255:02x}" for at in range(2000)}
        assert all(await asyncio.gather(*(holder.relay.ask(mac) for mac in sorted(many))))
        assert (set(ended), len(ended)) == (many, len(many))
        holder.relay.close()
        await hearing
        assert not await holder.relay.ask(MAC)
        await old.drain(10)
        await loop.run_in_executor(None, thread.join)
        await new.close()

    uvloop.run(restart())
    assert len(answers) == 200
    assert answers == sorted(answers, reverse=True)
    assert set(answers) == {b"old", b"new"}


def test_http_of_two_successors_one_takes_over_and_one_is_sent_away(tmp_path: Path) -> None:
    way = tmp_path / "handover"

    async def restart() -> None:
        loop = asyncio.get_running_loop()
        sockets = Sockets()
        old = HttpServer([sockets.get("http", lambda: listen([("127.0.0.1", 0)])[0])], lambda _: Response(body=b"old"))
        old.start()
        holder = Holding(old)
        offer = Offer(way, sockets, holder)
        offer.publish()
        first = await loop.run_in_executor(None, find, way)
        second = await loop.run_in_executor(None, find, way)
        third = await loop.run_in_executor(None, find, way)
        assert first is not None
        assert second is not None
        assert third is not None
        assert await loop.run_in_executor(None, first.release) == STATE
        with pytest.raises(WwfastError, match="goes on"):
            await loop.run_in_executor(None, second.release)  # while the first one takes
        assert holder.relay is not None
        asked = loop.create_task(holder.relay.ask(MAC))
        first.close()  # which then fails after all
        await holder.resumed.wait()
        assert not await asked
        assert await loop.run_in_executor(None, third.release) == STATE
        third.take()
        assert third.relay is not None
        third.relay.close()
        await holder.taken.wait()
        assert await loop.run_in_executor(None, find, way) is None
        for one in (first, second, third):
            one.close()
            one.sockets.close()
        await old.close()

    uvloop.run(restart())


#: Connects, as user UID, to the socket NAME of a directory; prints how many sockets it was given.
ASK = """
import os, socket, sys
uid, folder, name = sys.argv[1:]
os.chdir(folder)
os.setgroups([]); os.setgid(int(uid)); os.setuid(int(uid))
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line:
    line.settimeout(20)
    line.connect(name)
    try:
        print(len(socket.recv_fds(line, 65536, 16)[1]))
    except ConnectionResetError:
        print(0)
"""


@pytest.mark.root
def test_http_sockets_are_handed_to_no_other_user(tmp_path: Path) -> None:
    """Though the file of the socket lets everybody in."""
    way = tmp_path / "handover"
    tmp_path.chmod(0o755)
    given: list[str] = []

    async def offered() -> None:
        loop = asyncio.get_running_loop()
        sockets = Sockets()
        server = HttpServer([sockets.get("http", lambda: listen([("127.0.0.1", 0)])[0])], lambda _: Response())
        server.start()
        offer = Offer(way, sockets, Holding(server))
        offer.publish()
        way.chmod(0o666)
        for uid in ("0", "65534"):
            words = [sys.executable, "-c", ASK, uid, str(tmp_path), way.name]
            given.append(await loop.run_in_executor(None, lambda words=words: run(words).stdout.decode().strip()))
        offer.close()
        await server.close()

    uvloop.run(offered())
    assert given == ["1", "0"]


def test_http_there_may_be_nobody_to_take_from(tmp_path: Path) -> None:
    assert find(tmp_path / "nothing") is None
    assert find(tmp_path / "no folder/nothing") is None


def test_http_sockets_nobody_asks_for_are_closed() -> None:
    kept, gone = listen([("127.0.0.1", 0), ("127.0.0.1", 0)])
    sockets = Sockets({"kept": kept, "gone": gone})
    assert sockets.get("kept", lambda: pytest.fail("was opened anew")) is kept
    sockets.close_rest()
    assert (kept.fileno() < 0, gone.fileno() < 0) == (False, True)
    kept.close()


class Server:
    """`wwfast server` on a loopback port, with a log of its own."""

    def __init__(self, paths: Paths, log: Path, *flags: str) -> None:
        self.log = log
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "wwfast", "--root", paths.root, "server", *flags], stdout=out, stderr=out
            )

    def said(self, words: str) -> bool:
        return words in self.log.read_text()

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


@pytest.fixture
def site(paths: Paths) -> tuple[Paths, int]:
    """A cluster of one node with an image of PAYLOAD bytes and more, and a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    write_conf(paths, warewulf={"port": port, "secure": False})
    paths.nodes_conf.write_text(NODES)
    overlay(paths)
    root = tiny_image(paths)
    (root / "payload").write_bytes(random.Random(1).randbytes(PAYLOAD))
    run([sys.executable, "-m", "wwfast", "--root", paths.root, "image", "build", "tiny"], timeout=120)
    return paths, port


class Clients:
    """One connection after the other asks for the script; every answer and every failure is kept."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.answered = 0
        self.failures: list[str] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def _ask(self) -> None:
        while not self._over.is_set():
            try:
                with socket.create_connection(("127.0.0.1", self.port), 30) as sock:
                    sock.settimeout(30)
                    sock.sendall(get(f"/ipxe/{MAC}"))
                    status, _, body = read_response(sock)[:3]
                    assert body.startswith(b"#!ipxe"), status
                    self.answered += 1
            except (OSError, AssertionError) as error:
                self.failures.append(repr(error))
            time.sleep(0.005)

    def end(self) -> None:
        self._over.set()
        self._thread.join()


@pytest.mark.slow
def test_http_restart_of_the_real_server_under_a_slow_download(site: tuple[Paths, int], tmp_path: Path) -> None:
    paths, port = site
    old = Server(paths, tmp_path / "old.log")
    new: Server | None = None
    last = 0
    try:
        until(lambda: old.said("serving on port"))
        whole = subprocess.run(
            ["curl", "-sf", "--noproxy", "*", f"http://127.0.0.1:{port}/image/{MAC}?compress=zst"],
            capture_output=True,
            check=True,
        ).stdout
        assert len(whole) > PAYLOAD
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
        slow.connect(("127.0.0.1", port))
        slow.settimeout(30)
        slow.sendall(get(f"/image/{MAC}?compress=zst"))
        data = slow.recv(64 << 10)
        clients = Clients(port)
        try:
            until(lambda: clients.answered > 20)
            new = Server(paths, tmp_path / "new.log", "--replace")
            until(lambda: new.said("serving on port"))
            before = clients.answered
            until(lambda: clients.answered > before + 20)
            assert old.process.poll() is None, "it has a transfer to finish"
            # The second replacement is one that the running server starts itself, as `systemctl reload` asks it to.
            new.process.send_signal(signal.SIGUSR2)
            new.process.wait(60)
            before = clients.answered
            until(lambda: clients.answered > before + 20)
            status = subprocess.run(
                ["curl", "-sf", "--noproxy", "*", f"http://127.0.0.1:{port}/status"], capture_output=True, check=True
            )
            last = json.loads(status.stdout)["pid"]
        finally:
            clients.end()
        assert old.process.poll() is None
        while piece := slow.recv(1 << 20):
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert hashlib.sha256(body).digest() == hashlib.sha256(whole).digest()
        slow.close()
        assert old.process.wait(30) == 0
        assert new.process.returncode == 0
        assert clients.failures == []
    finally:
        old.end()
        if new is not None:
            new.end()
        if last:
            os.kill(last, signal.SIGKILL)


@pytest.mark.slow
def test_http_successor_that_cannot_start_changes_nothing(site: tuple[Paths, int], tmp_path: Path) -> None:
    paths, port = site
    old = Server(paths, tmp_path / "old.log")
    try:
        until(lambda: old.said("serving on port"))
        beside = Server(paths, tmp_path / "beside.log")
        assert beside.process.wait(60) == 1
        assert beside.said("wwfast server --replace")
        with socket.socket() as busy:
            busy.bind(("0.0.0.0", 0))
            busy.listen()
            write_conf(paths, warewulf={"port": busy.getsockname()[1], "secure": False})
            new = Server(paths, tmp_path / "new.log", "--replace")
            assert new.process.wait(60) == 1
            assert new.said("cannot listen on")
        clients = Clients(port)
        until(lambda: clients.answered > 5)
        clients.end()
        assert clients.failures == []
        old.process.terminate()
        assert old.process.wait(30) == 0
    finally:
        old.end()


@pytest.mark.root
@pytest.mark.slow
def test_http_restart_in_the_middle_of_a_storm_takes_dhcp_and_tftp_along(tmp_path: Path) -> None:
    prepare(tmp_path, sources(STORM), 4, firmware=True)
    plan = Plan(SERVER, PORT, STORM, [SCRIPT], "uefi", firmware=True)
    log = tmp_path / "new.log"
    successors: list[Process] = []
    with Link() as link, Head(tmp_path, link, firmware=True) as head, log.open("wb") as out:

        def replace(_: object) -> None:
            if not successors:
                argv = [*wwfast(tmp_path, "server"), "--replace"]
                successors.append(link.serve(argv, stdout=out, stderr=out))

        try:
            # The first storm sees the handover, the second one the successor alone.
            for _ in range(2):
                report = follow(plan, lambda argv: link.play(argv, stdin=PIPE, stdout=PIPE), replace)
                assert report.failures == []
                assert len(report.times("runtime")) == STORM
                assert head.process is not None
                assert head.process.wait(60) == 0
            assert "serving on port" in log.read_text()
            assert "dhcp done" in log.read_text()
            asks = "asking for 3 s whether another DHCP server answers"
            assert asks in (tmp_path / "server.log").read_text()
            assert asks not in log.read_text(), "the one that was taken over from had asked"
        finally:
            for one in successors:
                one.terminate()
                one.wait(30)
