"""A node with its root, its data and its swap on a disk: first made, then kept, and a disk of somebody else. The ten
power cuts are those of `make power-cuts`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from support.lab import Laboratory, Namespace, stocked
from wwfast.demo import debian
from wwfast.demo.cluster import IMAGE
from wwfast.demo.vm import Vm
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
#: What the console shows, and seconds after it: the tables, each format, the image at its begin, amid and near its end,
#: the overlays, systemd, and a node in use.
CUTS = [
    ("wwinit: partitioning", 0.0),
    ("making ext4 on /dev/vda3", 0.0),
    ("making ext4 on /dev/vda1", 0.0),
    ("making swap on /dev/vda2", 0.0),
    ("fetching the image by", 0.0),
    ("fetching the image by", 2.0),
    ("fetching the image by", 5.0),
    ("wwinit: node kept, image", 0.0),
    (r"systemd\[1\]", 1.0),
    ("login: ", 0.0),
]
SEEN = "findmnt -no SOURCE,FSTYPE / ; findmnt -no SOURCE,FSTYPE /data; tail -n 1 /proc/swaps | cut -d' ' -f1"
IDS = "blkid -p -o value -s UUID /dev/vda1 /dev/vda2 /dev/vda3"
#: Events of QEMU's blkdebug, the first sector that fails, what is said of it.
BROKEN = [("read_aio", 0, "/dev/vda cannot be read"), ("write_aio", 2048, "/dev/vda1 .*")]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    with Namespace(label="disks") as network:
        made = stocked(tmp_path_factory.mktemp("disks"), network, debian.tree(("fdisk", "e2fsprogs")))
        for number, name in enumerate(("kept", "foreign"), 1):
            overlays = OVERLAYS if name == "kept" else "ignition"
            made.add_node(name, number, "--root", f"{PARTS}/root", "-O", overlays, "--twostage", "always")
            made.give_disks(name, DISK)
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


def assert_whole(vm: Vm) -> None:
    assert vm.ssh(SEEN).split() == ["/dev/vda1", "ext4", "/dev/vda3", "ext4", "/dev/vda2"]
    assert vm.ssh("hostname; systemctl is-system-running --wait").split() == ["kept", "running"]


def test_disk_is_made_once_and_kept_whatever_cuts_the_boots(site: Laboratory, tmp_path: Path) -> None:
    """Power goes while a file system is made; one boot more is in one stage."""
    disk = blank(tmp_path / "disk")
    with site.machine("kept", 1, memory=LITTLE, extra=virtio(disk)) as vm:
        vm.wait(r"making ext4 on /dev/vda3", 300)
    with site.machine("kept", 1, memory=LITTLE, extra=virtio(disk)) as vm:
        vm.wait(timeout=600)
        vm.wait_ssh()
        assert "wwinit: partitioning" not in vm.console()
        assert_whole(vm)
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
        assert_whole(vm)
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
    site.wwfast("node", "set", "--yes", "foreign", "--diskname", "/dev/vda", "--diskwipe", "true")
    with site.machine("foreign", 2, memory=LITTLE, extra=virtio(disk)) as vm:
        vm.wait("partitioning /dev/vda, by the order to wipe it: /dev/vda holds a file system", 300)
        vm.wait("making ext4 on /dev/vda3", 120)
        vm.wait("fetching the image by", 120)


@pytest.mark.parametrize(("event", "sector", "said"), BROKEN, ids=["read", "written"])
def test_disk_with_errors_stops_the_boot(site: Laboratory, tmp_path: Path, event: str, sector: int, said: str) -> None:
    disk = blank(tmp_path / "disk")
    error = f"file.inject-error.0.event={event},file.inject-error.0.errno=5,file.inject-error.0.sector={sector}"
    drive = f"file.driver=blkdebug,{error},file.image.filename={disk},if=virtio,format=raw,rerror=report,werror=report"
    with site.machine("foreign", 2, memory=LITTLE, extra=["-drive", drive]) as vm:
        vm.wait(f"BOOT STOPPED: .*{said}", 300)
        site.wait_for(lambda: site.status("foreign"), lambda entry: "/dev/vda" in entry.get("error", ""), 30)


def dos(disk: Path) -> None:
    run(["sfdisk", "-q", disk], input=b"label: dos\n,50M\n")


def swap_for_data(disk: Path) -> None:
    """The partitions that are wanted, and swap where data is."""
    run(["sfdisk", "-q", disk], input=b'label: gpt\nname="root", size=1500M\nname="swap", size=200M\nname="data"\n')
    start = int(run(["sfdisk", "-J", disk]).stdout.split(b'"start":')[3].split(b",")[0]) * 512
    made = disk.with_name("swap")
    blank(made, 64 << 20)
    run(["mkswap", "-q", made])
    with disk.open("r+b") as file:
        file.seek(start)
        file.write(made.read_bytes()[:4096])


#: What is on the disk, MiB of it, options of the drive, what is said.
FAULTY = {
    "dos": (dos, 3072, "", r"/dev/vda holds a partition table \(dos\)"),
    "small": (None, 512, "", "/dev/vda has 512 MiB, and the partitions that are wanted on it take 1702"),
    "read-only": (None, 3072, ",readonly=on", "/dev/vda is read-only"),
    "another kind": (swap_for_data, 3072, "", r"\(/dev/vda3\) holds swap space, and ext4 is wanted"),
}


@pytest.mark.soak
@pytest.mark.parametrize("case", FAULTY)
def test_disk_that_is_not_as_wanted_stops_the_boot(site: Laboratory, tmp_path: Path, case: str) -> None:
    make, size, options, said = FAULTY[case]
    disk = blank(tmp_path / "disk", size << 20)
    if make is not None:
        make(disk)
    before = run(["sha256sum", disk]).stdout
    with site.machine("kept", 1, memory=LITTLE, extra=["-drive", virtio(disk)[1] + options]) as vm:
        vm.wait(f"BOOT STOPPED: .*{said}", 300)
        site.wait_for(lambda: site.status("kept"), lambda entry: "/dev/vda" in entry.get("error", ""), 30)
    assert run(["sha256sum", disk]).stdout == before


@pytest.mark.soak
def test_disk_that_is_not_there_stops_the_boot(site: Laboratory) -> None:
    with site.machine("kept", 1, memory=LITTLE) as vm:
        vm.wait("BOOT STOPPED: there is no /dev/vda; this node has", 300)


def cut(site: Laboratory, disk: Path, moments: Sequence[tuple[str, float]]) -> None:
    """Power goes at each of these, in a boot of its own."""
    for moment, after in moments:
        with site.machine("kept", 1, memory=LITTLE, extra=virtio(disk)) as vm:
            vm.wait(moment, 600)
            time.sleep(after)


@pytest.mark.soak
def test_disk_survives_ten_power_cuts(site: Laboratory, tmp_path: Path) -> None:
    """Each boot begins on what the cut before it left, and gets at least as far; then so with data on the disk."""
    site.wwfast("node", "set", "--yes", "kept", "--twostage", "always")
    disk = blank(tmp_path / "disk")
    cut(site, disk, CUTS)
    with site.machine("kept", 1, memory=LITTLE, extra=virtio(disk)) as vm:
        vm.wait(timeout=600)
        vm.wait_ssh()
        assert_whole(vm)
        assert "making" not in vm.console()
        vm.ssh("echo for ever > /data/kept; sync")
        ids = vm.ssh(IDS)
    cut(site, disk, CUTS[4:])
    with site.machine("kept", 1, memory=LITTLE, extra=virtio(disk)) as vm:
        vm.wait(timeout=600)
        vm.wait_ssh()
        assert (vm.ssh("cat /data/kept"), vm.ssh(IDS)) == ("for ever\n", ids)
