"""The range when it is large, full, or asked by strangers; and its journal."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from wwfast.net.dhcp import leases
from wwfast.net.dhcp.journal import Journal
from wwfast.net.dhcp.leases import LeaseTable
from wwfast.net.dhcp.packet import Message, build, dotted, number, parse
from wwfast.net.dhcp.responder import DhcpConfig, Reservation, Responder


def test_dhcp_leases_of_a_storm_are_all_written_in_one_flush(tmp_path: Path) -> None:
    count = 1003
    journal = Journal(tmp_path / "db")
    table = LeaseTable(1, 2 * count, journal=journal)
    for who in range(count):
        assert table.bind(f"mac{who}", who + 1, 1.0, 60.0, "host")
    table.bind("mac0", 1, 5.0, 60.0, "renamed")
    table.forget("mac1")
    assert journal.flush()
    journal.close()
    written = Journal(tmp_path / "db")
    again = LeaseTable(1, 2 * count, journal=written)
    assert {lease.mac: (lease.address, lease.expires, lease.hostname) for lease in again.all()} == {
        **{f"mac{who}": (who + 1, 61.0, "host") for who in range(2, count)},
        "mac0": (1, 65.0, "renamed"),
    }
    written.close()


# A range in which nothing is free.

FIRST = number("10.1.0.0")
SIZE = 65536
QUESTIONS = 2000
#: A walk over the range takes 11 to 43 ms a question; what is left is reading the packet and the refusal.
CPU_SECONDS = 0.5


def bound(table: LeaseTable) -> None:
    for place in range(SIZE):
        assert table.bind(f"mac{place}", FIRST + place, 1000.0, 86400.0)


def offered(table: LeaseTable) -> None:
    for place in range(SIZE):
        assert table.offer(f"mac{place}", FIRST + place, 1000.0) is not None


def reserved(table: LeaseTable) -> None:
    table.reserve(table.mask(range(FIRST, FIRST + SIZE)))


def reserved_under_leases(table: LeaseTable) -> None:
    for place in range(SIZE):
        table.bind(f"mac{place}", FIRST + place, 100.0, 1.0)
    reserved(table)


def half_and_half(table: LeaseTable) -> None:
    bound(table)
    table.reserve(table.mask(range(FIRST, FIRST + SIZE, 2)))


def declined(table: LeaseTable) -> None:
    offered(table)
    for place in range(SIZE):
        table.decline(f"mac{place}", FIRST + place, 1000.0)
    offered(table)


@pytest.mark.parametrize("fill", [bound, offered, reserved, reserved_under_leases, half_and_half, declined])
def test_dhcp_range_without_a_free_address_costs_nothing(fill: Callable[[LeaseTable], None]) -> None:
    table = LeaseTable(FIRST, FIRST + SIZE - 1)
    fill(table)
    server = Responder(DhcpConfig("10.0.0.1", "255.0.0.0"), lambda mac: None, lambda client, ip: None, table)
    questions = [
        parse(build(Message(chaddr=bytes((2, 9)) + at.to_bytes(4, "big"), options={53: b"\1", 60: b"PXEClient"})))
        for at in range(QUESTIONS)
    ]
    began = time.thread_time()
    answers = [server.respond(question, 1001.0)[0] for question in questions]
    assert time.thread_time() - began < CPU_SECONDS
    assert any(answers) == (fill in (offered, declined)), "only what nobody requested gives way"


def test_dhcp_reservations_change_without_going_through_the_range() -> None:
    table = LeaseTable(FIRST, FIRST + SIZE - 1)
    bound(table)
    table.forget("mac7")
    every, none = table.mask(range(FIRST, FIRST + SIZE)), table.mask(())
    began = time.thread_time()
    for _ in range(100):
        table.reserve(every)
        assert table.offer("new", 0, 1000.0) is None
        table.reserve(none)
        assert table.offer("new", 0, 1000.0) == FIRST + 7
    assert time.thread_time() - began < CPU_SECONDS


def test_dhcp_requested_address_is_had_though_a_flood_was_offered_it_since() -> None:
    table = LeaseTable(FIRST, FIRST + 3)
    address = table.offer("node", 0, 1000.0)
    assert address is not None
    for stranger in range(100):
        assert table.offer(f"stranger{stranger}", 0, 1000.1) is not None, "the oldest offer gives way"
    assert table.owner(address) != "node"
    assert table.bind("node", address, 1000.2, 3600.0)
    for stranger in range(100):
        assert not table.bind(f"stranger{stranger}", address, 1000.3, 3600.0)
    assert table.owner(address) == "node"


def test_dhcp_offers_have_a_bound_however_large_the_range(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "OFFERS", 50)
    table = LeaseTable(FIRST, FIRST + SIZE - 1)
    for stranger in range(500):
        assert table.offer(f"stranger{stranger}", 0, 1000.0) is not None
    assert len(table) == 50


def test_dhcp_an_offer_that_is_asked_for_again_is_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "OFFERS", 2)
    table = LeaseTable(FIRST, FIRST + SIZE - 1)
    kept, given = table.offer("patient", 0, 1000.0), table.offer("gone", 0, 1001.0)
    assert kept is not None
    assert given is not None
    assert table.offer("patient", 0, 1002.0) == kept
    table.offer("new", 0, 1003.0)
    assert (table.owner(kept), table.owner(given)) == ("patient", None)


def test_dhcp_offers_give_way_before_declined_addresses() -> None:
    table = LeaseTable(FIRST, FIRST + 1)
    refused = table.offer("a", 0, 1000.0)
    assert refused is not None
    table.decline("a", refused, 1000.0)
    kept = table.offer("b", 0, 1000.0)
    assert table.offer("c", 0, 1000.0) == kept != refused
    assert kept is not None
    assert table.bind("c", kept, 1000.0, 60.0)
    assert table.offer("d", 0, 1000.0) == refused, "only when there is nothing else"


def test_dhcp_a_mac_has_the_same_address_in_any_table_where_it_is_free() -> None:
    one, other = (LeaseTable(FIRST, FIRST + SIZE - 1) for _ in range(2))
    for stranger in range(1000):
        other.offer(f"stranger{stranger}", 0, 1000.0)
    same = sum(one.offer(f"mac{who}", 0, 1000.0) == other.offer(f"mac{who}", 0, 1000.0) for who in range(100))
    assert same > 90


@pytest.mark.parametrize(("first", "last"), [(0, 0), (0, FIRST), (FIRST, 0), (FIRST, FIRST - 1)])
def test_dhcp_a_range_that_is_none_gives_nothing(first: int, last: int) -> None:
    table = LeaseTable(first, last)
    assert table.size == 0
    assert table.offer("mac", FIRST, 1000.0) is None
    assert not table.bind("mac", FIRST, 1000.0, 60.0)
    table.reserve(table.mask([FIRST]))


def test_dhcp_leases_that_are_adopted_take_the_place_of_all_there_were() -> None:
    table, former = LeaseTable(FIRST, FIRST + 7), LeaseTable(FIRST, FIRST + 7)
    assert table.bind("mine", FIRST + 1, 1000.0, 60.0)
    assert table.bind("moved", FIRST + 2, 1000.0, 60.0)
    offered = table.offer("asks", 0, 1000.0)
    assert offered is not None
    assert former.bind("moved", FIRST + 3, 1000.0, 60.0)
    assert former.bind("new", FIRST + 1, 1000.0, 90.0, "name")
    table.adopt(former.export())
    assert table.export() == former.export() == [("new", FIRST + 1, 1090.0, "name"), ("moved", FIRST + 3, 1060.0, "")]
    assert (table.get("mine"), table.get("asks"), table.owner(FIRST + 2), len(table)) == (None, None, None, 2)


def test_dhcp_nodes_of_nodes_conf_do_not_depend_on_the_range() -> None:
    table = LeaseTable(FIRST, FIRST + SIZE - 1)
    node = Reservation("n1", "10.1.0.9", "255.0.0.0")
    table.reserve(table.mask([number(node.address)]))
    for place in range(SIZE):
        assert table.bind(f"mac{place}", FIRST + place, 1000.0, 86400.0) == (FIRST + place != number(node.address))
    server = Responder(DhcpConfig("10.0.0.1", "255.0.0.0"), lambda mac: node, lambda client, ip: None, table)
    for kind, options in ((b"\1", {}), (b"\3", {50: number(node.address).to_bytes(4, "big")})):
        question = Message(chaddr=b"\2\0\0\0\0\1", options={53: kind, **options})
        reply, _ = server.respond(parse(build(question)), 1000.0)
        assert reply is not None
        assert dotted(parse(reply.data).yiaddr) == node.address


YEAR = 365 * 86400.0


@pytest.mark.parametrize("restarted", [False, True])
def test_dhcp_a_lease_of_a_clock_that_was_ahead_ends_as_others_do(restarted: bool) -> None:
    """Power comes back, the clock of the head is wrong until chrony has set it, and a machine asks before that."""
    table, now = LeaseTable(FIRST, FIRST + 9), 1e9
    given = table.offer("early", 0, now + YEAR)
    assert given is not None
    assert table.bind("early", given, now + YEAR, 3600.0)
    for machine in range(9):
        address = table.offer(f"m{machine}", 0, now)
        assert address is not None
        assert table.bind(f"m{machine}", address, now, 3600.0)
    if restarted:
        former, table = table, LeaseTable(FIRST, FIRST + 9)
        table.adopt(former.export())
    assert table.guest(given, now) is not None, "it is still in use"
    assert table.offer("new", 0, now + 10.0) is None
    assert table.guest(given, now + 86401.0) is None
    assert table.offer("new", 0, now + 86402.0) is not None
    assert table.bind("other", given, now + 86403.0, 3600.0)


def test_dhcp_what_was_given_back_by_a_clock_that_was_ahead_is_free() -> None:
    table = LeaseTable(FIRST, FIRST)
    assert table.bind("early", FIRST, 1e9, 3600.0)
    table.release("early", 1e9 + YEAR)
    assert table.offer("new", 0, 1e9 + 1.0) == FIRST
