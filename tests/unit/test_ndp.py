"""Router solicitations: parsing, the answer's bytes, and who gets one."""

from __future__ import annotations

import ipaddress
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wwfast.net.ndp import ADVERTISEMENT, FORGET_SECONDS, Impatience, advertisement, solicitor
from wwfast.net.ndp.server import link_local

MAC = "52:54:00:77:00:01"
HEAD = bytes([133, 0, 0, 0, 0, 0, 0, 0])
OPTION = bytes([1, 1]) + bytes.fromhex(MAC.replace(":", ""))


@pytest.mark.parametrize(
    ("packet", "mac"),
    [
        (HEAD + OPTION, MAC),
        (HEAD + bytes([14, 1, 0, 0, 0, 0, 0, 0]) + OPTION, MAC),
        (HEAD, ""),
        (HEAD + OPTION[:7], ""),
        (HEAD + bytes([1, 0]) + bytes(6), ""),
        (bytes([134]) + HEAD[1:] + OPTION, ""),
        (HEAD[:4], ""),
    ],
)
def test_ndp_solicitor(packet: bytes, mac: str) -> None:
    assert solicitor(packet) == mac


@given(st.binary(max_size=64))
def test_ndp_solicitor_takes_any_bytes(packet: bytes) -> None:
    solicitor(packet)
    solicitor(HEAD + packet)


def test_ndp_advertisement_offers_nothing() -> None:
    source, target = "fe80::1", "fe80::5054:ff:fe77:1"
    packet = advertisement(source, target)
    version, length, following, hops = struct.unpack_from(">IHBB", packet)
    assert (version >> 28, length, following, hops) == (6, 16, 58, 255)
    assert packet[8:24] == ipaddress.IPv6Address(source).packed
    assert packet[24:40] == ipaddress.IPv6Address(target).packed
    assert packet[40] == ADVERTISEMENT
    assert packet[44:] == bytes(12), "no hop limit, flags, lifetime, times, options"
    total = sum(struct.unpack(">16H", packet[8:40])) + length + following + sum(struct.unpack(">8H", packet[40:]))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    assert total == 0xFFFF


def test_ndp_only_who_boots_and_asks_again_is_answered() -> None:
    """A router of the site comes first: it answers the first solicitation within half a second."""
    now, booting = 100.0, {MAC}
    policy = Impatience(lambda mac: mac in booting, lambda: now)
    assert not policy.answers("52:54:00:77:00:02"), "an operating system, or a stranger"
    assert not policy.answers(MAC)
    now += 0.2
    assert not policy.answers(MAC), "a router still may"
    now += 0.7
    assert policy.answers(MAC)
    now += 1.4
    assert policy.answers(MAC), "the answer was lost"
    now += FORGET_SECONDS
    assert not policy.answers(MAC), "another boot begins anew"
    booting.clear()
    assert not policy.answers(MAC)


def test_ndp_link_local_address(tmp_path: Path) -> None:
    listing = tmp_path / "if_inet6"
    listing.write_text(
        "00000000000000000000000000000001 01 80 10 80       lo\n"
        "20010db8000000000000000000000001 02 40 00 80     eth0\n"
        "fe80000000000000c0d2fafffe684dc8 02 40 20 80     eth0\n"
    )
    assert ipaddress.ip_address(link_local("eth0", listing)) == ipaddress.ip_address("fe80::c0d2:faff:fe68:4dc8")
    assert link_local("eth1", listing) == ""
    assert link_local("eth0", tmp_path / "absent") == ""


def test_ndp_made_up_machines_are_forgotten() -> None:
    now = 100.0
    wait = Impatience(lambda mac: True, lambda: now)
    assert not wait.answers(MAC)
    for index in range(20_000):
        wait.answers(f"02:00:00:00:{index >> 8:02x}:{index & 255:02x}")
    now += 1
    assert not wait.answers(MAC), "as if it had never asked"
    now += 1
    assert wait.answers(MAC)
