"""The whole chain on real parts: firmware, DHCP, TFTP, iPXE, HTTP, kernel, image, overlays, login, wwclient."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.lab import ABSENT, LINKED, Laboratory
from wwfast.demo.cluster import INTERVAL, KERNEL, SYSTEM, hwaddr
from wwfast.demo.vm import Vm
from wwfast.paths import SHARE

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(900)]

# All that the distribution brings for nodes; what the image has no program for is read by nobody.
EVERYTHING = (
    *("wwinit", "wwclient", "hosts", "fstab", "hostname", "ssh.host_keys", "issue", "resolv", "localtime", "syncuser"),
    *("udev.netname", "systemd.netname", "ifcfg", "ifupdown", "NetworkManager", "netplan", "systemd.networkd"),
    *("wicked", "ignition", "systemd.mount", "systemd.swap", "chrony", "debug"),
)

# A changed runtime overlay is to be on the node within one interval and this.
APPLY_SECONDS = 5
# How long we look for it: a login into a machine without KVM takes seconds.
PATIENCE = 60


@pytest.fixture(scope="module")
def overlay(lab: Laboratory) -> Path:
    """A site overlay with one file and one template; `motd` goes into the runtime overlay."""
    root = lab.paths.site_overlays / "motd/rootfs/etc"
    root.mkdir(parents=True)
    (root / "motd.j2").write_text("this is {{ id }} of {{ cluster_name }}\n")
    (root / "note").write_text("first\n")
    (root.parent / "lib/wwfast").mkdir(parents=True)
    (root.parent / "lib/wwfast/runtime").write_text("by tar\n")
    return root


@pytest.fixture(scope="module")
def over(lab: Laboratory) -> Path:
    """A system overlay over what is in the image: one name of a file that has two, a directory that is a link there."""
    root = lab.paths.site_overlays / "over/rootfs"
    for name, text in ((LINKED[0], "of the overlay\n"), ("lib/wwfast/system", "by the kernel\n")):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text(text)
    return root


@pytest.fixture(scope="module")
def pair(lab: Laboratory, overlay: Path, over: Path) -> Iterator[tuple[Vm, Vm]]:
    """A BIOS and a UEFI machine, up, of two profiles: one with a kernel apart."""
    lab.wwfast("profile", "add", "apart", "--kerneloverride", KERNEL, "--cluster", "red", "--yes")
    rest = [name for name in EVERYTHING if name not in SYSTEM.split(",")]
    plain = ["--cluster", "blue", "--tagadd", "colour=blue", "-O", ",".join(rest)]
    lab.wwfast("profile", "add", "plain", *plain, "--yes")
    runtime = "hosts,ssh.authorized_keys,motd"
    lab.add_node("red1", 1, "-P", "default,apart", "-O", "over", "-R", runtime)
    lab.add_node("blue1", 2, "-P", "default,plain", "-O", "over", "-R", runtime, "--netdev", "lan0")
    with lab.machine("red1", 1) as bios, lab.machine("blue1", 2, firmware="uefi") as uefi:
        for vm in (bios, uefi):
            vm.wait(timeout=300)
            vm.wait_ssh()
        yield bios, uefi


def stages(lab: Laboratory, node: str) -> list[str]:
    return [part["stage"] for part in lab.status(node)["boot"]]


def test_boot_bios_and_uefi_reach_login_through_every_stage(lab: Laboratory, pair: tuple[Vm, Vm]) -> None:
    for name in ("red1", "blue1"):
        lab.wait_stage(name, ["runtime"], 60)
    # The ROM of the virtual card is iPXE already: only UEFI asks for a binary over TFTP.
    # The runtime overlay comes twice, before init and by wwclient.
    assert [s for s in dict.fromkeys(stages(lab, "red1")) if s not in ("dhcp", "tftp")] == [
        "ipxe",
        "kernel",
        "image",
        "kmods",
        "system",
        "runtime",
    ]
    assert "tftp" in stages(lab, "blue1")
    assert "kmods" not in stages(lab, "blue1")
    # iPXE's own wait for an IPv6 router, 16 s at least, is cut short.
    at = {part["stage"]: part["at"] for part in lab.status("blue1")["boot"]}
    assert at["ipxe"] - at["tftp"] < 14
    shown = lab.wwfast("node", "status").stdout.decode()
    assert shown.count("RUNTIME OVERLAY") == 2


def test_boot_names_addresses_and_overlay_files_are_right(lab: Laboratory, pair: tuple[Vm, Vm]) -> None:
    for vm, cluster in zip(pair, ("red", "blue"), strict=True):
        assert vm.ssh("hostname").strip() == vm.name
        assert vm.ssh("cat /etc/motd") == f"this is {vm.name} of {cluster}\n"
        assert f"{vm.ipaddr}/24" in vm.ssh("ip -br -4 address")
        assert vm.ssh("stat -c '%u %g %a' /root/.ssh/authorized_keys").strip() == "0 0 600"
        served = (lab.paths.etc / "keys/ssh_host_ed25519_key.pub").read_text().split()[1]
        assert vm.ssh("cat /etc/ssh/ssh_host_ed25519_key.pub").split()[1] == served


def test_boot_units_all_work_with_every_overlay(pair: tuple[Vm, Vm]) -> None:
    shipped = {each.name for each in SHARE.joinpath("overlays").iterdir()}
    assert shipped - {"host", "ssh.authorized_keys"} == set(EVERYTHING), "the node has all but the server's own"
    for vm in pair:
        assert vm.ssh("systemctl --failed --no-legend --plain") == ""
        assert vm.ssh("cat /run/wwinit.failed 2>/dev/null || true") == ""
        assert vm.ssh("systemctl is-active wwclient").strip() == "active"
    assert "lan0" in pair[1].ssh("ls /sys/class/net"), "the device has the name of nodes.conf"


def test_boot_overlay_file_replaces_one_name_of_a_file_with_two(pair: tuple[Vm, Vm]) -> None:
    """Without the link before it, Linux would write through the inode and change both names."""
    first, second = LINKED
    for vm in pair:
        assert vm.ssh(f"cat /{first} /{second}") == "of the overlay\nof the image\n"


def test_boot_overlay_file_goes_through_a_link_of_the_image(pair: tuple[Vm, Vm]) -> None:
    """An entry for the directory /lib would replace the link by an empty directory: nothing would start any more."""
    for vm in pair:
        assert vm.ssh("readlink /lib; cat /usr/lib/wwfast/*") == "usr/lib\nby tar\nby the kernel\n"


def test_boot_overlay_file_over_a_directory_of_the_image_is_refused(
    lab: Laboratory, overlay: Path, pair: tuple[Vm, Vm]
) -> None:
    """Linux would drop it without a word. The node keeps what it had, and its status says why."""
    (overlay.parent / "var").mkdir()
    (overlay.parent / "var/lib").write_text("a file\n")
    failed = lab.wwfast("overlay", "build", "blue1", check=False)
    assert failed.returncode == 1
    assert b"/var/lib is a file in the overlays, but a directory in image" in failed.stderr
    (overlay / "note").write_text("never seen\n")
    lab.wait_for(lambda: str(lab.status("blue1")), lambda entry: "/var/lib is a file in the overlays" in entry, 60)
    assert pair[1].ssh("test -d /var/lib && cat /etc/note") == "first\n"
    (overlay.parent / "var/lib").unlink()
    (overlay.parent / "var").rmdir()
    lab.wwfast("overlay", "build", "blue1")


def test_boot_modules_of_the_overriding_kernel_load(pair: tuple[Vm, Vm]) -> None:
    apart, plain = pair
    assert apart.ssh(f"modprobe {ABSENT} && echo $?").strip() == "0"
    assert ABSENT in apart.ssh("lsmod")
    assert plain.ssh(f"modprobe {ABSENT} 2>/dev/null || echo absent").strip() == "absent"
    # A kmods overlay that held a directory /lib would have replaced the link, and with it every library.
    assert apart.ssh("readlink /lib").strip() == "usr/lib"


def test_boot_runtime_overlay_follows_its_source(overlay: Path, pair: tuple[Vm, Vm]) -> None:
    """By the clock of the machines, set from the host's: a login to look takes as long as what is measured."""
    took = []
    for round_ in range(3):
        mark = f"second-{round_}"
        (overlay / "extra").write_text("new\n")
        (overlay / "note").write_text(f"{mark}\n")
        begin = time.time()
        for vm in pair:
            vm.wait_for(f"grep -qx {mark} /etc/note && grep -qx new /etc/extra", INTERVAL + PATIENCE)
            took.append(float(vm.ssh("stat -c %.Z /etc/note")) - begin)
        (overlay / "extra").unlink()
        begin = time.time()
        for vm in pair:
            vm.wait_for("test ! -e /etc/extra", INTERVAL + PATIENCE)
            took.append(float(vm.ssh("stat -c %.Y /etc")) - begin)
            assert vm.ssh("cat /etc/note") == f"{mark}\n"
    print("seconds until a change was in place:", *(f"{each:.1f}" for each in took))
    # The median: two machines without KVM on two cores may lose seconds to anything else that runs here.
    assert statistics.median(took) <= INTERVAL + APPLY_SECONDS, took


def test_boot_runtime_overlay_survives_a_restart_of_the_server(
    lab: Laboratory, overlay: Path, pair: tuple[Vm, Vm]
) -> None:
    assert lab.stop() == 0
    time.sleep(INTERVAL)
    (overlay / "note").write_text("third\n")
    lab.serve()
    pair[0].wait_for("grep -qx third /etc/note", 4 * INTERVAL)


def test_boot_runtime_overlay_only_for_privileged_ports(lab: Laboratory, pair: tuple[Vm, Vm]) -> None:
    url = f"http://{lab.network.server}:9873/runtime/{hwaddr(1)}"
    ask = "curl -s -o /dev/null -w '%{http_code}'"
    assert pair[0].ssh(f"{ask} --local-port 20000-30000 {url}") == "401"
    assert pair[0].ssh(f"{ask} --local-port 700-900 {url}") == "200"
