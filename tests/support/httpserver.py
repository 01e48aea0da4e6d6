"""A real HTTP server in a thread of the test, with its own event loop, and a raw client to be rude with."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvloop

from wwfast.archive.artefact import RAW, Artefact, Extent
from wwfast.net.http.message import Request, Response
from wwfast.net.http.server import HttpServer, listen
from wwfast.net.http.serving import Limits
from wwfast.net.transfer import Transfer

Handler = Callable[[Request], "Response | Awaitable[Response]"]
OCTETS = "application/octet-stream"


class Running:
    """`port` to connect to, `events` as they came, `call` to run something on the loop of the server."""

    def __init__(self) -> None:
        self.events: list[Transfer] = []
        self.server: HttpServer
        self.loop: asyncio.AbstractEventLoop
        self.port = 0

    def call(self, work: Callable[[], Any]) -> Any:
        async def on_loop() -> Any:
            result = work()
            return await result if isinstance(result, Awaitable) else result

        return asyncio.run_coroutine_threadsafe(on_loop(), self.loop).result(20)

    def connect(self, window: int | None = None, source: str = "") -> socket.socket:
        one = socket.socket()
        if source:
            one.bind((source, 0))
        if window:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        one.settimeout(20)
        one.connect(("127.0.0.1", self.port))
        return one


@contextmanager
def running(handler: Handler, *, limits: Limits | None = None, scheduler: Any = None) -> Iterator[Running]:
    this = Running()
    ready = threading.Event()

    async def main() -> None:
        this.loop = asyncio.get_running_loop()
        sockets = listen([("127.0.0.1", 0)])
        this.port = sockets[0].getsockname()[1]
        this.server = HttpServer(sockets, handler, on_transfer=this.events.append, limits=limits, scheduler=scheduler)
        this.server.start()
        this.over = asyncio.Event()
        ready.set()
        await this.over.wait()
        await this.server.close()

    thread = threading.Thread(target=lambda: uvloop.run(main()), daemon=True)
    thread.start()
    assert ready.wait(20)
    try:
        yield this
    finally:
        this.loop.call_soon_threadsafe(this.over.set)
        thread.join(20)
        assert not thread.is_alive(), "the server did not stop"


def artefact(path: Path, body: bytes, *, pieces: int = 1, name: str = "image") -> Artefact:
    """`body` in `pieces` files below `path`."""
    path.mkdir(exist_ok=True, parents=True)
    size = -(-len(body) // pieces)
    extents = []
    for index in range(pieces):
        part = body[index * size : (index + 1) * size]
        file = path / f"{name}.{index}"
        file.write_bytes(b"ahead" + part + b"behind")
        extents.append(Extent(str(file), 5, len(part)))
    return Artefact(name, RAW, tuple(extents), f"{name}-digest", (RAW,), 1_700_000_000)


def get(target: str, *headers: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: server", *headers, "", ""]).encode()


def read_response(sock: socket.socket, *, head: bool = False) -> tuple[int, dict[str, str], bytes]:
    """Status, headers with their names as sent, body."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(65536)
        assert piece, f"closed after {data!r}"
        data += piece
    top, _, body = data.partition(b"\r\n\r\n")
    first, *lines = top.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    status = int(first.split()[1])
    length = 0 if head or status == 304 else int(headers["Content-Length"])
    while len(body) < length:
        piece = sock.recv(1 << 20)
        assert piece, f"closed after {len(body)} of {length}"
        body += piece
    assert len(body) == length
    return status, headers, body
