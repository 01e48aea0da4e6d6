"""What the list commands print."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from wwfast.cli.output import table
from wwfast.config import yaml
from wwfast.config.schema import Fields, Kind, fields
from wwfast.nodes import groups, trace
from wwfast.nodes.merge import SCHEMA
from wwfast.nodes.model import Ipmi, Node
from wwfast.nodes.registry import Problem, Snapshot
from wwfast.nodes.text.source import NODES, PROFILES


def select(snapshot: Snapshot, patterns: Sequence[str]) -> tuple[list[Node], list[str]]:
    """Effective nodes by hostlists, groups and globs (`*`, `?`), by name, all without a pattern; and what means no
    entry, usable or not."""
    if not patterns:
        return sorted(snapshot.nodes.values(), key=lambda node: node.id), []
    names, lost = groups.meant(patterns, snapshot.source.trees[NODES], lambda: snapshot)
    return [node for name in sorted(names) if (node := snapshot.nodes.get(name)) is not None], lost


def unusable(snapshot: Snapshot, patterns: Sequence[str]) -> list[Problem]:
    """What keeps nodes out of those that `select` just found: the first of each entry that cannot be used."""
    first: dict[str, Problem] = {}
    for problem in snapshot.found_problems():
        if problem.fatal and problem.kind == "node" and (not patterns or problem.id in snapshot.asked):
            first.setdefault(problem.id, problem)
    return list(first.values())


NO_IPMI = Ipmi()
Table = tuple[tuple[str, ...], list[tuple[str, ...]]]  # header, rows


def short(nodes: Iterable[Node]) -> Table:
    return ("NODE NAME", "PROFILES", "NETWORK"), [
        (node.id, ",".join(node.profiles), ", ".join(sorted(node.network_devices))) for node in nodes
    ]


def long(nodes: Iterable[Node]) -> Table:
    return ("NODE NAME", "KERNEL VERSION", "IMAGE", "OVERLAYS (S/R)"), [
        (it.id, it.kernel.version, it.image_name, f"{','.join(it.system_overlay)}/{','.join(it.runtime_overlay)}")
        for it in nodes
    ]


def net(nodes: Iterable[Node]) -> Table:
    """A node without a device has a row all the same."""
    rows: list[tuple[str, ...]] = []
    for node in nodes:
        rows += [
            (node.id, name, it.written or it.hwaddr, it.ipaddr or "<nil>", it.gateway or "<nil>", it.device)
            for name, it in sorted(node.network_devices.items())
        ] or [(node.id, "", "", "", "", "")]
    return ("NODE", "NETWORK", "HWADDR", "IPADDR", "GATEWAY", "DEVICE"), rows


def ipmi(nodes: Iterable[Node]) -> Table:
    return ("NODE", "IPMI IPADDR", "IPMI PORT", "IPMI USERNAME", "IPMI INTERFACE"), [
        (
            it.id,
            it.ipmi.ipaddr or ("<nil>" if it.ipmi != NO_IPMI else ""),
            it.ipmi.port,
            it.ipmi.username,
            it.ipmi.interface,
        )
        for it in nodes
    ]


def kernel(nodes: Iterable[Node]) -> Table:
    return ("NODE", "KERNEL OVERRIDE", "KERNEL VERSION", "KERNEL ARGS"), [
        (it.id, it.kernel.override, it.kernel.version, " ".join(it.kernel.args)) for it in nodes
    ]


TABLES: dict[str, Callable[[Iterable[Node]], Table]] = {
    "short": short,
    "long": long,
    "net": net,
    "ipmi": ipmi,
    "kernel": kernel,
}


def everything(snapshot: Snapshot, nodes: Iterable[Node]) -> None:
    rows = []
    for node in nodes:
        layers = [(name, snapshot.own(PROFILES, name)) for name in snapshot.chain(node.id) if name in snapshot.profiles]
        layers.append((node.id, snapshot.own(NODES, node.id)))
        rows += [(node.id, *row) for row in trace.rows(layers, node.primary_network)]
    table(("NODE", "FIELD", "PROFILE", "VALUE"), rows)


def plain(node: Node) -> dict[str, Any]:
    """What is set in an effective node, by YAML key; hardware addresses as they were written."""
    tree = msgspec.to_builtins(node)
    for device in tree.get("network devices", {}).values():
        device["hwaddr"] = device.get("written") or device.get("hwaddr", "")
    return declared(tree, SCHEMA)


def declared(tree: dict[str, Any], schema: Fields) -> dict[str, Any]:
    """Without computed fields and empty parts."""
    out: dict[str, Any] = {}
    for key, value in tree.items():
        spec = schema.get(key)
        if spec is None:
            continue
        if spec.kind is Kind.STRUCT and spec.struct is not None:
            value = declared(value, fields(spec.struct))
        elif spec.kind is Kind.STRUCTS and spec.struct is not None:
            value = {name: declared(item, fields(spec.struct)) for name, item in value.items()}
        if value not in ("", [], {}):
            out[key] = value
    return out


def as_json(entries: dict[str, Any]) -> None:
    """With the key `onbot` beside `onboot`, as Warewulf spells it in JSON."""
    import sys

    for entry in entries.values():
        for name, device in entry.get("network devices", {}).items():
            if isinstance(device, dict) and "onboot" in device:
                entry["network devices"][name] = {**device, "onbot": device["onboot"]}
    sys.stdout.write(json.dumps(entries, indent=2, ensure_ascii=False, default=str) + "\n")


def as_yaml(entries: dict[str, Any]) -> None:
    import sys

    sys.stdout.write(yaml.dump(entries))


def profiles(snapshot: Snapshot, names: Sequence[str]) -> None:
    table(
        ("PROFILE NAME", "COMMENT/DESCRIPTION"),
        [(name, snapshot.own(PROFILES, name).get("comment", "")) for name in names],
    )


def profiles_all(snapshot: Snapshot, names: Sequence[str]) -> None:
    """Every field, also empty ones; those of a kernel, BMC, device, disk or file system where the profile has one."""
    table(
        ("PROFILE", "FIELD", "VALUE"),
        [(name, *row) for name in names for row in trace.whole(snapshot.own(PROFILES, name))],
    )
