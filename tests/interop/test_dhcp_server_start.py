"""Starting DHCP on a network where somebody else serves: refused by name, unless forced."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from support.netns import Namespace, Network, namespace_number, network
from wwfast.paths import Paths

pytestmark = [pytest.mark.root, pytest.mark.slow]


@pytest.fixture
def net() -> Iterator[Network]:
    with network() as made:
        yield made


def configure(paths: Paths, **changes: object) -> None:
    conf: dict[str, object] = {
        "ipaddr": "10.7.0.1",
        "netmask": "255.255.255.0",
        "network": "10.7.0.0",
        "dhcp": {"enabled": True},
    }
    paths.conf.write_text(json.dumps({key: value for key, value in (conf | changes).items() if value is not None}))


def start(space: Namespace, paths: Paths, log: str, *flags: str) -> subprocess.Popen[bytes]:
    assert str(namespace_number()) not in space.run("readlink", "/proc/self/ns/net")
    return space.start(sys.executable, "-m", "wwfast", "--root", paths.root, "server", *flags, log=log)


def says(space: Namespace, log: str, text: str, seconds: float = 40.0) -> bool:
    deadline = time.monotonic() + seconds
    while text not in space.log(log):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def test_dhcp_is_refused_beside_another_server_and_names_it(net: Network, paths: Paths) -> None:
    configure(paths)
    dnsmasq = shutil.which("dnsmasq")
    assert dnsmasq, "apt-get install dnsmasq-base"
    other = net.join("other", "10.7.0.2/24")
    other.start(
        dnsmasq, "-k", "-p", "0", "-C", "/dev/null", "--user=root", "--no-ping", "--log-facility=-",
        "--dhcp-range=10.7.0.60,10.7.0.70", f"--dhcp-leasefile={net.folder}/leases",
    )  # fmt: skip
    assert says(other, "log", "DHCP, IP range")
    space = net.join("server", "10.7.0.1/24")
    refused = start(space, paths, "refused")
    assert says(space, "refused", "error: another DHCP server answers on eth0: 10.7.0.2"), space.log("refused")
    assert "hint:" in space.log("refused")
    assert refused.wait(30) == 1
    start(space, paths, "forced", "--force-dhcp")
    assert says(space, "forced", "serving on port"), space.log("forced")


@pytest.mark.parametrize("key", ["ipaddr", "network"])
def test_dhcp_needs_its_network_written_down(net: Network, paths: Paths, key: str) -> None:
    configure(paths, **{key: None, "netmask": None})  # an address with a mask says which network it is
    space = net.join("server", "10.7.0.1/24")
    process = start(space, paths, "log")
    assert says(space, "log", f"DHCP needs {key} to be written down") or says(space, "log", "is not an address", 1)
    assert process.wait(30) == 1


def test_dhcp_range_goes_round_an_address_that_nodes_conf_gains_while_it_serves(net: Network, paths: Paths) -> None:
    """And a node with a gateway that no packet can hold costs the others nothing, and is named."""
    configure(paths, dhcp={"enabled": True, "range start": "10.7.0.100", "range end": "10.7.0.101"})
    broken = '  broken: {network devices: {default: {hwaddr: "52:54:00:00:00:99", gateway: "fe80::1"}}}\n'
    paths.nodes_conf.write_text(f"nodes:\n{broken}")
    busybox = shutil.which("busybox")
    assert busybox, "apt-get install busybox"
    script = net.folder / "show"
    script.write_text('#!/bin/sh\n[ "$1" = bound ] && echo "ip=$ip"\nexit 0\n')
    script.chmod(0o755)

    def asked(space: Namespace) -> str:
        return space.run(busybox, "udhcpc", "-i", "eth0", "-nqf", "-t", "3", "-T", "1", "-s", script, check=False)

    space = net.join("server", "10.7.0.1/24")
    start(space, paths, "log")
    assert says(space, "log", "serving on port"), space.log("log")
    assert "network devices.default.gateway: 'fe80::1' is not an IPv4 address" in space.log("log")
    unusable = net.join("unusable", mac="52:54:00:00:00:99")
    assert "ip=" not in asked(unusable)
    node = '  n1: {network devices: {default: {hwaddr: "52:54:00:00:00:01", ipaddr: 10.7.0.100}}}\n'
    paths.nodes_conf.write_text(f"nodes:\n{broken}{node}")
    assert says(space, "log", "nodes.conf: 1 nodes"), space.log("log")
    assert "ip=10.7.0.101" in asked(net.join("first"))
    assert "ip=" not in asked(net.join("second")), "the other address is the node's"
    assert "ip=10.7.0.100" in asked(net.join("node", mac="52:54:00:00:00:01"))
