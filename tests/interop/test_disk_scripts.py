"""What wwinit.d makes of disks in every state, with the real sfdisk, mkfs and blkid on loop devices."""

from __future__ import annotations

import hashlib
import random
import re
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from support.loops import MIB, Disk, Machine, attached, seen, table
from wwfast.paths import Paths
from wwfast.system.run import run

TOOLS = ("sfdisk", "partx", "blkid", "wipefs", "mkfs.ext4", "mkfs.xfs", "mkfs.vfat", "mkswap", "losetup")
LACKING = [name for name in TOOLS if not shutil.which(name)]
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(bool(LACKING), reason=f"not installed: {' '.join(LACKING)} (fdisk, xfsprogs, dosfstools)"),
]
SIZE = re.compile(r'size= *(\d+).*name="([^"]*)"')
PARTS = "/dev/disk/by-partlabel"


@pytest.fixture
def machine(paths: Paths, tmp_path: Path) -> Iterator[Machine]:
    with attached(paths, tmp_path) as made:
        yield made


def node(disk: Disk, **more: Any) -> dict[str, Any]:
    """Root, data and swap on a disk."""
    return {
        "root": f"{PARTS}/root",
        "disks": {
            disk.name: {
                "partitions": {
                    "root": {"number": "1", "size_mib": "100"},
                    "data": {"size_mib": "60"},
                    "swap": {"size_mib": "40"},
                    "rest": {},
                },
                **more,
            }
        },
        "filesystems": {
            f"{PARTS}/root": {"format": "ext4", "path": "/"},
            f"{PARTS}/data": {"format": "ext4", "path": "/data", "label": "our data"},
            f"{PARTS}/swap": {"format": "swap", "label": "swap"},
        },
    }


def named(disk: Disk) -> list[tuple[str, str]]:
    """Sectors and name of each partition."""
    return [(match[1], match[2]) for match in map(SIZE.search, table(disk)) if match]


@contextmanager
def mounted(device: str, place: Path) -> Iterator[Path]:
    place.mkdir(exist_ok=True)
    run(["mount", device, place])
    yield place
    run(["umount", place])


def contents(disk: Disk, start: int = 0, end: int | None = None) -> str:
    """A digest of a stretch, in MiB."""
    run(["sync", disk.file])
    with disk.file.open("rb") as file:
        file.seek(start * MIB)
        return hashlib.sha256(file.read((end or disk.size) * MIB - start * MIB)).hexdigest()


@pytest.mark.parametrize("shell", ["dash", "bash", "busybox sh"])
def test_disk_that_is_blank_is_partitioned_and_formatted_once(machine: Machine, tmp_path: Path, shell: str) -> None:
    disk = machine.disk(256)
    assert machine.boot(node(disk), shell=shell), machine.said
    assert named(disk) == [
        ("204800", "root"),
        ("122880", "data"),
        ("81920", "swap"),
        (str(256 * 2048 - 2048 - 204800 - 122880 - 81920 - 2048), "rest"),
    ]
    kinds = [(seen(disk.part(number), "TYPE"), seen(disk.part(number), "LABEL")) for number in (1, 2, 3, 4)]
    assert kinds == [("ext4", ""), ("ext4", "our data"), ("swap", "swap"), ("", "")]
    with mounted(disk.part(2), tmp_path / "at") as at:
        (at / "kept").write_text("for ever")
    before = contents(disk, 0, 1), contents(disk, 101)
    assert machine.boot(node(disk), shell=shell), machine.said
    assert "making" not in machine.said
    assert "partition" not in machine.said
    assert (contents(disk, 0, 1), contents(disk, 101)) == before, "nothing but the root was written to"


def tool(*words: str) -> Callable[[Disk], None]:
    return lambda disk: print(run([*words, disk.name]))


def script(text: str) -> Callable[[Disk], None]:
    return lambda disk: print(run(["sfdisk", "-q", "--no-tell-kernel", disk.name], input=text.encode()))


def bytes_at(at: int, data: bytes) -> Callable[[Disk], None]:
    """Signatures whose programs this machine may not have."""

    def put(disk: Disk) -> None:
        with Path(disk.name).open("r+b") as file:
            file.seek(at)
            file.write(data)

    return put


def both(*makers: Callable[[Disk], None]) -> Callable[[Disk], None]:
    return lambda disk: print([make(disk) for make in makers])


def lvm() -> bytes:
    """Label of a physical volume, as vgck wants it: its CRC begins elsewhere than that of zlib."""
    checked = struct.pack("<I8s32s", 32, b"LVM2 001", b"x" * 32).ljust(512 - 20, b"\0")
    return b"LABELONE" + struct.pack("<QI", 1, zlib.crc32(checked, 0xF597A6CF ^ 0xFFFFFFFF) ^ 0xFFFFFFFF) + checked


def raid() -> bytes:
    """Superblock 1.2 of md (struct mdp_superblock_1)."""
    block = bytearray(256)
    struct.pack_into("<4I16s32s", block, 0, 0xA92B4EFC, 1, 0, 0, bytes(range(16)), b"host:0")
    struct.pack_into("<Q", block, 144, 8)  # where it is, in sectors
    total = sum(struct.unpack("<64I", block))
    struct.pack_into("<I", block, 216, (total & 0xFFFFFFFF) + (total >> 32))
    return bytes(block)


FOREIGN = {
    "ext4": (tool("mkfs.ext4", "-q", "-F", "-L", "precious"), r"a file system \(ext4, label precious\)"),
    "vfat": (tool("mkfs.vfat", "-I"), r"a file system \(vfat\)"),
    "swap": (tool("mkswap"), "swap space"),
    "dos": (script("label: dos\n,50M\n"), r"a partition table \(dos\)"),
    "LVM": (lambda disk: bytes_at(512, lvm())(disk), "a physical volume of LVM"),
    "RAID": (lambda disk: bytes_at(4096, raid())(disk), r"a part of a RAID \(md\)"),
    "LUKS": (bytes_at(0, b"LUKS\xba\xbe\0\1".ljust(592, b"\0")), "encrypted volume"),
    "several": (both(tool("mkfs.ext4", "-q", "-F"), bytes_at(0, b"hsqs")), "several things at once"),
    "of another system": (
        script('label: gpt\nname="EFI", size=50M\nname="ubuntu"\n'),
        'partition 1 "root" of \\S+ is called "EFI"',
    ),
    "too large": (script('label: gpt\nname="root", size=120M\n'), '"root" of \\S+ has 120 MiB and should have 100MiB'),
    "other number": (script('label: gpt\n3 : name="root", size=100M\n'), "is number 3 and should be 1"),
    "other name": (script('label: gpt\nname="data", size=100M\n'), 'is called "data"'),
}


@pytest.mark.parametrize("state", FOREIGN)
def test_disk_that_holds_something_else_stops_the_boot_unless_it_is_to_be_wiped(machine: Machine, state: str) -> None:
    disk = machine.disk(256)
    make, said = FOREIGN[state]
    make(disk)
    before = contents(disk)
    assert not machine.boot(node(disk))
    assert re.search(said, machine.why), machine.why
    assert disk.name in machine.why
    assert contents(disk) == before, "nothing was written"
    assert machine.boot(node(disk, wipe_table=True)), machine.said
    assert len(table(disk)) == 4
    before = contents(disk, 0, 1), contents(disk, 101)
    assert machine.boot(node(disk, wipe_table=True)), machine.said
    assert (contents(disk, 0, 1), contents(disk, 101)) == before, "what is right is not wiped, whatever the order"


@pytest.mark.parametrize("state", ["LVM", "RAID", "LUKS", "swap", "vfat"])
def test_disk_partition_that_holds_something_else_stops_the_boot(machine: Machine, state: str) -> None:
    disk = machine.disk(256)
    assert machine.boot(node(disk)), machine.said
    data = Disk(disk.file, disk.size)
    data.name = disk.part(2)
    run(["wipefs", "-q", "-a", data.name])
    make, said = FOREIGN[state]
    make(data)
    before = contents(disk, 101)
    assert not machine.boot({**node(disk), "root": "tmpfs"})
    assert re.search(rf"\({data.name}\) holds .*{said.removeprefix('an ')}", machine.why), machine.why
    assert contents(disk, 101) == before, "nothing was written"


def test_disk_root_is_mounted_with_the_options_that_are_wanted(machine: Machine) -> None:
    disk = machine.disk(256)
    wanted = {"root": disk.name, "filesystems": {disk.name: {"format": "ext4", "mount_options": "noatime,commit=7"}}}
    told = machine.place / "mounted"
    assert machine.boot(wanted, tools={"mount": f'echo "$*" > {told}; exec /usr/bin/mount "$@"'}), machine.said
    assert f"-o noatime,commit=7 {disk.name} " in told.read_text()


def test_disk_of_somebody_else_gets_no_partitions_added(machine: Machine) -> None:
    disk = machine.disk(256)
    script('label: gpt\nname="EFI", size=50M\nname="ubuntu", size=50M\n')(disk)
    wanted = {"disks": {disk.name: {"partitions": {"data": {"size_mib": "20"}}}}}
    assert not machine.boot(wanted)
    assert f'{disk.name} has partitions and none that is wanted: "EFI" "ubuntu"' in machine.why
    wanted["disks"][disk.name]["partitions"]["ubuntu"] = {}
    assert machine.boot(wanted), machine.said
    assert [name for _, name in named(disk)] == ["EFI", "ubuntu", "data"]


def test_disk_that_is_too_small_or_read_only_or_absent_stops_the_boot(machine: Machine) -> None:
    small = machine.disk(128)
    assert not machine.boot(node(small))
    assert machine.why == f"{small.name} has 128 MiB, and the partitions that are wanted on it take 202"
    assert seen(small.name, "PTTYPE") == ""
    fixed = machine.disk(256, readonly=True)
    assert not machine.boot(node(fixed))
    assert machine.why == f"{fixed.name} is read-only, and its partitions are to be changed"
    assert not machine.boot({"root": "LABEL=nowhere"})
    assert machine.why == (f"there is no LABEL=nowhere; this node has {small.name} (128 MiB) {fixed.name} (256 MiB)")


def test_disks_whose_names_swap_are_told_by_what_is_on_them(machine: Machine, tmp_path: Path) -> None:
    first, second = machine.disk(256), machine.disk(300)
    names = first.name, second.name
    wanted = node(first)
    del wanted["filesystems"][f"{PARTS}/root"]
    wanted["filesystems"][second.name] = {"format": "ext4", "label": "the root", "path": "/"}
    wanted["root"] = "LABEL=the root"
    assert machine.boot(wanted), machine.said
    with mounted(first.part(2), tmp_path / "at") as at:
        (at / "kept").write_text("for ever")
    machine.renamed()
    assert (second.name, first.name) == names
    assert not machine.boot(wanted), "by name they are the wrong ones"
    assert "a file system (ext4, label the root), and a partition table (gpt) is wanted" in machine.why
    del wanted["disks"], wanted["filesystems"][names[1]]
    assert machine.boot(wanted), machine.said
    with mounted(first.part(2), tmp_path / "at") as at:
        assert (at / "kept").read_text() == "for ever"
    uuid = seen(second.name, "UUID")
    for root in (f"UUID={uuid}", f"/dev/disk/by-uuid/{uuid}", "/dev/disk/by-label/the\\x20root", second.name):
        assert machine.boot({"root": root}), machine.said


def test_disk_by_a_name_that_two_have_stops_the_boot(machine: Machine) -> None:
    first, second = machine.disk(256), machine.disk(256)
    assert machine.boot(node(first)), machine.said
    for _ in range(2):
        assert not machine.boot({**node(second), "root": "tmpfs"})
        assert machine.why == f"{PARTS}/data may be any of these: {first.part(2)} {second.part(2)}"


KINDS = {
    "ext2": {"label": "x y", "uuid": "3A2B0A4C-9E5A-4C0B-8D5E-0123456789AB", "options": ["-m", "0"]},
    "ext3": {},
    "xfs": {"label": "a-label", "uuid": "3a2b0a4c-9e5a-4c0b-8d5e-0123456789ab"},
    "vfat": {"label": "BOOT", "uuid": "ABCD-1234"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_disk_gets_a_file_system_of_this_kind_as_it_is_described(machine: Machine, kind: str) -> None:
    disk = machine.disk(400)
    wanted = {"filesystems": {disk.name: {"format": kind, **KINDS[kind]}}}
    assert machine.boot(wanted), machine.said
    assert seen(disk.name, "TYPE") == kind
    assert seen(disk.name, "LABEL") == KINDS[kind].get("label", "")
    assert seen(disk.name, "UUID").lower() == str(KINDS[kind].get("uuid", seen(disk.name, "UUID"))).lower()
    before = contents(disk)
    assert machine.boot(wanted), machine.said
    assert contents(disk) == before
    wanted["filesystems"][disk.name]["label"] = "OTHER"
    assert not machine.boot(wanted)
    assert f"({kind}" in machine.why
    assert ", label OTHER" in machine.why
    assert contents(disk) == before
    wanted["filesystems"][disk.name]["wipe_filesystem"] = True
    for _ in range(2):
        assert machine.boot(wanted), machine.said
        assert f"making {kind}" in machine.said
        assert seen(disk.name, "LABEL") == "OTHER"


#: Where it is to write, and not where it is asked.
FAILS = (
    'case "$*" in *--dump* | *--noheadings*) exec "/usr/sbin/${0##*/}" "$@" ;; esac; echo lots; echo no room; exit 1'
)


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("mkfs.ext4", "mkfs.ext4 fails on {part}: no room"),
        ("e2label", "e2label fails on {part}: no room"),
        ("wipefs", "{part} cannot be written: no room"),
        ("sfdisk", "cannot be made on {disk}, which has 256 MiB: no room"),
    ],
)
def test_disk_tool_that_fails_stops_the_boot_and_the_next_one_does_it(
    machine: Machine, program: str, said: str
) -> None:
    disk = machine.disk(256)
    assert not machine.boot(node(disk), tools={program: FAILS})
    assert said.format(part=disk.part(2), disk=disk.name) in machine.why
    assert machine.boot(node(disk)), machine.said
    assert seen(disk.part(2), "LABEL") == "our data"


def test_disk_tool_that_is_missing_is_named(machine: Machine) -> None:
    disk = machine.disk(256)
    assert not machine.boot({"filesystems": {disk.name: {"format": "f2fs9"}}})
    assert machine.why.startswith(f"there is no mkfs.f2fs9 here to make f2fs9 on {disk.name}")


def test_disk_root_is_made_anew_and_files_of_others_are_not(machine: Machine, tmp_path: Path) -> None:
    disk = machine.disk(256)
    wanted = {"root": disk.name}
    assert machine.boot(wanted), machine.said
    assert seen(disk.name, "TYPE") == "ext4"
    with mounted(disk.name, tmp_path / "at") as at:
        for name in ("usr/bin/sh", ".hidden", "..odd", "with space/x"):
            (at / name).parent.mkdir(parents=True, exist_ok=True)
            (at / name).write_text("of the last boot")
        (at / "dangling").symlink_to("nowhere")
        (at / "outside").symlink_to(tmp_path / "paths")
    assert machine.boot(wanted), machine.said
    with mounted(disk.name, tmp_path / "at") as at:
        assert [entry.name for entry in at.iterdir()] == [".wwfast-root"]
        (at / ".wwfast-root").unlink()
        (at / "thesis").write_text("ten years")
    assert not machine.boot(wanted)
    assert "a file system (ext4) with files of somebody else, as thesis;" in machine.why
    with mounted(disk.name, tmp_path / "at") as at:
        assert (at / "thesis").read_text() == "ten years"
    wanted["filesystems"] = {disk.name: {"format": "ext4", "wipe_filesystem": True}}  # type: ignore[assignment]
    assert machine.boot(wanted), machine.said


def test_disk_root_that_is_updated_loses_nothing_whoever_boots_it(machine: Machine, tmp_path: Path) -> None:
    """Stage-1 that can update it says WWKEEP; in one stage the image goes over it, and it is not whole any more."""
    disk = machine.disk(256)
    updated = {"root": disk.name, "wwfast": {"disk root": "update"}}
    assert machine.boot(updated), machine.said
    with mounted(disk.name, tmp_path / "at") as at:
        (at / ".wwfast-kept").mkdir()
        (at / "data").touch()
    for shell, whole in (("env WWKEEP=1 sh", True), ("sh", False)):
        with mounted(disk.name, tmp_path / "at") as at:
            (at / ".wwfast-kept/whole").touch()
        assert machine.boot(updated, shell=shell), machine.said
        assert ("nothing is taken off the root" in machine.said) == (not whole)
        with mounted(disk.name, tmp_path / "at") as at:
            assert (at / "data").exists()
            assert (at / ".wwfast-kept/whole").exists() == whole
    assert machine.boot({"root": disk.name}, shell="env WWKEEP=1 sh"), machine.said
    with mounted(disk.name, tmp_path / "at") as at:
        assert [entry.name for entry in at.iterdir()] == [".wwfast-root"]


def test_disk_root_of_an_earlier_version_is_unpacked_over(machine: Machine, tmp_path: Path) -> None:
    disk = machine.disk(256)
    tool("mkfs.ext4", "-q", "-F")(disk)
    with mounted(disk.name, tmp_path / "at") as at:
        (at / "warewulf").mkdir()
        (at / "warewulf/config").write_text("WWROOT=x\n")
        (at / "thesis").write_text("ten years")
    for _ in range(2):
        assert machine.boot({"root": disk.name}), machine.said
        assert "after `touch /.wwfast-root` on the node each boot makes it anew" in machine.said
        with mounted(disk.name, tmp_path / "at") as at:
            assert sorted(entry.name for entry in at.iterdir()) == ["lost+found", "thesis", "warewulf"]
    with mounted(disk.name, tmp_path / "at") as at:
        (at / ".wwfast-root").touch()
    assert machine.boot({"root": disk.name}), machine.said
    with mounted(disk.name, tmp_path / "at") as at:
        assert [entry.name for entry in at.iterdir()] == [".wwfast-root"]


def test_disk_root_that_is_damaged_or_no_file_system_stops_the_boot(machine: Machine) -> None:
    disk = machine.disk(256)
    tool("mkswap")(disk)
    assert not machine.boot({"root": disk.name})
    assert f"{disk.name} ({disk.name}) is to be the root and holds swap space" in machine.why
    tool("mkfs.ext4", "-q", "-F")(disk)
    bytes_at(1024 + 0x20, bytes(8))(disk)  # blocks of a group, none
    assert not machine.boot({"root": disk.name})
    assert f"{disk.name} ({disk.name}) is to be the root and holds a file system (ext4) that cannot" in machine.why
    run(["wipefs", "-a", disk.name])
    damaged = bytearray(lvm())
    damaged[40] ^= 1
    bytes_at(512, bytes(damaged))(disk)
    assert not machine.boot({"root": disk.name})
    assert "is to be the root and holds something damaged (LVM2_member);" in machine.why


def test_disk_partitions_are_added_deleted_grown_and_made_anew_by_order(machine: Machine, tmp_path: Path) -> None:
    disk = machine.disk(256)
    wanted = node(disk)
    parts = wanted["disks"][disk.name]["partitions"]
    del parts["rest"], parts["swap"], wanted["filesystems"][f"{PARTS}/swap"]
    assert machine.boot(wanted), machine.said
    with mounted(disk.part(2), tmp_path / "at") as at:
        (at / "kept").write_text("for ever")
    parts["data"]["size_mib"] = "80"
    assert not machine.boot(wanted)
    assert 'partition "data" of ' in machine.why
    assert "has 60 MiB and should have 80MiB" in machine.why
    parts["data"]["resize"] = True
    assert machine.boot(wanted), machine.said
    assert machine.boot(wanted), machine.said
    parts["later"] = {"number": "7", "size_mib": "10", "type_guid": "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"}
    assert machine.boot(wanted), machine.said
    assert named(disk) == [
        ("204800", "root"),
        ("163840", "data"),
        ("20480", "later"),
    ]
    assert "7 :" in table(disk)[2]
    parts["later"]["should_exist"] = False
    assert not machine.boot(wanted)
    assert "is there and should not exist" in machine.why
    parts["later"]["wipe_partition_entry"] = True
    assert machine.boot(wanted), machine.said
    assert len(table(disk)) == 2
    with mounted(disk.part(2), tmp_path / "at") as at:
        assert (at / "kept").read_text() == "for ever"
    parts["data"] = {"size_mib": "30", "wipe_partition_entry": True}
    assert machine.boot(wanted), machine.said
    assert seen(disk.part(2), "LABEL") == "our data"
    with mounted(disk.part(2), tmp_path / "at") as at:
        assert not (at / "kept").exists()


def test_disk_resources_of_warewulf_are_used_where_a_node_has_no_disks(machine: Machine) -> None:
    disk, other = machine.disk(256), machine.disk(64)
    resources = {
        "sfdisk": [
            {
                "device": disk.name,
                "label": "gpt",
                "label-id": "3A2B0A4C-9E5A-4C0B-8D5E-0123456789AB",
                "partitions": [
                    {"device": f"{disk.name}p1", "name": "one", "size": "50MiB", "type": "linux"},
                    {"name": "two", "size": 204800, "attrs": "RequiredPartition"},
                ],
            },
            {"device": other.name, "label": "dos", "partitions": [{"size": "20MiB", "bootable": True}, {"type": "82"}]},
        ],
        "mkfs": [{"device": f"{PARTS}/one", "type": "ext4", "options": "-m 0 -O ^has_journal", "size": "20M"}],
        "mkswap": [{"device": other.part(2), "label": "swap"}],
    }
    for _ in range(2):
        assert machine.boot({"resources": resources}), machine.said
    assert seen(disk.name, "PTUUID").upper() == "3A2B0A4C-9E5A-4C0B-8D5E-0123456789AB"
    assert named(disk) == [("102400", "one"), ("204800", "two")]
    assert "bootable" in table(other)[0]
    assert (seen(disk.part(1), "TYPE"), seen(other.part(2), "TYPE")) == ("ext4", "swap")
    assert re.search(rb"Block count: +20480\n", run(["dumpe2fs", "-h", disk.part(1)]).stdout)
    assert "made" not in machine.said


CUT = """\
kill=$(cat {count})
if [ "$kill" -gt 0 ]; then echo $((kill - 1)) > {count}; exec "{real}" "$@"; fi
before() {{ pid=$(ps -o ppid= -p "$1"); echo $pid; }}
kill -9 "$PPID" "$(before "$PPID")"
"""


@pytest.mark.parametrize("steps", range(0, 16, 3))
def test_disk_work_that_is_cut_before_any_program_is_ended_by_the_next_boot(
    machine: Machine, tmp_path: Path, steps: int
) -> None:
    """What is killed with the shell that called it: programs that write, one after another."""
    disk = machine.disk(256)
    count = tmp_path / "count"
    count.write_text(f"{steps}\n")
    tools = {
        name: CUT.format(count=count, real=shutil.which(name))
        for name in ("sfdisk", "partx", "sync", "mkfs.ext4", "e2label", "mkswap", "mount")
    }
    machine.boot(node(disk), tools=tools)
    assert machine.boot(node(disk)), machine.said
    assert [seen(disk.part(number), "LABEL") for number in (1, 2, 3)] == ["", "our data", "swap"]
    for number in (1, 2):
        run(["e2fsck", "-fn", disk.part(number)])


@pytest.mark.slow
def test_disk_that_lost_power_with_part_of_it_written_is_made_again(machine: Machine, tmp_path: Path) -> None:
    """A disk writes blocks in any order: of what a step changed some are new and some old."""
    disk = machine.disk(256)
    states: list[bytes] = [disk.file.read_bytes()]
    copy = f"""\
"/usr/sbin/${{0##*/}}" "$@" || exit
sync {disk.file}
cp {disk.file} {tmp_path}/state.$(ls {tmp_path} | wc -l)
"""
    wanted = node(disk)
    assert machine.boot(wanted, tools=dict.fromkeys(("sfdisk", "mkfs.ext4", "e2label", "mkswap"), copy)), machine.said
    files = sorted(tmp_path.glob("state.*"), key=lambda path: int(path.suffix[1:]))
    states += [path.read_bytes() for path in files]
    assert len(states) == 7
    drawn = random.Random(1)
    for old, new in pairwise(states):
        blocks = [at for at in range(0, len(new), 4096) if new[at : at + 4096] != old[at : at + 4096]]
        for share in (0.2, 0.8):
            torn = bytearray(old)
            for at in blocks:
                if drawn.random() < share:
                    torn[at : at + 4096] = new[at : at + 4096]
            disk.detach()
            disk.file.write_bytes(torn)
            disk.attach()
            wanted["disks"] = {disk.name: next(iter(wanted["disks"].values()))}
            assert machine.boot(wanted), machine.said
            assert [name for _, name in named(disk)] == ["root", "data", "swap", "rest"]
            assert [seen(disk.part(number), "LABEL") for number in (1, 2, 3)] == ["", "our data", "swap"]
            for number in (1, 2):
                run(["e2fsck", "-fn", disk.part(number)])


def test_disk_whose_table_is_damaged_in_one_copy_is_mended(machine: Machine, tmp_path: Path) -> None:
    disk = machine.disk(256)
    assert machine.boot(node(disk)), machine.said
    with mounted(disk.part(2), tmp_path / "at") as at:
        (at / "kept").write_text("for ever")
    before = table(disk)
    for at, size in ((512, 1), (1024, 1), (256 * MIB - 512, 1), (256 * MIB - 33 * 512, 1)):
        bytes_at(at, b"\xff" * size)(disk)
        assert machine.boot(node(disk)), machine.said
        assert "damaged in one copy" in machine.said
        assert not run(["sfdisk", "--verify", disk.name]).stderr
        assert table(disk) == before
    with mounted(disk.part(2), tmp_path / "at") as at:
        assert (at / "kept").read_text() == "for ever"


@pytest.mark.parametrize("cleared", [512, 34 * 512, MIB])
def test_disk_whose_table_is_the_copy_at_its_end_alone_loses_nothing(machine: Machine, cleared: int) -> None:
    disk = machine.disk(256)

    def lose_the_beginning() -> str:
        bytes_at(0, bytes(cleared))(disk)
        disk.detach()
        disk.attach()
        return contents(disk, 1, 255)

    assert machine.boot({**node(disk), "root": "tmpfs"}), machine.said
    before = lose_the_beginning()
    assert machine.boot({**node(disk), "root": "tmpfs"}), machine.said
    assert "damaged in one copy" in machine.said or cleared == 512
    assert not run(["sfdisk", "--verify", disk.name]).stderr
    assert contents(disk, 1, 255) == before

    script('label: gpt\nname="EFI", start=4MiB, size=50M\nname="ubuntu"\n')(disk)
    run(["mkfs.ext4", "-q", "-F", disk.part(2)])
    before = lose_the_beginning()
    for wanted in ({"root": disk.name}, {"filesystems": {disk.name: {"format": "ext4"}}}):
        assert not machine.boot(wanted)
        assert "something damaged (gpt" in machine.why
    assert not machine.boot(node(disk))
    assert 'is called "EFI"' in machine.why
    assert contents(disk, 1, 255) == before

    bytes_at(512, bytes(MIB - 512))(disk)
    bytes_at(255 * MIB, bytes(MIB))(disk)
    assert not machine.boot(node(disk)), "what protects a table is there, and no table"
    assert "something damaged (PMBR)" in machine.why
    assert contents(disk, 1, 255) == before


def test_disk_partition_that_starts_at_0_is_where_there_is_room(machine: Machine) -> None:
    disk = machine.disk(64)
    parts = {"one": {"number": "1", "start_mib": "0", "size_mib": "10"}, "two": {"start_mib": "0"}}
    for _ in range(2):
        assert machine.boot({"disks": {disk.name: {"partitions": parts}}}), machine.said
    assert [name for _, name in named(disk)] == ["one", "two"]


@pytest.mark.parametrize(
    ("kind", "most"), [("ext4", 16), ("xfs", 12), ("swap", 15), ("vfat", 11), ("btrfs", 255), ("msdos", 11)]
)
def test_disk_label_that_the_format_cannot_hold_is_told_before_anything_is_made(
    machine: Machine, kind: str, most: int
) -> None:
    disk = machine.disk(400)
    wanted = {"filesystems": {disk.name: {"format": kind, "label": "L" * (most + 1)}}}
    assert not machine.boot(wanted)
    assert f"has {most + 1} bytes, and {kind.replace('msdos', 'vfat')} takes no more than {most}" in machine.why
    assert contents(disk) == hashlib.sha256(bytes(400 * MIB)).hexdigest()
    if kind == "btrfs" and not shutil.which("mkfs.btrfs"):
        return
    wanted["filesystems"][disk.name]["label"] = "L" * most
    for _ in range(2):
        assert machine.boot(wanted), machine.said
    assert seen(disk.name, "LABEL") == "L" * most


def test_disk_with_vfat_by_another_name_and_way_to_write_its_id_is_right(machine: Machine) -> None:
    disk = machine.disk(64)
    wanted = {"filesystems": {disk.name: {"format": "fat", "uuid": "1234abcd"}}}
    for _ in range(2):
        assert machine.boot(wanted), machine.said
    assert "making" not in machine.said
    assert (seen(disk.name, "TYPE"), seen(disk.name, "UUID")) == ("vfat", "1234-ABCD")


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("ext4", ["-m", "0", "-L", "scratch"]),
        ("ext4", ["-Lscratch", "-m", "0"]),
        ("xfs", ["-L scratch"]),
        ("swap", ["-L", "scratch"]),
        ("vfat", ["-n", "scratch", "-F", "32"]),
    ],
)
def test_disk_label_among_the_options_is_one(machine: Machine, kind: str, options: list[str]) -> None:
    disk = machine.disk(400)
    wanted = {"filesystems": {disk.name: {"format": kind, "options": options}}}
    for _ in range(2):
        assert machine.boot(wanted), machine.said
        assert seen(disk.name, "LABEL") == "scratch"
    assert "making" not in machine.said


@pytest.mark.parametrize("name", ["a$b", "a`b", 'a"b', "a\\b", "größe"])
def test_disk_partition_with_a_name_that_sfdisk_writes_otherwise_is_refused(machine: Machine, name: str) -> None:
    disk = machine.disk(64)
    assert not machine.boot({"disks": {disk.name: {"partitions": {name: {}}}}})
    assert f"the partition {name} of {disk.name} can have ASCII in its name" in machine.why
    assert seen(disk.name, "PTTYPE") == ""
    parts = {"with blank ~!#%&'()*+,-.:;<=>?@[]^": {}}
    for _ in range(2):
        assert machine.boot({"disks": {disk.name: {"partitions": parts}}}), machine.said
    assert [called for _, called in named(disk)] == list(parts)


def test_disk_by_two_paths_is_one(machine: Machine) -> None:
    disk, again = machine.disk(256), machine.disk(256)
    assert machine.boot({**node(disk), "root": "tmpfs"}), machine.said
    run(["sync", disk.file])
    shutil.copyfile(disk.file, again.file)
    again.detach()
    again.attach()
    wanted = {"root": f"PARTUUID={seen(disk.part(1), 'PART_ENTRY_UUID')}"}
    assert not machine.boot(wanted)
    assert "may be any of these" in machine.why
    real = shutil.which("cat")
    world = f"""case $1 in {{}}) echo naa.600508b1001c ;; *) exec {real} "$@" ;; esac"""
    assert not machine.boot(wanted, tools={"cat": world.format(f"*/{Path(disk.name).name}/device/wwid")})
    assert machine.boot(wanted, tools={"cat": world.format("*/device/wwid")}), machine.said
