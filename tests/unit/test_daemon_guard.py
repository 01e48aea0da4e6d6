"""Who may have what: addresses, phases and ports."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from wwfast.boot.stages import Stage
from wwfast.daemon.guard import Guard
from wwfast.daemon.identity import is_mac, neighbour, normal

MAC = "52:54:00:00:00:01"
NODE: Any = SimpleNamespace(id="n1", network_devices={"default": SimpleNamespace(hwaddr=MAC, ipaddr="10.0.0.11")})


def guard(**changes: Any) -> Guard:
    return Guard(
        **{"secure": True, "own_dhcp": True, "leased": lambda mac: "10.0.0.99" if mac == MAC else ""} | changes
    )


def ask(who: Guard, stage: Stage, ip: str = "10.0.0.99", port: int = 987) -> int:
    refused = who.refuses(NODE, stage, MAC, ip, port)
    return refused[0] if refused else 200


def test_runtime_needs_a_privileged_port() -> None:
    assert ask(guard(), Stage.RUNTIME, port=1024) == 401
    assert ask(guard(), Stage.RUNTIME, port=1023) == 200
    assert ask(guard(secure=False), Stage.RUNTIME, port=40000) == 200


def test_overlays_go_to_the_leased_or_configured_address_only() -> None:
    who = guard()
    who.saw_dhcp(MAC, boots=True)
    assert ask(who, Stage.SYSTEM) == 200
    assert ask(who, Stage.SYSTEM, ip="10.0.0.11") == 200
    assert ask(who, Stage.SYSTEM, ip="10.0.0.12") == 403
    assert ask(who, Stage.RUNTIME, ip="10.0.0.12") == 403


def test_the_system_overlay_is_open_only_from_boot_dhcp_to_first_runtime() -> None:
    who = guard()
    assert ask(who, Stage.SYSTEM) == 403
    who.saw_dhcp(MAC, boots=False)  # the DHCP client of a running system
    assert ask(who, Stage.SYSTEM) == 403
    who.saw_dhcp(MAC, boots=True)
    assert ask(who, Stage.SYSTEM) == 200
    who.fetched_runtime(MAC)
    assert ask(who, Stage.SYSTEM) == 403


def test_a_restart_keeps_the_phase_of_booting_nodes() -> None:
    before = guard()
    before.saw_dhcp(MAC, boots=True)
    after = guard()
    after.restore(before.booting())
    assert ask(after, Stage.SYSTEM) == 200


def test_an_external_dhcp_leaves_only_the_port_rule() -> None:
    who = guard(own_dhcp=False)
    assert ask(who, Stage.SYSTEM, ip="10.9.9.9") == 200
    assert ask(who, Stage.RUNTIME, ip="10.9.9.9", port=5000) == 401


def test_images_and_kernels_are_not_secret() -> None:
    assert ask(guard(), Stage.IMAGE, ip="10.9.9.9") == 200
    assert ask(guard(), Stage.KERNEL, ip="10.9.9.9") == 200


def test_discovery_wants_a_recent_dhcp_of_ours() -> None:
    now = [1000.0]
    who = guard(clock=lambda: now[0])
    assert not who.seen_within(MAC, 300)
    who.saw_dhcp(MAC, boots=True)
    now[0] += 299
    assert who.seen_within(MAC, 300)
    now[0] += 2
    assert not who.seen_within(MAC, 300)
    assert guard(own_dhcp=False).seen_within(MAC, 300)


@pytest.mark.parametrize(
    ("wwid", "good"),
    [
        ("52:54:00:00:00:01", True),
        ("00:00:00:00:00:00", False),
        ("ff:ff:ff:ff:ff:ff", False),
        ("01:00:5e:00:00:01", False),
        ("anything", False),
        ("", False),
        ("52:54:00:00:00", False),
        ("80:00:02:08:fe:80:00:00:00:00:00:00:00:02:c9:03:00:0a:bc:de", True),
        ("52:54:00:00:00:01\n", False),
    ],
)
def test_a_wwid_must_be_an_address_one_machine_can_own(wwid: str, good: bool) -> None:
    assert is_mac(wwid) is good


def test_dashes_and_capitals_are_one_address() -> None:
    assert normal("52-54-00-AA-BB-0C") == "52:54:00:aa:bb:0c"


def test_the_neighbour_table_is_read_and_incomplete_entries_ignored(tmp_path: Any) -> None:
    table = tmp_path / "arp"
    table.write_text(
        "IP address       HW type     Flags       HW address            Mask     Device\n"
        "10.0.0.9         0x1         0x2         52:54:00:AA:00:09     *        eth0\n"
        "10.0.0.8         0x1         0x0         00:00:00:00:00:00     *        eth0\n"
    )
    assert neighbour("10.0.0.9", table) == "52:54:00:aa:00:09"
    assert neighbour("10.0.0.8", table) == ""
    assert neighbour("10.0.0.7", table) == ""
    assert neighbour("10.0.0.9", tmp_path / "missing") == ""
