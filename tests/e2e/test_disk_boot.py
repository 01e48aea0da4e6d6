"""A node with its root, its data and its swap on a disk: first made, then kept, and a disk of somebody else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.lab import Laboratory, Namespace
from wwfast.config import yaml
from wwfast.demo import debian
from wwfast.demo.cluster import IMAGE
from wwfast.system.run import run

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(1500)]

PARTS = "/dev/disk/by-partlabel"
DISK = {
    "disks": {
        "/dev/vda": {
            "partitions": {
                "root": {"number": "1", "size_mib": "1500"},
                "swap": {"number": "2", "size_mib": "200"},
                "data": {},
            }
        }
    },
    "filesystems": {
        f"{PARTS}/root": {"format": "ext4", "path": "/"},
        f"{PARTS}/swap": {"format": "swap"},
        f"{PARTS}/data": {"format": "ext4", "path": "/data", "label": "data"},
    },
}
OVERLAYS = "sfdisk,mkfs,mkswap,systemd.mount,systemd.swap"
LITTLE, MUCH = 256, 1152  # MiB: for two stages, and for one
SEEN = "findmnt -no SOURCE,FSTYPE / ; findmnt -no SOURCE,FSTYPE /data; tail -n 1 /proc/swaps | cut -d' ' -f1"
IDS = "blkid -p -o value -s UUID /dev/vda1 /dev/vda2 /dev/vda3"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    with Namespace(label="disks") as network:
        tree = debian.tree(("fdisk", "e2fsprogs"))
        made = Laboratory(tmp_path_factory.mktemp("disks"), network, tree)
        made.configure()
        made.make_keys()
        made.populate()
        for number, name in enumerate(("kept", "foreign"), 1):
            overlays = OVERLAYS if name == "kept" else "ignition"
            made.add_node(name, number, "--root", f"{PARTS}/root", "-O", overlays, "--twostage", "always")
        conf = yaml.load(made.paths.nodes_conf.read_bytes(), "nodes.conf")
        for name in ("kept", "foreign"):
            conf["nodes"][name].update(DISK)
        made.paths.nodes_conf.write_text(yaml.dump(conf))
        made.wwfast("image", "build", IMAGE, timeout=600)
        made.serve()
        yield made
        made.stop()


def virtio(path: Path) -> list[str]:
    return ["-drive", f"file={path},if=virtio,format=raw"]


def blank(path: Path, size: int = 3 << 30) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


def test_disk_is_made_once_and_kept_whatever_cuts_the_boots(site: Laboratory, tmp_path: Path) -> None:
    """Power goes while a file system is made, and while the image is unpacked; one boot more is in one stage."""
    disk = blank(tmp_path / "disk")
    for moment in (r"making ext4 on /dev/vda3", r"fetching the image by"):
        with site.machine("kept", 1, memory=LITTLE, extra=virtio(disk)) as vm:
            vm.wait(moment, 300)
    with site.machine("kept", 1, memory=LITTLE, extra=virtio(disk)) as vm:
        vm.wait(timeout=600)
        vm.wait_ssh()
        assert "wwinit: partitioning" not in vm.console()
        assert vm.ssh(SEEN).split() == ["/dev/vda1", "ext4", "/dev/vda3", "ext4", "/dev/vda2"]
        assert vm.ssh("hostname; systemctl is-system-running --wait").split() == ["kept", "running"]
        assert vm.ssh("ls -A / /run | grep wwfast", check=False) == ".wwfast-root\n", "nothing else of stage-1 is left"
        ids = vm.ssh(IDS)
        assert len(ids.split()) == 3
        vm.ssh("echo for ever > /data/kept; echo today > /made-by-hand; sync")
    assert site.status("kept")["way"].startswith("in two stages as disk: needs "), site.status("kept")["way"]
    site.wwfast("node", "set", "--yes", "kept", "--twostage", "never")
    with site.machine("kept", 1, memory=MUCH, extra=virtio(disk)) as vm:
        vm.wait(timeout=600)
        vm.wait_ssh()
        assert "making" not in vm.console()
        assert vm.ssh(SEEN).split() == ["/dev/vda1", "ext4", "/dev/vda3", "ext4", "/dev/vda2"]
        assert vm.ssh("hostname; systemctl is-system-running --wait").split() == ["kept", "running"]
        assert vm.ssh("cat /data/kept") == "for ever\n"
        assert vm.ssh("ls /made-by-hand", check=False) == "", "the root is that of the image"
        assert vm.ssh(IDS) == ids, "nothing was made again"


def test_disk_of_somebody_else_stops_the_boot_and_the_server_knows_why(site: Laboratory, tmp_path: Path) -> None:
    disk = blank(tmp_path / "disk")
    run(["mkfs.ext4", "-q", "-F", "-L", "precious", disk])
    before = run(["sha256sum", disk]).stdout
    with site.machine("foreign", 2, memory=LITTLE, extra=virtio(disk)) as vm:
        vm.wait(r"BOOT STOPPED: /dev/vda holds a file system \(ext4, label precious\), and a partition table", 300)
        site.wait_for(lambda: site.status("foreign"), lambda entry: "precious" in entry.get("error", ""), 30)
    assert run(["sha256sum", disk]).stdout == before
