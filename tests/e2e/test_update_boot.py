"""A node whose root on a disk is updated: what stays, what goes, what is fetched. What a power cut leaves of it is
shown by `make power-cuts`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.lab import Laboratory, Namespace, stocked
from wwfast.archive.artefact import TMPFS
from wwfast.demo import debian
from wwfast.demo.cluster import IMAGE
from wwfast.images.store import ImageStore

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(1200)]

ROOT = "/dev/disk/by-partlabel/root"
DISK = {
    "disks": {"/dev/vda": {"partitions": {"root": {}}}},
    "filesystems": {ROOT: {"format": "ext4", "path": "/"}},
}
SAID = b"HERE IS THE LOCAL DISK"
#: A sector that writes SAID to the first serial port: mov dx,3f8h; mov si,7c15h; lodsb; test al,al; jz; out dx,al; hlt.
SECTOR = bytes.fromhex("31c08ed8baf803be157cac84c07403eeebf8f4ebfd") + SAID + b"\r\n\0"
TOLD = r"stage-1: (\d+) of (\d+) MiB were on the disk"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    with Namespace(label="update") as network:
        made = stocked(tmp_path_factory.mktemp("update"), network, debian.tree(("fdisk", "e2fsprogs")))
        made.add_node("n1", 1, "--root", ROOT, "--diskroot", "update", "-O", "sfdisk,mkfs")
        made.give_disks("n1", DISK)
        lab = made.paths.chroots / IMAGE / "rootfs/opt/lab"
        (lab / "former").mkdir(parents=True, exist_ok=True)
        (lab / "former/file").write_text("of the former image")
        (lab / "package").write_bytes(os.urandom(300_000))
        made.wwfast("image", "build", IMAGE, timeout=600)
        made.serve()
        yield made
        made.stop()


@pytest.fixture
def drive(tmp_path: Path) -> tuple[Path, list[str]]:
    """A blank disk, and what gives it to a machine."""
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(3 << 30)
    return disk, ["-drive", f"file={disk},if=virtio,format=raw"]


def made(site: Laboratory, drive: list[str]) -> Path:
    """The root is made on the disk, by one boot; somebody leaves a file there. Where the image's own files are."""
    with site.machine("n1", 1, memory=384, extra=drive) as vm:
        assert vm.wait(TOLD, 300)[1] == "0"
        vm.wait(timeout=300)
        vm.wait_ssh()
        assert vm.ssh("systemctl is-system-running --wait").strip() == "running"
        vm.ssh("echo kept > /opt/lab/by-hand; sync")
    return site.paths.chroots / IMAGE / "rootfs/opt/lab"


def test_disk_root_is_updated_by_what_changed_in_the_image(site: Laboratory, drive: tuple[Path, list[str]]) -> None:
    lab = made(site, drive[1])
    assert site.status("n1")["way"].endswith("; its root on the disk is updated")
    (lab / "package").write_bytes(b"upgraded")
    (lab / "former/file").unlink()
    (lab / "former").rmdir()
    site.wwfast("image", "build", IMAGE, timeout=600)
    build = ImageStore(site.paths).get(IMAGE).build
    assert build is not None
    whole, before = build.roots()[TMPFS].size, site.sent()
    with site.machine("n1", 1, memory=384, extra=drive[1]) as vm:
        found = vm.wait(TOLD, 300)
        vm.wait(timeout=300)
        vm.wait_ssh()
        boot = site.status("n1")["boot"]
        others = sum(part["total"] for part in boot if part["stage"] != "image")
        assert site.sent() - before - others < whole // 10
        assert int(found[1]) >= int(found[2]) * 9 // 10
        seen = "findmnt -no SOURCE,FSTYPE /; hostname; cd /opt/lab; cat by-hand package; ls -d former"
        assert vm.ssh(seen, check=False).split() == ["/dev/vda1", "ext4", "n1", "kept", "upgraded"]
        assert vm.ssh("systemctl is-system-running --wait").strip() == "running"
        assert vm.ssh("ls -dl /.wwfast-kept | cut -c 1-10").strip() == "drwx------"
    image = next(part for part in boot if part["stage"] == "image" and "told" in part)
    assert (image["outcome"], image["told"]) == ("done", f"{found[1]} of {found[2]} MiB were on the disk")


@pytest.mark.soak
def test_disk_root_half_updated_is_made_anew_and_a_node_boots_from_what_stands_on_its_disk(
    site: Laboratory, drive: tuple[Path, list[str]]
) -> None:
    disk, extra = drive
    lab = made(site, extra)
    (lab / "package").write_bytes(os.urandom(30 << 20))
    site.wwfast("image", "build", IMAGE, timeout=600)
    with site.machine("n1", 1, memory=384, extra=extra) as vm:
        site.wait_amid_image("n1", 1 << 20)
    with site.machine("n1", 1, memory=384, extra=extra) as vm:
        assert vm.wait(TOLD, 300)[1] == "0", "it was half updated"
        vm.wait(timeout=300)
        vm.wait_ssh()
        assert vm.ssh("wc -c < /opt/lab/package; cat /opt/lab/by-hand").split() == [str(30 << 20), "kept"]
    site.wwfast("node", "set", "--yes", "n1", "--ipxe", "localdisk")
    with disk.open("r+b") as file:
        file.write(SECTOR)
    with site.machine("n1", 1, memory=384, extra=extra) as vm:
        vm.wait(SAID.decode(), 300)
