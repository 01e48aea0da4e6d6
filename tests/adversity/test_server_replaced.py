"""A successor may fail in every way: the server that runs goes on in HTTP, TFTP and DHCP; one that works takes over."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.daemon import overlay
from support.patience import until
from support.site import ADDRESS, NODES, PORT, Site, made
from wwfast.daemon.state.database import PhaseStore

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(180)]

# What the running server waits for a successor after letting go, and for itself where it is to end.
OLD = {
    "daemon.life.handover.TAKING": 1.5,
    "daemon.app.WRITE_SECONDS": 1.0,
    "daemon.app.REPLACED_SECONDS": 1.0,
    "daemon.life.process.CLOSING_LIMIT": 3.0,
}
STEPS = ("reading nodes.conf", "reading who boots", "preparing HTTP", "preparing TFTP", "preparing DHCP",
         "writing to the database", "taking over", "serving", "taking")  # fmt: skip


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with made(tmp_path) as one:
        yield one


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, subprocess.Popen[bytes]]]:
    """One server for all successors that fail."""
    with made(tmp_path_factory.mktemp("site")) as one:
        old = one.start("old", {"limits": OLD})
        one.says("old", "serving on port")
        yield one, old


def refused(
    running: tuple[Site, subprocess.Popen[bytes]],
    name: str,
    plan: dict[str, Any],
    *words: str,
    inside: tuple[str, ...] = (),
    within: float = 60.0,
) -> str:
    """Start a successor that must fail; what it said, when the old server was shown to serve everything still."""
    site, old = running
    new = site.start(name, plan, *words, "--replace", inside=inside)
    try:
        assert new.wait(within) != 0, site.space.log(name)
    finally:
        site.space.stop(new)
    assert old.poll() is None
    assert site.ask()["pid"] == old.pid
    return site.space.log(name)


@pytest.mark.parametrize("do", ["kill", "hang"])
@pytest.mark.parametrize("step", STEPS)
def test_replace_by_a_successor_that_dies_or_hangs_at_any_step_changes_nothing(
    running: tuple[Site, subprocess.Popen[bytes]], step: str, do: str
) -> None:
    plan = {"at": step, "do": do, "limits": {"daemon.life.process.STARTING_LIMIT": 10.0 if do == "hang" else 60.0}}
    said = refused(running, f"{step}-{do}", plan)
    assert f"strained: {do}" in said
    if do == "hang":
        assert "Timeout (0:00:10)!" in said  # the watchdog's, with where every thread stands


@pytest.mark.parametrize(
    "at",
    ["nodes.registry:Registry.reload", "net.http.server:HttpServer.prepare", "net.http.server:HttpServer.start",
     "net.tftp.server:TftpServer.start", "net.dhcp.server:DhcpServer.start", "daemon.boot.guard:Guard.adopt",
     "net.dhcp.leases:LeaseTable.adopt"],
)  # fmt: skip
def test_replace_by_a_successor_with_a_part_that_does_not_start_changes_nothing(
    running: tuple[Site, subprocess.Popen[bytes]], at: str
) -> None:
    assert "injected" in refused(running, at.replace(":", "-"), {"at": at, "do": "raise"})


def test_replace_by_a_successor_stuck_in_a_thread_ends_in_its_time(
    running: tuple[Site, subprocess.Popen[bytes]],
) -> None:
    limits = {"daemon.app.PREPARE_SECONDS": 2.0, "daemon.life.process.STOPPING_LIMIT": 2.0}
    said = refused(running, "stuck", {"at": "nodes.registry:Registry.reload", "do": "stuck", "limits": limits})
    assert "still at: reading nodes.conf" in said or "Timeout" in said


def test_replace_by_a_successor_that_wakes_too_late_does_not_make_two(
    running: tuple[Site, subprocess.Popen[bytes]],
) -> None:
    assert "not ready within" in refused(running, "late", {"at": "taking", "do": "late"})


def test_replace_by_a_successor_of_another_version_is_refused(running: tuple[Site, subprocess.Popen[bytes]]) -> None:
    said = refused(running, "version", {"limits": {"daemon.life.handover.VERSION": 1}})
    assert "another version" in said
    assert "systemctl restart wwfast" in said


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"ipaddr": "10.7.0.77"}, "10.7.0.77"),
        ({"dhcp": {"enabled": True, "range start": "10.7.0.200", "range end": "10.7.0.100"}}, "range"),
        ({"network": "", "netmask": ""}, "network"),
        ({"tftp": {"enabled": True, "ipxe": {"00:07": "/nowhere/snponly.efi"}}}, "iPXE"),
        ({"warewulf": {"port": 9999}}, "cannot listen on"),
        ({"warewulf": {"port": PORT, "tls": True}}, "TLS"),
        ({"warewulf": {"port": "many"}}, "port"),
    ],
)
def test_replace_with_a_warewulf_conf_that_cannot_work_changes_nothing(
    running: tuple[Site, subprocess.Popen[bytes]], changes: dict[str, Any], why: str
) -> None:
    site, _ = running
    log = f"busy-{why.split()[-1]}"  # of its own: "bound" of the one before would do, and the successor come first
    busy = site.space.start("python3", "-c", "import socket,time; s=socket.socket(); s.bind(('0.0.0.0', 9999));"
                            "s.listen(); print('bound', flush=True); time.sleep(600)", log=log)  # fmt: skip
    site.says(log, "bound")
    conf = site.conf("other.conf", **changes)
    try:
        said = refused(running, "conf", {}, inside=("env", f"WAREWULFCONF={conf}"))
    finally:
        site.space.stop(busy)
    assert "error:" in said
    assert why in said
    assert "Traceback" not in said


def test_replace_with_a_broken_nodes_conf_changes_nothing(running: tuple[Site, subprocess.Popen[bytes]]) -> None:
    site, _ = running
    good = site.paths.nodes_conf.read_bytes()
    site.paths.nodes_conf.write_text("nodes: [")
    try:
        assert "nodes.conf" in refused(running, "nodes", {})
    finally:
        site.paths.nodes_conf.write_bytes(good)


def test_replace_with_a_database_that_is_damaged_changes_nothing(
    running: tuple[Site, subprocess.Popen[bytes]],
) -> None:
    site, _ = running
    database = site.paths.database
    kept = database.with_suffix(".kept")
    database.rename(kept)
    database.write_bytes(b"no database" * 1000)
    try:
        said = refused(running, "damaged", {})
    finally:
        kept.rename(database)
    assert "database" in said
    assert "hint:" in said


def test_replace_with_a_database_that_another_program_locks_changes_nothing(
    running: tuple[Site, subprocess.Popen[bytes]],
) -> None:
    site, _ = running
    other = sqlite3.connect(site.paths.database, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        assert "locked" in refused(running, "locked", {})
    finally:
        other.execute("ROLLBACK")
        other.close()


def test_replace_with_a_database_that_cannot_be_written_changes_nothing(
    running: tuple[Site, subprocess.Popen[bytes]],
) -> None:
    site, _ = running
    state = site.paths.database.parent
    mount = f'mount --bind {state} {state} && mount -o remount,ro,bind {state} && exec "$@"'
    said = refused(running, "readonly", {}, inside=("unshare", "-m", "sh", "-c", mount, "sh"))
    assert "error:" in said


def test_replace_asked_by_signal_tells_that_it_failed_and_works_when_mended(site: Site) -> None:
    old = site.start("old", {"limits": OLD})
    site.says("old", "serving on port")
    good = site.paths.conf.read_bytes()
    site.conf("warewulf.conf", ipaddr="10.7.0.77")
    old.send_signal(signal.SIGUSR2)
    until(lambda: "replacing this server" in site.ask()["troubles"])
    assert site.ask()["pid"] == old.pid
    site.paths.conf.write_bytes(good)
    doctor = site.space.run(sys.executable, "-m", "wwfast", "--root", site.paths.root, "doctor", check=False)
    assert "replacing this server fails" in doctor
    old.send_signal(signal.SIGUSR2)
    assert old.wait(60) == 0
    found = site.ask()
    assert found["pid"] != old.pid
    assert found["troubles"] == {}
    os.kill(found["pid"], signal.SIGTERM)


def test_replaced_server_leaves_and_hands_its_state_over_whatever_the_disk_does(site: Site) -> None:
    """What could not be written is handed over in memory."""
    old = site.start("old", {"limits": OLD, "at": "net.dhcp.journal:Journal.flush", "do": "raise"})
    site.says("old", "serving on port")
    site.client.run("busybox", "udhcpc", "-i", "eth0", "-n", "-q", "-s", "/bin/true")
    assert leases(site) == 1
    new = site.start("new", {}, "--replace")
    site.says("new", "serving on port")
    old.wait(30)
    assert leases(site) == 1
    assert site.ask()["pid"] == new.pid


def leases(site: Site) -> int:
    shown = site.client.run("curl", "-sf", "--noproxy", "*", f"http://{ADDRESS}:{PORT}/status?node=-")
    count: int = json.loads(shown)["dhcp"]["leases"]
    return count


@pytest.mark.parametrize(
    ("at", "do"),
    [
        ("daemon.state.database:PhaseStore.flush", "raise"),
        ("daemon.state.database:PhaseStore.flush", "stuck"),
        ("net.dhcp.journal:Journal.flush", "raise"),
        ("net.dhcp.journal:Journal.flush", "stuck"),
        ("net.http.server:HttpServer.stop_accepting", "raise"),
        ("net.tftp.server:TftpServer.stop_accepting", "raise"),
        ("net.dhcp.server:DhcpServer.stop", "raise"),
        ("net.http.server:HttpServer.drain", "raise"),
    ],
)
def test_replaced_server_ends_in_its_time_whatever_fails(site: Site, at: str, do: str) -> None:
    old = site.start("old", {"limits": OLD, "at": at, "do": do})
    site.says("old", "serving on port")
    site.ask()
    new = site.start("new", {}, "--replace")
    site.says("new", "serving on port")
    old.wait(OLD["daemon.app.REPLACED_SECONDS"] + OLD["daemon.life.process.CLOSING_LIMIT"] + 20)
    assert site.ask()["pid"] == new.pid


def test_replaced_server_ends_in_its_time_with_a_transfer_that_hangs(site: Site) -> None:
    old = site.start("old", {"limits": OLD})
    site.says("old", "serving on port")
    stalled = site.client.start("bash", "-c", f"exec 3<>/dev/tcp/{ADDRESS}/{PORT}; echo open; sleep 600", log="held")
    until(lambda: "open" in site.client.log("held"))
    site.ask()
    new = site.start("new", {}, "--replace")
    site.says("new", "serving on port")
    assert old.wait(30) == 0
    site.client.stop(stalled)
    assert site.ask()["pid"] == new.pid


def test_predecessor_that_dies_while_it_lets_go_is_replaced_all_the_same(site: Site) -> None:
    old = site.start("old", {"limits": OLD, "at": "daemon.app:Daemon.state", "do": "kill"})
    site.says("old", "serving on port")
    new = site.start("new", {}, "--replace")
    site.says("new", "serving on port")
    assert old.wait(10) == -signal.SIGKILL
    assert site.ask()["pid"] == new.pid


#: A node's root asks ADDRESS PORT for PATH when there is FILE, on a connection that it has from before; its status.
LATE = """
import socket, sys, time
from pathlib import Path
address, port, path, file = sys.argv[1:]
for own in range(700, 850):
    sock = socket.socket()
    try:
        sock.bind(("10.7.0.11", own))
        sock.connect((address, int(port)))
        break
    except OSError:
        sock.close()
print("connected", flush=True)
while not Path(file).exists():
    time.sleep(0.02)
sock.sendall(f"GET {path} HTTP/1.1\\r\\nHost: x\\r\\nUser-Agent: curl/8\\r\\n\\r\\n".encode())
print(sock.recv(64).split()[1].decode(), flush=True)
"""


def test_replaced_server_sends_no_dracut_module_away_and_ends_its_boot_in_the_successor(
    site: Site, tmp_path: Path
) -> None:
    """It asks for its runtime overlay when neither serves; what ends its boot is known to the server that comes."""
    mac, gate = "52:54:00:00:00:01", tmp_path / "gate"
    overlay(site.paths)
    entry = NODES["nodes"]["n1"] | {"runtime overlay": ["motd"], "system overlay": ["motd"]}
    site.paths.nodes_conf.write_text(json.dumps({"nodes": {"n1": entry}}))
    phases = PhaseStore(site.paths.database)
    phases.load()
    phases.start()
    phases.put(mac, time.time())
    phases.close()
    site.client.run("ip", "addr", "add", "10.7.0.11/24", "dev", "eth0")
    curl = ("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--noproxy", "*", "--interface", "10.7.0.11")
    ask = (*curl, f"http://{ADDRESS}:{PORT}/system/{mac}?compress=gz")
    old = site.start("old", {"limits": {"daemon.life.handover.TAKING": 60.0}})
    site.says("old", "serving on port")
    assert site.client.run(*ask) == "200"
    words = (f"/runtime/{mac}?compress=gz", str(gate))
    late = site.client.start(sys.executable, "-c", LATE, ADDRESS, str(PORT), *words, log="late")
    site.says_of(site.client, "late", "connected")
    new = site.start("new", {"at": "taking", "do": "late"}, "--replace")
    site.says("new", "strained: late")
    gate.touch()
    site.says("new", "serving on port")
    assert late.wait(60) == 0
    assert site.client.log("late").split() == ["connected", "200"]
    assert site.client.run(*ask) == "403", "its system overlay is closed"
    assert PhaseStore(site.paths.database).load() == []
    assert old.wait(60) == 0
    site.space.stop(new)


def test_replace_of_a_proxydhcp_by_a_server_asks_for_other_servers(site: Site) -> None:
    """The one that runs lived beside the other server and never asked; its successor would not live beside it."""
    good = site.paths.conf.read_bytes()
    site.conf("warewulf.conf", wwfast={"proxy dhcp": True})
    site.client.start(
        "dnsmasq", "-k", "-p", "0", "-C", "/dev/null", "--user=root", "--no-ping", "--log-facility=-",
        "--dhcp-range=10.7.0.60,10.7.0.70", f"--dhcp-leasefile={site.paths.root}/leases", log="other",
    )  # fmt: skip
    site.says_of(site.client, "other", "DHCP, IP range")
    old = site.start("old", {"limits": OLD})
    site.says("old", "serving on port")
    site.paths.conf.write_bytes(good)
    new = site.start("new", {}, "--replace")
    assert new.wait(60) == 1
    assert "another DHCP server answers on eth0: 10.7.0.2" in site.space.log("new")
    assert old.poll() is None
    assert leases(site) == 0
