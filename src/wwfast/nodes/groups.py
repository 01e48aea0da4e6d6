"""Groups: the `groups` of nodes and profiles, and `@name` in a hostlist for the nodes of one.

A list is merged as others are: appended, `~name` takes one out. Every node is in the group `all`; `~all` takes it out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from wwfast.nodes import hostlist
from wwfast.nodes.merge import LEFT

if TYPE_CHECKING:
    from wwfast.nodes.registry import Snapshot

MARK, ALL = "@", "all"


def members(snapshot: Snapshot) -> dict[str, list[str]]:
    """Ids of nodes by group, both in order of their names."""
    found: dict[str, list[str]] = {ALL: []}
    for name, node in sorted(snapshot.nodes.items()):
        own = dict.fromkeys(group for group in node.groups if group != LEFT)
        for group in own if LEFT in node.groups else own | {ALL: None}:
            found.setdefault(group, []).append(name)
    return dict(sorted(found.items()))


def expand(words: Iterable[str], snapshot: Callable[[], Snapshot], warn: Callable[[str], None]) -> list[str]:
    """Names of hostlists, with the members of a group for `@group`; an unknown one is told and is nothing."""
    names = hostlist.expand(words)
    if not any(name.startswith(MARK) for name in names):
        return names
    known, found = members(snapshot()), list[str]()
    for name in names:
        if not name.startswith(MARK):
            found.append(name)
        elif name[1:] in known:
            found += known[name[1:]]
        else:
            warn(f"no group '{name[1:]}'")
    return found
