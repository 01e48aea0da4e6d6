"""Boots in two stages: an image that is mounted as it is, on a machine that could not unpack it."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import stat
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.lab import LINKED, Laboratory, Namespace
from wwfast.archive import pax
from wwfast.archive.artefact import PIECES, TMPFS, Artefact
from wwfast.demo.cluster import IMAGE
from wwfast.demo.vm import Vm
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
    "user.lab": b"of whoever",
}
LOST = {"squashfs": "system.posix_acl_access", "tmpfs": "user.lab"}  # tmpfs has these since Linux 6.6
#: The image of the issue: bytes of its files, and MiB of a machine that has it mounted, and in a tmpfs. In one stage it
#: needs more than twice its size.
FILES = 335_000_000
MEMORY, UNPACKED = 384, 512
LITTLE = 192  # MiB: enough for stage-1, and for no form of the image
HOLE = 64 << 20
#: Of the system overlay: one of two names of a file of the image, a file below a link of the image, and a script that
#: says what it finds before the image's own init runs.
PROBE = {
    LINKED[0]: "of the overlay\n",
    "lib/wwfast/probe": "below a link\n",
    "warewulf/init.d/99-seen": """{
    cat /proc/1/comm
    date +%Y
    ls /root/.ssh/authorized_keys
    cat /sys/class/net/e*/operstate
    ip -br address
} > /run/seen
""",
}
LOOK = (
    f"stat -f -c %T /; hostname; cat /{LINKED[1]} /{LINKED[0]} /lib/wwfast/probe; readlink /lib; "
    "systemctl is-system-running --wait; cat /run/seen"
)


@pytest.fixture(scope="module")
def site(lab: Laboratory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    with Namespace(label="stage1") as network:
        made = Laboratory(tmp_path_factory.mktemp("stage1"), network, lab.tree)
        made.configure()
        made.make_keys()
        made.populate()
        rootfs = made.paths.chroots / IMAGE / "rootfs"
        _enlarge(rootfs)
        capable = rootfs / "opt/lab/capable"
        with capable.open("wb") as file:
            file.truncate(HOLE)
        attributes = capable.with_name("attributes")
        attributes.write_text("has all of them\n")
        for name, value in ATTRIBUTES.items():
            os.setxattr(attributes, name, value)
        os.setxattr(capable, "security.capability", struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0))
        for name, text in PROBE.items():
            file = made.paths.site_overlays / "probe/rootfs" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        for kind in ("erofs", "squashfs"):
            made.wwfast("image", "build", "--format", kind, IMAGE, timeout=600)
            made.add_node(kind, KINDS[kind], "--image", f"{IMAGE}@{_shown(made)['build']}", "-O", "probe")
        assert _shown(made)["tree"] - HOLE >= FILES
        made.wwfast("node", "set", "--yes", "erofs", "--upper", "zram")
        made.wwfast("kernel", "import", IMAGE, "apart")
        made.wwfast("node", "set", "--yes", "squashfs", "--kerneloverride", "apart")
        made.serve()
        yield made
        made.stop()


def _enlarge(tree: Path) -> None:
    """Add files, always the same ones, of which one half can be compressed, until there are FILES bytes."""
    found = [path.lstat() for path in tree.rglob("*")]
    have = sum({facts.st_ino: facts.st_size for facts in found if stat.S_ISREG(facts.st_mode)}.values())
    place = tree / "opt/lab/data"
    place.mkdir()
    for number in range(-(-max(FILES - have, 0) // (1 << 20))):
        noise = hashlib.shake_128(b"%d" % number).digest(1 << 19)
        pages = (noise[at : at + 2048] + bytes(2048) for at in range(0, len(noise), 2048))
        (place / str(number)).write_bytes(b"".join(pages))


def _shown(site: Laboratory) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(site.wwfast("image", "show", "--json", IMAGE).stdout)
    return found


def test_two_stage_boots_images_that_are_mounted(site: Laboratory) -> None:
    """On a BIOS and on a UEFI machine at once, each with less memory than the unpacked image alone takes twice; one has
    a kernel that is kept apart from the image. Neither asks for a root: each gets what its build has."""
    with (
        site.machine("squashfs", 1, memory=MEMORY) as bios,
        site.machine("erofs", 2, memory=MEMORY, firmware="uefi") as uefi,
    ):
        for vm, kind in ((bios, "squashfs"), (uefi, "erofs")):
            vm.wait(timeout=400)
            vm.wait_ssh()
            _assert_handed_over(vm, "overlayfs", time.strftime("%Y"))
            assert "capable cap_net_raw=ep" in vm.ssh("getcap /opt/lab/capable")
            size, blocks = map(int, vm.ssh("stat -c '%s %b' /opt/lab/capable").split())
            assert (size, blocks < 100) == (HOLE, kind == "squashfs"), "erofs tells the size of a hole as its blocks"
            _assert_attributes(vm)
            assert vm.ssh("ls -A / | grep wwfast", check=False) == "", "nothing of stage-1 is left in the image"
            used = vm.ssh("yes text | head -c 16M >/root/text; sync; df --output=used -m /root | tail -1")
            assert int(used) >= 16
            zram = vm.ssh("cat /sys/block/zram0/mm_stat", check=False).split()
            assert bool(zram) == (kind == "erofs")
            assert not zram or int(zram[0]) > 8 * int(zram[2]), "compressed, beside what it took"
            told = site.status(kind)
            assert told["way"].startswith(f"in two stages as {kind}: needs "), told["way"]
            assert _in_one_stage(site) in told["way"], told["way"]
            assert MEMORY * 0.85 < told["memory"] < MEMORY * 1.1, "as wwclient told it"
            stages = dict.fromkeys(part["stage"] for part in site.status(kind)["boot"])
            way = [stage for stage in WAY if stage != "kmods" or kind == "squashfs"]
            assert [stage for stage in stages if stage in WAY] == way


def _assert_handed_over(vm: Vm, root: str, year: str) -> None:
    """The node runs with image and overlays as they are, and its own init found the card as if nobody had used it."""
    *said, by, clock, runtime, card, cards = vm.ssh(LOOK).split("\n", 11)
    assert said == [root, vm.name, "of the image", "of the overlay", "below a link", "usr/lib", "running"]
    assert (by, clock, runtime, card) == ("run-init", year, "/root/.ssh/authorized_keys", "down")
    addresses = {name: rest for name, *rest in map(str.split, cards.splitlines())}
    assert [rest for name, rest in addresses.items() if name != "lo"] == [["DOWN"]], cards


def _assert_attributes(vm: Vm) -> None:
    """Those that its root has a place for."""
    packed = vm.ssh("tar -C /opt/lab --xattrs --xattrs-include='*' -cf - attributes | base64")
    inside = base64.b64decode(packed)
    for name, value in ATTRIBUTES.items():
        if name != LOST.get(vm.name):
            assert pax.record(b"SCHILY.xattr." + name.encode(), value) in inside, name


def _in_one_stage(site: Laboratory, memory: int = MEMORY) -> str:
    """What the image would need, by what is shown of it."""
    one = _shown(site)["ways"][0]
    assert one["need"] > memory
    return f"; in one stage it would need {one['need']}"


def test_two_stage_tmpfs_outlives_a_server_that_is_killed_and_a_byte_that_is_wrong(site: Laboratory) -> None:
    """512 MiB, where one stage needs more and `auto` takes two; what tar makes of the files has their attributes. The
    clock of the machine says 1970."""
    site.add_node("tmpfs", 3, "--root", "tmpfs", "-O", "probe")
    site.wwfast("image", "build", "--format", "tmpfs", IMAGE, timeout=600)
    site.stop()
    site.configure(wwfast={"client rate": 2_500_000})  # a range of 4 MiB takes more than a second
    site.serve()
    archive, sizes = _archive(site)
    starts = {sum(sizes[:number]) for number in range(len(sizes))}
    flipped = sum(sizes) * 3 // 4
    _flip(archive, flipped)
    with site.machine("tmpfs", 3, memory=UNPACKED, extra=("-rtc", "base=1970-01-02")) as vm:
        assert site.server is not None
        way = site.wait_for(lambda: site.status("tmpfs"), lambda entry: "way" in entry, 300)["way"]
        assert way.startswith("in two stages as tmpfs: needs "), way
        assert _in_one_stage(site, UNPACKED) in way, way
        site.wait_for(lambda: _image(site), lambda part: part["bytes"] > 8 << 20 and part["bytes"] not in starts, 300)
        site.server.kill()
        site.server.wait()
        vm.wait(r"the image stopped at byte \d+, again after a pause", 60)
        site.configure()
        site.serve()
        site.wait_for(
            lambda: site.status("tmpfs"), lambda entry: "is not what was built" in entry.get("error", ""), 300
        )
        _flip(archive, flipped)
        vm.wait(timeout=400)
        stopped = {int(at) for at in re.findall(r"the image stopped at byte (\d+)", vm.console())}
        assert stopped - starts, "inside a piece"
        vm.wait_ssh()
        _assert_handed_over(vm, "tmpfs", "1970")
        assert "capable cap_net_raw=ep" in vm.ssh("getcap /opt/lab/capable")
        assert vm.ssh("stat -c '%s %b' /opt/lab/capable").split() == [str(HOLE), "0"]
        _assert_attributes(vm)
        assert vm.ssh("ls -A / /run | grep wwfast", check=False) == "", "nothing of stage-1 is left"
        assert vm.ssh("cat /proc/sys/kernel/randomize_va_space").strip() == "2"
    boot = site.status("tmpfs")["boot"]
    assert [part["stage"] for part in boot if part["stage"] in WAY] == ["image", "system", "runtime"], (
        "since the new server"
    )
    (image,) = [part for part in boot if part["stage"] == "image"]
    assert (image["outcome"], image["total"]) == ("done", sum(sizes))
    assert "is not what was built" in image["told"]


def test_two_stage_little_memory_is_told_before_the_image_and_in_one_stage_the_kernel_panics(site: Laboratory) -> None:
    """Two machines at their first boots, of whose memory nobody knows. Of the one stage-1 tells that it is too little,
    and the next script goes by that; the other has what a tmpfs takes in two stages, but is never to boot so."""
    site.add_node("little", 4, "--root", "squashfs")
    site.add_node("never", 5, "--root", "tmpfs", "--twostage", "never")
    site.wwfast("image", "build", IMAGE, timeout=600)
    with site.machine("little", 4, memory=LITTLE) as little, site.machine("never", 5, memory=UNPACKED) as never:
        stopped = little.wait(
            r"BOOT STOPPED: root squashfs of this image needs (\d+) MiB of memory and this .* (\d+)", 300
        )
        since = time.monotonic()
        assert int(stopped[2]) < LITTLE < int(stopped[1])
        entry = site.wait_for(lambda: site.status("little"), lambda entry: stopped[0] in entry.get("error", ""), 30)
        assert [part["stage"] for part in entry["boot"] if part["stage"] in WAY] == ["ipxe", "kernel", "stage1"]
        assert stopped[0] in site.wwfast("node", "status", "little", check=False).stdout.decode()
        never.wait("Initramfs unpacking failed: ", 240)
        never.wait("Kernel panic - not syncing: ", 120)
        assert "wwinit:" not in never.console()
        way = site.status("never")["way"]
        assert way.startswith("in one stage: needs "), way
        assert way.endswith(" MiB of a memory that it does not tell; two stage is never"), way
        # iPXE of the next boot shows the script that it got.
        little.wait(f"image {IMAGE} does not fit node little, which has ", 150, since=stopped.end())
        assert time.monotonic() - since < 150
        entry = site.wait_for(lambda: site.status("little"), lambda entry: "does not fit" in entry.get("error", ""), 30)
        assert [part["stage"] for part in entry["boot"] if part["stage"] in WAY] == ["ipxe"]


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
