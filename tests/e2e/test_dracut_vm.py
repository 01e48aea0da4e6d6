"""Machines that boot by an initramfs of their image, which the image's own dracut made."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.lab import Laboratory, Namespace
from wwfast.demo import debian
from wwfast.demo.cluster import IMAGE
from wwfast.images.store import BuildInfo, ImageStore

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(900)]

#: Not `dracut`, which would take the place of initramfs-tools that Debian's kernels want.
PACKAGES = ("dracut-core", "dracut-network", "dmidecode", "fdisk", "e2fsprogs")
MODULE = Path(__file__).parents[1] / "data/dracut/90wwinit"
UNUSED = "btrfs cifs crypt dm dmraid fcoe iscsi lvm mdraid multipath nbd nfs nvdimm nvmf qemu"
#: A machine without KVM unpacks about 2 MB of an image in a second, by gzip and cpio. Warewulf leaves out /boot.
LEFT_OUT = (
    *("/boot/", "/usr/lib/dracut/", "/usr/share/perl/", "/usr/lib/*/perl/", "/usr/lib/udev/hwdb*", "/var/cache/"),
    *(f"/usr/lib/modules/*/kernel/{what}/" for what in ("drivers/net/ethernet", "drivers/scsi", "fs", "sound")),
)
PARTS = "/dev/disk/by-partlabel"
DISK = {
    "root": f"{PARTS}/root",
    "disks": {"/dev/vda": {"partitions": {"root": {"number": "1", "size_mib": "1500"}, "swap": {}}}},
    "filesystems": {f"{PARTS}/root": {"format": "ext4", "path": "/"}, f"{PARTS}/swap": {"format": "swap"}},
}
#: What it takes beside what dracut takes itself, in the words of the documentation.
DOCS = (Path(__file__).parents[2] / "docs/disks.md").read_text()
FOR_DISKS = " ".join(re.findall(r'`dracut --install\s+"([^"]+)"`', DOCS)[0].split())
WAY = ["ipxe", "kernel", "initramfs", "system", "image", "runtime"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    with Namespace(label="dracut") as network:
        made = Laboratory(tmp_path_factory.mktemp("dracut"), network, debian.tree(PACKAGES))
        made.configure()
        made.make_keys()
        made.wwfast("image", "import", made.tree.rootfs, IMAGE, timeout=300)
        root = made.paths.chroots / IMAGE / "rootfs"
        shutil.copytree(MODULE, root / "usr/lib/dracut/modules.d/90wwinit", copy_function=shutil.copy)
        (root / "etc/motd").write_text("of the image\n")
        (root / "etc/warewulf").mkdir()
        (root / "etc/warewulf/excludes").write_text("\n".join(LEFT_OUT))
        release = next(root.glob("boot/vmlinuz-*")).name.removeprefix("vmlinuz-")
        how = ["--quiet", "--force", "--no-hostonly", "--add", "wwinit network-legacy", "--kver", release]
        how += ["--omit", f"systemd-networkd {UNUSED}"]  # for the first dracut 059 does not wait
        how += ["--install", FOR_DISKS]
        made.wwfast("image", "exec", IMAGE, "--", "dracut", *how, f"/boot/initramfs-{release}.img", timeout=300)
        made.add_profile()
        made.add_node("dracut", 1, "--tagadd", "IPXEMenuEntry=dracut", "--netdev", "eth0")
        overlays = ("-O", "sfdisk,mkfs,mkswap,systemd.swap", "--tagadd", "IPXEMenuEntry=dracut_static")
        made.add_node("static", 2, *overlays, "--netdev", "eth0", "--netmask", "255.255.255.0")
        made.give_disks("static", DISK)
        made.wwfast("image", "build", IMAGE, timeout=600)
        made.serve()
        yield made
        made.stop()


def info(site: Laboratory) -> BuildInfo:
    build = ImageStore(site.paths).get(IMAGE).build
    assert build is not None
    return build.info


def test_dracut_initramfs_that_dracut_made_is_known_and_lacks_nothing(site: Laboratory) -> None:
    [own] = info(site).initramfs or []
    assert (own.module, own.unread) == ("4.6.2", "")
    assert "gz" in info(site).sizes
    said = json.loads(site.wwfast("doctor", "--json", check=False).stdout)
    assert not [each for each in said if re.search("dracut|initramfs|lacks", each["message"])], said


def test_dracut_boots_a_machine_as_the_image_brings_it(site: Laboratory) -> None:
    with site.machine("dracut", 1, memory=1536) as vm:
        vm.wait(timeout=400)
        vm.wait_ssh()
        said = vm.ssh("stat -f -c %T /; hostname; cat /etc/motd; systemctl is-system-running --wait").split("\n")
        assert said[:4] == ["tmpfs", "dracut", "of the image", "running"]
        line = vm.ssh("cat /proc/cmdline")
        assert f"root=wwinit wwinit.server=http://{site.network.server}:{site.port}" in line
        assert "init=/warewulf/run-init" in line
        assert vm.ssh("find / -xdev -type l -lname . | head", check=False).strip() == "", "no overlay is half unpacked"
    told = site.status("dracut")
    assert told["way"].startswith("in two stages by dracut: needs ")
    assert [part["stage"] for part in told["boot"] if part["stage"] in WAY][: len(WAY) + 1] == [
        "ipxe", "kernel", "initramfs", "system", "image", "system", "runtime",
    ]  # fmt: skip


@pytest.mark.soak
def test_dracut_static_by_uefi_makes_the_disk_of_the_node(site: Laboratory, tmp_path: Path) -> None:
    """With its address of nodes.conf and without DHCP; partitions, root and swap are made in the initramfs."""
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(2 << 30)
    drive = ["-drive", f"file={disk},if=virtio,format=raw"]
    with site.machine("static", 2, firmware="uefi", memory=1536, extra=drive) as vm:
        vm.wait(timeout=500)
        vm.wait_ssh()
        said = vm.ssh("findmnt -no SOURCE,FSTYPE /; hostname; tail -n 1 /proc/swaps | cut -d' ' -f1; cat /etc/motd")
        assert said.split("\n")[0].split() == ["/dev/vda1", "ext4"]
        assert said.split("\n")[1:4] == ["static", "/dev/vda2", "of the image"]
        assert f" ip={site.address(2)}::" in vm.ssh("cat /proc/cmdline")
        assert vm.ssh("systemctl is-system-running --wait").strip() == "running"
    told = site.status("static")
    assert told["way"].startswith("in two stages by dracut: needs ")
    assert [part["stage"] for part in told["boot"] if part["stage"] in WAY][-4:] == [
        "system",
        "image",
        "system",
        "runtime",
    ]
