"""What add, set and unset do to the tree of one entry. Nothing here reads a file or asks a person."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wwfast._ext.accept import accepts
from wwfast.config import checks
from wwfast.config.schema import Cleaner, Issue, Kind, plan
from wwfast.config.yaml import Tree
from wwfast.errors import NotFoundError, UsageError
from wwfast.nodes.edit.flags import DEFAULT, FAMILY_NOUN, Flag, Step, families, flags, name_checks
from wwfast.nodes.merge import SCHEMA
from wwfast.nodes.model import Node

CLEAR = ("UNDEF", "UNSET")
UNSPECIFIED = ("0.0.0.0", "::")
ADDRESSES = (checks.host, checks.host4, checks.host6, checks.mask)
PARTLABEL = "/dev/disk/by-partlabel/"


@dataclass(slots=True)
class Request:
    """What a command line asks for.

    `values`: flag name -> text or list (set), or True (unset). `names`: family -> the entity addressed.
    `add`, `delete`: tag flag (`tag`, `ipmitag`, `nettag`) -> pairs, keys. `remove`: family -> entity to take out.
    `unsaid`: flags that were given an address that is none, and change nothing.
    """

    values: dict[str, Any] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    add: dict[str, dict[str, str]] = field(default_factory=dict)
    delete: dict[str, list[str]] = field(default_factory=dict)
    remove: dict[str, str] = field(default_factory=dict)
    unsaid: list[str] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        return not (self.values or self.names or self.add or self.delete or self.remove)

    def given(self) -> list[Flag]:
        return [flag for flag in flags() if flag.name in self.values]


def normal(flag: Flag, value: Any) -> Any:
    """A value as it is stored: checked, booleans spelled true or false. Raises UsageError."""
    if flag.kind is Kind.LIST:
        if any(item in CLEAR for item in value) and len(value) > 1:
            raise UsageError(f"--{flag.name}: UNDEF clears the list, so nothing can stand beside it")
        for item in value:
            clear(flag, item)
        return [] if any(item in CLEAR for item in value) else [right(flag, flag.field.check, item) for item in value]
    text = str(value)
    if text in CLEAR or text == "":
        return ""
    if not flag.takes_bool:
        clear(flag, text)
        return right(flag, flag.field.check, text)
    if flag.kind is not Kind.BOOL and text.lower() in checks.UNSET:
        return text
    meant = checks.truth(text)
    if meant is None:
        raise UsageError(f"--{flag.name}: {checks.wwbool(text)}")
    return "true" if meant else "false"


def clear(flag: Flag, text: str) -> None:
    """Refuse a word that clears only in capitals: no value is called so. Raises UsageError."""
    if text not in CLEAR and text.upper() in CLEAR:
        raise UsageError(f"--{flag.name} {text} clears nothing: in capitals it does", hint=f"--{flag.name} UNDEF")


def right(flag: Flag, check: checks.Check, text: str) -> str:
    """A text that passes its check. Raises UsageError."""
    if wrong := check(text):
        raise UsageError(f"--{flag.name}: {wrong}", hint=f"UNDEF clears it, or: unset --{flag.name}")
    return text


def checked(request: Request, *, adding: bool) -> Request:
    """The request with selectors filled in and values in stored form. Raises UsageError when they do not fit."""
    used = {flag.family for flag in request.given()}
    names = request.names
    if "part" in used or ("part" in names and adding):
        if "disk" not in names:
            raise UsageError("a partition needs --diskname", hint="for example --diskname /dev/sda --partname root")
        if "part" not in names:
            raise UsageError("a partition needs --partname")
    if "disk" in used and "disk" not in names:
        raise UsageError("a disk needs --diskname", hint="for example --diskname /dev/sda")
    if "fs" in used and "fs" not in names:
        raise UsageError("a file system needs --fsname", hint="for example --fsname /dev/disk/by-partlabel/root")
    if "fs" in names and not names["fs"].startswith("/dev"):
        if names["fs"] != names.get("part"):
            raise UsageError(f"--fsname {names['fs']} is neither below /dev nor the name given by --partname")
        names["fs"] = PARTLABEL + names["fs"]
    idle(request, used)
    contrary(request, used)
    for flag in request.given():  # as in Warewulf, which takes them for no address at all
        if request.values[flag.name] in UNSPECIFIED and flag.field.check in ADDRESSES:
            del request.values[flag.name]
            request.unsaid.append(flag.name)
    request.values = {flag.name: normal(flag, request.values[flag.name]) for flag in request.given()}
    for name, tags in request.add.items():
        flag = next(flag for flag in flags() if flag.name == name)
        for key, value in tags.items():
            right(flag, flag.doc.names, key)
            right(flag, flag.field.check, value)
    for family, name in names.items():
        if wrong := name_checks()[family](name):
            raise UsageError(f"--{family}name: {wrong}")
    return request


def idle(request: Request, used: set[str]) -> None:
    """Refuse a selector that nothing is said about. Raises UsageError."""
    names = request.names
    used = used | ({"net"} if "nettag" in {*request.add, *request.delete} else set())
    if "part" in used | request.remove.keys() or ("part" in names and "disk" in names):
        used.add("disk")
    if "fs" in used and names.get("fs", "").startswith(PARTLABEL):
        used.add("part")
    for family, name in names.items():
        if family not in used:
            raise UsageError(
                f"--{family}name {name}: nothing is said about this {FAMILY_NOUN[family]}",
                hint=f"set or unset a field of it; unset --{family}name {name} removes it",
            )


def contrary(request: Request, used: set[str]) -> None:
    """Refuse to take out what is set at the same time. Raises UsageError."""
    said = used | ({"net"} if "nettag" in request.add else set()) | ({"disk"} if "part" in used else set())
    for family, name in request.remove.items():
        there = request.names.get(family) or DEFAULT.get(family)
        if family in said and there in (name, PARTLABEL + name):
            raise UsageError(f"--{family}del {name}: this {FAMILY_NOUN[family]} is set by the same command")


def apply(tree: dict[str, Any], request: Request) -> None:
    """Set what a checked request says. Order: values, removals, then tags, as in Warewulf."""
    for flag in request.given():
        put(tree, locate(flag.path, request.names), request.values[flag.name])
    for family in ("net", "part", "disk", "fs"):
        if family in request.remove:
            remove(tree, family, request.remove[family], request.names)
    for name, keys in request.delete.items():
        way = locate(tag_path(name), request.names)
        for key in keys:
            drop(tree, (*way, key))
    for name, pairs in request.add.items():
        way = locate(tag_path(name), request.names)
        for key, value in pairs.items():
            put(tree, (*way, key), value, keep_empty=True)


def unset(tree: dict[str, Any], request: Request) -> bool:
    """Clear what a request names; whether anything was there."""
    before = snapshot(tree)
    for flag in request.given():
        drop(tree, locate(flag.path, request.names))
    for name, keys in request.delete.items():
        way = locate(tag_path(name), request.names)
        for key in keys:
            drop(tree, (*way, key))
    for family, name in request.remove.items():
        try:
            remove(tree, family, name, request.names)
        except NotFoundError:
            if family == "part":
                raise
    return snapshot(tree) != before


def tag_path(name: str) -> tuple[Step, ...]:
    return next(flag.path for flag in flags() if flag.name == name)


def locate(path: tuple[Step, ...], names: Mapping[str, str]) -> tuple[str, ...]:
    """The keys to a value, selectors replaced by the names they have."""
    keys: list[str] = []
    for step in path:
        if not step.family:
            keys.append(step.key)
            continue
        name = names.get(step.family) or DEFAULT.get(step.family)
        if not name:
            raise UsageError(f"which {FAMILY_NOUN[step.family]}? name it with --{step.family}name")
        keys.append(name)
    return tuple(keys)


def put(tree: dict[str, Any], keys: tuple[str, ...], value: Any, *, keep_empty: bool = False) -> None:
    """Store a value, making the maps on the way; an empty value takes the key out."""
    if not keep_empty and value in ("", [], {}):
        drop(tree, keys)
        return
    here = tree
    for key in keys[:-1]:
        inner = here.get(key)
        if not isinstance(inner, dict):
            inner = here[key] = {}
        here = inner
    here[keys[-1]] = value


def drop(tree: dict[str, Any], keys: tuple[str, ...]) -> bool:
    """Take a key out, and the maps that are empty without it; whether it was there."""
    trail = [tree]
    for key in keys[:-1]:
        inner = trail[-1].get(key)
        if not isinstance(inner, dict):
            return False
        trail.append(inner)
    if keys[-1] not in trail[-1]:
        return False
    del trail[-1][keys[-1]]
    for parent, key, child in zip(trail[-2::-1], keys[-2::-1], trail[:0:-1], strict=True):
        if child:
            break
        del parent[key]
    return True


def remove(tree: dict[str, Any], family: str, name: str, names: Mapping[str, str]) -> None:
    """Take out one entity; a partition from the disk named, or from every disk that has it, and a file system by the
    name of its partition as well."""
    if family == "part":
        disks = [names["disk"]] if names.get("disk") else list(tree.get("disks") or {})
        found = [disk for disk in disks if drop(tree, ("disks", disk, "partitions", name))]
    else:
        there = (name, PARTLABEL + name) if family == "fs" else (name,)
        found = [next((each for each in there if drop(tree, (*locate(families()[family], names), each))), "")]
    if not any(found):
        raise NotFoundError(f"no {FAMILY_NOUN[family]} '{name}' here")


def laid(before: Tree, given: Tree) -> Tree:
    """An entry with another one laid over it: fields that are given overwrite, lists too, entries of maps are added,
    and nothing is cleared, as an import of Warewulf does it. Neither is changed."""
    if isinstance(before, dict) and isinstance(given, dict):
        fresh = {key: laid(before.get(key), value) for key, value in given.items() if value not in ("", [], {})}
        return {**before, **fresh}
    return given if before is None or given not in (None, "", [], {}) else before


def following(address: str, count: int) -> str:
    """The address `count` after this one. Raises UsageError past the end of the address space."""
    from ipaddress import AddressValueError, ip_address

    try:
        return str(ip_address(address) + count)
    except (AddressValueError, ValueError) as error:
        raise UsageError(f"cannot count {count} addresses up from {address}: {error}") from error


def leaves(tree: Any, above: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Every value of a tree by its keys; a list counts as one value."""
    if not isinstance(tree, dict) or not tree:
        return {above: tree} if above else {}
    found: dict[tuple[str, ...], Any] = {}
    for key, value in tree.items():
        found |= leaves(value, (*above, key))
    return found


def snapshot(tree: Any) -> dict[tuple[str, ...], Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in leaves(tree).items()}


def faults(before: Tree, after: Tree) -> list[Issue]:
    """What is wrong with the values that a change brings into an entry, whichever way it was written.

    What was wrong before is not said again.
    """
    if accepts(after, plan(Node)):  # of ten thousand new entries nearly all
        return []
    old, new = Cleaner(), Cleaner()
    old.struct(copy.deepcopy(before), SCHEMA, ())
    new.struct(copy.deepcopy(after), SCHEMA, ())
    known = set(old.issues)
    return [issue for issue in new.issues if issue not in known]


def spelled(keys: tuple[str, ...]) -> str:
    """`network devices[default].ipaddr`, `tags[x]`: how a change is shown."""
    out = ""
    bracket = False
    for key in keys:
        out += f"[{key}]" if bracket else f".{key}" if out else key
        bracket = not bracket and key in ("network devices", "disks", "partitions", "filesystems", "tags", "resources")
    return out
