"""What the network overlays and others write, read by the programs they are written for.

The programs are unpacked into a tree of their own, never installed: NetworkManager or ifupdown on the machine that
runs the tests would take over its network. They run in it by chroot, with mounts and a network of the test's own.
"""

from __future__ import annotations

import configparser
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.shipped import BONDS, NODES, File, lay, write
from wwfast.demo.debian import cache, locked
from wwfast.paths import Paths
from wwfast.system.run import run

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(400)]

PACKAGES = "dash,netplan.io,network-manager,ifupdown,chrony,openssh-server,systemd,udev,iproute2"
USERS = {
    "passwd": "root:x:0:0:root:/root:/bin/sh\nsystemd-network:x:998:998::/:/bin/false\nsshd:x:100:65534::/run/sshd:\n"
    "_chrony:x:101:101::/:/bin/false\n",
    "group": "root:x:0:\nsystemd-network:x:998:\n_chrony:x:101:\nnogroup:x:65534:\n",
}


class Programs:
    """A tree of Debian packages, unpacked and not configured."""

    def __init__(self, tree: Path) -> None:
        self.tree = tree

    def run(self, *argv: str, stdin: bytes = b"", check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(["chroot", self.tree, *argv], input=stdin, capture_output=True, check=False)
        found = subprocess.CompletedProcess(argv, done.returncode, done.stdout.decode(), done.stderr.decode())
        if check:
            assert found.returncode == 0, found.stdout + found.stderr
        return found

    def lay(self, files: dict[str, File], below: str = "lay") -> Path:
        """Files of a node below a directory of the tree, which is new."""
        place = self.tree / below
        shutil.rmtree(place, ignore_errors=True)
        write(files, place)
        return place


@pytest.fixture(scope="module")
def unpacked() -> Path:
    command = ["mmdebstrap", "--quiet", "--variant=extract", f"--include={PACKAGES}", "bookworm"]
    home = cache() / f"parsers-{hashlib.sha256(' '.join(command).encode()).hexdigest()[:12]}"
    with locked(home.with_suffix(".lock")):
        if not home.is_dir():
            partial = home.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            run([*command, partial], timeout=380, package="mmdebstrap")
            for name, text in USERS.items():
                (partial / "etc" / name).write_text(text)
            for name in ("proc", "sys", "run", "dev", "run/sshd"):
                (partial / name).mkdir(exist_ok=True)
            if not (partial / "bin/sh").exists():
                (partial / "bin/sh").symlink_to("dash")
            for name, minor in (("null", 3), ("urandom", 9)):
                if not (partial / "dev" / name).exists():
                    os.mknod(partial / "dev" / name, 0o20666, os.makedev(1, minor))
            partial.rename(home)
    return home


@pytest.fixture
def programs(unpacked: Path) -> Iterator[Programs]:
    yield Programs(unpacked)
    for left in ("lay", "etc/systemd/network", "etc/systemd/system", "etc/network"):
        shutil.rmtree(unpacked / left, ignore_errors=True)


def test_overlay_netplan_is_taken_by_netplan(paths: Paths, programs: Programs) -> None:
    for node, files in lay(paths, ["netplan"]).items():
        place = programs.lay(files)
        done = programs.run("/lib/netplan/generate", "--root-dir", "/lay")
        assert not done.stderr, node
        made = {path.name: path.read_text() for path in (place / "run/systemd/network").glob("*")}
        if node == "full":
            lan, bond = made["10-netplan-eth0.network"], made["10-netplan-bond0.netdev"]
            for line in ("Address=10.0.1.4/16", "Address=fd00:1::4/64", "DNS=10.0.0.1", "VLAN=eth0.100"):
                assert line in lan.splitlines()
            assert "Destination=10.9.0.0/16\nGateway=10.0.0.9" in lan
            assert "Mode=802.3ad" in bond
            assert "TransmitHashPolicy=layer3+4" in bond
            assert "Bond=bond0" in made["10-netplan-eth1.network"]
            assert "Id=101" in made["10-netplan-store.netdev"]
            assert "VLAN=store" in made["10-netplan-bond0.network"]
            assert "MTUBytes=65520" in made["10-netplan-ib0.network"] + made["10-netplan-ib0.link"]
        elif node == "minimal":
            assert "DHCP=" not in made["10-netplan-default.network"]
        elif node == "nodev":
            assert not made


def test_overlay_networkmanager_is_taken_by_its_keyfile_reader(paths: Paths, programs: Programs) -> None:
    for node, files in lay(paths, ["NetworkManager"]).items():
        for path, file in files.items():
            if path.endswith(".nmconnection"):
                taken(programs, file, f"{node}: {path}")


@pytest.mark.parametrize("case", BONDS)
def test_overlay_networkmanager_takes_bonds_of_any_device(paths: Paths, programs: Programs, case: str) -> None:
    """`nmcli --offline` refuses a type that is none, and leaves out keys that it does not know."""
    files = lay(paths, ["NetworkManager"], {"n1": {"network devices": {"default": BONDS[case]}}})["n1"]
    (connection,) = [file for path, file in files.items() if path.endswith(".nmconnection")]
    taken(programs, connection, case)
    wrong = connection.data.replace(b"\ntype=", b"\ntype=bond-slave-")
    assert programs.run(*NMCLI, stdin=wrong, check=False).returncode != 0


NMCLI = ("/usr/bin/nmcli", "--offline", "connection", "modify", "connection.zone", "read")


def taken(programs: Programs, file: File, where: str) -> None:
    """NetworkManager reads a keyfile, and finds all of it."""
    assert file.mode == 0o600, "NetworkManager leaves alone what others can read"
    ours, theirs = keyfile(file.text), keyfile(programs.run(*NMCLI, stdin=file.data).stdout)
    for section, values in ours.items():
        for key, value in values.items():
            if (section, key) == ("connection", "autoconnect") and value == "true":
                continue
            if key == "gateway":  # NetworkManager writes it behind the first address
                assert theirs[section]["address1"].endswith(f",{value}"), where
            elif key == "address1":
                assert theirs[section][key].split(",")[0] == value, where
            else:
                assert theirs[section][key].lower() == value.lower(), (where, section, key)


def keyfile(text: str) -> dict[str, dict[str, str]]:
    parser = configparser.RawConfigParser(strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    return {section: dict(parser[section]) for section in parser.sections()}


def test_overlay_networkmanager_configuration_is_read(paths: Paths, programs: Programs) -> None:
    files = lay(paths, ["NetworkManager"])["full"]
    shutil.rmtree(programs.tree / "etc/NetworkManager/conf.d", ignore_errors=True)
    write({path: file for path, file in files.items() if "/conf.d" in path}, programs.tree)
    said = programs.run("/usr/sbin/NetworkManager", "--print-config").stdout
    assert "keep-configuration=no" in said
    assert "except:mac:52:54:00:00:00:04,except:interface-name:eth0" in said
    assert "\n" + "unmanaged-devices=*,except:" in said


def test_overlay_ifupdown_is_read_by_ifquery(paths: Paths, programs: Programs) -> None:
    for node, files in lay(paths, ["ifupdown"]).items():
        shutil.rmtree(programs.tree / "etc/network", ignore_errors=True)
        write(files, programs.tree)
        names = programs.run("/sbin/ifquery", "--list", "-a").stdout.split()
        assert "lo" in names
        for device in NODES[node].get("network devices", {}).values():
            if device.get("device") and device.get("onboot") != "no" and "master" not in device.get("tags", {}):
                assert device["device"] in names, node
        for name in names:
            said = programs.run("/sbin/ifquery", name)
            assert not said.stderr, said.stderr
        if node == "full":
            lan = programs.run("/sbin/ifquery", "eth0").stdout
            for line in (
                "address: 10.0.1.4",
                "gateway: 10.0.0.1",
                "address: fd00:1::4",
                "dns-search: cluster.example example",
            ):
                assert line in lan.splitlines()
            assert "bond-slaves: eth1 eth2" in programs.run("/sbin/ifquery", "bond0").stdout
            assert "vlan-raw-device: bond0" in programs.run("/sbin/ifquery", "store").stdout
            assert programs.run("/sbin/ifquery", "--list").stdout.split().count("eth3") == 0


NETWORKD = """
set -e
mount -t proc proc "$TREE/proc"
mount -t sysfs -o ro sysfs "$TREE/sys"
mount -t tmpfs tmpfs "$TREE/run"
mkdir -p "$TREE/run/systemd/netif"
chown -R 998:998 "$TREE/run/systemd/netif"
echo 0123456789abcdef0123456789abcdef > "$TREE/etc/machine-id"
ip link set lo up
ip link add eth0 address "$MAC" type veth peer name far
ip link set far up
SYSTEMD_LOG_TARGET=console SYSTEMD_LOG_LEVEL=info chroot "$TREE" /lib/systemd/systemd-networkd > "$LOG" 2>&1 &
daemon=$!
tries=0
until ip -br addr show dev eth0 | grep -q "$WANTED" || [ "$tries" -ge 100 ]; do
    sleep 0.2
    tries=$((tries + 1))
done
kill "$daemon"
wait "$daemon" || true
ip -j addr show dev eth0
"""


@pytest.mark.parametrize("node", ["static", "ipv6", "full", "minimal", "odd"])
def test_overlay_networkd_configures_a_real_device(paths: Paths, programs: Programs, tmp_path: Path, node: str) -> None:
    write(lay(paths, ["systemd.networkd"])[node], programs.tree)
    devices = NODES[node]["network devices"]
    device = devices.get("lan") or devices.get("default") or devices["with space"]
    wanted = device.get("ipaddr6") or device.get("ipaddr") or ""
    log = tmp_path / "log"
    environment = {
        **os.environ,
        "TREE": str(programs.tree),
        "MAC": device["hwaddr"].replace("-", ":"),
        "LOG": str(log),
        "WANTED": wanted or "fe80:",
    }
    done = subprocess.run(
        ["unshare", "--mount", "--net", "sh", "-c", NETWORKD],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    said = log.read_text() if log.exists() else ""
    assert done.returncode == 0, done.stderr + said
    for complaint in ("Unknown", "Failed to parse", "Invalid", "Ignoring", "ignoring"):
        assert not [line for line in said.splitlines() if ".net" in line and complaint in line], said
    (seen,) = json.loads(done.stdout)
    addresses = {address["local"] for address in seen["addr_info"]}
    for address in (device.get("ipaddr"), device.get("ipaddr6")):
        assert not address or address in addresses, said
    if device.get("mtu"):
        assert seen["mtu"] == int(device["mtu"])


def test_overlay_units_are_taken_by_systemd(paths: Paths, programs: Programs) -> None:
    for overlay in ("wwclient", "ignition", "systemd.mount", "systemd.swap"):
        files = lay(paths, [overlay])["full"]
        shutil.rmtree(programs.tree / "etc/systemd/system", ignore_errors=True)
        write(files, programs.tree)
        units = [path for path, file in files.items() if path.startswith("etc/systemd/system/") and file.data]
        assert units
        for unit in units:
            done = programs.run("/usr/bin/systemd-analyze", "verify", f"/{unit}")
            assert not [line for line in done.stderr.splitlines() if Path(unit).name in line], done.stderr


def test_overlay_chrony_is_taken_by_chronyd(paths: Paths, programs: Programs) -> None:
    for files in lay(paths, ["chrony"]).values():
        programs.lay(files)
        said = programs.run("/usr/sbin/chronyd", "-p", "-f", "/lay/etc/chrony.conf")
        assert "server 10.0.0.1 iburst" in said.stdout


def test_overlay_ssh_host_keys_are_taken_by_sshd(paths: Paths, programs: Programs) -> None:
    keys = paths.etc / "keys"
    keys.mkdir()
    for kind in ("ed25519", "ecdsa"):
        subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", keys / f"ssh_host_{kind}_key"], check=True)
    programs.lay(lay(paths, ["ssh.host_keys"], {"static": NODES["static"]})["static"])
    words = [word for kind in ("ed25519", "ecdsa") for word in ("-h", f"/lay/etc/ssh/ssh_host_{kind}_key")]
    (programs.tree / "run/sshd").mkdir(parents=True, exist_ok=True)
    programs.run("/usr/sbin/sshd", "-t", "-f", "/dev/null", *words)
