"""What an ordinary user of a node sends, really sent by one, to the whole server; and what a crash opens again."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from support.daemon import MAC, overlay, tiny_image
from support.netns import Namespace, Network, namespace_number, network
from wwfast.images import building
from wwfast.net.dhcp.packet import Kind, Message, build, number
from wwfast.paths import Paths

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]

SERVER, NODE, LEASED = "10.7.0.1", "10.7.0.11", "10.7.0.100"
VICTIM = "52:54:00:00:00:02"
NODES = f"""
nodeprofiles:
  default: {{image name: tiny, system overlay: [motd], runtime overlay: [motd]}}
nodes:
  n1:
    profiles: [default]
    network devices: {{default: {{hwaddr: "{MAC}", ipaddr: {NODE}}}}}
  n2:
    profiles: [default]
    network devices: {{default: {{hwaddr: "{VICTIM}"}}}}
"""
IPXE = {60: b"PXEClient:Arch:00007:UNDI:003010", 93: b"\0\7", 77: b"iPXE", 175: b"\1\1\1"}
#: Sends one datagram as user UID from PORT; prints the kinds of DHCP answers that came to that port.
SEND = """
import os, socket, sys
uid, port, target, target_port, wait, data = sys.argv[1:]
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
os.setgroups([]); os.setgid(int(uid)); os.setuid(int(uid))
sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
try:
    sock.bind(("", int(port)))
except PermissionError:
    print("refused"); raise SystemExit
sock.sendto(bytes.fromhex(data), (target, int(target_port)))
sock.settimeout(float(wait))
try:
    answer = sock.recv(2048)
    print(answer[answer.index(b"\\x35\\x01") + 2])
except TimeoutError:
    print("nothing")
"""
NOBODY = 65534


def wait(condition: Callable[[], object], seconds: float = 40.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


class Site:
    """The server in one namespace, two nodes in others."""

    def __init__(self, net: Network, paths: Paths) -> None:
        self.paths = paths
        tiny_image(paths)
        building.build(paths, "tiny")
        overlay(paths)
        paths.nodes_conf.write_text(NODES)
        conf = {
            "ipaddr": SERVER,
            "netmask": "255.255.255.0",
            "network": "10.7.0.0",
            "dhcp": {"enabled": True, "range start": LEASED, "range end": "10.7.0.120"},
            "tftp": {"enabled": False},
        }
        paths.conf.write_text(json.dumps(conf))
        self.space = net.join("server", f"{SERVER}/24")
        self.node = net.join("n1", f"{NODE}/24", mac=MAC)
        self.victim = net.join("n2", mac=VICTIM)
        self.starts = 0
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        assert str(namespace_number()) not in self.space.run("readlink", "/proc/self/ns/net")
        self.starts += 1
        log = f"server-{self.starts}"
        words = [sys.executable, "-m", "wwfast", "--root", self.paths.root, "server", "--force-dhcp"]
        process = self.space.start(*words, log=log)
        assert wait(lambda: "serving on port" in self.space.log(log)), self.space.log(log)
        return process

    def crash(self) -> None:
        """SIGKILL, and a new server."""
        self.space.kill(self.process)
        self.process = self.start()

    def send(
        self, data: bytes, *, space: Namespace | None = None, uid: int = 0, port: int = 68,
        target: str = "255.255.255.255", target_port: int = 67, seconds: float = 5.0,
    ) -> str:  # fmt: skip
        words = [sys.executable, "-c", SEND, str(uid), str(port), target, str(target_port), str(seconds), data.hex()]
        return (space or self.node).run(*words).strip()

    def boot(self) -> None:
        """n1's iPXE asks for its address."""
        assert self.send(packet(Kind.DISCOVER)) == "2"
        assert self.send(packet(Kind.REQUEST, {50: number(NODE).to_bytes(4, "big")})) == "5"

    def get(self, stage: str, *options: str, mac: str = MAC, space: Namespace | None = None) -> str:
        """The status of an answer to who asks from a privileged port."""
        words = ["curl", "-s", "-o", self.space.folder / "got", "-w", "%{http_code}", "--local-port", "500-1000"]
        return (space or self.node).run(*words, *options, f"http://{SERVER}:9873/{stage}/{mac}?format=tar")

    def phases(self) -> list[str]:
        """Whose boot would go on after a crash."""
        with closing(sqlite3.connect(self.paths.database)) as database:
            return [mac for (mac,) in database.execute("SELECT mac FROM booting")]

    def counts(self) -> dict[str, int]:
        return json.loads(self.node.run("curl", "-s", f"http://{SERVER}:9873/status"))["dhcp"]


def packet(kind: Kind, options: dict[int, bytes] | None = None, *, mac: str = MAC, **fields: int) -> bytes:
    chaddr = bytes.fromhex(mac.replace(":", ""))
    asked = {53: bytes((kind,)), **IPXE, **(options or {})}
    return build(Message(xid=7, flags=0x8000, chaddr=chaddr, options=asked, **fields))


@pytest.fixture
def site(paths: Paths) -> Iterator[Site]:
    with network() as net:
        yield Site(net, paths)


def test_dhcp_an_ordinary_user_of_a_node_opens_no_system_overlay(site: Site, tmp_path: Path) -> None:
    assert site.get("system") == "403", "it has not booted"
    site.boot()
    assert site.get("system") == "200"
    assert site.get("runtime", "--head") == "200"
    assert site.get("system") == "200", "a HEAD closes nothing"
    assert site.get("runtime") == "200"
    assert site.get("system") == "403", "it is up"

    own = number(NODE)
    wanted = {50: own.to_bytes(4, "big")}
    for port in (68, 67):
        assert site.send(packet(Kind.DISCOVER), uid=NOBODY, port=port) == "refused", "the kernel of the node"
    sent = 0
    for target in ("255.255.255.255", SERVER):
        for fields in ({}, {"giaddr": own}, {"ciaddr": own}):
            for kind, options in (
                (Kind.DISCOVER, {}),
                (Kind.REQUEST, wanted),
                (Kind.DISCOVER, {82: b"\x13\0"}),  # RFC 8357, of a relay that nobody named
            ):
                data = packet(kind, options, **fields)
                assert site.send(data, uid=NOBODY, port=40068, target=target, seconds=0.01) == "nothing"
                sent += 1
    assert wait(lambda: site.counts()["unproven"] == sent)
    # ProxyDHCP's port answers any port with the name of the boot file, and nothing comes of it.
    for port in (40068, 4011):
        data = packet(Kind.REQUEST, ciaddr=own)
        assert site.send(data, uid=NOBODY, port=port, target=SERVER, target_port=4011) == "5"
    assert site.get("system") == "403"

    site.boot()
    assert site.get("system") == "200", "whoever really boots has it again"


def test_dhcp_an_ordinary_user_of_a_node_moves_no_lease(site: Site) -> None:
    """n2 has an address of the range. A user of n1 gives it back, declines it and moves it, in n2's name."""
    held = number(LEASED).to_bytes(4, "big")
    # n2 asks by hand for the address that it then configures.
    assert site.send(packet(Kind.DISCOVER, {50: held}, mac=VICTIM), space=site.victim) == "2"
    site.victim.run("ip", "address", "add", f"{LEASED}/24", "dev", "eth0")
    assert site.get("system", mac=VICTIM, space=site.victim) == "403", "offered is not given"
    assert site.send(packet(Kind.REQUEST, {50: held}, mac=VICTIM), space=site.victim) == "5"
    assert site.get("system", mac=VICTIM, space=site.victim) == "200"

    named = {54: number(SERVER).to_bytes(4, "big")}
    theft = number(NODE).to_bytes(4, "big")
    before = site.counts()
    tries = [
        (Kind.RELEASE, named, {"ciaddr": number(LEASED)}),
        (Kind.DECLINE, {50: held, **named}, {}),
        (Kind.REQUEST, {50: number("10.7.0.110").to_bytes(4, "big")}, {}),
        (Kind.REQUEST, {50: theft}, {}),
        (Kind.REQUEST, {54: number("10.7.0.9").to_bytes(4, "big")}, {}),
    ]
    for kind, options, fields in tries:
        data = packet(kind, options, mac=VICTIM, **fields)
        assert site.send(data, uid=NOBODY, port=40068, target=SERVER, seconds=0.01) == "nothing"
    assert wait(lambda: site.counts()["unproven"] == len(tries))
    # Root of n1, which can send from port 68, but not from n2's address without taking it.
    for kind, options, fields in tries[:3]:
        assert site.send(packet(kind, options, mac=VICTIM, **fields), target=SERVER, seconds=0.01) == "nothing"
    assert wait(lambda: site.counts()["not_theirs"] == 2)
    after = site.counts()
    assert after["leases"] == before["leases"]
    assert after["other_servers"] == []
    assert site.get("system", mac=VICTIM, space=site.victim) == "200", "n2 still has its address"
    assert site.get("system", mac=VICTIM) == "403", "and n1 not"


def test_dhcp_requests_of_others_in_the_name_of_a_node_do_not_change_its_status(site: Site) -> None:
    def shown() -> dict:
        body = site.node.run("curl", "-s", f"http://{SERVER}:9873/status?node=n1")
        return json.loads(body)["nodes"]["n1"]

    site.boot()
    for stage in ("ipxe", "kernel", "system"):
        assert site.get(stage) == "200"
    assert wait(lambda: shown()["stage"] == "system" and shown()["boot"][-1]["outcome"] == "done")
    before = shown()
    site.victim.run("ip", "address", "add", "10.7.0.77/24", "dev", "eth0")
    for stage, status in (("kernel", "200"), ("ipxe", "200"), ("kmods", "404"), ("system", "403")):
        assert site.get(stage, space=site.victim) == status
    assert wait(lambda: shown().get("attempts", {}).get("count") == 4)
    after = shown()
    assert after.pop("attempts")["ipaddr"] == "10.7.0.77"
    assert {**after, "stuck": 0} == {**before, "stuck": 0}
    assert site.get("runtime") == "200"
    assert wait(lambda: shown()["stage"] == "runtime"), "the node itself goes on"


def test_dhcp_a_crash_opens_no_closed_phase_and_closes_no_open_one(site: Site) -> None:
    for _ in range(3):
        site.boot()
        assert site.get("system") == "200"
        assert site.get("runtime") == "200"
        site.crash()  # at once: nothing but the answer was waited for
        assert site.get("system") == "403"
    site.boot()
    assert wait(lambda: MAC in site.phases()), "what was opened is written behind the answer"
    site.crash()
    assert site.get("system") == "200"
