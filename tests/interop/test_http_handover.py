"""A restart hands listening sockets over: no connection is refused, what is under way is finished."""

from __future__ import annotations

import asyncio
import socket
import threading
from pathlib import Path

import uvloop

from support.httpserver import get, read_response
from wwfast.daemon.handover import Offer, take
from wwfast.net.http.message import Response
from wwfast.net.http.server import HttpServer, listen


def test_http_restart_hands_over_the_listening_socket(tmp_path: Path) -> None:
    way = tmp_path / "handover"
    answers: list[bytes] = []

    async def restart() -> None:
        loop = asyncio.get_running_loop()
        sockets = {"http": listen([("127.0.0.1", 0)])[0]}
        port = sockets["http"].getsockname()[1]
        old = HttpServer(sockets.values(), lambda _: Response(body=b"old"))
        old.start()
        taken = asyncio.Event()
        offer = Offer(way, sockets, taken.set)
        offer.start()

        def client() -> None:
            for _ in range(200):
                with socket.create_connection(("127.0.0.1", port), 10) as sock:
                    sock.sendall(get("/"))
                    answers.append(read_response(sock)[2])

        thread = threading.Thread(target=client)
        thread.start()
        while len(answers) < 20:
            await asyncio.sleep(0.01)
        theirs = await loop.run_in_executor(None, take, way)
        await taken.wait()
        new = HttpServer(theirs.values(), lambda _: Response(body=b"new"))
        new.start()
        await old.drain(10)
        await loop.run_in_executor(None, thread.join)
        await new.close()

    uvloop.run(restart())
    assert len(answers) == 200
    assert answers == sorted(answers, reverse=True)
    assert set(answers) == {b"old", b"new"}


def test_http_there_may_be_nobody_to_take_from(tmp_path: Path) -> None:
    assert take(tmp_path / "nothing") == {}
