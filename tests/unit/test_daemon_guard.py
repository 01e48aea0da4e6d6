"""Who may have what: addresses, phases and ports."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from wwfast.boot.stages import Stage
from wwfast.daemon.boot.guard import Guard
from wwfast.daemon.boot.identity import Neighbours, is_mac, normal
from wwfast.daemon.life.supervision import Supervisor
from wwfast.daemon.report import Report
from wwfast.daemon.state.database import PhaseStore
from wwfast.daemon.state.timeline import Timeline
from wwfast.errors import WwfastError
from wwfast.net.dhcp.journal import Journal
from wwfast.net.transfer import Outcome, Transfer
from wwfast.nodes.model import NetDev, Node
from wwfast.nodes.registry import Registry
from wwfast.paths import Paths
from wwfast.system import wal

MAC = "52:54:00:00:00:01"
DEVICE = NetDev(hwaddr=MAC, ipaddr="10.0.0.11")
NODE: Any = Node(id="n1", network_devices={"default": DEVICE})


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


def came_up(who: Guard, mac: str = MAC) -> None:
    asyncio.run(who.fetched_runtime(mac))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[PhaseStore]:
    made = PhaseStore(tmp_path / "db")
    made.load()
    made.start()
    yield made
    made.close()


def restarted(tmp_path: Path, **changes: Any) -> Guard:
    """What a server knows that starts on what is on disk right now."""
    after = guard(**changes)
    after.restore(PhaseStore(tmp_path / "db").load())
    return after


def test_the_system_overlay_is_open_only_from_boot_dhcp_to_first_runtime() -> None:
    who = guard()
    assert ask(who, Stage.SYSTEM) == 403
    who.saw_dhcp(MAC, boots=False)  # the DHCP client of a running system
    assert ask(who, Stage.SYSTEM) == 403
    who.saw_dhcp(MAC, boots=True)
    assert ask(who, Stage.SYSTEM) == 200
    assert who.closes(MAC, 987)
    came_up(who)
    assert ask(who, Stage.SYSTEM) == 403
    assert not who.closes(MAC, 987), "later runtime overlays wait for nothing"


def test_a_phase_ends_by_itself_after_the_last_stage() -> None:
    now = [1000.0]
    who = guard(clock=lambda: now[0], phase_seconds=100.0)
    who.saw_dhcp(MAC, boots=True)
    for stage in (Stage.IPXE, Stage.IPXE, Stage.KERNEL, Stage.IMAGE):  # a long queue: it asks again and again
        now[0] += 99
        assert ask(who, Stage.SYSTEM) == 200
        who.went_on(NODE, stage, MAC, "10.0.0.99")
    now[0] += 99
    who.went_on(NODE, Stage.SYSTEM, MAC, "10.0.0.99", done=True)
    now[0] += 99
    assert ask(who, Stage.SYSTEM) == 200, "it may have to ask again"
    who.went_on(NODE, Stage.KERNEL, MAC, "10.0.0.99")  # a user of the node, not the boot
    now[0] += 1
    assert ask(who, Stage.SYSTEM) == 403
    who.went_on(NODE, Stage.KERNEL, MAC, "10.0.0.99")
    assert ask(who, Stage.SYSTEM) == 403, "nothing but its boot DHCP opens it again"
    who.saw_dhcp(MAC, boots=True)
    assert ask(who, Stage.SYSTEM) == 200


def test_by_dracut_a_phase_goes_on_until_the_system_overlay_that_follows_the_image() -> None:
    """The first one, for the disks, comes before it, and a storm may be longer than a phase."""
    now = [1000.0]
    who = guard(clock=lambda: now[0], phase_seconds=100.0)
    who.saw_dhcp(MAC, boots=True)
    for stage in (Stage.IPXE, Stage.INITRAMFS, Stage.SYSTEM, Stage.IMAGE, Stage.IMAGE, Stage.SYSTEM):
        now[0] += 99
        assert ask(who, Stage.SYSTEM) == 200, stage
        who.went_on(NODE, stage, MAC, "10.0.0.99", done=True)
    who.went_on(NODE, Stage.IMAGE, MAC, "10.0.0.99")
    now[0] += 100
    assert ask(who, Stage.SYSTEM) == 403


@pytest.mark.parametrize("storm", ["waits for its turn", "is asked again"])
def test_a_phase_lasts_as_long_as_its_image_takes(store: PhaseStore, tmp_path: Path, storm: str) -> None:
    """Whoever waits without an answer is heard of no more until it has one; and others open phases meanwhile."""
    now, waiting = [time.time()], {MAC}
    who = guard(
        keeper=store, clock=lambda: now[0], wall=lambda: now[0], phase_seconds=100.0, waits=waiting.__contains__
    )
    who.saw_dhcp(MAC, boots=True)
    now[0] += 101
    assert ask(who, Stage.SYSTEM) == 403, "it asked for no image yet"
    who.saw_dhcp(MAC, boots=True)
    who.went_on(NODE, Stage.IMAGE, MAC, "10.0.0.99")
    for _ in range(3):
        now[0] += 101
        assert ask(who, Stage.SYSTEM) == 200
        if storm == "is asked again":
            who.saw_dhcp("52:54:00:00:00:02", boots=True)
    successor = guard(clock=lambda: now[0], wall=lambda: now[0], phase_seconds=100.0)
    successor.adopt(who.export())
    waiting.clear()
    assert ask(successor, Stage.SYSTEM) == 200, "where it asks anew"
    who.went_on(NODE, Stage.IMAGE, MAC, "10.0.0.99", done=True)
    now[0] += 99
    assert ask(who, Stage.SYSTEM) == 200
    now[0] += 2
    assert ask(who, Stage.SYSTEM) == 403
    who.saw_dhcp("52:54:00:00:00:03", boots=True)
    store.close()
    assert MAC not in dict(store.load())


def test_a_phase_goes_on_with_every_second_of_a_download(paths: Paths) -> None:
    now = [1000.0]
    paths.nodes_conf.write_text(f"nodes: {{n1: {{network devices: {{default: {{hwaddr: '{MAC}'}}}}}}}}\n")
    who = guard(clock=lambda: now[0], phase_seconds=100.0)
    told: Any = Report(Registry(paths), None, Timeline(lambda _: True), who, Supervisor(), None)
    who.saw_dhcp(MAC, boots=True)
    for outcome in (Outcome.STARTED, Outcome.PROGRESS, Outcome.PROGRESS, Outcome.DONE):
        now[0] += 99
        told.record(Transfer("image", outcome, now[0], "10.0.0.99", MAC, "n1", status=200))
        assert told.supervisor.troubles() == {}
    assert ask(who, Stage.SYSTEM) == 200
    now[0] += 99
    told.record(Transfer("image", Outcome.FAILED, now[0], "10.0.0.99", MAC, "n1", status=200))
    now[0] += 2
    assert ask(who, Stage.SYSTEM) == 403


@pytest.mark.parametrize("step", [-365 * 86400.0, 365 * 86400.0])
def test_a_clock_that_is_set_neither_ends_a_phase_nor_keeps_one_open(step: float) -> None:
    now, off = [1000.0], [0.0]
    who = guard(clock=lambda: now[0], wall=lambda: now[0] + 2e9 + off[0], phase_seconds=100.0)
    who.saw_dhcp(MAC, boots=True)
    who.saw_dhcp("52:54:00:00:00:02", boots=False, known=False)
    off[0] = step
    assert ask(who, Stage.SYSTEM) == 200
    assert who.seen_within("52:54:00:00:00:02", 60.0)
    later = guard(clock=lambda: now[0] + 7.0, wall=who.wall, phase_seconds=100.0)  # of another process
    later.adopt(who.export())
    assert ask(later, Stage.SYSTEM) == 200
    now[0] += 101
    for one in (who, later):
        assert ask(one, Stage.SYSTEM) == 403
        assert not one.seen_within("52:54:00:00:00:02", 60.0)


def test_nobody_but_the_node_itself_prolongs_its_phase() -> None:
    now = [1000.0]
    who = guard(clock=lambda: now[0], phase_seconds=100.0)
    who.saw_dhcp(MAC, boots=True)
    now[0] += 60
    who.went_on(NODE, Stage.KERNEL, MAC, "10.0.0.50")
    now[0] += 60
    assert ask(who, Stage.SYSTEM) == 403


def test_a_restart_keeps_the_phase_of_booting_nodes(store: PhaseStore, tmp_path: Path) -> None:
    who = guard(keeper=store)
    who.saw_dhcp(MAC, boots=True)
    store.close()
    assert ask(restarted(tmp_path), Stage.SYSTEM) == 200
    assert ask(restarted(tmp_path, wall=lambda: time.time() + 1801), Stage.SYSTEM) == 403


def test_a_phase_that_opens_right_after_the_machine_of_the_server_started_is_kept(
    store: PhaseStore, tmp_path: Path
) -> None:
    """Power is back, and all boot together: its clock begins with 0."""
    who = guard(keeper=store, clock=lambda: 5.0)
    who.saw_dhcp(MAC, boots=True)
    store.close()
    assert ask(restarted(tmp_path), Stage.SYSTEM) == 200


def test_a_phase_that_ended_by_itself_is_not_kept_on_disk(store: PhaseStore) -> None:
    now = [time.time()]
    who = guard(keeper=store, clock=lambda: now[0], phase_seconds=100.0)
    who.saw_dhcp(MAC, boots=True)
    now[0] += 60
    who.saw_dhcp("52:54:00:00:00:02", boots=True)
    now[0] += 41
    who.saw_dhcp("52:54:00:00:00:03", boots=True)
    store.close()
    assert sorted(mac for mac, _ in store.load()) == ["52:54:00:00:00:02", "52:54:00:00:00:03"]


def test_a_phase_that_a_successor_closed_is_closed_here() -> None:
    async def closed(_: str) -> bool:
        return True

    who = guard()
    who.successor = closed
    for known in (True, False):
        who.saw_dhcp(MAC, boots=True, known=known)
        assert ask(who, Stage.SYSTEM) == 200
        came_up(who)
        assert ask(who, Stage.SYSTEM) == 403


def test_a_closed_phase_is_on_disk_before_the_runtime_overlay_goes_out(store: PhaseStore, tmp_path: Path) -> None:
    who = guard(keeper=store)
    for _ in range(20):
        who.saw_dhcp(MAC, boots=True)
        came_up(who)
        assert ask(restarted(tmp_path), Stage.SYSTEM) == 403, "a crash at this moment opens nothing again"


def test_two_runtime_overlays_at_once_both_wait_for_the_closing(store: PhaseStore, tmp_path: Path) -> None:
    who = guard(keeper=store)
    who.saw_dhcp(MAC, boots=True)

    async def both() -> None:
        async def one() -> None:
            assert who.closes(MAC, 987)
            await who.fetched_runtime(MAC)
            assert ask(restarted(tmp_path), Stage.SYSTEM) == 403

        async with asyncio.TaskGroup() as tasks:
            for _ in range(2):
                tasks.create_task(one())

    asyncio.run(both())


def test_a_storm_of_closed_phases_takes_few_transactions(tmp_path: Path) -> None:
    store = PhaseStore(tmp_path / "db")
    store.load()
    who = guard(keeper=store)
    macs = [f"52:54:00:00:{index >> 8:02x}:{index & 255:02x}" for index in range(2000)]
    for mac in macs:
        who.saw_dhcp(mac, boots=True)

    async def storm() -> None:
        async with asyncio.TaskGroup() as tasks:
            for mac in macs:
                tasks.create_task(who.fetched_runtime(mac))

    store.start()
    began = time.monotonic()
    asyncio.run(storm())
    assert time.monotonic() - began < 2.0, "they wait together"
    assert store.load() == []
    store.close()


def test_a_disk_that_cannot_be_written_holds_no_node_up_and_is_caught_up_with(
    store: PhaseStore, tmp_path: Path
) -> None:
    who = guard(keeper=store)
    who.saw_dhcp(MAC, boots=True)
    other = sqlite3.connect(tmp_path / "db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")  # nobody else can write
    began = time.monotonic()
    came_up(who)
    assert time.monotonic() - began < 3.0
    assert store.error
    assert ask(who, Stage.SYSTEM) == 403, "closed all the same"
    other.execute("COMMIT")
    other.close()
    came_up(who, "52:54:00:00:00:02")
    assert store.error == ""
    assert ask(restarted(tmp_path), Stage.SYSTEM) == 403


TROUBLE = {
    "no database": (lambda path: path.write_bytes(b"no database" * 100), "hint: move "),
    "a disk that is full": (sqlite3.SQLITE_FULL, "hint: see whether the disk"),
    "a disk that fails": (sqlite3.SQLITE_IOERR | 10 << 8, "hint: see whether the disk"),
    "somebody who holds it": (sqlite3.SQLITE_BUSY, "hint: see whether the disk"),
    "a directory": (Path.mkdir, "hint: see whether the disk"),
}


@pytest.mark.parametrize("trouble", TROUBLE)
@pytest.mark.parametrize("made", [PhaseStore, Journal])
def test_a_database_is_to_be_moved_away_only_when_it_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Any, trouble: str
) -> None:
    cause, hint = TROUBLE[trouble]

    def connect(*_: object) -> sqlite3.Connection:
        error = sqlite3.OperationalError("as SQLite has it")
        error.sqlite_errorcode = cause
        raise error

    if callable(cause):
        cause(tmp_path / "db")
    else:
        monkeypatch.setattr(wal, "connect", connect)
    with pytest.raises(WwfastError) as caught:
        made(tmp_path / "db").load()
    assert f"hint: {caught.value.hint}".startswith(hint)


def test_strangers_are_bounded_and_cost_the_nodes_nothing(store: PhaseStore, tmp_path: Path) -> None:
    who = guard(keeper=store)
    who.saw_dhcp(MAC, boots=True)
    for index in range(20_000):
        who.saw_dhcp(f"02:00:00:00:{index >> 8:02x}:{index & 255:02x}", boots=True, known=False)
    assert ask(who, Stage.SYSTEM) == 200
    last = "02:00:00:00:4e:1f"
    assert who.seen_within(last, 300)
    assert who.boots_within(last, 60)
    assert not who.seen_within("02:00:00:00:00:01", 300)
    store.close()
    assert [mac for mac, _ in store.load()] == [MAC]


def test_a_discovered_machine_goes_on_with_the_boot_it_was_discovered_in(store: PhaseStore, tmp_path: Path) -> None:
    who = guard(keeper=store)
    who.saw_dhcp(MAC, boots=True, known=False)
    assert ask(who, Stage.SYSTEM) == 200
    who.went_on(NODE, Stage.IPXE, MAC, "10.0.0.99")
    store.close()
    assert ask(restarted(tmp_path), Stage.SYSTEM) == 200
    came_up(who)
    assert ask(who, Stage.SYSTEM) == 403


def test_a_successor_knows_the_strangers_of_its_predecessor() -> None:
    who, after = guard(), guard()
    who.saw_dhcp(MAC, boots=True, known=False)
    assert ask(after, Stage.SYSTEM) == 403
    after.adopt(who.export())
    assert ask(after, Stage.SYSTEM) == 200
    assert after.seen_within(MAC, 60)


def test_whoever_asks_is_the_node_itself_only_from_its_own_addresses() -> None:
    assert guard().is_own(NODE, MAC, "10.0.0.99")
    assert not guard().is_own(NODE, MAC, "10.9.9.9")
    six: Any = Node(id="n6", network_devices={"default": NetDev(hwaddr=MAC, ipaddr6="FD00:0::9")})
    assert guard().is_own(six, MAC, "fd00::9"), "sockets say it in one form"
    assert guard(own_dhcp=False).is_own(NODE, MAC, "10.9.9.9"), "nobody knows"


def test_what_a_user_of_a_node_could_say_of_it_is_not_believed() -> None:
    def believed(who: Guard, ip: str = "10.0.0.99", port: int = 40000) -> bool:
        return who.believes(NODE, MAC, ip, port)

    who = guard()
    assert (believed(who), believed(who, port=987), believed(who, "10.0.0.12", 987)) == (False, True, False)
    who.saw_dhcp(MAC, boots=True)
    assert (believed(who), believed(who, "10.0.0.12")) == (True, False), "nobody is on a node that boots"
    came_up(who)
    assert not believed(who)
    assert (believed(guard(own_dhcp=False)), believed(guard(own_dhcp=False), port=987)) == (False, True)
    assert believed(guard(secure=False))
    assert not believed(guard(secure=False), "10.0.0.12"), "another machine is not it, whatever its port"


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
    who.saw_dhcp(MAC, boots=True, known=False)
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
    neighbour = Neighbours(table)
    assert neighbour("10.0.0.9") == "52:54:00:aa:00:09"
    assert neighbour("10.0.0.8") == ""
    assert neighbour("10.0.0.7") == ""
    assert Neighbours(tmp_path / "missing")("10.0.0.9") == ""
