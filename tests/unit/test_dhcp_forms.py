"""Clients that are not the usual ones, and replies that must be short: right by the RFCs, or said."""

from __future__ import annotations

import pytest

from wwfast.net.dhcp.leases import LeaseTable
from wwfast.net.dhcp.packet import HEADER, IEEE802, INFINIBAND, Kind, Message, build, dotted, number, parse
from wwfast.net.dhcp.responder import Responder
from wwfast.net.dhcp.terms import PROXY_PORT, BootFile, Contact, DhcpConfig, Reply, Reservation

SERVER = "10.0.0.1"
NODE = Reservation("n1", "10.0.0.11", "255.255.0.0", "10.0.0.254", "n1")
MAC = bytes.fromhex("525400000001")
STRANGER = bytes.fromhex("525400000005")
GUID = bytes.fromhex("ec0d9a03009c81e2")
PXE = {60: b"PXEClient:Arch:00007:UNDI:003000", 93: b"\0\7"}
BIOS = {60: b"PXEClient:Arch:00000:UNDI:002001", 93: b"\0\0"}
IPXE = {60: b"PXEClient:Arch:00007:UNDI:003010", 93: b"\0\7", 77: b"iPXE", 175: b"\1\1\1"}
URL = f"http://{SERVER}:9873/ipxe/52:54:00:00:00:01?assetkey=${{asset:uristring}}&uuid=${{uuid}}&memsize=${{memsize}}"
BINARIES = {0: "undionly.kpxe", 7: "snponly.efi"}


def responder(*, first: str = "", last: str = "", proxy: bool = False, **config: object) -> Responder:
    def boot(client, server_ip: str) -> BootFile | None:
        name = URL if client.is_ipxe else BINARIES.get(client.arch or 0)
        return BootFile(server_ip, name) if name else None

    known = {MAC.hex(":"): NODE, GUID.hex(":"): Reservation("ib1", "10.0.0.12")}
    terms = DhcpConfig(SERVER, "255.255.0.0", proxy=proxy, **config)  # type: ignore[arg-type]
    return Responder(terms, known.get, boot, LeaseTable(number(first), number(last)))


def ask(
    server: Responder, options: dict[int, bytes], *, chaddr: bytes = MAC, kind: int = Kind.DISCOVER, now=1000.0, **more
) -> tuple[Reply | None, Contact | None]:
    said = {53: bytes((kind,)), **options} if kind else options
    port = more.pop("port", 67)
    message = Message(xid=7, chaddr=chaddr, options=said, **more)
    return server.respond(parse(build(message)), now, source=(0, 67 if message.giaddr else 68), port=port)


def read(answer: tuple[Reply | None, Contact | None]) -> Message:
    assert answer[0] is not None
    return parse(answer[0].data)


def as_c_string(data: bytes, wanted: int) -> bytes:
    """An option's value as a ROM reads it that does not look at the length."""
    at = HEADER.size
    while data[at] != wanted:
        at += 1 if data[at] == 0 else 2 + data[at + 1]
    return data[at + 2 :].split(b"\0")[0]


@pytest.mark.parametrize("options", [PXE, BIOS, IPXE])
@pytest.mark.parametrize("more", [{}, {61: b"\1" + MAC, 97: b"\0" * 17}])
@pytest.mark.parametrize("proxy", [False, True])
def test_dhcp_text_options_end_for_roms_that_read_c_strings(options: dict, more: dict, proxy: bool) -> None:
    reply, _ = ask(responder(proxy=proxy), {**options, **more})
    assert reply is not None
    said = parse(reply.data)
    for code in (60, 66, 67):
        assert as_c_string(reply.data, code) == said.options[code]


@pytest.mark.parametrize("value", [b"\1" + MAC, b"\xff" + bytes(18), b"x" * 255])
@pytest.mark.parametrize("kind", [Kind.DISCOVER, Kind.REQUEST, Kind.INFORM])
def test_dhcp_the_client_identifier_comes_back(value: bytes, kind: Kind) -> None:
    """RFC 6842: whoever sits behind one hardware address with others knows its own answers by it."""
    wanted = {50: number(NODE.address).to_bytes(4, "big"), 57: (1500).to_bytes(2, "big")}
    assert read(ask(responder(), {**PXE, 61: value, **wanted}, kind=kind)).options[61] == value
    assert 61 not in read(ask(responder(), {**PXE, **wanted}, kind=kind)).options


@pytest.mark.parametrize("told", [None, b"\0\0", b"\1\0", b"\2\x40", b"\2\x80", b"\5\xdc", b"\xff\xff", b"\2", b""])
@pytest.mark.parametrize("options", [PXE, IPXE, {60: b"other"}])
@pytest.mark.parametrize("size", [0, 7, 60, 200, 255, 700])
def test_dhcp_no_reply_is_longer_than_its_client_takes(told: bytes | None, options: dict, size: int) -> None:
    """RFC 2132 9.10; what a boot needs is there all the same, in `sname` and `file` where they are free."""
    server = responder(dns=("10.0.0.2", "10.0.0.3"), domain="cluster." * 20)
    extra = {61: b"i" * size, 97: b"\0" + b"u" * 16} if size else {}
    extra |= {} if told is None else {57: told}
    relay = {82: b"\1\4port" + b"\2\x30" + b"r" * 48}
    for more, fields in ((extra, {}), (extra | relay, {"giaddr": number("10.0.0.9")})):
        reply, _ = ask(server, {**options, **more}, **fields)
        assert reply is not None
        limit = int.from_bytes(told, "big") if told and len(told) == 2 else 576
        assert len(reply.data) + 28 <= min(max(limit, 576), 1500)
        said = parse(reply.data)
        assert (said.kind, dotted(said.yiaddr)) == (Kind.OFFER, NODE.address)
        assert {1, 3, 51, 53, 54} <= said.options.keys()
        assert said.options.get(82) == more.get(82)
        if options is not BIOS and 93 in options:
            assert said.options[67] == (URL if options is IPXE else "snponly.efi").encode()
            assert said.options[60] == b"PXEClient"
        if size <= 60:
            assert said.options.get(61) == more.get(61)
        if limit >= 1500:
            assert 52 not in said.options
            assert said.options[15] == ("cluster." * 20).encode()


def test_dhcp_relay_information_is_never_looked_for_outside_the_options() -> None:
    server = responder(domain="d" * 200)
    value = b"\1\xf0" + b"r" * 240
    reply, _ = ask(server, {**IPXE, 82: value, 61: b"i" * 100}, giaddr=number("10.0.0.9"))
    assert reply is not None
    assert len(reply.data) <= 548
    assert reply.data.rstrip(b"\0").endswith(bytes((82, len(value))) + value + b"\xff")


# Which link the client is on: RFC 3527, RFC 3011.


@pytest.mark.parametrize(
    ("options", "giaddr", "served"),
    [
        ({}, "10.0.0.9", True),
        ({}, "10.9.0.1", False),
        ({82: b"\5\4" + bytes((10, 0, 0, 0))}, "10.9.0.1", True),
        ({82: b"\5\4" + bytes((10, 9, 0, 0))}, "10.0.0.9", False),
        ({118: bytes((10, 0, 0, 0))}, "10.9.0.1", True),
        ({118: bytes((10, 9, 0, 0))}, "10.0.0.9", False),
        ({118: bytes((10, 9, 0, 0))}, "", False),
        ({82: b"\5\4" + bytes((10, 0, 0, 0)), 118: bytes((10, 9, 0, 0))}, "10.9.0.1", True),
        ({82: b"\5\3" + bytes((10, 9, 0))}, "10.0.0.9", True),
    ],
)
def test_dhcp_the_range_serves_the_link_that_the_relay_names(options: dict, giaddr: str, served: bool) -> None:
    server = responder(first="10.0.1.1", last="10.0.1.9")
    answer = ask(server, {**PXE, **options}, chaddr=STRANGER, giaddr=number(giaddr))
    assert (answer[0] is not None) == served
    if served:
        said = read(answer)
        assert dotted(answer[0].address) == giaddr  # type: ignore[union-attr]
        assert said.options.get(118) == options.get(118)
        assert said.options.get(82) == options.get(82)


# BOOTP: RFC 951, RFC 1534.


def test_dhcp_bootp_client_of_nodes_conf_gets_its_address_in_a_short_reply_without_dhcp() -> None:
    reply, contact = ask(responder(domain="d" * 200), {}, kind=0)
    assert reply is not None
    said = parse(reply.data)
    assert len(reply.data) == 300
    assert (dotted(said.yiaddr), dotted(said.siaddr)) == (NODE.address, SERVER)
    assert said.options == {1: bytes((255, 255, 0, 0)), 3: bytes((10, 0, 0, 254)), 12: b"n1"}
    assert contact is not None
    assert (contact.kind, contact.boots) == ("BOOTP", False)


@pytest.mark.parametrize("proxy", [False, True])
def test_dhcp_bootp_stranger_gets_nothing_of_the_range_and_that_is_said_once(proxy: bool) -> None:
    server = responder(first="10.0.1.1", last="10.0.1.9", proxy=proxy)
    reply, contact = ask(server, {}, kind=0, chaddr=STRANGER)
    assert reply is None
    assert contact is not None
    assert (contact.kind, "BOOTP" in contact.detail) == ("IGNORED", True)
    assert ask(server, {}, kind=0, chaddr=STRANGER, now=1010.0) == (None, None)
    assert len(server.leases) == 0
    assert ask(server, {}, kind=0, port=PROXY_PORT) == (None, None)


# Other networks than Ethernet.


@pytest.mark.parametrize("kind", [Kind.DISCOVER, Kind.REQUEST])
def test_dhcp_addresses_of_ieee_802_are_those_of_ethernet(kind: Kind) -> None:
    options = {**PXE, 50: number(NODE.address).to_bytes(4, "big")}
    said = read(ask(responder(), options, kind=kind, htype=IEEE802))
    assert (dotted(said.yiaddr), said.htype) == (NODE.address, IEEE802)


@pytest.mark.parametrize(
    ("htype", "chaddr", "options", "who", "node"),
    [
        (INFINIBAND, b"", {61: b"\xff" + bytes(4) + b"\0\2\0\0\2\xc9\0" + GUID}, GUID.hex(":"), "ib1"),
        (INFINIBAND, bytes(16), {61: b"\xff" + bytes(4) + GUID}, GUID.hex(":"), "ib1"),
        (INFINIBAND, GUID, {}, GUID.hex(":"), "ib1"),
        (INFINIBAND, b"", {}, "unknown", ""),
        (1, GUID, {}, GUID.hex(":"), "ib1"),
        (24, b"\1\2\3\4", {}, "01:02:03:04", ""),
    ],
)
def test_dhcp_client_that_is_not_on_ethernet_is_named_once(htype, chaddr, options, who, node) -> None:
    server = responder(first="10.0.1.1", last="10.0.1.9")
    reply, contact = ask(server, {**PXE, **options}, chaddr=chaddr, htype=htype)
    assert reply is None
    assert contact is not None
    assert (contact.kind, contact.mac, contact.node) == ("IGNORED", who, node)
    assert "is not served" in contact.detail
    assert ("InfiniBand" in contact.detail) == (htype == INFINIBAND)
    assert ask(server, {**PXE, **options}, chaddr=chaddr, htype=htype, now=1010.0) == (None, None)
    said = server.respond(
        Message(htype=htype, chaddr=chaddr, options={53: b"\1"}), 2000.0, source=(number("10.0.0.50"), 40000)
    )
    assert said == (None, None), "not for what a user of a node can send"


# Firmware for which there is no binary.


@pytest.mark.parametrize("proxy", [False, True])
@pytest.mark.parametrize("chaddr", [MAC, STRANGER])
def test_dhcp_firmware_without_a_boot_file_is_named_once_and_boots_nothing(proxy: bool, chaddr: bytes) -> None:
    server = responder(first="10.0.1.1", last="10.0.1.9", proxy=proxy)
    options = {60: b"PXEClient:Arch:00006:UNDI:003000", 93: b"\0\6"}
    reply, contact = ask(server, options, chaddr=chaddr)
    assert (reply is None) == proxy
    assert contact is not None
    assert (contact.kind, contact.boots, "00:06" in contact.detail) == ("NO BOOT FILE", False, True)
    assert contact.node == ("n1" if chaddr == MAC else "")
    assert ask(server, options, chaddr=chaddr, now=1010.0)[1] is None
    assert ask(server, IPXE, chaddr=chaddr, now=1020.0)[1] is not None, "an iPXE of its own boots"
