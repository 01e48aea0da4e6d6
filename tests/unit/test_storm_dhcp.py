"""The simulated node's DHCP: it asks, repeats itself, and a second owner of an address is seen."""

from __future__ import annotations

from wwfast.net.dhcp.packet import Kind, Option, number, parse
from wwfast.net.dhcp.responder import Responder
from wwfast.net.dhcp.terms import (
    BootFile,
    DhcpConfig,
    Reservation,
)
from wwfast.storm.dhcp import FIRMWARE, Asking, Round

MAC = bytes.fromhex("027777000001")


def test_storm_dhcp_node_goes_from_discover_to_its_boot_file() -> None:
    server = Responder(
        DhcpConfig("10.0.0.1", "255.255.0.0"),
        {MAC.hex(":"): Reservation("n1", "10.0.0.11")}.get,
        lambda client, address: BootFile(address, "undionly.kpxe"),
    )
    node = Asking(MAC, 7, number("10.0.0.9"), FIRMWARE["bios"])
    packet: bytes | None = node.say(0.0)
    for _ in range(2):
        assert packet is not None
        reply, _ = server.respond(parse(packet), 0.0, source=(number("10.0.0.9"), 67))
        assert reply is not None
        assert reply.port == 67
        packet = node.hear(parse(reply.data), 0.5)
    assert packet is None
    assert (node.done, node.address, node.boot_file) == (0.5, number("10.0.0.11"), "undionly.kpxe")


def test_storm_dhcp_node_repeats_what_it_said_later_and_later() -> None:
    node = Asking(MAC, 7, 1, {})
    waits = []
    now = 0.0
    for _ in range(6):
        assert parse(node.say(now)).options[Option.KIND] == bytes((Kind.DISCOVER,))
        waits.append(node.deadline - now)
        now = node.deadline
    assert waits == [1.0, 2.0, 4.0, 8.0, 8.0, 8.0]


def test_storm_dhcp_two_owners_of_one_address_are_counted() -> None:
    nodes = [Asking(bytes((2, 0, 0, 0, 0, index)), index, 1, {}) for index in range(4)]
    for index, node in enumerate(nodes):
        node.address, node.done = 100 + index, 1.0
    assert Round(nodes, 1.0, 0).duplicates == 0
    nodes[2].address = nodes[0].address
    nodes[3].done = 0.0
    assert Round(nodes, 1.0, 0).duplicates == 1
    assert Round(nodes, 1.0, 0).missing == 1
