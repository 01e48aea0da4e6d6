"""Groups: the `groups` of nodes and profiles, and `@name` in a hostlist for the nodes of one.

A list is merged as others are: appended, `~name` takes one out. Every node is in the group `all`; `~all` takes it out.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from wwfast.config.words import globbed
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


def meant(
    words: Iterable[str], there: Collection[str], snapshot: Callable[[], Snapshot], *, globs: bool = True
) -> tuple[list[str], list[str]]:
    """Which of the ids `there` these words mean, each once and as they are written; and what means none.

    A word is an id as it stands, also one that cannot be a name (`n[1-3]`, `a,b`, `@x`) and is to be got rid of, or a
    hostlist of ids, of groups and, with `globs`, of patterns (`*`, `?`).
    """
    found: dict[str, None] = {}
    lost: dict[str, None] = {}
    known: dict[str, list[str]] | None = None
    for word in words:
        for name in [word] if word in there else hostlist.expand([word]) or [word]:
            if name in there:
                found[name] = None
            elif name.startswith(MARK):
                known = members(snapshot()) if known is None else known
                (lost if name[1:] not in known else found).update(dict.fromkeys(known.get(name[1:], [name])))
            elif globs and globbed(name) and (those := fnmatch.filter(there, name)):
                found.update(dict.fromkeys(those))
            else:
                lost[name] = None
    return list(found), list(lost)


def unknown(lost: Sequence[str], noun: str = "node") -> str:
    """What means nothing, in words."""
    kind = "group" if noun == "node" and lost[0].startswith(MARK) else noun
    shown = ", ".join(repr(name.removeprefix(MARK) if kind == "group" else name) for name in lost[:5])
    more = f" and {len(lost) - 5} more" if len(lost) > 5 else ""
    why = ": groups are of nodes alone" if noun == "profile" and lost[0].startswith(MARK) else ""
    return f"no {kind} {shown}{more}{why}"
