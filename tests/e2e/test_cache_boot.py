"""A node that keeps the pieces of its image on a disk: what it fetches after an upgrade, and after power went."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.lab import Laboratory, Namespace, stocked
from wwfast.archive.artefact import TMPFS
from wwfast.demo import debian
from wwfast.demo.cluster import IMAGE
from wwfast.demo.vm import Vm
from wwfast.images.store import ImageStore

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(900)]

CACHE = "/dev/disk/by-partlabel/cache"
DISK = {
    "disks": {"/dev/vda": {"partitions": {"cache": {}}}},
    "filesystems": {CACHE: {"format": "ext4"}},
}
TOLD = r"stage-1: (\d+) of (\d+) MiB came from the cache"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    with Namespace(label="cache") as network:
        made = stocked(tmp_path_factory.mktemp("cache"), network, debian.tree(("fdisk", "e2fsprogs")))
        made.add_node("n1", 1, "--cache", CACHE, "-O", "sfdisk,mkfs")
        made.give_disks("n1", DISK)
        made.wwfast("image", "build", IMAGE, timeout=600)
        made.serve()
        yield made
        made.stop()


def reused(vm: Vm) -> tuple[int, int]:
    found = vm.wait(TOLD, 300)
    return int(found[1]), int(found[2])


def test_cache_is_what_a_node_does_not_fetch_again(site: Laboratory, tmp_path: Path) -> None:
    """Power goes while the cache is written; then one boot fills it, and the next one fetches what changed."""
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(1 << 30)
    drive = ["-drive", f"file={disk},if=virtio,format=raw"]
    with site.machine("n1", 1, memory=768, extra=drive) as vm:
        vm.wait(r"wwinit: making ext4 on /dev/vda1", 300)
        site.wait_amid_image("n1", 20 << 20)
    with site.machine("n1", 1, memory=768, extra=drive) as vm:
        had, size = reused(vm)
        vm.wait(r"wwinit: node n1", 120)
        assert "wwinit: making" not in vm.console()
        assert "BOOT STOPPED" not in vm.console()
    assert had < size // 2, "it was not whole"
    (site.paths.chroots / IMAGE / "rootfs/opt/lab/package").write_bytes(os.urandom(300_000))
    site.wwfast("image", "build", IMAGE, timeout=600)
    build = ImageStore(site.paths).get(IMAGE).build
    assert build is not None
    whole, before = build.roots()[TMPFS].size, site.sent()
    with site.machine("n1", 1, memory=768, extra=drive) as vm:
        had, size = reused(vm)
        vm.wait(timeout=300)
        vm.wait_ssh()
        boot = site.status("n1")["boot"]
        others = sum(part["total"] for part in boot if part["stage"] != "image")
        assert site.sent() - before - others < whole // 10
        assert size - 2 <= had <= size
        said = vm.ssh("stat -f -c %T /; hostname; cat /opt/lab/first; systemctl is-system-running --wait").split("\n")
        assert said[:4] == ["tmpfs", "n1", "of the image", "running"]
        assert vm.ssh("wc -c < /opt/lab/package") == "300000\n"
        assert vm.ssh("grep -c /cache /proc/mounts; ls -A / /run | grep -e wwfast -e '^cache'", check=False) == "0\n"
    image = next(part for part in boot if part["stage"] == "image" and "told" in part)
    assert (image["outcome"], image["told"]) == ("done", f"{had} of {size} MiB came from the cache")
    assert site.status("n1")["way"].endswith("; it has a cache")
