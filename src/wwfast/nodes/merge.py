"""Profiles over profiles, the node over all: the effective node.

Trees here are cleaned (wwfast.config.schema.Cleaner): typed, no nulls, no unknown keys. The rules by kind: text wins
when not empty, booleans when set, lists are appended, maps united, structs merged field by field, free-form data
united recursively. After the merge `profiles` and `comment` are the node's own, `~item` takes items out of lists,
and one network device is the primary one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from wwfast.config.schema import Fields, Kind, fields
from wwfast.nodes.model import Node, mac

Own = dict[str, Any]
SCHEMA = fields(Node)


class MergeError(ValueError):
    """Two layers contradict each other in shape (a list over something that is none)."""


def expand(tokens: Iterable[str], profiles: Mapping[str, Own]) -> list[str]:
    """Profile ids in merge order: parents before children, each once, `~id` taking all `id` out.

    Ids without a definition stay in the list; the caller reports and skips them.
    """
    flat: list[str] = []
    seen: set[str] = set()

    def walk(words: Iterable[str]) -> None:
        for word in words:
            if word.startswith("~"):
                flat.append(word)
            elif word not in seen:
                seen.add(word)
                walk(profiles.get(word, {}).get("profiles", ()))
                flat.append(word)

    walk(tokens)
    return negate(flat)


def negate(items: list[str]) -> list[str]:
    """Every `~item` removes itself and all equal items, wherever they stand."""
    gone = {item[1:] for item in items if item[:1] == "~"}
    return [item for item in items if item[:1] != "~" and item not in gone] if gone else items


def over(base: Own, own: Own, schema: Fields = SCHEMA) -> Own:
    """`own` laid over `base`; neither is changed, parts of both are shared with the result."""
    out = base.copy()
    for key, value in own.items():
        out[key] = one(out.get(key), value, key, schema)
    return out


def one(before: Any, value: Any, key: str, schema: Fields) -> Any:
    """The value of one key after `value` was laid over `before` (None when there was none)."""
    if value.__class__ is str:
        return value or before or ""
    if before is None:
        return value
    spec = schema[key]
    if spec.kind is Kind.LIST:
        return before + value
    if spec.kind is Kind.TAGS:
        return {**before, **value}
    if spec.kind is Kind.STRUCT:
        assert spec.struct is not None
        return over(before, value, fields(spec.struct))
    if spec.kind is Kind.STRUCTS:
        assert spec.struct is not None
        inner = fields(spec.struct)
        united = before.copy()
        for name, item in value.items():
            united[name] = over(united[name], item, inner) if name in united else item
        return united
    if spec.kind is Kind.FREE:
        return free(before, value, key)
    return value


def free(before: Any, value: Any, name: str) -> Any:
    """Free-form data: maps united, lists appended, scalars and null replace, a map over a scalar is ignored."""
    if isinstance(value, dict):
        if not isinstance(before, dict):
            return value if before is None else before
        united = before.copy()
        for key, item in value.items():
            united[key] = free(united[key], item, key) if key in united else item
        return united
    if isinstance(value, list):
        if before is None:
            return value
        if not isinstance(before, list):
            raise MergeError(f"resource '{name}' is a list here, but not in a profile above")
        return before + value
    return value


class Base:
    """All profiles of one list of profile names, merged; `finished` has the negations applied."""

    __slots__ = ("chain", "finished", "raw")

    def __init__(self, chain: list[str], profiles: Mapping[str, Own]) -> None:
        self.chain = tuple(chain)
        raw: Own = {}
        for name in chain:
            if name in profiles:
                raw = over(raw, profiles[name])
        for key in ("profiles", "comment", "discoverable", "asset key"):
            raw.pop(key, None)
        self.raw = raw
        self.finished = {key: finish(key, value) for key, value in raw.items()}


def finish(key: str, value: Any) -> Any:
    """What happens to one key once all layers are merged."""
    if key in ("profiles", "runtime overlay", "system overlay"):
        return negate(value)
    if key == "kernel" and "args" in value:
        return {**value, "args": negate(value["args"])}
    if key == "disks":
        return {
            disk: {
                **it,
                "id": disk,
                "partitions": {label: {**part, "id": label} for label, part in it.get("partitions", {}).items()},
            }
            for disk, it in value.items()
        }
    if key == "filesystems":
        return {name: {**it, "id": name} for name, it in value.items()}
    if key == "network devices":
        return {name: {**it, "hwaddr": mac(it["hwaddr"])} if "hwaddr" in it else it for name, it in value.items()}
    return value


def resolve(name: str, own: Own, base: Base) -> Node:
    """The effective node. Raises MergeError."""
    raw, out = base.raw, base.finished.copy()
    for key, value in own.items():
        out[key] = finish(key, one(raw.get(key), value, key, SCHEMA))
    out["id"] = name
    devices = out.get("network devices")
    primary = out.get("primary network")
    if devices:
        if primary not in devices:
            primary = out["primary network"] = min(devices)
        out["network devices"] = devices = devices.copy()
        devices[primary] = {**devices[primary], "primary": True}
    return msgspec.convert(out, Node)
