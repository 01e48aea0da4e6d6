"""One packet's, one request's, one connection's fault stays its own: the others are answered, the fault is told."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from support.httpserver import get, read_response, running
from support.patience import until
from wwfast._ext.dhcp import BATCH
from wwfast.daemon.life.supervision import Supervisor
from wwfast.net.dhcp.leases import LeaseTable
from wwfast.net.dhcp.packet import ClientInfo, Message, build, number, parse
from wwfast.net.dhcp.responder import Responder
from wwfast.net.dhcp.server import DhcpServer, open_sockets
from wwfast.net.dhcp.terms import BootFile, Contact, DhcpConfig, Reservation
from wwfast.net.http.message import Request, Response
from wwfast.net.tftp.server import TftpServer, open_socket

LOOPBACK = "127.0.0.1"
BOOT = BootFile(LOOPBACK, "snponly.efi")


@contextmanager
def on_a_loop(start: Callable[[], Any], stop: Callable[[], Any]) -> Iterator[Supervisor]:
    """Run servers on a loop of their own; the supervisor is told what goes wrong there, as in the daemon."""
    supervisor, ready = Supervisor(), threading.Event()
    state: dict[str, Any] = {}

    async def main() -> None:
        state["loop"], state["over"] = asyncio.get_running_loop(), asyncio.Event()
        state["loop"].set_exception_handler(supervisor.uncaught)
        start()
        ready.set()
        await state["over"].wait()
        stop()

    thread = threading.Thread(target=lambda: uvloop.run(main()))
    thread.start()
    assert ready.wait(10)
    try:
        yield supervisor
    finally:
        state["loop"].call_soon_threadsafe(state["over"].set)
        thread.join(10)


# DHCP: 64 packets are one batch.


def raising(*_: object) -> Any:
    raise RuntimeError("poison")


#: What a reservation may be that nothing should have let through, and what else may fail for one client.
POISON: dict[str, Callable[[], Reservation]] = {
    "IPv6 address": lambda: Reservation("n", "fe80::1"),
    "no address": lambda: Reservation("n", "10.0.0"),
    "octet too large": lambda: Reservation("n", "10.0.0.256"),
    "IPv6 gateway": lambda: Reservation("n", "10.0.0.9", "255.0.0.0", "fe80::1"),
    "IPv6 netmask": lambda: Reservation("n", "10.0.0.9", "ffff::"),
    "netmask in bits": lambda: Reservation("n", "10.0.0.9", "/24"),
    "name that is no text": lambda: Reservation("n", "10.0.0.9", hostname="\ud800"),
    "wrong type": lambda: Reservation("n", 5),  # type: ignore[arg-type]
    "registry fails": raising,
    "boot file fails": lambda: Reservation("no boot", "10.0.0.9"),
    "contact fails": lambda: Reservation("no contact", "10.0.0.9"),
}


class Dhcp:
    def __init__(self) -> None:
        self.poisoned: dict[str, str] = {}
        self.told: list[str] = []
        config = DhcpConfig(LOOPBACK, "255.0.0.0", relays=frozenset({number(LOOPBACK)}))
        self.responder = Responder(config, self._host, self._boot, LeaseTable())
        sockets = open_sockets("lo", port=0, proxy_port=0)
        self.port = sockets.server.getsockname()[1]
        self.server = DhcpServer(sockets, self.responder, on_contact=self._contact)

    def _host(self, mac: str) -> Reservation | None:
        if mac in self.poisoned:
            return POISON[self.poisoned[mac]]()
        return Reservation("n", f"10.1.0.{int(mac[-2:], 16)}", "255.0.0.0", LOOPBACK)

    def _boot(self, client: ClientInfo, server_ip: str) -> BootFile:
        return raising() if self.poisoned.get(client.mac) == "boot file fails" else BOOT

    def _contact(self, contact: Contact, now: float) -> None:
        if contact.node == "no contact":
            raising()
        self.told.append(contact.mac)


def mac(at: int) -> bytes:
    return bytes((2, 0, 0, 0, 0, at))


@pytest.fixture(scope="module")
def dhcp() -> Iterator[tuple[Dhcp, Supervisor]]:
    made = Dhcp()
    with on_a_loop(made.server.start, made.server.stop) as supervisor:
        yield made, supervisor


@given(st.dictionaries(st.integers(0, BATCH - 1), st.sampled_from(sorted(POISON)), min_size=1, max_size=5))
def test_dhcp_one_poisoned_reservation_costs_nobody_else_an_answer(
    dhcp: tuple[Dhcp, Supervisor], poisoned: dict[int, str]
) -> None:
    server, supervisor = dhcp
    server.poisoned = {mac(at).hex(":"): kind for at, kind in poisoned.items()}
    server.told.clear()
    failed = server.responder.counts["failed"]
    answered = {at for at in range(BATCH) if poisoned.get(at, "contact fails") == "contact fails"}
    with socket.socket(type=socket.SOCK_DGRAM) as relay:
        relay.bind((LOOPBACK, 0))
        relay.settimeout(10)
        for at in range(BATCH):
            options = {53: b"\1", 60: b"PXEClient", 82: b"\x13\0"}
            packet = build(Message(xid=at, chaddr=mac(at), giaddr=number(LOOPBACK), options=options))
            relay.sendto(packet, (LOOPBACK, server.port))
        assert {parse(relay.recv(2048)).xid for _ in answered} == answered
    others = {mac(at).hex(":") for at in range(BATCH) if at not in poisoned}
    until(lambda: set(server.told) == others, 5.0, why=lambda: "not told after the batch was sent")
    assert server.responder.counts["failed"] - failed == len(poisoned)
    assert {"answering DHCP", "telling of DHCP"} & supervisor.troubles().keys()


def test_dhcp_the_log_of_a_poisoned_packet_is_bounded(
    dhcp: tuple[Dhcp, Supervisor], caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(5):
        test_dhcp_one_poisoned_reservation_costs_nobody_else_an_answer.hypothesis.inner_test(  # type: ignore[attr-defined]
            dhcp, dict.fromkeys(range(40), "registry fails")
        )
    assert len(caplog.records) <= 1


# TFTP.


def test_tftp_one_request_that_fails_costs_nobody_else_an_answer() -> None:
    def lookup(name: str, peer: str) -> bytes | None:
        return raising() if name == "poison" else b"content of " + name.encode()

    def told(event: object) -> None:
        raising()

    listener = open_socket(LOOPBACK, 0)
    port = listener.getsockname()[1]
    server = TftpServer([listener], lookup, on_transfer=told)
    with on_a_loop(server.start, server.stop) as supervisor:
        for _ in range(3):
            clients = [socket.socket(type=socket.SOCK_DGRAM) for _ in range(40)]
            for at, client in enumerate(clients):
                client.bind((LOOPBACK, 0))
                client.settimeout(10)
                name = ("poison", "absent", "file")[at % 3]
                client.sendto(b"\0\1" + name.encode() + b"\0octet\0", (LOOPBACK, port))
            for at, client in enumerate(clients):
                data, peer = client.recvfrom(2048)
                assert data[:4] == (b"\0\5\0\0" if at % 3 == 0 else b"\0\3\0\1"), "an error, or the first block"
                client.sendto(b"\0\4\0\1", peer)
                client.close()
        # The engine tells of an end in its own time.
        until(lambda: {"answering TFTP", "telling of TFTP"} <= supervisor.troubles().keys(), 10.0)
        assert server.stats()["errors"] >= 3 * 14


# HTTP.


async def later() -> Response:
    await asyncio.sleep(0)
    return raising()


def http_poison(request: Request) -> Response | Awaitable[Response]:
    match request.path:
        case "/handler":
            raising()
        case "/later":
            return later()
        case "/news":
            return Response(200, body=b"x", stage="news")
        case "/body":
            return Response(200, body=object())  # type: ignore[arg-type]
        case "/headers":
            return Response(200, headers=5)  # type: ignore[arg-type]
    return Response(200, body=b"fine", stage="fine")


#: What the one with the fault sees: an answer, or the end of its connection; it does not wait for nothing.
HTTP = {"/handler": 500, "/later": 500, "/news": 200, "/body": None, "/headers": None}


@pytest.mark.parametrize(("poison", "status"), HTTP.items())
def test_http_one_request_that_fails_costs_nobody_else_an_answer(poison: str, status: int | None) -> None:
    with running(http_poison) as server:
        supervisor = Supervisor()
        server.call(lambda: server.loop.set_exception_handler(supervisor.uncaught))
        server.server.serving.on_transfer = news
        clients = [server.connect() for _ in range(40)]
        for _ in range(3):
            for at, client in enumerate(clients):
                client.sendall(get(poison if at % 4 == 0 else "/"))
            for at, client in enumerate(clients):
                if at % 4:
                    assert read_response(client)[2] == b"fine"
                elif status is not None:
                    assert read_response(client)[0] == status
                else:
                    assert client.recv(100) == b""
                    client.close()
                    clients[at] = server.connect()
        assert supervisor.troubles()
        for client in clients:
            client.close()
        until(lambda: server.server.connections == 0, 5.0)


def news(event: Any) -> None:
    if event.stage == "news":
        raising()
