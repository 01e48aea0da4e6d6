"""The DHCP answers: addresses, boot files, where a reply goes, and when there is none."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import pytest

from wwfast.net.dhcp.leases import LeaseTable
from wwfast.net.dhcp.packet import Kind, Message, build, dotted, number, parse
from wwfast.net.dhcp.responder import Responder
from wwfast.net.dhcp.terms import (
    PROXY_PORT,
    BootFile,
    DhcpConfig,
    Reply,
    Reservation,
    Way,
)

SERVER = "10.0.0.1"
NODE = Reservation("n1", "10.0.0.11", "255.255.0.0", "10.0.0.254", "n1")
PXE = {60: b"PXEClient:Arch:00007:UNDI:003000", 93: b"\0\7"}
IPXE = {60: b"PXEClient:Arch:00007:UNDI:003010", 93: b"\0\7", 77: b"iPXE", 175: b"\1\1\1"}
HTTP = {60: b"HTTPClient:Arch:00016:UNDI:003000", 93: b"\0\x10"}
BIOS = {60: b"PXEClient:Arch:00000:UNDI:002001", 93: b"\0\0"}
SYSTEM = {60: b"systemd-networkd"}
URL = "http://10.0.0.1:9873/ipxe/${mac:hexhyp}"


def mac(index: int) -> bytes:
    return bytes((0x52, 0x54, 0, 0, index >> 8, index & 255))


def boot(client, server_ip: str) -> BootFile:
    if client.is_ipxe:
        return BootFile(server_ip, URL)
    return BootFile(server_ip, "http://10.0.0.1/snponly.efi" if client.is_http else "snponly.efi")


def responder(*, first: str = "", last: str = "", proxy: bool = False, hosts=None) -> Responder:
    known = {mac(1).hex(":"): NODE} if hosts is None else hosts
    return Responder(
        DhcpConfig(SERVER, "255.255.0.0", router="10.0.0.253", proxy=proxy),
        known.get,
        boot,
        LeaseTable(number(first), number(last)),
    )


def ask(
    server: Responder,
    kind: Kind,
    options: dict[int, bytes],
    *,
    who: int = 1,
    now: float = 1000.0,
    source: tuple[str, int] = ("", 68),
    **fields,
):
    message = Message(xid=7, chaddr=mac(who), options={53: bytes((kind,)), **options}, **fields)
    return server.respond(parse(build(message)), now, source=(number(source[0]), source[1]))[0]


def read(reply: Reply | None) -> Message:
    assert reply is not None
    return parse(reply.data)


def chain(server: Responder, options: dict[int, bytes], *, who: int, now: float = 1000.0) -> str:
    """DISCOVER to ACK: the address."""
    offer = read(ask(server, Kind.DISCOVER, options, who=who, now=now))
    wanted = {50: offer.yiaddr.to_bytes(4, "big"), 54: number(SERVER).to_bytes(4, "big")}
    granted = read(ask(server, Kind.REQUEST, {**options, **wanted}, who=who, now=now))
    assert granted.kind == Kind.ACK
    assert granted.yiaddr == offer.yiaddr
    return dotted(granted.yiaddr)


def test_dhcp_a_node_gets_its_own_address_and_boot_file() -> None:
    offer = read(ask(responder(), Kind.DISCOVER, PXE))
    assert (offer.kind, dotted(offer.yiaddr), dotted(offer.siaddr)) == (Kind.OFFER, "10.0.0.11", SERVER)
    assert (offer.file, offer.options[67], offer.options[60]) == (b"snponly.efi", b"snponly.efi", b"PXEClient")
    assert offer.options[1] == bytes((255, 255, 0, 0))
    assert offer.options[3] == bytes((10, 0, 0, 254))
    assert offer.options[12] == b"n1"
    assert 175 not in offer.options
    assert offer.hops == 0


def test_dhcp_a_netmask_is_the_nodes_own_or_that_of_the_network() -> None:
    bare = Reservation("n1", "10.0.0.11")
    server = responder(first="10.0.1.1", last="10.0.1.9", hosts={mac(1).hex(":"): NODE, mac(2).hex(":"): bare})
    server.reconfigure(netmask="255.255.255.128")
    masks = [read(ask(server, Kind.DISCOVER, PXE, who=who)).options[1] for who in (1, 2, 3)]
    assert masks == [bytes((255, 255, 0, 0)), bytes((255, 255, 255, 128)), bytes((255, 255, 255, 128))]


def test_dhcp_a_lease_is_renewed_at_half_and_rebound_at_seven_eighths_of_its_time() -> None:
    """RFC 2131 4.4.5. A node of nodes.conf has its address for as long as it boots and runs, and asks all the same."""
    server = responder(first="10.0.1.1", last="10.0.1.9")
    server.reconfigure(lease_seconds=4000)
    for who in (1, 2):
        options = read(ask(server, Kind.DISCOVER, PXE, who=who)).options
        assert [int.from_bytes(options[code], "big") for code in (51, 58, 59)] == [4000, 2000, 3500]


def test_dhcp_ipxe_gets_its_url_and_is_told_not_to_wait_for_a_proxy() -> None:
    offer = read(ask(responder(), Kind.DISCOVER, IPXE))
    assert offer.options[67] == URL.encode()
    assert offer.options[175] == bytes((176, 1, 1))


def test_dhcp_uefi_http_gets_its_class_and_a_url() -> None:
    offer = read(ask(responder(), Kind.DISCOVER, HTTP))
    assert (offer.options[60], offer.options[67]) == (b"HTTPClient", b"http://10.0.0.1/snponly.efi")


def test_dhcp_one_lease_per_mac_across_pxe_ipxe_and_system() -> None:
    server = responder(first="10.0.1.1", last="10.0.1.50")
    addresses = {
        chain(server, {**options, 61: b"\xff" + client}, who=9)
        for options, client in ((PXE, b"a"), (IPXE, b"b"), (SYSTEM, b"c"))
    }
    assert len(addresses) == 1
    assert len(server.leases) == 1


def test_dhcp_the_class_identifier_and_agent_information_come_back() -> None:
    guid = b"\0" + bytes(range(16))
    reply = ask(responder(), Kind.DISCOVER, {**PXE, 97: guid, 82: b"\1\4port"}, giaddr=number("10.0.0.9"))
    offer = read(reply)
    assert (offer.options[97], offer.options[82]) == (guid, b"\1\4port")
    assert reply.data.rstrip(b"\0").endswith(b"\x52\6\1\4port\xff")


# Safety on a network that is not ours alone.


@pytest.mark.parametrize("kind", [Kind.DISCOVER, Kind.REQUEST, Kind.INFORM])
def test_dhcp_unknown_system_gets_no_answer_without_a_range(kind: Kind) -> None:
    assert ask(responder(), kind, SYSTEM, who=5) is None


@pytest.mark.parametrize("options", [PXE, IPXE, HTTP])
def test_dhcp_unknown_firmware_without_a_range_has_no_address(options: dict[int, bytes]) -> None:
    server = responder()
    message = Message(chaddr=mac(5), options={53: b"\1", **options})
    reply, contact = server.respond(message, 1000.0)
    assert reply is None
    assert contact is not None
    assert "no dhcp range" in contact.detail
    assert server.respond(message, 1001.0) == (None, None), "said once, not with every packet"


@pytest.mark.parametrize(
    "fields",
    [
        {"options": {50: bytes((10, 0, 0, 99))}},
        {"options": {50: bytes((192, 168, 1, 5)), 54: bytes((10, 0, 0, 1))}},
        {"options": {}, "ciaddr": number("192.168.1.5")},
    ],
)
@pytest.mark.parametrize("who", [1, 5])
def test_dhcp_never_a_nak(fields: dict, who: int) -> None:
    server = responder(first="10.0.1.1", last="10.0.1.50")
    options = {**SYSTEM, **fields["options"]}
    assert ask(server, Kind.REQUEST, options, who=who, ciaddr=fields.get("ciaddr", 0)) is None


def test_dhcp_a_request_to_another_server_is_left_alone_and_noted() -> None:
    server = responder(first="10.0.1.1", last="10.0.1.50")
    ask(server, Kind.DISCOVER, PXE, who=5)
    assert ask(server, Kind.REQUEST, {**PXE, 54: bytes((10, 0, 0, 77)), 50: bytes((10, 0, 9, 9))}, who=5) is None
    assert list(server.others) == ["10.0.0.77"]
    assert len(server.leases) == 0, "the offer it did not take is free again"


# Where a reply goes (RFC 2131 4.1).


@pytest.mark.parametrize(
    ("fields", "way", "address", "port"),
    [
        ({}, Way.LINK, "10.0.0.11", 68),
        ({"flags": 0x8000}, Way.BROADCAST, "255.255.255.255", 68),
        ({"giaddr": number("10.0.0.9")}, Way.ROUTED, "10.0.0.9", 67),
        ({"giaddr": number("10.0.0.9"), "options": {82: b"\x13\0"}}, Way.ROUTED, "10.0.0.9", 5067),  # RFC 8357
        ({"ciaddr": number("10.0.0.11")}, Way.ROUTED, "10.0.0.11", 68),
    ],
)
def test_dhcp_reply_path(fields: dict, way: Way, address: str, port: int) -> None:
    fields = dict(fields)
    extra = {50: number("10.0.0.11").to_bytes(4, "big"), **fields.pop("options", {})}
    kind = Kind.REQUEST if "ciaddr" in fields else Kind.DISCOVER
    message = Message(chaddr=mac(1), options={53: bytes((kind,)), **PXE, **extra}, **fields)
    server = responder()
    server.reconfigure(relays=frozenset({number("10.0.0.8")}))
    sender = (number("10.0.0.8"), 5067) if 82 in extra else (0, 68)
    reply, _ = server.respond(message, 1.0, source=sender)
    assert reply is not None
    assert (reply.way, dotted(reply.address), reply.port) == (way, address, port)


def test_dhcp_relay_in_another_network_gets_the_nodes_own_address_and_the_relay_as_router() -> None:
    far = {mac(1).hex(":"): Reservation("far", "10.9.0.5", "255.255.0.0")}
    server = responder(first="10.0.1.1", last="10.0.1.50", hosts=far)
    offer = read(ask(server, Kind.DISCOVER, PXE, giaddr=number("10.9.0.1")))
    assert dotted(offer.yiaddr) == "10.9.0.5"
    assert offer.options[3] == bytes((10, 9, 0, 1))
    assert ask(server, Kind.DISCOVER, PXE, who=5, giaddr=number("10.9.0.1")) is None, "the range is not of that network"
    assert ask(server, Kind.DISCOVER, PXE, who=5, giaddr=number("10.0.0.9")) is not None


FULL = "the dhcp range is full"
FAR = "the range is not of its network (10.7.3.0)"
LINKS = {  # how a relay says which network its client is on, and what keeps that from an address
    "none": ({}, FULL),
    "a relay in this network": ({"giaddr": number("10.0.0.9")}, FULL),
    "option 82 in this network": ({"giaddr": number("10.7.3.0"), "options": {82: b"\5\4\n\0\0\0"}}, FULL),
    "a relay": ({"giaddr": number("10.7.3.0")}, FAR),
    "option 118": ({"options": {118: bytes((10, 7, 3, 0))}}, FAR),
    "option 82": ({"giaddr": number("10.0.0.9"), "options": {82: b"\5\4\n\7\3\0"}}, FAR),
}


@pytest.mark.parametrize(("fields", "why"), LINKS.values(), ids=LINKS)
def test_dhcp_why_there_is_no_address_is_of_the_network_that_was_told(fields: dict, why: str) -> None:
    server = responder(first="10.0.1.1", last="10.0.1.1")
    chain(server, PXE, who=9)
    message = Message(chaddr=mac(5), **{**fields, "options": {53: b"\1", **PXE, **fields.get("options", {})}})
    reply, contact = server.respond(message, 1000.0)
    assert reply is None
    assert contact is not None
    assert why in contact.detail


def test_dhcp_each_thing_that_is_wrong_with_a_client_is_said_and_once() -> None:
    server = Responder(
        DhcpConfig(SERVER, "255.255.0.0"), {mac(1).hex(":"): NODE}.get, lambda client, ip: None, LeaseTable(0, 0)
    )

    def said(now: float, **fields) -> str:
        options = {53: b"\1", **PXE, **fields.pop("options", {})}
        contact = server.respond(Message(chaddr=mac(1), options=options, **fields), now)[1]
        return contact.detail if contact is not None else ""

    assert "hardware type 7" in said(1000.0, htype=7)
    assert "no binary for its architecture 00:07" in said(1001.0)
    assert "architecture 00:0F, 00:07:" in said(1002.0, options={93: b"\0\x0f\0\7"})
    assert [said(1003.0, htype=7), said(1004.0), said(1005.0, options={93: b"\0\x0f\0\7"})] == [""] * 3
    assert "no binary" in said(1400.0)
    assert len(said(1500.0, options={93: bytes(range(200))})) < 200


@pytest.mark.parametrize("address", ["000000000000", "ffffffffffff", "01005e000001", "333300000001"])
@pytest.mark.parametrize("kind", [0, Kind.DISCOVER, Kind.REQUEST, Kind.INFORM])
def test_dhcp_a_hardware_address_of_no_machine_gets_nothing(address: str, kind: int) -> None:
    server = responder(first="10.0.1.1", last="10.0.1.50")
    options = {**PXE, 50: bytes((10, 0, 1, 1))} | ({53: bytes((kind,))} if kind else {})
    reply, contact = server.respond(Message(chaddr=bytes.fromhex(address), options=options), 1000.0)
    assert reply is None
    assert contact is not None
    assert "no machine has such a one" in contact.detail
    assert len(server.leases) == 0


# ProxyDHCP.


@pytest.mark.parametrize("options", [PXE, BIOS, HTTP, IPXE])
def test_dhcp_proxy_offers_a_boot_file_and_no_address(options: dict[int, bytes]) -> None:
    offer = read(ask(responder(proxy=True), Kind.DISCOVER, options, who=5))
    assert (offer.yiaddr, offer.kind) == (0, Kind.OFFER)
    assert 51 not in offer.options
    assert offer.options[60] == options[60][:10].rstrip(b":")
    # Told to use the file at once: BIOS needs it, UEFI breaks on it.
    assert (43 in offer.options) == (options is BIOS)


def test_dhcp_proxy_answers_on_4011_to_the_asking_port_and_never_systems() -> None:
    server = responder(proxy=True)
    message = Message(chaddr=mac(5), ciaddr=number("10.0.0.50"), options={53: b"\3", **PXE, 54: bytes((10, 0, 0, 77))})
    reply, _ = server.respond(message, 1.0, source=(number("10.0.0.50"), 4011), port=PROXY_PORT)
    assert reply is not None
    assert (reply.way, dotted(reply.address), reply.port) == (Way.ROUTED, "10.0.0.50", 4011)
    assert read(reply).kind == Kind.ACK
    assert read(reply).options[67] == b"snponly.efi"
    assert ask(server, Kind.DISCOVER, SYSTEM, who=1) is None
    assert ask(server, Kind.REQUEST, PXE, who=1) is None, "the other server's to answer"


# Who sent it: what an ordinary user of a node can send changes nothing.

RELAY = "10.0.0.9"
HIGH = [
    pytest.param(("10.0.1.77", 40000), {}, id="high port"),
    pytest.param(("10.0.1.77", 4011), {}, id="port 4011"),
    pytest.param(("10.0.1.77", 1023), {}, id="another privileged port"),
    pytest.param(("10.0.1.77", 40000), {"giaddr": number("10.0.1.77")}, id="as a relay"),
    pytest.param(("10.0.1.77", 40000), {"giaddr": number(RELAY), "options": {82: b"\x13\0"}}, id="as RFC 8357"),
    pytest.param((RELAY, 40000), {"giaddr": number(RELAY)}, id="a user of the relay, without RFC 8357"),
    pytest.param(("10.0.1.77", 67), {}, id="the relays' port without a relay"),
]


@pytest.mark.parametrize(("source", "fields"), HIGH)
@pytest.mark.parametrize("kind", [Kind.DISCOVER, Kind.REQUEST, Kind.INFORM, Kind.RELEASE, Kind.DECLINE])
def test_dhcp_what_a_user_of_a_node_can_send_changes_nothing(kind: Kind, source: tuple[str, int], fields: dict) -> None:
    server = responder(first="10.0.1.1", last="10.0.1.50")
    server.reconfigure(relays=frozenset({number(RELAY)}))
    held = chain(server, IPXE, who=9)
    before = list(server.leases.all())
    for wanted, named in ((held, SERVER), ("10.0.1.40", SERVER), (NODE.address, SERVER), (held, "10.0.0.77")):
        for who in (1, 5, 9):
            options = {**IPXE, 50: number(wanted).to_bytes(4, "big"), 54: number(named).to_bytes(4, "big")}
            options |= fields.get("options", {})
            for ciaddr in (0, number(wanted)):
                message = Message(
                    chaddr=mac(who),
                    ciaddr=ciaddr,
                    giaddr=fields.get("giaddr", 0),
                    options={53: bytes((kind,)), **options},
                )
                said = server.respond(message, 1000.0, source=(number(source[0]), source[1]))
                assert said == (None, None)
    assert server.leases.all() == before
    assert len(server.leases) == 1
    assert chain(server, IPXE, who=9) == held
    assert not server.others
    assert server.counts["unproven"] == 24


def test_dhcp_a_relay_sends_from_another_address_than_its_giaddr() -> None:
    """dhcrelay and routers send from the interface towards us, and write that of the clients' link into giaddr."""
    server = responder(hosts={mac(1).hex(":"): Reservation("far", "10.9.0.5", "255.255.255.0")})
    reply = ask(server, Kind.DISCOVER, PXE, source=(RELAY, 67), giaddr=number("10.9.0.1"))
    assert reply is not None
    assert (reply.way, dotted(reply.address), reply.port) == (Way.ROUTED, "10.9.0.1", 67)


def test_dhcp_4011_answers_any_port_with_the_boot_file_and_takes_it_for_no_boot() -> None:
    """Some firmware asks from 4011; a boot file is no secret. The answer goes to who asked, whoever it names."""
    server = responder()
    message = Message(chaddr=mac(1), ciaddr=number("10.0.0.11"), options={53: bytes((Kind.REQUEST,)), **PXE})
    reply, contact = server.respond(message, 1.0, source=(number("10.0.0.50"), 4011), port=PROXY_PORT)
    assert reply is not None
    assert (dotted(reply.address), reply.port, contact) == ("10.0.0.50", 4011, None)
    _, contact = server.respond(message, 1.0, source=(number("10.0.0.11"), 68), port=PROXY_PORT)
    assert contact is not None
    assert contact.boots


@pytest.mark.parametrize(
    ("ciaddr", "source", "who"),
    [
        ("10.0.1.1", "10.0.1.2", 9),
        ("10.0.1.2", "10.0.1.2", 9),
        ("", "10.0.1.1", 9),
        ("10.0.1.1", "", 9),
        ("10.0.1.1", "10.0.1.1", 8),
    ],
)
def test_dhcp_a_lease_is_released_only_from_its_own_address(ciaddr: str, source: str, who: int) -> None:
    server = responder(first="10.0.1.1", last="10.0.1.1")
    assert chain(server, SYSTEM, who=9) == "10.0.1.1"
    ask(server, Kind.RELEASE, {}, who=who, ciaddr=number(ciaddr), source=(source, 68))
    assert ask(server, Kind.DISCOVER, PXE, who=10) is None, "it is still taken"
    ask(server, Kind.RELEASE, {}, who=9, ciaddr=number("10.0.1.1"), source=("10.0.1.1", 68))
    assert chain(server, PXE, who=10) == "10.0.1.1"


@pytest.mark.parametrize(
    ("declined", "source", "who"), [("10.0.1.2", "", 9), ("10.0.1.1", "10.0.1.7", 9), ("10.0.1.1", "", 8)]
)
def test_dhcp_an_address_is_declined_only_by_whom_it_was_given_to(declined: str, source: str, who: int) -> None:
    server = responder(first="10.0.1.1", last="10.0.1.1")
    assert chain(server, SYSTEM, who=9) == "10.0.1.1"
    message = Message(chaddr=mac(who), options={53: bytes((Kind.DECLINE,)), 50: number(declined).to_bytes(4, "big")})
    assert server.respond(message, 1000.0, source=(number(source), 68)) == (None, None)
    assert chain(server, SYSTEM, who=9) == "10.0.1.1"


def test_dhcp_a_request_does_not_move_a_lease() -> None:
    """Whoever asks in another's name for an address where it already sits itself would get that one's overlays."""
    server = responder(first="10.0.1.1", last="10.0.1.50")
    held = chain(server, SYSTEM, who=9)
    other = "10.0.1.40" if held != "10.0.1.40" else "10.0.1.41"
    for ciaddr, requested in ((0, other), (number(other), "")):
        options = {50: number(requested).to_bytes(4, "big")} if requested else {}
        assert ask(server, Kind.REQUEST, options, who=9, ciaddr=ciaddr) is None
    assert [dotted(lease.address) for lease in server.leases.all()] == [held]
    assert chain(server, SYSTEM, who=9) == held


def test_dhcp_what_strangers_make_us_remember_is_bounded() -> None:
    server = responder()

    def strangers(first: int, last: int) -> int:
        for index in range(first, last):
            named = (number("172.16.0.0") + index % 5000).to_bytes(4, "big")
            client = index.to_bytes(6, "big")
            server.respond(Message(chaddr=client, options={53: b"\3", 54: named}), 1000.0)
            server.respond(Message(chaddr=client, options={53: b"\1", **IPXE, 12: b"x" * 1000}), 1000.0)
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = strangers(0, 10_000)
        assert strangers(10_000, 30_000) - before < 100_000
    finally:
        tracemalloc.stop()
    assert len(server.others) <= 64


# The range.


def test_dhcp_range_gives_each_mac_one_address_until_it_is_full() -> None:
    server = responder(first="10.0.1.1", last="10.0.1.20")
    addresses = {who: chain(server, PXE, who=who) for who in range(10, 30)}
    assert len(set(addresses.values())) == 20
    reply, contact = server.respond(Message(chaddr=mac(99), options={53: b"\1", **PXE}), 1000.0)
    assert reply is None
    assert contact is not None
    assert "full" in contact.detail
    assert {who: chain(server, PXE, who=who, now=2000.0) for who in range(10, 30)} == addresses


def test_dhcp_expired_addresses_are_used_again_the_longest_expired_first() -> None:
    server = responder(first="10.0.1.1", last="10.0.1.2")
    server.reconfigure(lease_seconds=100)
    first, second = chain(server, PXE, who=10, now=0.0), chain(server, PXE, who=11, now=50.0)
    assert chain(server, PXE, who=12, now=200.0) == first
    assert chain(server, PXE, who=13, now=200.0) == second
    assert ask(server, Kind.DISCOVER, PXE, who=14, now=201.0) is None


def test_dhcp_a_client_gets_the_free_address_it_had_before_a_lost_database() -> None:
    server = responder(first="10.0.1.1", last="10.0.1.50")
    renewed = read(ask(server, Kind.REQUEST, SYSTEM, who=5, ciaddr=number("10.0.1.33")))
    assert (renewed.kind, dotted(renewed.yiaddr)) == (Kind.ACK, "10.0.1.33")
    assert ask(server, Kind.REQUEST, SYSTEM, who=6, ciaddr=number("10.0.1.33")) is None


def test_dhcp_declined_address_rests() -> None:
    server = responder(first="10.0.1.1", last="10.0.1.3")
    taken = chain(server, PXE, who=10)
    ask(server, Kind.DECLINE, {**PXE, 50: number(taken).to_bytes(4, "big")}, who=10)
    assert taken not in {chain(server, PXE, who=who) for who in (10, 11)}
    assert ask(server, Kind.REQUEST, {**PXE, 50: number(taken).to_bytes(4, "big")}, who=12) is None
    assert chain(server, PXE, who=12) == taken, "better than none, when there is no other"


def test_dhcp_node_that_gains_an_address_leaves_its_lease() -> None:
    known: dict[str, Reservation] = {}
    server = responder(first="10.0.1.1", last="10.0.1.50", hosts=known)
    assert chain(server, PXE, who=1).startswith("10.0.1.")
    known[mac(1).hex(":")] = NODE
    assert chain(server, PXE, who=1) == NODE.address
    assert len(server.leases) == 0


def test_dhcp_a_node_whose_entry_is_unusable_is_named_and_gets_nothing() -> None:
    known = {mac(1).hex(":"): Reservation("n1", unusable="its entry in nodes.conf is unusable")}
    server = responder(first="10.0.1.1", last="10.0.1.50", hosts=known)
    reply, contact = server.respond(Message(chaddr=mac(1), options={53: b"\1", **PXE}), 1000.0)
    assert reply is None
    assert contact is not None
    assert (contact.node, contact.kind) == ("n1", "IGNORED")
    assert "unusable" in contact.detail
    assert ask(server, Kind.REQUEST, {**PXE, 50: bytes((10, 0, 1, 1))}, who=1) is None
    assert len(server.leases) == 0
    assert chain(server, PXE, who=2).startswith("10.0.1.")


def test_dhcp_range_skips_addresses_of_nodes() -> None:
    table = LeaseTable(number("10.0.1.1"), number("10.0.1.3"))
    table.reserve(table.mask([number("10.0.1.2"), number("10.0.2.2")]))
    server = replace(responder(), leases=table)
    assert {chain(server, PXE, who=who) for who in (10, 11)} == {"10.0.1.1", "10.0.1.3"}
    assert ask(server, Kind.DISCOVER, {**PXE, 50: bytes((10, 0, 1, 2))}, who=12) is None
