"""Profiles over profiles, the node over all: the effective node.

Trees here are cleaned (wwfast.config.schema.Cleaner): typed, no nulls, no unknown keys. The rules by kind: text wins
when not empty, booleans when set, lists are appended, maps united, structs merged field by field, free-form data
united recursively. After the merge `profiles` and `comment` are the node's own, `~item` takes items out of lists,
and one network device is the primary one.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

import msgspec
from msgspec.structs import force_setattr as set_

from wwfast.config.schema import Fields, Kind, fields
from wwfast.nodes.model import Ipmi, Kernel, NetDev, Node, mac

Own = dict[str, Any]
SCHEMA = fields(Node)
LEFT = "~all"  # of groups: which every node is in without saying so


def expand(tokens: Iterable[str], profiles: Mapping[str, Own]) -> list[str]:
    """Profile ids in merge order: parents before children, each once, `~id` taking all `id` out.

    Ids without a definition stay in the list; the caller reports and skips them.
    """
    flat: list[str] = []
    seen: set[str] = set()

    pending: list[tuple[str, Iterator[str]]] = [("", iter(tokens))]  # a profile, and its words still to come
    while pending:
        name, words = pending[-1]
        for word in words:
            if word.startswith("~"):
                flat.append(word)
            elif word not in seen:
                seen.add(word)
                pending.append((word, iter(profiles.get(word, {}).get("profiles", ()))))
                break
        else:
            pending.pop()
            flat += [name] if pending else []
    return negate(flat)


def negate(items: list[str]) -> list[str]:
    """Every `~item` removes itself and all equal items, wherever they stand."""
    gone = {item[1:] for item in items if item[:1] == "~"}
    return [item for item in items if item[:1] != "~" and item not in gone] if gone else items


def over(base: Own, own: Own, schema: Fields = SCHEMA) -> Own:
    """`own` laid over `base`; neither is changed, parts of both are shared with the result."""
    out = base.copy()
    for key, value in own.items():
        if value.__class__ is str:
            if value or key not in out:
                out[key] = value
        else:
            out[key] = one(out.get(key), value, key, schema)
    return out


def one(before: Any, value: Any, key: str, schema: Fields) -> Any:
    """The value of one key, no text, after `value` was laid over `before` (None when there was none)."""
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
        return free(before, value)
    return value


def free(before: Any, value: Any) -> Any:
    """Free-form data: maps united, lists appended; over another kind, and over a scalar, the later one replaces."""
    if isinstance(value, dict) and isinstance(before, dict):
        united = before.copy()
        for key, item in value.items():
            united[key] = free(united[key], item) if key in united else item
        return united
    if isinstance(value, list) and isinstance(before, list):
        return before + value
    return value


class Base:
    """All profiles of one list of profile names, merged: as trees, and as a node to copy that adds nothing."""

    __slots__ = ("chain", "devices", "fresh", "node", "raw")

    def __init__(self, chain: list[str], profiles: Mapping[str, Own]) -> None:
        self.chain = tuple(chain)
        raw: Own = {}
        for name in chain:
            if name in profiles:
                raw = over(raw, profiles[name])
        for key in ("profiles", "comment", "discoverable", "asset key"):
            raw.pop(key, None)
        self.raw = raw
        node = msgspec.convert({key: finish(key, value) for key, value in raw.items()}, Node)
        self.node = node
        self.fresh: Callable[[], Node] = cast(Any, node).__copy__
        self.devices: dict[str, Any] = finish("network devices", raw.get("network devices", {}))

    def changed(self, before: Base) -> frozenset[str]:
        """The keys that say something else than they did in `before`; 1 and true are not the same."""
        encode = msgspec.msgpack.Encoder(enc_hook=str).encode
        keys = {**self.raw, **before.raw}
        return frozenset(key for key in keys if encode(self.raw.get(key)) != encode(before.raw.get(key)))


def _groups(value: Any) -> Any:
    return negate(value) + [LEFT] * (LEFT in value)


def _kernel(value: Any) -> Any:
    return {**value, "args": negate(value["args"])} if "args" in value else value


def _disks(value: Any) -> Any:
    return {
        disk: {
            **it,
            "id": disk,
            "partitions": {label: {**part, "id": label} for label, part in it.get("partitions", {}).items()},
        }
        for disk, it in value.items()
    }


def _filesystems(value: Any) -> Any:
    return {name: {**it, "id": name} for name, it in value.items()}


def _devices(value: Any) -> Any:
    odd = {name: low for name, it in value.items() if "hwaddr" in it and (low := mac(it["hwaddr"])) != it["hwaddr"]}
    if not odd:
        return value
    return {
        name: {**it, "hwaddr": odd[name], "written": it["hwaddr"]} if name in odd else it for name, it in value.items()
    }


#: What happens to a key once all layers are merged.
FINISH: dict[str, Callable[[Any], Any]] = {
    "profiles": negate,
    "runtime overlay": negate,
    "system overlay": negate,
    "groups": _groups,
    "kernel": _kernel,
    "disks": _disks,
    "filesystems": _filesystems,
    "network devices": _devices,
}


def finish(key: str, value: Any) -> Any:
    act = FINISH.get(key)
    return act(value) if act else value


TAGS, LIST = Kind.TAGS, Kind.LIST
PLAIN: dict[str, type[msgspec.Struct]] = {"ipmi": Ipmi, "kernel": Kernel}  # structs whose keys are their attributes
TYPES = typing.get_type_hints(Node)


#: What is made of both, whether or not the node says something of it; and what is to fit together.
BUILT = {"network devices", "primary network", "root", "wwfast"}


def rebased(node: Node, own: Own, base: Base, changed: frozenset[str]) -> Node | None:
    """What `resolve` would give, of what it gave before `changed` of the base; None where both say something."""
    if not changed.isdisjoint(own):
        return None
    fresh: Node = cast(Any, node).__copy__()
    for key in changed:
        attr = SCHEMA[key].attr
        set_(fresh, attr, getattr(base.node, attr))
    return fresh


def resolve(name: str, own: Own, base: Base) -> Node:
    """The effective node: what it says itself, laid over `base`; the rest is shared with all nodes of that base."""
    raw, node = base.raw, base.fresh()
    devices, primary = base.devices, ""
    for key, value in own.items():
        spec = SCHEMA[key]
        if spec.is_text:
            if value:
                set_(node, spec.attr, value)
            continue
        before = raw.get(key)
        merged = value if before is None else one(before, value, key, SCHEMA)
        if spec.kind is TAGS:
            set_(node, spec.attr, merged)
            continue
        if act := FINISH.get(key):
            merged = act(merged)
        if key == "network devices":
            devices = merged
        elif spec.kind is LIST:
            set_(node, spec.attr, merged)
        elif key in PLAIN:
            set_(node, spec.attr, PLAIN[key](**merged))
        else:
            set_(node, spec.attr, msgspec.convert(merged, TYPES[spec.attr]))
    if devices:
        primary = node.primary_network
        if primary not in devices:
            primary = min(devices)
            set_(node, "primary_network", primary)
        built = {each: NetDev(**it) for each, it in devices.items()}
        set_(built[primary], "primary", True)
        set_(node, "network_devices", built)
    set_(node, "id", name)
    return node
