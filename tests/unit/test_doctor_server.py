"""What `wwfast doctor` says of the server: its machine, its ports, warewulf.conf, and the one that runs."""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from support.healthy import Healthy, elf, put
from support.scenes import CONF, scene
from wwfast.boot.loader import binaries
from wwfast.cli import output
from wwfast.doctor import boots, examine, machine, ports, site
from wwfast.doctor.finding import Finding, Scene
from wwfast.doctor.running import service
from wwfast.paths import Paths


def test_a_port_in_use_names_its_holder(paths: Paths) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        holder = ports.port_holder("tcp", port)
        assert holder is not None
        assert holder.endswith(f"[{os.getpid()}]")
        at = scene(paths, CONF.replace("PORT", str(port)))
        found = list(ports.ports(at))
    if not holder.startswith("wwfast"):
        assert [finding.level for finding in found] == ["error"]
        assert f"port {port}/tcp (HTTP) is in use by {holder}" in found[0].message
        assert f"systemctl status {os.getpid()}" in found[0].fix
    assert ports.port_holder("tcp", port) is None


def test_a_port_of_a_known_program_names_its_unit(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    at = scene(paths, CONF.replace("PORT", "19873").replace("dhcp: {enabled: false}", "dhcp: {enabled: true}"))
    monkeypatch.setattr(ports, "port_holder", lambda _, port, __: "dhcpd[7]" if port == 67 else None)
    (found,) = ports.ports(at)
    assert found.fix.startswith("systemctl disable --now isc-dhcp-server  (or set")
    monkeypatch.setattr(ports, "port_holder", lambda _, port, __: ports.UNKNOWN if port == 67 else None)
    (found,) = ports.ports(at)
    assert found.message == "port 67/udp (DHCP) is in use by another program"
    assert "ask as root" in found.fix


def test_limits_are_measured_against_the_number_of_nodes(paths: Paths, tmp_path: Path) -> None:
    proc = tmp_path / "proc"
    (proc / "sys/net/ipv4/neigh/default").mkdir(parents=True)
    (proc / "sys/net/core").mkdir(parents=True)
    (proc / "sys/net/ipv4/neigh/default/gc_thresh3").write_text("1024\n")
    (proc / "sys/net/core/rmem_max").write_text("212992\n")
    few = "nodes: {n1: {}}\n"
    many = "nodes:\n" + "".join(f"  n{number}: {{}}\n" for number in range(600))
    assert "neighbours" not in [f.check for f in machine.kernel_limits(scene(paths, nodes=few, proc=proc))]
    found = [f for f in machine.kernel_limits(scene(paths, nodes=many, proc=proc)) if f.check == "neighbours"]
    assert "gc_thresh3 is 1024" in found[0].message
    assert found[0].fix == "sysctl -w net.ipv4.neigh.default.gc_thresh3=4096"


def test_ipxe_binaries_are_missed_for_the_machines_that_images_are_made_for(paths: Paths) -> None:
    conf = CONF.replace("PORT", "19873").replace("tftp: {enabled: false}", "paths: {ipxesource: /ipxe}")
    conf += "tftp: {ipxe: {'00:00': own.kpxe, '00:07': own.efi, '00:0B': own-arm.efi, '00:06': own-32.efi}}\n"
    nodes = "nodes: {n1: {image name: tiny}}\n"
    for name in ("own.kpxe", "own.efi"):
        put(paths.root / "ipxe" / name, "ipxe")

    def missed() -> list[tuple[str, str]]:
        found = site.ipxe(scene(paths, conf, nodes))
        return [(it.level, it.message.split()[3]) for it in found]

    assert missed() == [("warning", "own-32.efi")]
    shell = put(paths.chroots / "tiny/rootfs/bin/sh", elf(183))
    assert missed() == [("warning", "own-32.efi"), ("error", "own-arm.efi")]
    (paths.root / "ipxe/own.kpxe").unlink()
    assert ("error", "own.kpxe") not in missed()
    shell.write_bytes(elf())
    assert missed() == [("error", "own.kpxe"), ("warning", "own-32.efi")]
    put(paths.root / "ipxe/own.kpxe", "")
    assert missed() == [("error", "own.kpxe"), ("warning", "own-32.efi")], "an empty one is none"


def test_no_tftp_at_all_is_told_where_our_dhcp_names_it(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    conf = CONF.replace("PORT", "19873")
    assert not list(site.ipxe(scene(paths, conf)))
    conf = conf.replace("dhcp: {enabled: false}", "dhcp: {enabled: true}")
    monkeypatch.setattr(site, "port_holder", lambda protocol, port, proc: None)
    (found,) = site.ipxe(scene(paths, conf))
    assert "no other program serves TFTP here" in found.message
    monkeypatch.setattr(site, "port_holder", lambda protocol, port, proc: "in.tftpd[7]")
    assert not list(site.ipxe(scene(paths, conf)))


def test_missing_ipxe_binaries_name_the_package(paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "SEARCH", (tmp_path / "nowhere",))
    conf = CONF.replace("PORT", "19873").replace("tftp: {enabled: false}", "tftp: {enabled: true}")
    found = list(site.ipxe(scene(paths, conf)))
    assert any("undionly.kpxe" in finding.message and finding.level == "error" for finding in found)
    assert "ipxe" in found[0].fix


def test_ipxe_binaries_that_are_other_ones_than_those_asked_for_are_told(paths: Paths) -> None:
    a, b = (put(paths.root / name / "snponly.efi", name) for name in "ab")
    ipxe = f"tftp: {{ipxe: {{'00:06': {a}, '00:07': {b}}}}}"
    conf = CONF.replace("PORT", "19873").replace("tftp: {enabled: false}", ipxe)
    found = [it.message for it in site.ipxe(scene(paths, conf))]
    assert any(f"get the other one, not {paths.root}/b/snponly.efi" in it for it in found), found
    ours = conf.replace("dhcp: {enabled: false}", "dhcp: {enabled: true}")
    assert not list(site.ipxe(scene(paths, ours)))
    (found,) = [it.message for it in site.ipxe(scene(paths, ours + "paths: {ipxesource: /nope}\n"))]
    assert f"sets ipxesource to {paths.root}/nope, which is no directory" in found


MISPLACED = {
    "many": ("224.0.0.1", "255.255.0.0", "", "error", "an address that no host has"),
    "itself": ("127.0.0.1", "255.0.0.0", "", "error", "an address that no host has"),
    "none": ("0.0.0.0", "255.255.0.0", "", "error", "is 0.0.0.0: nodes are not told where this server is"),
    "unset": ("", "", "", "error", "is not set: nodes are not told where this server is"),
    "network": ("10.0.0.0", "255.255.0.0", "", "error", "is the address of its network"),
    "broadcast": ("10.0.255.255", "255.255.0.0", "", "error", "is the broadcast address of its network"),
    "elsewhere": ("10.0.0.1", "255.255.0.0", "10.1.0.0", "warning", "says network 10.1.0.0, and ipaddr and netmask"),
    "alone": ("10.0.0.1", "255.255.255.255", "", "warning", "a node that has none of its own reaches nobody"),
}


@pytest.mark.parametrize(("ipaddr", "netmask", "network", "level", "why"), MISPLACED.values(), ids=MISPLACED)
def test_an_address_of_the_server_that_nodes_do_not_reach_is_told(
    paths: Paths, ipaddr: str, netmask: str, network: str, level: str, why: str
) -> None:
    conf = f"ipaddr: '{ipaddr}'\nnetmask: '{netmask}'\nnetwork: '{network}'\ndhcp: {{enabled: false}}\n"
    (found,) = site.address(scene(paths, conf))
    assert found.level == level
    assert why in found.message
    assert not list(site.address(scene(paths, "ipaddr: 10.0.0.1/16\nnetwork: 10.0.0.0\n")))


def test_an_address_that_this_machine_does_not_have_is_told(paths: Paths, tmp_path: Path) -> None:
    put(
        tmp_path / "proc/net/fib_trie",
        "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 10.9.0.0\n        /16 link UNICAST\n"
        "     |-- 10.9.0.1\n        /32 host LOCAL\n     |-- 10.9.255.255\n        /32 link BROADCAST\n"
        "     |-- 10.9.0.2\n        /32 link UNICAST\n        /32 host LOCAL\n",
    )
    put(tmp_path / "proc/net/if_inet6", "fd000000000000000000000000000001 02 40 00 80     eth1\n")

    def told(conf: str) -> list[tuple[str, str]]:
        at = scene(paths, conf, proc=tmp_path / "proc")
        assert list(machine.address(at)) == [], "below --root it may be another machine's"
        found = machine.address(replace(at, paths=Paths.at()))
        return [(it.level, it.message.partition(", ")[2]) for it in found]

    for mine in ("10.9.0.1", "10.9.0.2"):
        assert told(f"ipaddr: {mine}/16\nipaddr6: fd00::1/64\n") == []
    for other in ("10.9.0.3", "10.9.0.0", "10.9.255.255"):
        said = f"{other}, is no address of this machine: the server will not start"
        assert told(f"ipaddr: {other}/16\n") == [("error", said)]
        assert told(f"ipaddr: {other}/16\ndhcp: {{enabled: false}}\n") == [("error", said)]
        assert told(f"ipaddr: {other}/16\ndhcp: {{enabled: false}}\ntftp: {{enabled: false}}\n") == []
    assert [level for level, _ in told("ipaddr: 10.9.0.1/16\nipaddr6: fd00::2/64\n")] == ["warning"]


def test_dhcp_wants_the_network_written_down(paths: Paths) -> None:
    conf = "ipaddr: 127.0.0.1\ndhcp: {enabled: true}\n"
    found = list(site.dhcp(scene(paths, conf)))
    assert [it.level for it in found] == ["error"]
    assert "network" in found[0].message
    for rest in ("network: 127.0.0.0\n", "netmask: 255.0.0.0\n"):
        assert list(site.dhcp(scene(paths, conf + rest))) == []
    assert list(site.dhcp(scene(paths, conf.replace("0.1", "0.1/22")))) == []
    found = list(site.dhcp(scene(paths, conf.replace("true", "true, range start: 127.0.0.9") + "network: 127.0.0.0\n")))
    assert [it.level for it in found] == ["error"]
    assert "the server will not start" in found[0].message


def test_settings_without_their_effect_are_told_one_by_one(paths: Paths) -> None:
    conf = CONF.replace("{port: PORT}", "{grubboot: true, secure: false, tls: false}") + "api: {enabled: true}\n"
    found = [finding.message for finding in site.unserved(scene(paths, conf))]
    assert len(found) == 2
    assert "warewulf: grubboot" in found[0]
    assert "Secure Boot" in found[0]
    assert "api: enabled" in found[1]
    assert not list(site.unserved(scene(paths)))
    tls = CONF.replace("{port: PORT}", "{tls: true}")
    assert [it.level for it in site.unserved(scene(paths, tls))] == ["error"]  # no start


def test_a_failing_check_is_a_finding_not_a_crash(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Scene) -> list[Finding]:
        raise PermissionError(13, "denied")

    monkeypatch.setattr(examine, "CHECKS", (broken,))
    found = examine.examine(scene(paths))
    assert found[0].fix == "run it as root"
    assert found[0].message.startswith("broken could not be checked: denied")


def test_a_fault_of_our_own_is_a_finding_too(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Scene) -> list[Finding]:
        raise KeyError("gone")

    monkeypatch.setattr(examine, "CHECKS", (broken,))
    found = examine.examine(scene(paths))
    assert [(it.level, it.message) for it in found] == [("warning", "broken could not be checked: KeyError: 'gone'")]


def test_another_program_that_hangs_is_not_waited_for(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("firewall-cmd", "ufw", "nft"):
        put(tmp_path / "bin" / name, "#!/bin/sh\nsleep 60\n", 0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(ports, "ASK_SECONDS", 0.2)
    monkeypatch.setattr(examine, "CHECKS", (ports.firewall,))
    for name in ("firewall-cmd", "ufw", "nft"):
        found = examine.examine(scene(paths))
        assert [it.level for it in found] == ["warning"]
        assert f"{name} did not finish within 0.2 s" in found[0].message
        (tmp_path / "bin" / name).write_text("#!/bin/sh\nexit 1\n")
    assert examine.examine(scene(paths)) == []


def test_an_address_of_ipv6_is_told_where_the_kernel_has_none(paths: Paths, tmp_path: Path) -> None:
    proc = tmp_path / "proc"
    conf = CONF.replace("PORT", "19873") + "ipaddr6: fd00::1/64\n"
    assert "IPv6 is off" in next(iter(ports.ipv6(scene(paths, conf, proc=proc)))).message  # built without it
    switch = put(proc / "sys/net/ipv6/conf/all/disable_ipv6", "1\n")
    assert "IPv6 is off" in next(iter(ports.ipv6(scene(paths, conf, proc=proc)))).message
    switch.write_text("0\n")
    assert not list(ports.ipv6(scene(paths, conf, proc=proc)))
    switch.write_text("1\n")
    assert not list(ports.ipv6(scene(paths, proc=proc)))  # nobody asked for it


def test_troubles_of_the_running_server_are_told(paths: Paths) -> None:
    running = {
        "troubles": {"saving boot phases": {"count": 3, "error": "disk I/O error"}},
        "registry error": "nodes.conf:3: a bracket is not closed",
    }
    found = list(service(scene(paths, running=running)))
    assert [it.level for it in found] == ["error", "error"]
    assert "saving boot phases fails (3 times): disk I/O error" in found[0].message
    assert "the last good nodes.conf: nodes.conf:3" in found[1].message
    assert not list(service(scene(paths)))


def test_the_start_of_the_server_looks_at_one_node_of_each_kind(paths: Paths) -> None:
    made = Healthy(paths, nodes=30)
    made.profiles["default"]["image name"] = "gone"
    made.entries["n1"]["image name"] = "deb"
    made.entries["n2"] |= {"image name": "deb", "system overlay": ["wwinit", "broken"]}
    made.overlay("broken", "etc/t.j2", "{{ tags.rack }}\n")
    made.write()
    at = scene(paths, paths.conf.read_text(), paths.nodes_conf.read_text(), thorough=False)
    assert {it.message.partition(":")[0] for it in boots.boots(at)} == {"n2", "n[3-30]"}


def test_progress_is_told_while_nodes_are_looked_at(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    Healthy(paths, nodes=5)
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(boots, "TELL", 0.0)
    at = scene(
        paths, paths.conf.read_text(), paths.nodes_conf.read_text(), progress=lambda done, of: told.append((done, of))
    )
    boots.boots(at)
    assert told == [(done, 5) for done in range(5)]


def test_a_bar_is_shown_on_a_terminal_and_only_when_it_takes_long(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for terminal, patience, bars in ((True, 0.0, 1), (True, 60.0, 0), (False, 0.0, 0)):
        monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal)
        monkeypatch.setattr(output, "PATIENCE", patience)
        with output.progress("looking") as tell:
            tell(1, 2)
            tell(2, 2)
        said = capsys.readouterr()
        assert ("looking" in said.err, said.out) == (bool(bars), "")
