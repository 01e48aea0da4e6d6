"""DHCP and TFTP with clients, relays and servers of other makers, in namespaces of the tests' own."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import pxe
from support.netns import Namespace, Network, namespace_number, network

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv/bin/python"
SERVER = ROOT / "tests/support/udp_server.py"
NODE = "52:54:00:00:00:01"
FAR = "52:54:00:00:00:02"
NODES = {
    NODE: {"node": "n1", "address": "10.7.0.11", "hostname": "n1", "gateway": "10.7.0.254"},
    FAR: {"node": "far", "address": "10.8.0.12", "netmask": "255.255.255.0", "hostname": "far"},
}
SHOW = """#!/bin/sh
[ "$1" = bound ] || exit 0
ip address add "$ip/24" dev "$interface"
for name in ip subnet router hostname boot_file siaddr serverid lease; do eval echo "$name=\\$$name"; done
"""


def need(program: str, package: str) -> str:
    found = shutil.which(program)
    assert found, f"{program} is missing: apt-get install {package} (tools/setup.sh does)"
    return found


def wait(condition: Callable[[], object], seconds: float = 15.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


def serve(space: Namespace, log: str, **config: object) -> None:
    settings = {"not_in": namespace_number(), **config}
    space.start(PYTHON, SERVER, json.dumps(settings), log=log)
    assert wait(lambda: "ready" in space.log(log)), space.log(log)


@pytest.fixture(scope="module")
def net() -> Iterator[Network]:
    with network() as made:
        made.folder.chmod(0o755)
        script = made.folder / "show"
        script.write_text(SHOW)
        script.chmod(0o755)
        yield made


@pytest.fixture(scope="module")
def files(net: Network) -> Path:
    folder = net.folder / "files"
    folder.mkdir()
    (folder / "snponly.efi").write_bytes(os.urandom(300_001))
    (folder / "text").write_bytes(b"one\ntwo\r\nthree\rfour\n" * 300)
    return folder


@pytest.fixture(scope="module")
def server(net: Network, files: Path) -> Namespace:
    space = net.join("server", "10.7.0.1/24")
    serve(
        space, "ours", address="10.7.0.1", files=str(files), first="10.7.0.100", last="10.7.0.200", nodes=NODES,
        database=str(net.folder / "leases.db"),
    )  # fmt: skip
    return space


@pytest.fixture(scope="module")
def client(net: Network, server: Namespace) -> Namespace:
    return net.join("client", "10.7.0.50/24")


def udhcpc(space: Namespace, folder: Path, *options: str) -> dict[str, str]:
    """What udhcpc was told."""
    busybox = need("busybox", "busybox")
    shown = space.run(
        busybox, "udhcpc", "-i", "eth0", "-n", "-q", "-f", "-t", "5", "-T", "2", "-s", folder / "show", *options
    )
    return dict(line.split("=", 1) for line in shown.splitlines() if re.match(r"[a-z_]+=", line))


# TFTP


def test_tftp_curl(client: Namespace, files: Path, tmp_path: Path) -> None:
    for options in ([], ["--tftp-blksize", "1468"], ["--tftp-no-options"]):
        client.run(need("curl", "curl"), "-sS", "-o", tmp_path / "got", *options, "tftp://10.7.0.1//snponly.efi")
        assert (tmp_path / "got").read_bytes() == (files / "snponly.efi").read_bytes()


def test_tftp_hpa_octet_and_netascii(client: Namespace, files: Path, tmp_path: Path) -> None:
    tftp = need("tftp", "tftp-hpa")
    client.run(tftp, "-m", "binary", "10.7.0.1", "-c", "get", "snponly.efi", tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == (files / "snponly.efi").read_bytes()
    client.run(tftp, "-m", "ascii", "10.7.0.1", "-c", "get", "text", tmp_path / "text")
    assert (tmp_path / "text").read_bytes() == (files / "text").read_bytes()


@pytest.mark.parametrize("window", ["1", "4", "16"])
def test_tftp_atftp_with_a_window(client: Namespace, files: Path, tmp_path: Path, window: str) -> None:
    options = ["--option", f"windowsize {window}", "--option", "blksize 1428", "--option", "tsize 0"]
    words = ["-g", "-r", "/snponly.efi", "-l", str(tmp_path / "got"), "10.7.0.1"]
    client.run(need("atftp", "atftp"), *options, *words)
    assert (tmp_path / "got").read_bytes() == (files / "snponly.efi").read_bytes()


def test_tftp_refuses_writing_absent_files_and_ways_out(client: Namespace, server: Namespace, tmp_path: Path) -> None:
    tftp = need("tftp", "tftp-hpa")
    assert "no such file" in client.run(tftp, "10.7.0.1", "-c", "get", "nothing", tmp_path / "got", check=False)
    assert "no such place" in client.run(tftp, "10.7.0.1", "-c", "get", "../etc/passwd", tmp_path / "got", check=False)
    (tmp_path / "up").write_text("x")
    assert "read-only" in client.run(tftp, "10.7.0.1", "-c", "put", tmp_path / "up", "up", check=False)
    assert "NOT_FOUND" in server.log("ours")


def test_tftp_crowd_behind_a_lossy_link(client: Namespace, files: Path) -> None:
    """Two hundred at once, every fiftieth packet lost in each direction: all complete, no block wrong."""
    client.run("nft", "add", "table", "inet", "loss")
    for hook in ("input", "output"):
        client.run("nft", "add", "chain", "inet", "loss", hook, f"{{ type filter hook {hook} priority 0; }}")
        rule = ("meta", "l4proto", "udp", "numgen", "random", "mod", "50", "==", "0", "drop")
        client.run("nft", "add", "rule", "inet", "loss", hook, *rule)
    code = (
        "import sys; from pathlib import Path\n"
        "from wwfast._ext.tftpload import Crowd; from wwfast.net.tftp import packet\n"
        "ask = packet.request('snponly.efi', {'blksize': '1432', 'windowsize': sys.argv[2]})\n"
        "crowd = Crowd(0x0A070001, 69, ask, Path(sys.argv[1]).read_bytes(), count=100)\n"
        "crowd.run(); print(crowd.completed, crowd.failed, crowd.wrong)"
    )
    try:
        for window in ("1", "4"):
            assert client.run(PYTHON, "-c", code, files / "snponly.efi", window, timeout=90).split() == [
                "100",
                "0",
                "0",
            ]
    finally:
        client.run("nft", "delete", "table", "inet", "loss")


# DHCP


def test_dhcp_udhcpc_gets_its_nodes_address_and_a_boot_file(net: Network, server: Namespace) -> None:
    space = net.join("n1", mac=NODE)
    told = udhcpc(space, net.folder, "-V", "PXEClient:Arch:00007:UNDI:003000", "-x", "0x5d:0007")
    assert (told["ip"], told["hostname"], told["router"]) == ("10.7.0.11", "n1", "10.7.0.254")
    assert (told["siaddr"], told["boot_file"], told["serverid"]) == ("10.7.0.1", "snponly.efi", "10.7.0.1")
    assert "snponly" not in udhcpc(space, net.folder).get("boot_file", ""), "an operating system boots nothing"


def test_dhcp_udhcpc_reads_what_did_not_fit_beside_its_long_identifier(net: Network, server: Namespace) -> None:
    """Options that stand in `sname` (RFC 2132 9.3), for a client that takes 576 bytes."""
    firmware = ("-V", "PXEClient:Arch:00007:UNDI:003000", "-x", "0x5d:0007", "-x", "0x3d:" + "5a" * 235)
    told = udhcpc(net.join("n1-long", mac=NODE), net.folder, *firmware)
    assert (told["ip"], told["hostname"], told["router"]) == ("10.7.0.11", "n1", "10.7.0.254")
    assert (told["boot_file"], told["serverid"]) == ("snponly.efi", "10.7.0.1")


def test_dhcp_one_address_for_udhcpc_and_dhclient_of_a_mac(net: Network, server: Namespace) -> None:
    space = net.join("stranger")
    told = udhcpc(space, net.folder)
    assert told["ip"].startswith("10.7.0.1")
    leases = net.folder / "dhclient.leases"
    script = net.folder / "nothing"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    process = space.start(
        need("dhclient", "isc-dhcp-client"), "-1", "-v", "-d", "--no-pid", "-lf", leases, "-sf", script, "eth0",
        log="dhclient",
    )  # fmt: skip
    try:
        assert wait(lambda: "bound to" in space.log("dhclient"), 30), space.log("dhclient")
    finally:
        space.stop(process)
    assert f"bound to {told['ip']} " in space.log("dhclient")


def test_dhcp_through_dhcrelay_into_a_second_network(net: Network, server: Namespace, files: Path) -> None:
    """The node gets its own address of that network, the relay as its router, and its boot file over TFTP."""
    relay = net.join("relay", "10.7.0.9/24")
    net.hub.run("ip", "link", "add", "br1", "type", "bridge", "forward_delay", "0", "stp_state", "0")
    net.hub.run("ip", "link", "set", "br1", "up")
    net.plug(relay, "eth1", "10.8.0.1/24", bridge="br1")
    relay.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    server.run("ip", "route", "add", "10.8.0.0/24", "via", "10.7.0.9")
    relay.start(
        need("dhcrelay", "isc-dhcp-relay"), "-4", "-d", "-a", "--no-pid", "-id", "eth1", "-iu", "eth0", "10.7.0.1"
    )
    assert wait(lambda: "Sending on" in relay.log())
    space = net.space("far")
    net.plug(space, "eth0", mac=FAR, bridge="br1")
    told = udhcpc(space, net.folder, "-V", "PXEClient:Arch:00007:UNDI:003000", "-x", "0x5d:0007")
    assert (told["ip"], told["router"], told["boot_file"]) == ("10.8.0.12", "10.8.0.1", "snponly.efi")
    space.run("ip", "route", "add", "default", "via", "10.8.0.1")
    space.run(need("curl", "curl"), "-sS", "-o", net.folder / "far-got", "tftp://10.7.0.1/snponly.efi")
    assert (net.folder / "far-got").read_bytes() == (files / "snponly.efi").read_bytes()


PROBE = "import asyncio; from wwfast.net.dhcp.server import probe; print(asyncio.run(probe('eth0', seconds=2)))"


def test_dhcp_another_server_is_found_and_named(net: Network, server: Namespace) -> None:
    space = net.join("second", "10.7.0.2/24")
    assert space.run(PYTHON, "-c", PROBE).strip() == "['10.7.0.1']"


HARD_OF_HEARING = """
import socket
from wwfast.net.dhcp.packet import REPLY, Kind, Option, build, number, parse
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
    sock.bind(("", 67))
    print("ready", flush=True)
    lost = sock.recv(2048)
    print("lost one", flush=True)
    while asked := parse(sock.recv(2048)):
        asked.op = REPLY
        asked.options = {Option.KIND: bytes((Kind.OFFER,)), Option.SERVER_ID: number("10.7.0.3").to_bytes(4, "big")}
        sock.sendto(build(asked), ("255.255.255.255", 68))
        print("answered", flush=True)
"""


def test_dhcp_another_server_is_asked_again_when_a_question_was_lost_and_not_more_often() -> None:
    """Whoever is asked holds an address back for who asks: twice is enough."""
    with network() as net:
        other = net.join("rival", "10.7.0.3/24")
        other.start(PYTHON, "-c", HARD_OF_HEARING)
        assert wait(lambda: "ready" in other.log()), other.log()
        assert net.join("asks", "10.7.0.2/24").run(PYTHON, "-c", PROBE).strip() == "['10.7.0.3']"
        assert other.log().split("\n") == ["ready", "lost one", "answered", ""]


def test_dhcp_proxy_beside_a_dnsmasq_that_leases(files: Path) -> None:
    """dnsmasq gives the address, we give the boot file; an operating system hears nothing from us."""
    with network() as net:
        script = net.folder / "show"
        script.write_text(SHOW)
        script.chmod(0o755)
        other = net.join("dnsmasq", "10.7.0.2/24")
        other.start(
            need("dnsmasq", "dnsmasq-base"), "-k", "-p", "0", "-C", "/dev/null", "--user=root", "--no-ping",
            "--log-dhcp",
            "--dhcp-range=10.7.0.60,10.7.0.69", f"--dhcp-leasefile={net.folder}/dnsmasq", "--log-facility=-",
        )  # fmt: skip
        assert wait(lambda: "DHCP, IP range" in other.log())
        space = net.join("server", "10.7.0.1/24")
        serve(space, "proxy", address="10.7.0.1", files=str(files), proxy=True)
        assert udhcpc(net.join("system"), net.folder)["ip"].startswith("10.7.0.6")
        assert "dhcp" not in space.log("proxy")
        firmware = net.join("firmware", "10.7.0.66/24")
        code = (
            f"import sys; sys.path.append({str(Path(pxe.__file__).parents[1])!r}); from support.pxe import ask_proxy\n"
            "for line in ask_proxy('eth0', '10.7.0.66', sys.argv[1]): print(*line)"
        )
        bios = firmware.run(PYTHON, "-c", code, "bios").splitlines()
        assert "10.7.0.1 0.0.0.0 undionly.kpxe True" in bios
        uefi = firmware.run(PYTHON, "-c", code, "uefi").splitlines()
        # UEFI's offer has no option 43; it asks again on 4011 for the file.
        assert "10.7.0.1 0.0.0.0 snponly.efi False" in uefi
        assert "4011 10.7.0.1 snponly.efi" in uefi
        assert any(line.startswith("10.7.0.2 10.7.0.6") for line in uefi), "the address comes from dnsmasq"


def test_dhcp_leases_survive_a_kill(net: Network, files: Path) -> None:
    """SIGKILL half a second after the lease: the server started anew gives the same address."""
    with network() as own:
        script = own.folder / "show"
        script.write_text(SHOW)
        script.chmod(0o755)
        space, node = own.join("server", "10.7.0.1/24"), own.join("node")
        config = {
            "not_in": namespace_number(), "address": "10.7.0.1", "files": str(files), "first": "10.7.0.100",
            "last": "10.7.0.200", "database": str(own.folder / "db"),
        }  # fmt: skip
        process = space.start(PYTHON, SERVER, json.dumps(config), log="first")
        assert wait(lambda: "ready" in space.log("first"))
        first = udhcpc(node, own.folder)["ip"]
        time.sleep(0.5)
        process.kill()
        space.close_processes()
        serve(space, "second", **config)
        node.run("ip", "address", "flush", "dev", "eth0")
        assert udhcpc(node, own.folder)["ip"] == first
