"""Disks and file systems of a node as Ignition 3.1 JSON (https://coreos.github.io/ignition/configuration-v3_1/)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from wwfast.nodes.model import Disk, FileSystem, Partition
from wwfast.overlays.templates.faults import Refused

VERSION = "3.1.0"


def number(value: str, what: str) -> int | None:
    if not value:
        return None
    try:
        return int(value)
    except ValueError as error:
        raise Refused(f"ignition: {what} must be a whole number") from error


def partition(label: str, it: Partition) -> dict[str, Any]:
    return dropped(
        label=label,
        number=number(it.number, "number of a partition"),
        sizeMiB=number(it.size_mib, "size_mib of a partition"),
        startMiB=number(it.start_mib, "start_mib of a partition"),
        typeGuid=it.type_guid or None,
        guid=it.guid or None,
        shouldExist=it.should_exist,
        wipePartitionEntry=it.wipe_partition_entry,
        resize=it.resize,
    )


def order(it: dict[str, Any]) -> tuple[Any, ...]:
    """Numbered first, then those with a size, a partition that takes the rest last."""
    return (not it.get("number"), it.get("number", 0), not it.get("sizeMiB"), it.get("sizeMiB", 0), it["label"])


def filesystem(device: str, it: FileSystem) -> dict[str, Any]:
    return dropped(
        device=device,
        path=it.path or None,
        format=it.format or None,
        label=it.label or None,
        uuid=it.uuid or None,
        options=list(it.options) or None,
        mountOptions=[word for word in it.mount_options.replace(",", " ").split() if word] or None,
        wipeFilesystem=it.wipe_filesystem,
    )


def dropped(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def ignition_json(disks: Mapping[str, Disk], filesystems: Mapping[str, FileSystem]) -> str:
    """The document, or "" for a node with neither disks nor file systems."""
    if not disks and not filesystems:
        return ""
    storage: dict[str, Any] = {}
    if disks:
        storage["disks"] = [
            dropped(
                device=device,
                wipeTable=disk.wipe_table,
                partitions=sorted((partition(*each) for each in disk.partitions.items()), key=order) or None,
            )
            for device, disk in sorted(disks.items())
        ]
    if filesystems:
        storage["filesystems"] = [filesystem(*each) for each in sorted(filesystems.items())]
    return json.dumps({"ignition": {"version": VERSION}, "storage": storage}, indent=2)
