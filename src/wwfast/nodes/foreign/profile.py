"""What many nodes say, said once: values in common become a profile, and what a node gets from it leaves its entry.

A node takes the profile only when the two together say exactly what its entry said alone: when it has a value of its
own, the same or another, for all that the profile says. Nothing here looks at a file; trees are not changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from wwfast.config import checks
from wwfast.config.schema import Fields, Kind, fields
from wwfast.nodes.edit.change import put
from wwfast.nodes.merge import SCHEMA

SHARE = 0.8  # of the nodes: from there on a value is common
Path = tuple[str, ...]
Tree = dict[str, Any]
SETS = ("groups",)  # lists whose order says nothing: each item counts by itself
ADDRESSES = (checks.hwaddr, checks.host, checks.host4, checks.host6)
SHARED = ("gateway", "gateway6")  # addresses that are no node's own


def common(entries: Sequence[Tree]) -> Tree:
    """The profile that is worth making of these entries; {} when there is none, as for a single entry."""
    counts: dict[tuple[Path, Any], int] = {}
    for entry in entries:
        for path, value in said(entry):
            counts[path, value] = counts.get((path, value), 0) + 1
    least = max(2.0, SHARE * len(entries))
    best: dict[Path, tuple[int, Any]] = {}
    for (path, value), count in counts.items():
        if count >= least and count > best.get(path, (0, None))[0] and sharable(path):
            best[path] = count, value
    profile: Tree = {}
    members = list(entries)
    for path, (_, value) in sorted(best.items(), key=lambda item: -item[1][0]):
        staying = [entry for entry in members if has(entry, path, value)]
        if len(staying) >= least:
            members = staying
            add(profile, path, value)
    return profile


def said(entry: Tree) -> Iterable[tuple[Path, Any]]:
    """What an entry says, value by value: a list is one, but where its order says nothing."""
    pending: list[tuple[Path, Tree]] = [((), entry)]
    for above, tree in pending:  # which grows meanwhile
        for key, value in tree.items():
            if value.__class__ is dict:
                pending.append(((*above, key), value))
            elif not isinstance(value, list):
                yield (*above, key), value
            elif key in SETS and not above:
                yield from (((key, item), item) for item in value)
            else:
                yield (*above, key), tuple(value)


def sharable(path: Path) -> bool:
    """Whether a profile may say it: no node's own address, nothing that nodes do not inherit."""
    schema: Fields | None = SCHEMA
    spec = None
    for key in path:
        if schema is None:
            continue
        spec = schema.get(key)
        if spec is None:  # the name of a device, a tag
            continue
        if spec.doc.node_only or not spec.doc.inherit:
            return False
        schema = fields(spec.struct) if spec.struct is not None else None
    return spec is None or spec.doc.check not in ADDRESSES or path[-1] in SHARED


def add(profile: Tree, path: Path, value: Any) -> None:
    if path[0] in SETS:
        profile.setdefault(path[0], []).append(value)
    else:
        put(profile, path, list(value) if isinstance(value, tuple) else value)


def at(tree: Tree, path: Path) -> Any:
    here: Any = tree
    for key in path:
        if not isinstance(here, dict):
            return None
        here = here.get(key)
    return here


def has(entry: Tree, path: Path, value: Any) -> bool:
    """Whether an entry keeps its meaning below a profile that says `value` at `path`."""
    if path[0] in SETS:
        return value in (entry.get(path[0]) or ())
    mine = at(entry, path)
    if isinstance(value, tuple | list):  # appended: the profile's come first
        return isinstance(mine, list) and mine[: len(value)] == list(value)
    return mine is not None


def speaks(entry: Tree, path: Path) -> bool:
    return at(entry, path[:1] if path[0] in SETS else path) is not None


class Common:
    """A profile, new or one that is there, and who takes it.

    Of one that is there only what some of these entries speak of counts: the rest is the site's own, for whoever takes
    it. One entry is looked at for a few microseconds a value.
    """

    def __init__(self, profile: Tree, entries: Sequence[Tree]) -> None:
        self.tree = profile
        self._asked = [
            (path, value) for path, value in said(profile) if any(has(each, path, value) for each in entries)
        ]

    def fits(self, entry: Tree) -> bool:
        return bool(self._asked) and all(has(entry, path, value) for path, value in self._asked)

    def rest(self, entry: Tree) -> Tree:
        """What an entry still says below the profile."""
        return less(entry, self.tree, SCHEMA)


def less(entry: Tree, profile: Tree, schema: Fields | None) -> Tree:
    left: Tree = {}
    for key, value in entry.items():
        given = profile.get(key)
        spec = schema.get(key) if schema is not None else None
        if isinstance(value, dict) and isinstance(given, dict):
            inner = fields(spec.struct) if spec is not None and spec.struct is not None else None
            value = less(value, given, None if spec is not None and spec.kind is Kind.STRUCTS else inner)
            if not value:
                continue
        elif key in SETS and isinstance(given, list):
            value = [item for item in value if item not in given]
            if not value:
                continue
        elif isinstance(value, list) and isinstance(given, list):
            value = value[len(given) :]
            if not value:
                continue
        elif given == value:
            continue
        left[key] = value
    return left
