"""Addresses that no node and no guest can have, or that something has already: found, not given away, and told."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import pytest

from wwfast.boot.loader.binaries import Binary
from wwfast.boot.plan import Planner
from wwfast.config import settings
from wwfast.config.settings import Settings
from wwfast.daemon.boot import addresses
from wwfast.daemon.boot.addresses import Addresses, BootFiles
from wwfast.daemon.boot.guard import Guard
from wwfast.doctor import reach, site
from wwfast.doctor.finding import ERROR, Scene
from wwfast.errors import ConfigError
from wwfast.net.dhcp.journal import Journal, guests
from wwfast.net.dhcp.leases import LeaseTable
from wwfast.net.dhcp.network import clashes, held_in_range, own_addresses, require_range
from wwfast.net.dhcp.packet import Kind, Message, build, dotted, number, parse
from wwfast.net.dhcp.responder import Responder
from wwfast.net.dhcp.terms import DhcpConfig, Reservation
from wwfast.nodes.registry import Registry
from wwfast.paths import Paths

Daemon = Callable[[Settings], Addresses]
MAC, OTHER, GUEST = "52:54:00:00:00:01", "52:54:00:00:00:02", "52:54:00:00:00:09"
CONF = {"ipaddr": "10.5.0.1", "netmask": "255.255.255.0", "network": "10.5.0.0"}


def write(
    paths: Paths, devices: dict[str, dict[str, str]], bmcs: dict[str, str] | None = None, **dhcp: str
) -> Settings:
    nodes = {name: {"network devices": {"default": {"hwaddr": MAC, **device}}} for name, device in devices.items()}
    for name, address in (bmcs or {}).items():
        nodes.setdefault(name, {})["ipmi"] = {"ipaddr": address}
    paths.nodes_conf.write_text(json.dumps({"nodes": nodes}))
    paths.conf.write_text(json.dumps({**CONF, "dhcp": dhcp}))
    return settings.load(paths)


def scene(paths: Paths, conf: Settings) -> Scene:
    return Scene(paths, conf, Registry(paths).snapshot(), cast(Planner, None))


UNFIT = {
    "this server": ({"ipaddr": "10.5.0.1"}, "is this server's address"),
    "network of the cluster": ({"ipaddr": "10.5.0.0"}, "is the address of the cluster network itself"),
    "broadcast of the cluster": ({"ipaddr": "10.5.0.255"}, "is the broadcast address of the cluster network"),
    "its own network": ({"ipaddr": "10.9.4.0", "netmask": "255.255.252.0"}, "is the address of its network, not of a"),
    "its own broadcast": ({"ipaddr": "10.9.7.255", "netmask": "255.255.252.0"}, "is the broadcast address of its netw"),
    "its gateway": ({"ipaddr": "10.5.0.9", "gateway": "10.5.0.9"}, "is also its gateway"),
    "a BMC": ({"ipaddr": "10.5.0.3"}, "is the address of the BMC of node bmc"),
    "loopback": ({"ipaddr": "127.0.0.1"}, "is an address that no host has"),
    "multicast": ({"ipaddr": "224.0.0.5"}, "is an address that no host has"),
    "limited broadcast": ({"ipaddr": "255.255.255.255"}, "is an address that no host has"),
    "nothing": ({"ipaddr": "0.1.2.3"}, "is an address that no host has"),
}
FIT = {
    "a host": {"ipaddr": "10.5.0.9", "netmask": "255.255.255.0", "gateway": "10.5.0.254"},
    "the middle of a larger network": {"ipaddr": "10.9.5.255", "netmask": "255.255.252.0"},
    "of two": {"ipaddr": "10.9.4.0", "netmask": "255.255.255.254"},
    "alone": {"ipaddr": "10.9.4.255", "netmask": "255.255.255.255"},
    "none": {"ipaddr": "0.0.0.0"},
    "without a netmask": {"ipaddr": "10.9.4.255"},
    "with a netmask that has holes": {"ipaddr": "10.9.4.255", "netmask": "255.0.255.0"},
}


@pytest.fixture
def daemon(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    """The addresses of a daemon with these settings; its journal is closed at the end."""
    monkeypatch.setattr(addresses, "interface_of", lambda address: "lo")
    files = BootFiles([Binary("00:07", "snponly.efi", Path(__file__))], {"00:07": "snponly.efi"})
    journals = []

    def make(conf: Settings) -> Addresses:
        registry = Registry(paths)
        made = Addresses(conf, paths, registry, files, Guard(False, True), lambda event: None)
        journals.append(made.journal)
        with ThreadPoolExecutor(1) as executor:
            asyncio.run(made.follow(registry.snapshot(), executor))
        return made

    yield make
    for journal in journals:
        journal.close()


@pytest.mark.parametrize(("device", "why"), UNFIT.values(), ids=UNFIT)
def test_dhcp_address_that_a_node_cannot_have_is_told_and_not_given(
    paths: Paths, daemon: Daemon, device: dict[str, str], why: str
) -> None:
    conf = write(paths, {"n1": device}, {"bmc": "10.5.0.3"}, **{"range start": "10.5.0.100", "range end": "10.5.0.110"})
    found = list(clashes(Registry(paths).snapshot(), conf, {}))
    assert [(clash.node, clash.address) for clash in found] == [("n1", device["ipaddr"])]
    assert found[0].why.startswith(why)
    (finding,) = reach.clashing(scene(paths, conf))
    assert finding.level == ERROR
    assert f"n1: {device['ipaddr']} {why}" in finding.message

    responder = daemon(conf).responder
    question = Message(chaddr=bytes.fromhex(MAC.replace(":", "")), options={53: b"\1", 60: b"PXEClient", 93: b"\0\7"})
    reply, contact = responder.respond(question, 1000.0)
    assert reply is None, "and none of the range: what runs on it would set the other one"
    assert contact is not None
    assert (contact.node, contact.kind, f"its address {device['ipaddr']} {why}" in contact.detail) == (
        "n1", "IGNORED", True,
    )  # fmt: skip


@pytest.mark.parametrize("device", FIT.values(), ids=FIT)
def test_dhcp_address_that_a_node_can_have_is_no_clash(paths: Paths, daemon: Daemon, device: dict[str, str]) -> None:
    conf = write(paths, {"n1": device})
    assert list(clashes(Registry(paths).snapshot(), conf, {})) == []
    reservation = daemon(conf).reservation(MAC)
    assert reservation is not None
    assert reservation.unusable == ""
    assert reservation.netmask != "255.0.255.0", "the network's own instead"


def test_dhcp_one_address_is_given_to_one_node(paths: Paths, daemon: Daemon) -> None:
    device = {"ipaddr": "10.5.0.9"}
    conf = write(paths, {"n1": device, "n2": {**device, "hwaddr": OTHER}})
    made = daemon(conf)
    first, second = made.reservation(MAC), made.reservation(OTHER)
    assert first is not None
    assert second is not None
    assert (first.address, first.unusable) == ("10.5.0.9", "")
    assert (second.address, "also belongs to node n1" in second.unusable) == ("", True)


def test_dhcp_address_of_this_server_is_no_bmc(paths: Paths) -> None:
    conf = write(paths, {}, {"n1": "10.5.0.1"})
    assert [str(clash) for clash in clashes(Registry(paths).snapshot(), conf, {})] == [
        "node n1: 10.5.0.1 is this server's address, and not its BMC's"
    ]


# What a guest of the range has.


def test_dhcp_node_waits_for_an_address_that_a_guest_has() -> None:
    table = LeaseTable(number("10.5.0.100"), number("10.5.0.110"))
    node = Reservation("n1", "10.5.0.100", "255.255.255.0")
    server = Responder(DhcpConfig("10.5.0.1", "255.255.255.0"), {MAC: node}.get, lambda client, ip: None, table)

    def asked(kind: int, now: float) -> str:
        options = {53: bytes((kind,)), 50: number(node.address).to_bytes(4, "big")}
        question = parse(build(Message(chaddr=bytes.fromhex(MAC.replace(":", "")), options=options)))
        reply, contact = server.respond(question, now)
        return dotted(parse(reply.data).yiaddr) if reply is not None else contact.detail if contact else ""

    assert table.offer(GUEST, number(node.address), 1000.0)
    assert asked(Kind.DISCOVER, 1000.0) == node.address, "an offer is nobody's"
    assert table.bind(GUEST, number(node.address), 1000.0, 3600.0)
    table.reserve(table.mask([number(node.address)]))
    assert asked(Kind.DISCOVER, 1001.0).startswith(f"its address {node.address} is leased to {GUEST} for another 1.0 h")
    assert asked(Kind.REQUEST, 1002.0) == ""
    assert asked(Kind.DISCOVER, 4601.0) == node.address, "it ran out"
    assert not table.bind(GUEST, number(node.address), 1003.0, 3600.0), "and is not prolonged"
    table.release(GUEST, 1004.0)
    assert asked(Kind.REQUEST, 1005.0) == node.address


def test_dhcp_what_guests_have_is_read_without_a_trace(paths: Paths) -> None:
    assert guests(paths.database) == {}
    assert not paths.database.exists()
    journal = Journal(paths.database)
    journal.load()
    now = time.time()
    journal.put((GUEST, number("10.5.0.100"), now + 60, ""))
    journal.put((OTHER, number("10.5.0.101"), now - 60, ""))
    journal.put((MAC, number("10.5.0.102"), now + 60, ""))
    assert journal.flush()
    assert guests(paths.database) == {"10.5.0.100": GUEST, "10.5.0.102": MAC}
    for address, clash in (("10.5.0.100", 1), ("10.5.0.101", 0), ("10.5.0.102", 0)):
        conf = write(paths, {"n1": {"ipaddr": address}})
        assert len(list(clashes(Registry(paths).snapshot(), conf, guests(paths.database)))) == clash, address
    journal.close()
    paths.database.write_bytes(b"no database")
    assert guests(paths.database) == {}


# The range.


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        ("10.5.0.20", "10.5.0.10", "from 10.5.0.20 to 10.5.0.10"),
        ("10.5.0.20", "", "from 10.5.0.20 to nothing"),
        ("", "10.5.0.20", "from nothing to 10.5.0.20"),
        ("192.168.7.20", "192.168.7.22", "192.168.7.20 to 192.168.7.22, is not within the cluster network 10.5.0.0/24"),
        ("10.5.0.250", "10.5.1.5", "is not within"),
        ("10.4.255.250", "10.5.0.5", "is not within"),
    ],
)
def test_dhcp_range_that_is_none_is_refused(paths: Paths, start: str, end: str, message: str) -> None:
    conf = write(paths, {}, **{"range start": start, "range end": end})
    with pytest.raises(ConfigError, match=message):
        require_range(conf, paths)
    (finding,) = site.dhcp(scene(paths, conf))
    assert (finding.level, message in finding.message) == (ERROR, True)


@pytest.mark.parametrize(
    ("mask", "others"),
    [("255.255.255.252", ["10.5.0.0", "10.5.0.3"]), ("255.255.255.254", []), ("255.255.255.255", [])],
)
def test_dhcp_network_of_two_addresses_gives_both_to_machines(paths: Paths, mask: str, others: list[str]) -> None:
    """RFC 3021: neither is the network's nor a broadcast."""
    paths.conf.write_text(json.dumps({"ipaddr": "10.5.0.1", "netmask": mask}))
    assert sorted(own_addresses(settings.load(paths))) == sorted(["10.5.0.1", *others])


def test_dhcp_address_of_another_head_is_nobody_elses(paths: Paths) -> None:
    write(paths, {"n1": {"ipaddr": "10.5.0.2"}}, **{"range start": "10.5.0.1", "range end": "10.5.0.9"})
    paths.conf.write_text(
        json.dumps({**json.loads(paths.conf.read_text()), "wwfast": {"heads": ["10.5.0.1", "10.5.0.2"]}})
    )
    conf = settings.load(paths)
    (clash,) = clashes(Registry(paths).snapshot(), conf, {})
    assert (clash.node, clash.why) == ("n1", "is the address of another head")
    assert "10.5.0.2 (the address of another head)" in held_in_range(Registry(paths).snapshot(), conf)


@pytest.mark.parametrize(("start", "end"), [("", ""), ("10.5.0.7", "10.5.0.7"), ("10.5.0.0", "10.5.0.255")])
def test_dhcp_range_may_be_none_one_address_or_the_network(paths: Paths, start: str, end: str) -> None:
    require_range(write(paths, {}, **{"range start": start, "range end": end}), paths)


def test_dhcp_range_that_holds_what_others_have_gives_none_of_it_away(paths: Paths, daemon: Daemon) -> None:
    device = {"ipaddr": "10.5.0.5", "gateway": "10.5.0.2"}
    bounds = {"range start": "10.5.0.0", "range end": "10.5.0.7"}
    conf = write(paths, {"n1": device}, {"n1": "10.5.0.3"}, **bounds)
    assert held_in_range(Registry(paths).snapshot(), conf) == [
        "10.5.0.0 (the address of the cluster network itself)",
        "10.5.0.1 (this server's address)",
        "10.5.0.2 (the gateway of node n1)",
        "10.5.0.3 (the BMC of node n1)",
    ]
    (finding,) = reach.room(scene(paths, conf))
    assert "10.5.0.3 (the BMC of node n1): no guest is given these" in finding.message
    table = daemon(conf).leases
    given = {table.offer(f"mac{index}", number(f"10.5.0.{index}"), 1000.0) for index in range(8)}
    assert {dotted(address) for address in given if address} == {"10.5.0.4", "10.5.0.6", "10.5.0.7"}
