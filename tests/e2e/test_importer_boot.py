"""Moving in, on real parts: a Debian server with the files of a Warewulf 4.5 is taken over, boots a node, and is given
back. wwfast sees a root file system of its own there, and is told nothing of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import chroot, warewulf
from support.lab import Laboratory, Namespace, Tree
from wwfast.demo.cluster import hwaddr

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(900)]

IMAGE = "debian12"
CONF = """\
WW_INTERNAL: 45
ipaddr: {server} # the head
netmask: 255.255.255.0
network: {prefix}.0
warewulf: {{port: 9873, secure: false, update interval: 60, syslog: false}}
dhcp: {{enabled: true, range start: {prefix}.100, range end: {prefix}.199, systemd name: isc-dhcp-server}}
tftp: {{enabled: true, systemd name: tftpd-hpa}}
nfs:
  enabled: true
  export paths:
  - {{path: /home, export options: "rw,sync"}}
"""
NODES = """\
WW_INTERNAL: 45
nodeprofiles:
  default:
    container name: {image}
    system overlay: wwinit,site
    runtime overlay: generic,motd
    kernel: {{args: console=ttyS0 no_timer_check quiet}}
nodes:
  n1: # the first
    profiles: [default]
    keys: {{rack: "7"}}
    network devices:
      default: {{hwaddr: "{hwaddr}", ipaddr: {address}, netmask: 255.255.255.0, primary: "true"}}
"""
# The site's own overlay: networkd's file by a Go template, as the image has no other manager of networks.
SITE = {
    "etc/systemd/network/10-cluster.network.ww": """\
{{ range $name, $dev := .NetDevs -}}
[Match]
MACAddress={{ $dev.Hwaddr }}
[Network]
Address={{ $dev.IpCIDR }}
{{ end }}""",
    "etc/rack.ww": "{{ .Tags.rack }}\n",
}


class Head(Laboratory):
    """A server whose files are those below `root`, as it sees itself: there is no --root."""

    @property
    def command(self) -> list[str | Path]:
        return chroot.wwfast(self.root, {self.tree.rootfs: f"var/lib/warewulf/chroots/{IMAGE}/rootfs"})

    def furnish(self) -> None:
        """A bare Debian, and on it what Warewulf 4.5 leaves."""
        for name in ("etc", "var"):
            shutil.copytree(self.tree.rootfs / name, self.root / name, symlinks=True)
        chroot.furnish(self.root)
        prefix = self.network.server.rpartition(".")[0]
        address = {"hwaddr": hwaddr(1), "address": self.address(1), "image": IMAGE}
        self.paths.etc.mkdir()
        self.paths.conf.write_text(CONF.format(server=self.network.server, prefix=prefix))
        self.paths.nodes_conf.write_text(NODES.format(**address))
        for name, files in {**warewulf.PACKAGED, "motd": warewulf.MOTD, "site": SITE}.items():
            warewulf.overlay(self.paths, name, files)
        for unit in ("warewulfd.service", "isc-dhcp-server.service"):
            warewulf.enable(self.root, unit)
        (self.paths.warewulf_chroots / IMAGE / "rootfs").mkdir(parents=True)
        (self.root / "etc/hosts").write_text("127.0.0.1 localhost\n")


@pytest.fixture
def head(debian: Tree, tmp_path: Path) -> Iterator[Head]:
    with Namespace(label="move") as network:
        made = Head(tmp_path / "head", network, debian)
        made.root.mkdir()
        made.furnish()
        yield made
        made.stop()


def test_importer_takes_a_site_over_boots_a_node_and_gives_it_back(head: Head) -> None:
    before = warewulf.state(head.root)
    done = head.wwfast("import", "warewulf", "--yes", "--json", timeout=300)
    plan = json.loads(done.stdout)
    assert all(step["done"] for step in plan["steps"])
    assert {"systemctl disable --now warewulfd.service"} <= {each["fix"] for each in plan["to do"]}
    assert b"wrote /etc/hosts" in head.wwfast("configure", "--all", timeout=120).stdout
    assert f"{head.address(1)} n1" in (head.root / "etc/hosts").read_text()
    head.serve()
    with head.machine("n1", 1) as vm:
        vm.wait(timeout=300)
        vm.wait_ssh()
        assert vm.ssh("cat /etc/hostname /etc/motd /etc/rack") == "n1\nthis is n1\n7\n", "ours and the site's own"
        assert f"{vm.ipaddr}/24" in vm.ssh("ip -br -4 address")
        assert vm.ssh("systemctl is-active wwclient").strip() == "active"
        head.wait_stage("n1", ["runtime"], 60)
    assert head.stop() == 0

    assert json.loads(head.wwfast("import", "warewulf", "--yes", "--json").stdout)["steps"] == [], "the second time"
    head.wwfast("configure", "undo")
    for step in reversed(plan["steps"]):
        if step["undo"]:
            head.wwfast(*step["undo"].split()[1:])
    left = warewulf.state(head.root)
    assert {name: left.get(name) for name in before} == before
    news = {name for name, (kind, _, _) in left.items() if kind != "dir" and name not in before}
    assert {
        name for name in news if not name.startswith(("etc/warewulf/keys/", "root/", "server.log", "machines"))
    } == set()
