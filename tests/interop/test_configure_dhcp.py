"""What `configure dhcp` writes, given to the real servers: each kind of firmware is told what wwfast would tell it."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.netns import Namespace, Network, network
from wwfast.cli.main import main
from wwfast.paths import Paths

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

NODE, STRANGER = "52:54:00:00:00:01", "52:54:00:00:00:99"
CONF = """\
ipaddr: 10.7.0.1
netmask: 255.255.255.0
network: 10.7.0.0
dhcp: {{enabled: false, systemd name: {unit}, range start: 10.7.0.100, range end: 10.7.0.110}}
"""
NODES = f"nodes: {{n1: {{network devices: {{default: {{hwaddr: '{NODE}', ipaddr: 10.7.0.11}}}}}}}}\n"
SCRIPT = "http://10.7.0.1:9873/ipxe/${mac:hexhyp}?assetkey=${asset:uristring}&uuid=${uuid}&memsize=${memsize}"
# What each kind of firmware says (options by code, hexadecimal), and the boot file it is told.
FIRMWARE = {
    "BIOS": ({60: b"PXEClient:Arch:00000:UNDI:002001".hex(), 93: "0000"}, "warewulf/undionly.kpxe"),
    "UEFI": ({60: b"PXEClient:Arch:00007:UNDI:003016".hex(), 93: "0007"}, "warewulf/ipxe-snponly-x86_64.efi"),
    "UEFI HTTP": (
        {60: b"HTTPClient:Arch:00016:UNDI:003016".hex(), 93: "0010"},
        "http://10.7.0.1:9873/efiboot/ipxe-snponly-x86_64.efi",
    ),
    "ARM": ({60: b"PXEClient:Arch:00011:UNDI:003016".hex(), 93: "000b"}, "warewulf/arm64-snponly.efi"),
    "iPXE": (
        {60: b"PXEClient:Arch:00007:UNDI:003010".hex(), 93: "0007", 77: b"iPXE".hex(), 175: "b0050110ec8139"},
        SCRIPT,
    ),
}
# Sends a DISCOVER from MAC with these options; prints what it is offered.
ASK = """
import json, socket, sys
from wwfast.net.dhcp.packet import BROADCAST_FLAG, Kind, Message, build, dotted, parse
mac, given = bytes.fromhex(sys.argv[1].replace(":", "")), json.loads(sys.argv[2])
options = {53: bytes((Kind.DISCOVER,)), 55: bytes((1, 3, 12, 43, 60, 66, 67, 175)),
           **{int(code): bytes.fromhex(value) for code, value in given.items()}}
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    sock.bind(("", 68))
    sock.settimeout(1)
    for xid in range(100, 110):
        sock.sendto(build(Message(xid=xid, flags=BROADCAST_FLAG, chaddr=mac, options=options)), ("255.255.255.255", 67))
        try:
            while (offer := parse(sock.recv(2048))).xid != xid or offer.kind != Kind.OFFER:
                pass
        except TimeoutError:
            continue
        found = {str(code): value.hex() for code, value in offer.options.items()}
        file = offer.file.rstrip(b"\\0") or offer.options.get(67, b"").rstrip(b"\\0")
        print(json.dumps([dotted(offer.yiaddr), dotted(offer.siaddr), file.decode(), found]))
        break
"""


@pytest.fixture
def net() -> Iterator[Network]:
    with network() as made:
        yield made


def serve(net: Network, paths: Paths, unit: str) -> None:
    """The real server on what was written for it."""
    space = net.join("server", "10.7.0.1/24")
    match unit:
        case "dnsmasq":
            words = ["-k", "-p", "0", "-C", paths.root / "etc/dnsmasq.d/wwfast.conf", "--user=root", "--no-ping"]
            start(space, "dnsmasq", *words, "--log-facility=-", f"--dhcp-leasefile={net.folder}/leases")
        case "kea-dhcp4-server":
            conf = json.loads((paths.root / "etc/kea/kea-dhcp4.conf").read_text())
            conf["Dhcp4"]["lease-database"] = {"type": "memfile", "persist": False}  # what is there is of this machine
            (net.folder / "kea.conf").write_text(json.dumps(conf))
            start(space, "kea-dhcp4", "-c", net.folder / "kea.conf")
        case _:
            (net.folder / "leases").touch()
            files = ["-cf", paths.root / "etc/dhcp/dhcpd.conf", "-lf", net.folder / "leases", "-pf", net.folder / "pid"]
            start(space, "dhcpd", "-f", "-d", *files, "eth0")


def start(space: Namespace, program: str, *words: str | Path) -> None:
    found = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        pytest.skip(f"{program} is not installed here, and is no package of the tests")
    process = space.start(found, *words)
    time.sleep(0.5)
    assert process.poll() is None, space.log()


@pytest.mark.parametrize("unit", ["dnsmasq", "kea-dhcp4-server", "dhcpd"])
def test_configure_dhcp_tells_each_firmware_its_boot_file(
    net: Network, paths: Paths, unit: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("KEA_PIDFILE_DIR", "KEA_LOCKFILE_DIR"):
        monkeypatch.setenv(name, str(net.folder))
    paths.conf.write_text(CONF.format(unit=unit))
    paths.nodes_conf.write_text(NODES)
    with pytest.raises(SystemExit) as caught:
        main(["--root", str(paths.root), "configure", "dhcp"])
    assert not caught.value.code, capsys.readouterr().err
    serve(net, paths, unit)
    client = net.join("client", "10.7.0.200/24")
    for name, (options, file) in FIRMWARE.items():
        for mac in (NODE, STRANGER):
            said = client.run(sys.executable, "-c", ASK, mac, json.dumps(options))
            assert said, f"{name}: no offer"
            address, server, told, found = json.loads(said)
            assert told == file, name
            assert address == "10.7.0.11" if mac == NODE else address.startswith("10.7.0.1")
            if not file.startswith("http"):
                assert server == "10.7.0.1", name
            if name == "UEFI HTTP":
                assert bytes.fromhex(found["60"]).startswith(b"HTTPClient")
            if name == "iPXE":
                assert "b00101" in found.get("175", ""), "no wait for ProxyDHCP"
            if mac == NODE:
                assert bytes.fromhex(found.get("12", b"n1".hex())) == b"n1"
