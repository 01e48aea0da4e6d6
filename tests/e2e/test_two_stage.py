"""Boots in two stages: an image that is mounted as it is, on a machine that could not unpack it."""

from __future__ import annotations

import base64
import json
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.lab import Laboratory, Namespace
from wwfast.archive import pax
from wwfast.archive.artefact import PIECES, TMPFS, Artefact
from wwfast.demo.cluster import IMAGE
from wwfast.images.store import ImageStore

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(900)]

NOBODY = 0xFFFFFFFF
KINDS = {"squashfs": 1, "erofs": 2}
WAY = ["ipxe", "kernel", "stage1", "image", "kmods", "system", "runtime"]
ATTRIBUTES = {
    "system.posix_acl_access": struct.pack("<I", 2)
    + b"".join(
        struct.pack("<HHI", *entry)
        for entry in ((1, 6, NOBODY), (2, 4, 1000), (4, 4, NOBODY), (16, 4, NOBODY), (32, 4, NOBODY))
    ),
    "security.selinux": b"system_u:object_r:etc_t:s0\0",
}  # tmpfs has user.* since Linux 6.6
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
        attributes = capable.with_name("attributes")
        attributes.write_text("has all of them\n")
        for name, value in ATTRIBUTES.items():
            os.setxattr(attributes, name, value)
        os.setxattr(capable, "security.capability", struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0))
        made.add_node("squashfs", KINDS["squashfs"])
        made.add_node("erofs", KINDS["erofs"], "--root", "erofs", "--upper", "zram")
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
            used = vm.ssh("yes text | head -c 16M >/root/text; sync; df --output=used -m /root | tail -1")
            assert int(used) >= 16
            zram = vm.ssh("cat /sys/block/zram0/mm_stat", check=False).split()
            assert bool(zram) == (kind == "erofs")
            assert not zram or int(zram[0]) > 8 * int(zram[2]), "compressed, beside what it took"
            told = site.status(kind)
            assert told["way"].startswith(f"in two stages as {kind}: needs "), told["way"]
            assert ("; root is erofs" if kind == "erofs" else _in_one_stage(site)) in told["way"]
            assert MEMORY * 0.85 < told["memory"] < MEMORY * 1.1, "as wwclient told it"
            stages = dict.fromkeys(part["stage"] for part in site.status(kind)["boot"])
            way = [stage for stage in WAY if stage != "kmods" or kind == "squashfs"]
            assert [stage for stage in stages if stage in WAY] == way


def _in_one_stage(site: Laboratory, memory: int = MEMORY) -> str:
    """What the image would need, by what is shown of it."""
    one = json.loads(site.wwfast("image", "show", "--json", IMAGE).stdout)["ways"][0]
    assert one["need"] > memory
    return f"; in one stage it would need {one['need']}"


def test_two_stage_tmpfs_outlives_a_server_that_is_killed_and_a_byte_that_is_wrong(site: Laboratory) -> None:
    """512 MiB, where one stage needs more and `auto` takes two; what tar makes of the files has their attributes."""
    site.add_node("tmpfs", 3, "--root", "tmpfs")
    site.wwfast("image", "build", "--format", "tmpfs", IMAGE, timeout=600)
    site.stop()
    site.configure(wwfast={"client rate": 2_500_000})  # a range of 4 MiB takes more than a second
    site.serve()
    archive, sizes = _archive(site)
    starts = {sum(sizes[:number]) for number in range(len(sizes))}
    flipped = sum(sizes) * 3 // 4
    _flip(archive, flipped)
    with site.machine("tmpfs", 3, memory=512) as vm:
        assert site.server is not None
        way = site.wait_for(lambda: site.status("tmpfs"), lambda entry: "way" in entry, 300)["way"]
        assert way.startswith("in two stages as tmpfs: needs "), way
        assert _in_one_stage(site, 512) in way, way
        site.wait_for(lambda: _image(site), lambda part: part["bytes"] > 8 << 20 and part["bytes"] not in starts, 300)
        site.server.kill()
        site.server.wait()
        vm.wait(r"the image stopped at byte \d+, again after a pause", 60)
        site.serve()
        site.wait_for(
            lambda: site.status("tmpfs"), lambda entry: "is not what was built" in entry.get("error", ""), 300
        )
        _flip(archive, flipped)
        vm.wait(timeout=400)
        stopped = {int(at) for at in re.findall(r"the image stopped at byte (\d+)", vm.console())}
        assert stopped - starts, "inside a piece"
        vm.wait_ssh()
        said = vm.ssh("stat -f -c %T /; hostname; cat /opt/lab/first; systemctl is-system-running --wait").split("\n")
        assert said[:4] == ["tmpfs", "tmpfs", "of the image", "running"]
        assert "capable cap_net_raw=ep" in vm.ssh("getcap /opt/lab/capable")
        assert vm.ssh("stat -c '%s %b' /opt/lab/capable").split() == [str(200 << 20), "0"]
        packed = vm.ssh("tar -C /opt/lab --xattrs --xattrs-include='*' -cf - attributes | base64")
        inside = base64.b64decode(packed)
        for name, value in ATTRIBUTES.items():
            assert pax.record(b"SCHILY.xattr." + name.encode(), value) in inside, name
        assert vm.ssh("ls -A / /run | grep wwfast", check=False) == "", "nothing of stage-1 is left"
        assert vm.ssh("cat /proc/sys/kernel/randomize_va_space").strip() == "2"
    boot = site.status("tmpfs")["boot"]
    assert [part["stage"] for part in boot if part["stage"] in WAY] == ["image", "system", "runtime"], (
        "since the new server"
    )
    (image,) = [part for part in boot if part["stage"] == "image"]
    assert (image["outcome"], image["total"]) == ("done", sum(sizes))
    assert "is not what was built" in image["told"]


def _image(site: Laboratory) -> dict[str, Any]:
    parts = [part for part in site.status("tmpfs")["boot"] if part["stage"] == "image" and part["total"] > 1 << 20]
    return parts[-1] if parts else {"bytes": 0}


def _archive(site: Laboratory) -> tuple[Artefact, list[int]]:
    """What is served, and the lengths of its pieces."""
    build = ImageStore(site.paths).get(IMAGE).build
    assert build is not None
    roots = build.roots()
    (about,) = roots[TMPFS + PIECES].extents
    return roots[TMPFS], [int(line.split()[0]) for line in Path(about.path).read_text().splitlines()]


def _flip(archive: Artefact, at: int) -> None:
    for path, offset, length in archive.extents:
        if at < length:
            facts = Path(path).stat()
            with Path(path).open("r+b") as file:
                file.seek(offset + at)
                byte = file.read(1)[0]
                file.seek(offset + at)
                file.write(bytes([byte ^ 1]))
            os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))  # or the server would look at it anew
            return
        at -= length
