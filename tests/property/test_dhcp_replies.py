"""Replies are put together from parts kept ready: whatever was asked before, they are those of a fresh server."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wwfast.net.dhcp.packet import Message, build, number, parse
from wwfast.net.dhcp.responder import Responder
from wwfast.net.dhcp.terms import (
    PROXY_PORT,
    SERVER_PORT,
    BootFile,
    DhcpConfig,
    Reply,
    Reservation,
)

SERVER = "10.0.0.1"
NODES = {
    "52:54:00:00:00:01": Reservation("n1", "10.0.0.11", "255.255.0.0", "10.0.0.254", "n1"),
    "52:54:00:00:00:02": Reservation("n2", "10.0.0.12", "255.255.0.0", "10.0.0.254", "n2"),
    "52:54:00:00:00:03": Reservation("far", "10.9.0.5", "255.255.0.0"),
    "52:54:00:00:00:04": Reservation("bare"),
}
CLASSES = [
    {},
    {60: b"systemd-networkd", 12: b"host"},
    {60: b"PXEClient:Arch:00000:UNDI:002001", 93: b"\0\0"},
    {60: b"PXEClient:Arch:00007:UNDI:003000", 93: b"\0\7"},
    {60: b"PXEClient:Arch:00007:UNDI:003010", 93: b"\0\7", 77: b"iPXE", 175: b"\1\1\1"},
    {60: b"HTTPClient:Arch:00016:UNDI:003000", 93: b"\0\x10"},
]
OTHERS = [0, number("10.0.0.12"), number("192.168.0.9")]
EXTRAS = st.fixed_dictionaries(
    {},
    optional={
        54: st.sampled_from([bytes((10, 0, 0, 1))] * 3 + [bytes((10, 0, 0, 77))]),
        82: st.sampled_from([b"\1\4port", b"\x13\0"]),
        97: st.binary(min_size=17, max_size=17),
        61: st.binary(min_size=2, max_size=20),
        57: st.sampled_from([b"\2\x40", b"\5\xdc"]),
        118: st.sampled_from([bytes((10, 0, 0, 0)), bytes((10, 9, 0, 0))]),
    },
)


@st.composite
def questions(draw: st.DrawFn) -> tuple[bytes, int]:
    """A packet and the port it comes to."""
    kind, who = draw(st.sampled_from([1, 1, 3, 3, 3, 8, 8, 4, 7])), draw(st.sampled_from([1, 2, 3, 3, 3, 4, 5]))
    known = NODES.get(f"52:54:00:00:00:0{who}")
    own = number(known.address) if known else 0
    wanted = draw(st.sampled_from([own, own, own, *OTHERS]))
    options = {53: bytes((kind,)), 50: wanted.to_bytes(4, "big"), **draw(st.sampled_from(CLASSES)), **draw(EXTRAS)}
    message = Message(
        xid=draw(st.integers(0, 2**32 - 1)),
        flags=draw(st.sampled_from([0, 0x8000])),
        ciaddr=draw(st.sampled_from([0, 0, own])),
        giaddr=draw(st.sampled_from([0, number("10.0.0.9"), number("10.9.0.1")])),
        chaddr=bytes((0x52, 0x54, 0, 0, 0, who)),
        options=options,
    )
    return build(message), draw(st.sampled_from([SERVER_PORT, SERVER_PORT, PROXY_PORT]))


def boot(client, server_ip: str) -> BootFile | None:
    if client.is_ipxe:
        return BootFile(server_ip, f"http://{server_ip}:9873/ipxe/{client.mac}")
    return BootFile(server_ip, f"{client.arch}.efi") if client.arch else None


def server(proxy: bool) -> Responder:
    return Responder(DhcpConfig(SERVER, "255.255.0.0", router="10.0.0.253", proxy=proxy), NODES.get, boot)


def answer(asked: Responder, packet: bytes, port: int) -> Reply | None:
    return asked.respond(parse(packet), 1000.0, source=(number("10.0.0.50"), 68), port=port)[0]


@given(st.lists(questions(), min_size=10, max_size=25), st.booleans())
def test_dhcp_replies_do_not_depend_on_what_was_asked_before(asked: list[tuple[bytes, int]], proxy: bool) -> None:
    used = server(proxy)
    for packet, port in asked:
        reply = answer(used, packet, port)
        assert reply == answer(server(proxy), packet, port)
        if reply is not None:
            question, said = parse(packet), parse(reply.data)
            assert (said.xid, said.chaddr, said.giaddr) == (question.xid, question.chaddr, question.giaddr)
            for code in (61, 82, 97, 118):
                assert said.options.get(code) == question.options.get(code)
