"""Disks by the overlay `ignition` where there is no Ignition, as in stage-1: with the real tools on loop devices."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.loops import Disk, Machine, attached, seen, table
from support.shipped import lay
from wwfast.paths import Paths

TOOLS = ("sfdisk", "partx", "blkid", "wipefs", "mkfs.ext4", "mkswap", "losetup")
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not all(map(shutil.which, TOOLS)), reason=f"not all of these: {' '.join(TOOLS)}"),
    pytest.mark.skipif(shutil.which("ignition") is not None, reason="this machine has ignition"),
]
OVERLAYS = ("wwinit", "ignition")
PARTS = "/dev/disk/by-partlabel"
RAID = [{"name": "data", "level": "raid1", "devices": ["/dev/vda", "/dev/vdb"]}]


@pytest.fixture
def machine(paths: Paths, tmp_path: Path) -> Iterator[Machine]:
    with attached(paths, tmp_path) as made:
        yield made


def fields(disk: Disk) -> dict[str, Any]:
    """As nodes.conf has it."""
    partitions = {
        "root": {"number": "1", "size_mib": "100", "type_guid": "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"},
        "data": {"size_mib": "60", "start_mib": "120"},
        "swap": {"size_mib": "40"},
        "rest": {},
    }
    filesystems = {
        f"{PARTS}/data": {"format": "ext4", "path": "/data", "label": "our data", "options": ["-m", "0"]},
        f"{PARTS}/swap": {"format": "swap", "label": "swap"},
    }
    return {"disks": {disk.name: {"partitions": partitions}}, "filesystems": filesystems}


def document(disk: Disk, **storage: Any) -> dict[str, Any]:
    """The same as a resource: as documents of Ignition are written, with nulls, in any order, numbers as numbers."""
    partitions = [
        {"label": "rest", "number": 0, "sizeMiB": None, "startMiB": 0},
        {"label": "data", "sizeMiB": 60, "startMiB": 120},
        {"label": "root", "number": 1, "sizeMiB": 100, "typeGuid": "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"},
        {"label": "swap", "sizeMiB": 40, "wipePartitionEntry": None, "shouldExist": None},
    ]
    filesystems = [
        {"device": f"{PARTS}/swap", "format": "swap", "label": "swap", "path": None},
        {"device": f"{PARTS}/data", "format": "ext4", "path": "/data", "label": "our data", "options": ["-m", "0"]},
    ]
    made = {"disks": [{"device": disk.name, "wipeTable": False, "partitions": partitions}], "filesystems": filesystems}
    return {"resources": {"ignition": {"ignition": {"version": "3.1.0"}, "storage": made | storage}}}


def made(disk: Disk) -> list[object]:
    """What is on the disk, but for ids by chance."""
    lines = [line.partition("uuid=")[0] + line.partition("name=")[2] for line in table(disk)]
    return [*lines, *((seen(disk.part(it), "TYPE"), seen(disk.part(it), "LABEL")) for it in (1, 2, 3, 4))]


def test_disk_of_a_resource_of_ignition_is_as_by_fields(machine: Machine) -> None:
    """So both are alike in stage-1 and where the image has none; a second boot makes nothing."""
    results = []
    for wanted in (fields, document):
        disk = machine.disk(256)
        assert machine.boot(wanted(disk), overlays=OVERLAYS), machine.said
        results.append(made(disk))
        machine.close()
        machine.disks.clear()
    assert len(table(disk.attach())) == 4
    machine.disks.append(disk)
    assert results[0] == results[1]
    assert machine.boot(document(disk), overlays=OVERLAYS), machine.said
    assert "there is no ignition here: the disks are prepared without it" in machine.said
    assert "making" not in machine.said
    assert "partitioning" not in machine.said


def test_disk_of_a_resource_of_ignition_has_the_units_of_one_by_fields(paths: Paths) -> None:
    disk = Disk(paths.root / "none", 0, name="/dev/vda")

    def units(entry: dict[str, Any]) -> dict[str, tuple[str, str | None]]:
        files = lay(paths, ["ignition"], {"n1": entry})["n1"]
        return {path: (it.text, it.link) for path, it in files.items() if path.startswith("etc/")}

    by_fields = units(fields(disk))
    assert "etc/systemd/system/local-fs.target.wants/data.mount" in by_fields
    assert units(document(disk)) == by_fields


def test_disk_of_a_resource_of_ignition_is_wiped_by_its_order_alone(machine: Machine) -> None:
    disk = machine.disk(256)
    assert machine.boot(fields(disk), overlays=OVERLAYS), machine.said
    other = [{"label": "one", "number": 1, "sizeMiB": 200}]
    wanted = [{"device": disk.name, "partitions": other}]
    assert not machine.boot(document(disk, disks=wanted, filesystems=[]), overlays=OVERLAYS)
    assert 'is called "root"' in machine.why
    wanted[0]["wipeTable"] = True
    assert machine.boot(document(disk, disks=wanted, filesystems=None), overlays=OVERLAYS), machine.said
    assert [line.partition("name=")[2] for line in table(disk)] == ['"one"']
    label = {"device": f"{PARTS}/one", "format": "ext4", "label": "first", "wipeFilesystem": True}
    for _ in range(2):
        assert machine.boot(document(disk, disks=None, filesystems=[label]), overlays=OVERLAYS), machine.said
        assert "making ext4" in machine.said


@pytest.mark.parametrize(
    "storage", [{"raid": RAID}, {"luks": [{"name": "x"}]}, {"disks": [], "filesystems": []}], ids=str
)
def test_disk_of_a_resource_that_ignition_alone_can_make_stops_the_boot(
    machine: Machine, storage: dict[str, Any]
) -> None:
    """Before anything is written."""
    disk = machine.disk(64)
    assert not machine.boot(document(disk, **storage), overlays=OVERLAYS)
    assert machine.why.startswith("the image has no ignition, and the resource `ignition` of this node has more than")
    assert table(disk) == []
    assert machine.boot(fields(disk) | {"filesystems": {}} | document(disk, **storage), overlays=OVERLAYS) is False
    assert "take" in machine.why, "disks of nodes.conf stand before a resource"


def test_disk_is_prepared_by_the_overlay_ignition_where_there_is_no_ignition(machine: Machine) -> None:
    disk = machine.disk(256)
    assert machine.boot(fields(disk), overlays=OVERLAYS), machine.said
    assert [seen(disk.part(number), "TYPE") for number in (1, 2, 3, 4)] == ["", "ext4", "swap", ""]
    assert machine.boot(fields(disk), overlays=OVERLAYS), machine.said
    assert "making" not in machine.said
    assert machine.boot(fields(disk), overlays=("wwinit", "ignition", "sfdisk")), machine.said
    assert "without it" not in machine.said
