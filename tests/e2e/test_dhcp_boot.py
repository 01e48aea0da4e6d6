"""Machines that boot where the server is not alone on their link: behind a relay, and beside another DHCP server."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.lab import Laboratory, Namespace
from wwfast.demo.cluster import hwaddr
from wwfast.demo.vm import Vm
from wwfast.system.run import stop

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(900)]

FAR, ROUTER, RELAY = "10.78.0.31", "10.78.0.1", "10.77.0.250"
OTHER, LEASED = "10.79.0.2", "10.79.0.60"
LEASE = "[Match]\\nType=ether\\n[Network]\\nDHCP=ipv4\\n"


def need(program: str, package: str) -> str:
    found = shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin")
    assert found, f"{program} is missing: apt-get install {package} (tools/setup.sh does)"
    return found


def cable(space: Namespace, device: str, address: str, to: Namespace) -> None:
    """Give `space` a device with an address, plugged into the bridge of `to`."""
    to.ip("link", "add", f"to-{device}", "type", "veth", "peer", "name", device, "netns", space.name)
    to.ip("link", "set", f"to-{device}", "master", "br0", "up")
    space.ip("address", "add", address, "dev", device)
    space.ip("link", "set", device, "up")


@pytest.fixture
def beyond(lab: Laboratory, tmp_path: Path) -> Iterator[Namespace]:
    """A second network, whose router relays DHCP to the laboratory's server; machines are on the router's bridge."""
    with Namespace(f"{ROUTER}/24", label="far") as far, (tmp_path / "relay").open("wb") as log:
        cable(far, "uplink", f"{RELAY}/24", lab.network)
        far.run(["sysctl", "-qw", "net.ipv4.ip_forward=1"])
        lab.network.ip("route", "add", "10.78.0.0/24", "via", RELAY)
        words = [need("dhcrelay", "isc-dhcp-relay"), "-4", "-d", "-a", "--no-pid", "-id", "br0", "-iu", "uplink"]
        relay = far.start([*words, lab.network.server], stdout=log, stderr=log)
        yield far
        stop(relay)
        lab.network.ip("route", "del", "10.78.0.0/24")


def test_dhcp_boots_a_machine_behind_a_relay(lab: Laboratory, beyond: Namespace) -> None:
    """iPXE and systemd-networkd get the node's own address in the relay's network, and the router."""
    words = ["--hwaddr", hwaddr(31), "--ipaddr", FAR, "--netmask", "255.255.255.0", "--gateway", ROUTER]
    lab.wwfast("node", "add", "far1", *words, "--yes")
    vm = Vm(beyond, lab.root / "machines", "far1", hwaddr(31), FAR, key=lab.tree.key)
    with vm:
        vm.wait(timeout=400)
        entry = lab.wait_stage("far1", ["runtime"], 120)
        assert entry["ipaddr"] == FAR
        vm.wait_ssh()
        assert f"via {ROUTER} " in vm.ssh("ip route show default")
        network = "/etc/systemd/network/05-lease.network"
        vm.ssh(
            f"printf '{LEASE}' >{network}; networkctl reload; networkctl reconfigure $(ls /sys/class/net | grep -v lo)"
        )
        vm.wait_for(f"ip -4 address show dynamic | grep -q {FAR}/24", 90)


@pytest.fixture
def beside(lab: Laboratory, tmp_path: Path) -> Iterator[Laboratory]:
    """A server that is only a ProxyDHCP, with the images of the laboratory; a dnsmasq on the link leases."""
    with (
        Namespace("10.79.0.1/24", label="proxy") as network,
        Namespace("10.80.0.1/24", label="other") as other,
        (tmp_path / "dnsmasq").open("wb") as log,
    ):
        cable(other, "eth0", f"{OTHER}/24", network)
        words = ["-k", "-p", "0", "-C", "/dev/null", "--user=root", "--no-ping", "--log-dhcp", "--log-facility=-"]
        words.append("--dhcp-ignore-clid")  # or firmware and system are two clients, with an address each
        lease = ["--interface=eth0", f"--dhcp-range={LEASED},{LEASED}", f"--dhcp-leasefile={tmp_path}/leases"]
        dnsmasq = other.start([need("dnsmasq", "dnsmasq-base"), *words, *lease], stdout=log, stderr=log)
        made = Laboratory(tmp_path / "proxy", network, lab.tree)
        made.configure(dhcp={"enabled": True}, wwfast={"proxy dhcp": True})
        made.make_keys()
        made.borrow(lab)
        made.add_profile()
        made.serve()
        yield made
        made.stop()
        stop(dnsmasq)


def test_dhcp_proxy_boots_a_machine_that_another_server_leases_to(beside: Laboratory, tmp_path: Path) -> None:
    """The address from dnsmasq all the way, the boot files from us; UEFI asks for its own on port 4011."""
    beside.wwfast("node", "add", "side1", "--hwaddr", hwaddr(32), "--nettagadd", "ipv4_method=auto", "--yes")
    with beside.machine("side1", 32, firmware="uefi", ipaddr=LEASED) as vm:
        vm.wait(timeout=400)
        entry = beside.wait_stage("side1", ["runtime"], 120)
        # The boot that is told of begins with iPXE's own DHCP; the firmware's is in the log.
        assert ("dhcp", "PROXY OFFER") in [(part["stage"], part["sent"]) for part in entry["boot"]]
        # OVMF asks from port 4011, which proves nothing: it gets its boot file, and no event is made of that.
        assert json.loads(beside.fetch("/status").stdout)["dhcp"]["proxy_ack"]
        assert "side1 dhcp done PROXY ACK" not in beside.log.read_text()
        assert entry["ipaddr"] == LEASED
    leases = (tmp_path / "leases").read_text()
    assert leases.count(hwaddr(32)) == 1
    assert LEASED in leases
