"""What `wwfast doctor` finds."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from wwfast.boot import binaries
from wwfast.config.settings import load
from wwfast.doctor import boots, examine, finding, machine, ports, site
from wwfast.nodes.registry import Registry
from wwfast.paths import Paths

CONF = """
ipaddr: 127.0.0.1
netmask: 255.0.0.0
network: 127.0.0.0
warewulf: {port: PORT}
dhcp: {enabled: false}
tftp: {enabled: false}
"""


def scene(paths: Paths, conf: str = CONF.replace("PORT", "19873"), nodes: str = "", **more: Path) -> finding.Scene:
    paths.conf.write_text(conf)
    paths.nodes_conf.write_text(nodes or "nodes: {}\nnodeprofiles: {}\n")
    return finding.Scene(paths, load(paths), Registry(paths).snapshot(), **more)


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
        assert str(port) in found[0].message
    assert ports.port_holder("tcp", port) is None


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


def test_images_without_curl_or_build_are_told(paths: Paths) -> None:
    (paths.chroots / "bare/rootfs/usr/bin").mkdir(parents=True)
    (paths.chroots / "bare/rootfs/usr/bin/tar").touch()
    found = list(boots.images(scene(paths, nodes="nodes: {n1: {image name: bare}, n2: {image name: gone}}\n")))
    texts = [finding.message for finding in found]
    assert any("image bare is not built" in text for text in texts)
    assert any("image bare has no curl" in text for text in texts)
    assert not any("no tar" in text for text in texts)
    assert any("there is no image gone" in text for text in texts)


def test_missing_ipxe_binaries_name_the_package(paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "SEARCH", (tmp_path / "nowhere",))
    conf = CONF.replace("PORT", "19873").replace("tftp: {enabled: false}", "tftp: {enabled: true}")
    found = list(site.ipxe(scene(paths, conf)))
    assert any("undionly.kpxe" in finding.message and finding.level == "error" for finding in found)
    assert "ipxe" in found[0].fix


def test_dhcp_wants_the_network_written_down(paths: Paths) -> None:
    conf = "ipaddr: 127.0.0.1/8\ndhcp: {enabled: true}\n"
    found = list(site.dhcp(scene(paths, conf)))
    assert len(found) == 1
    assert "network" in found[0].message


def test_settings_without_their_effect_are_told_one_by_one(paths: Paths) -> None:
    conf = CONF.replace("{port: PORT}", "{grubboot: true, secure: false, tls: false}") + "api: {enabled: true}\n"
    found = [finding.message for finding in site.unserved(scene(paths, conf))]
    assert len(found) == 2
    assert "warewulf: grubboot" in found[0]
    assert "Secure Boot" in found[0]
    assert "api: enabled" in found[1]
    assert not list(site.unserved(scene(paths)))


def test_bad_entries_of_nodes_conf_are_findings(paths: Paths) -> None:
    found = list(site.registry(scene(paths, nodes="nodes: {n1: {profiles: [gone]}}\n")))
    assert any("gone" in finding.message for finding in found)


def test_a_failing_check_is_a_finding_not_a_crash(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: finding.Scene) -> list[finding.Finding]:
        raise PermissionError(13, "denied")

    monkeypatch.setattr(examine, "CHECKS", (broken,))
    found = examine.examine(scene(paths))
    assert found[0].message.startswith("could not be checked")
