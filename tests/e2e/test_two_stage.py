"""Boots in two stages: an image that is mounted as it is, on a machine that could not unpack it."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator

import pytest

from support.lab import Laboratory, Namespace
from wwfast.demo.cluster import IMAGE

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(900)]

KINDS = {"squashfs": 1, "erofs": 2}
WAY = ["ipxe", "kernel", "stage1", "image", "kmods", "system", "runtime"]
MEMORY = 384  # MiB: in one stage the image of 335 MB needs 2 times its size and more


@pytest.fixture(scope="module")
def site(lab: Laboratory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    with Namespace(label="stage1") as network:
        made = Laboratory(tmp_path_factory.mktemp("stage1"), network, lab.tree)
        made.configure()
        made.make_keys()
        made.populate()
        capable = made.paths.chroots / IMAGE / "rootfs/opt/lab/capable"
        capable.write_bytes(b"")
        with capable.open("r+b") as file:
            file.truncate(200 << 20)  # a hole
        os.setxattr(capable, "security.capability", struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0))
        made.add_node("squashfs", KINDS["squashfs"])
        made.add_node("erofs", KINDS["erofs"], "--root", "erofs")
        made.wwfast("kernel", "import", IMAGE, "apart")
        made.wwfast("node", "set", "--yes", "squashfs", "--kerneloverride", "apart")
        made.wwfast("image", "build", "--format", "squashfs", IMAGE, timeout=600)
        made.serve()
        yield made
        made.stop()


def test_two_stage_boots_images_that_are_mounted(site: Laboratory) -> None:
    """On a BIOS and on a UEFI machine at once, each with less memory than the unpacked image alone takes twice; one has
    a kernel that is kept apart from the image."""
    with (
        site.machine("squashfs", 1, memory=MEMORY) as bios,
        site.machine("erofs", 2, memory=MEMORY, firmware="uefi") as uefi,
    ):
        for vm, kind in ((bios, "squashfs"), (uefi, "erofs")):
            vm.wait(timeout=400)
            vm.wait_ssh()
            said = vm.ssh("stat -f -c %T /; hostname; cat /opt/lab/first; systemctl is-system-running --wait").split(
                "\n"
            )
            assert said[:4] == ["overlayfs", kind, "of the image", "running"]
            assert "capable cap_net_raw=ep" in vm.ssh("getcap /opt/lab/capable")
            size, blocks = map(int, vm.ssh("stat -c '%s %b' /opt/lab/capable").split())
            assert (size, blocks < 100) == (200 << 20, kind == "squashfs"), (
                "erofs tells the size of a hole as its blocks"
            )
            assert vm.ssh("ls -A / | grep wwfast", check=False) == "", "nothing of stage-1 is left in the image"
            told = site.status(kind)
            assert told["way"].startswith(f"in two stages as {kind}: needs "), told["way"]
            assert ("; root is erofs" if kind == "erofs" else _in_one_stage(site)) in told["way"]
            assert MEMORY * 0.85 < told["memory"] < MEMORY * 1.1, "as wwclient told it"
            stages = dict.fromkeys(part["stage"] for part in site.status(kind)["boot"])
            way = [stage for stage in WAY if stage != "kmods" or kind == "squashfs"]
            assert [stage for stage in stages if stage in WAY] == way


def _in_one_stage(site: Laboratory) -> str:
    """What the image would need, by what is shown of it."""
    one = json.loads(site.wwfast("image", "show", "--json", IMAGE).stdout)["ways"][0]
    assert one["need"] > 2 * MEMORY
    return f"; in one stage it would need {one['need']}"
