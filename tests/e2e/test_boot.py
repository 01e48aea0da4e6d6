"""The whole chain on real parts: firmware, DHCP, TFTP, iPXE, HTTP, kernel, image, overlays, login, wwclient."""

from __future__ import annotations

import json
import shutil
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.lab import ABSENT, LINKED, Laboratory, Namespace
from wwfast.demo.cluster import INTERVAL, hwaddr
from wwfast.demo.vm import Vm
from wwfast.nodes.registry import Registry
from wwfast.paths import SHARE

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(900)]

# nodes.conf and warewulf.conf of a site, and what Go made of its overlays for them (tests/data/go/cases.py).
GO = Path(__file__).parents[1] / "data/go"
# Where the templates of tests/data/go/overlays stand: overlay and directory.
PLACES = {
    "slurm.conf": ("slurm", "etc/slurm"),
    "gpu": ("gpu", "etc/slurm"),
    "gateway": ("gateway", "etc/routes"),
    "fstab": ("tagged", "etc"),
    "genders": ("genders", "etc"),
}

# A changed runtime overlay is to be on the node within one interval and this.
APPLY_SECONDS = 5
# How long we look for it: a login into a machine without KVM takes seconds.
PATIENCE = 60


@pytest.fixture(scope="module")
def lab(lab: Laboratory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    """A Warewulf site of its own with the images of the laboratory: its files as they are."""
    with Namespace(label="site") as network:
        made = Laboratory(tmp_path_factory.mktemp("site"), network, lab.tree)
        made.paths.etc.mkdir(parents=True)
        for file in (made.paths.conf, made.paths.nodes_conf):
            shutil.copyfile(GO / "booted" / file.name, file)
        made.make_keys()
        made.borrow(lab)
        made.serve()
        yield made
        made.stop()


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
def sources(lab: Laboratory) -> dict[str, Path]:
    """The Go templates of the site, where they lie."""
    made = {}
    for name, (overlay, place) in PLACES.items():
        file = lab.paths.site_overlays / overlay / "rootfs" / place / f"{name}.ww"
        file.parent.mkdir(parents=True)
        made[f"{name}.ww"] = file
        shutil.copyfile(GO / "overlays" / file.name, file)
    return made


@pytest.fixture(scope="module")
def pair(lab: Laboratory, overlay: Path, over: Path, sources: dict[str, Path]) -> Iterator[tuple[Vm, Vm]]:
    """A BIOS and a UEFI machine, up, of two profiles: one with a kernel apart."""
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
    assert pair[0].shows("how red1 boots"), "the menu of its tag was there, and went on by itself"
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


def test_boot_units_all_work_with_every_overlay(lab: Laboratory, pair: tuple[Vm, Vm]) -> None:
    shipped = {each.name for each in SHARE.joinpath("overlays").iterdir()}
    node = Registry(lab.paths).snapshot().nodes["blue1"]
    assert shipped - {"host"} <= {*node.system_overlay, *node.runtime_overlay}, "the node has all but the server's own"
    for vm in pair:
        assert vm.ssh("systemctl --failed --no-legend --plain") == ""
        assert vm.ssh("cat /run/wwinit.failed 2>/dev/null || true") == ""
        assert vm.ssh("systemctl is-active wwclient").strip() == "active"
    assert "lan0" in pair[1].ssh("ls /sys/class/net"), "the device has the name of nodes.conf"


def recorded(node: str, sources: dict[str, Path]) -> dict[str, str]:
    """Paths on a node, and what Go wrote there: text, or `-> target` of a link."""
    made: dict[str, str] = {}
    for case in json.loads((GO / "booted/recorded.json").read_text()):
        _, name, owner = case["name"].split("-")
        if owner != node or case.get("error") == "aborted":
            continue
        path = f"/{PLACES[name.removesuffix('.ww')][1]}/{name.removesuffix('.ww')}"
        for each in case.get("outputs") or [{"name": path, "content": case["output"]}]:
            text = f"-> {each['link']}\n" if "link" in each else each["content"]
            # The recorder's template lies elsewhere.
            made[str(Path(path).parent / each["name"])] = text.replace("/overlay/t.ww", str(sources[name]))
    return made


def test_boot_overlays_of_a_warewulf_site_are_what_go_writes(pair: tuple[Vm, Vm], sources: dict[str, Path]) -> None:
    """Byte by byte, on the node: slurm.conf, gpu, routes by rack, fstab from tags, genders."""
    for vm, count in zip(pair, (7, 4), strict=True):
        wanted = recorded(vm.name, sources)
        assert len(wanted) == count
        shown = "".join(
            f"if [ -L {it} ]; then echo -n '-> '; readlink {it}; else cat {it}; fi; echo =;" for it in wanted
        )
        assert dict(zip(wanted, vm.ssh(shown).split("=\n"), strict=False)) == wanted
        mounted = "findmnt -no SOURCE /scratch; findmnt -no SOURCE /scratch2"
        assert vm.ssh(mounted) == "tmpfs\nscratch2\n", "its fstab is in use"


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
