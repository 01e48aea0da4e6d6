"""Answers heads that follow this one: over TLS, to whoever has the key. Few clients, threads of their own, and nothing
that a boot waits for."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import msgspec

from wwfast import __version__
from wwfast.errors import NotFoundError, WwfastError, cause
from wwfast.heads import words
from wwfast.heads.manifest import FORMAT, SHA256, Said
from wwfast.heads.words import Answer, Report
from wwfast.net.restraint import Restraint

if TYPE_CHECKING:
    from wwfast.heads.closings import Closed, Closings
    from wwfast.heads.editions import Editions
    from wwfast.heads.peers import Peers
    from wwfast.overlays.making.results import Results

log = logging.getLogger(__name__)

SECONDS = 30.0  # without a byte, for who has the key
HANDSHAKE_SECONDS = 5.0  # for who has not shown yet that it has
CONNECTIONS, OF_ONE = 32, 8  # at once, of all and of one address
REPORT = 4 << 20  # bytes of a report
LOOK_SECONDS = 0.2  # between two looks whether it is to end
BIND_SECONDS = 1.0  # between two tries: a predecessor may have the port


class Leader(ThreadingHTTPServer):
    """Listens when it is started; `heard` is told, in a thread, of boots that ended at another head."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def __init__(
        self,
        address: tuple[str, int],
        context: ssl.SSLContext,
        editions: Editions,
        results: Results,
        peers: Peers,
        closings: Closings,
        heard: Callable[[Closed], None],
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, Handler, bind_and_activate=False)
        self.context, self.editions, self.results = context, editions, results
        self.peers, self.closings, self.heard = peers, closings, heard
        self.trouble = "it does not listen yet"
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._of: Counter[str] = Counter()
        self._refusals = Restraint(3, 1 / 60)
        self._thread = threading.Thread(target=self._serve, name="heads", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _serve(self) -> None:
        while self.trouble and not self._ended.is_set():
            try:
                self.server_bind()
                self.server_activate()
            except OSError as error:
                self.trouble = f"cannot listen for heads on port {self.server_address[1]}: {error.strerror}"
                self._ended.wait(BIND_SECONDS)
            else:
                self.trouble = ""
        self.timeout = LOOK_SECONDS
        while not self._ended.is_set():
            self.handle_request()
        self.server_close()

    def close(self) -> None:
        """Safe to repeat."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(2 * LOOK_SECONDS)

    def get_request(self) -> tuple[Any, Any]:
        """The handshake is made by the thread of the connection: here others would wait for it."""
        sock, peer = super().get_request()
        sock.settimeout(HANDSHAKE_SECONDS)
        return self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False), peer

    def verify_request(self, request: Any, client_address: Any) -> bool:
        with self._lock:
            free = self._of.total() < CONNECTIONS and self._of[client_address[0]] < OF_ONE
            self._of[client_address[0]] += free
        return free

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._lock:
                self._of -= Counter([client_address[0]])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Of the exception at hand: a connection that ends is no event, a key that is another one is."""
        import sys

        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            log.error("answering the head %s failed", client_address[0], exc_info=error)
        elif isinstance(error, ssl.SSLError) and "CERTIFICATE" in (error.reason or "") and self._refusals.allows():
            log.warning("%s asked as a head and does not have the key: %s", client_address[0], error.reason)


class Handler(BaseHTTPRequestHandler):
    """One connection of a head."""

    server: Leader
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        self.request.do_handshake()  # afterwards it has shown that it has the key
        self.request.settimeout(SECONDS)
        super().setup()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answered(self._get)

    def do_POST(self) -> None:
        self._answered(self._post)

    def _answered(self, answer: Callable[[str], None]) -> None:
        path = self.path.removeprefix(words.ROOT)
        try:
            answer(path)
        except NotFoundError as error:
            self._send(404, error.message.encode())
        except WwfastError as error:
            self._send(500, error.message.encode())

    def _get(self, path: str) -> None:
        if path == "/manifest":
            self._send(200, self.server.editions.latest().text)
            return
        name = path.removeprefix("/object/")
        if not SHA256.fullmatch(name):
            raise NotFoundError("heads of this version do not ask for that")
        start = self.headers.get("Range", "").removeprefix("bytes=").removesuffix("-")
        try:
            left, pieces = self.server.editions.read(name, int(start) if start.isascii() and start.isdigit() else 0)
        except OSError as error:
            raise NotFoundError(f"it cannot be read: {cause(error)}") from error
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(left))
        self.end_headers()
        sent = 0
        with closing(pieces):
            for data in pieces:
                self.wfile.write(data)
                sent += len(data)
        self.close_connection = self.close_connection or sent != left

    def _post(self, path: str) -> None:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()) or int(length) > REPORT:
            self.close_connection = True
            raise WwfastError("a length is wanted, and a small one")
        body = self.rfile.read(int(length))
        if path == "/poll":
            self._send(200, self._polled(body))
        elif path == "/parts":
            self._send(200, self._parts(body))
        else:
            raise NotFoundError("heads of this version do not ask for that")

    def _polled(self, body: bytes) -> bytes:
        """A head of another version is told which one this is, and is seen among those that follow."""
        try:
            said = msgspec.json.decode(body, type=Said)
            report = msgspec.json.decode(body, type=Report) if said.format == FORMAT else None
        except msgspec.DecodeError as error:
            raise WwfastError(f"the report cannot be read: {error}") from error
        revision = self.server.editions.latest().manifest.revision if report else ""
        report = report or Report(said.format, said.version, said=f"its heads speak form {said.format}, not {FORMAT}")
        self.server.peers.heard(self.client_address[0], report, revision)
        for closed in report.closed:
            self.server.heard(closed)
        return msgspec.json.encode(Answer(FORMAT, __version__, revision, *self.server.closings.after(report.heard)))

    def _parts(self, body: bytes) -> bytes:
        found: list[bytes] = []
        for at in range(0, len(body), words.CONTENT):
            frame, length = self.server.results.part(body[at : at + words.CONTENT])
            found += [words.PART.pack(len(frame), length), frame]
        return b"".join(found)

    def _send(self, status: int, body: bytes) -> None:
        with suppress(BrokenPipeError):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
