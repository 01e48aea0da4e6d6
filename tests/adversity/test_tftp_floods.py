"""Requests that nobody stands behind, by the thousand: what they cost, and who is served beside them."""

from __future__ import annotations

import os
import resource
import socket
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from support.patience import until
from support.tftpserver import RunningTftp, running_tftp
from wwfast.net.tftp import packet
from wwfast.net.tftp.crowd import Unproven
from wwfast.net.transfer import Outcome
from wwfast.storm.dhcp import fetch

TEXT = os.urandom(150_000).replace(b"\n", b"\r\n")


def resident() -> float:
    """MiB of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def taken_in(server: RunningTftp) -> int:
    stats = server.server.stats()
    return stats.get("started", 0) + stats.get("repeated", 0) + stats["turned_away"]


def ask(server: RunningTftp, count: int, *, mode: str = "netascii") -> None:
    """`count` requests, each from a port of its own that hears nothing; all are taken in on return."""
    before = taken_in(server)
    for first in range(0, count, 100):  # the receive buffer is no part of this
        crowd = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(100)]
        for sock in crowd:
            sock.sendto(packet.request("boot", mode=mode), ("127.0.0.1", server.port))
        until(lambda: taken_in(server) >= before + first + 100, 20.0)  # noqa: B023 (called at once)
        for sock in crowd:
            sock.close()


def test_tftp_unproven_requests_share_one_netascii_copy() -> None:
    with running_tftp({"boot": TEXT}) as server:
        ask(server, 100)
        before = resident()
        ask(server, 2000)
        grown = resident() - before
        assert server.server.stats()["unproven"] > 1500  # a port that is given out again repeats its request
        assert grown < 32, f"{grown:.0f} MiB for 2000 requests"
        octets = fetch("127.0.0.1", "127.0.0.1", "boot", {}, port=server.port)
        assert octets == TEXT


def test_tftp_unproven_transfers_are_bounded_and_who_is_there_is_served() -> None:
    with running_tftp({"boot": TEXT}, unproven=50) as server:
        ask(server, 300, mode="octet")
        stats = server.server.stats()
        assert (stats["unproven"], stats["running"]) == (50, 50)
        assert 200 <= stats["displaced"] <= 250  # a port that is given out again repeats its request
        assert fetch("127.0.0.1", "127.0.0.1", "boot", {"blksize": "1432"}, port=server.port) == TEXT
        until(lambda: any(event.outcome is Outcome.DONE for event in server.events), 20.0)
        assert server.server.stats()["unproven"] <= 50
        assert not [event for event in server.events if event.outcome is Outcome.FAILED], "they are counted, not told"


def test_tftp_one_address_has_half_of_the_transfers_at_most() -> None:
    with running_tftp({"boot": TEXT}, running=40) as server:
        ask(server, 100, mode="octet")
        assert server.server.running == 20
        assert fetch("127.0.0.1", "127.0.0.2", "boot", {}, port=server.port) == TEXT


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=200), st.integers(1, 20))
def test_tftp_unproven_is_bounded_and_forgets_the_greedy_first(moves: list[tuple[int, bool]], limit: int) -> None:
    crowd = Unproven(limit)
    held: dict[int, int] = {}  # number -> address
    for number, (address, proves) in enumerate(moves):
        victim = crowd.add(number, str(address))
        held[number] = address
        if victim is not None:
            owner = held.pop(victim)
            mine = [other for other, whose in held.items() if whose == address and other != number]
            assert owner == address or len(mine) <= limit // 2 or limit < 4
        if proves:
            assert crowd.remove(number)
            del held[number]
        assert len(crowd) == len(held) <= limit
    assert all(number in crowd for number in held)
