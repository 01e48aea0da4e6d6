"""Laying overlays over each other: the rules of stacking, on a dictionary instead of a directory.

A stack maps paths to entries; applying an item changes it as the same steps would change a directory. What a class of
items adds to the stack without it is `difference`: so an archive can be cut into parts that many nodes share.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from wwfast.errors import ConfigError
from wwfast.overlays.files.model import DIRECTORY, FILE, LINK, Item

BACKUP = ".wwbackup"


class Entry(NamedTuple):
    """One path in the node: `content` is data of a file, a target, or the overlay file that holds the data."""

    kind: str
    mode: int
    uid: int
    gid: int
    content: bytes | StaticContent = b""


class StaticContent(NamedTuple):
    """A file of an overlay, compared by digest and read only when packed."""

    digest: bytes
    source: str


class Output(NamedTuple):
    """One output of a template: path relative to the root of the node, data of a file or target of a link."""

    path: str
    kind: str
    content: bytes
    backup: bool
    make_parents: bool = False


class Rendered(NamedTuple):
    """A template and what it produced."""

    item: Item
    overlay: str
    outputs: Sequence[Output]


Stack = dict[str, Entry]


def apply_static(stack: Stack, item: Item, overlay: str) -> None:
    """A directory, a symbolic link or a file without template."""
    path = item.path
    old = stack.get(path)
    if item.kind == DIRECTORY:
        if old is not None and old.kind != DIRECTORY:
            raise clash(overlay, path, "is a directory here, but an overlay below it has", old)
        mode = old.mode if old is not None else item.mode
        stack[path] = Entry(DIRECTORY, mode, item.uid, item.gid)
        return
    if old is not None and old.kind == DIRECTORY:
        raise clash(overlay, path, f"is a {item.kind} here, but an overlay below it has", old)
    if item.kind == LINK:
        if old is not None:
            stack.setdefault(path + BACKUP, old)
        stack[path] = Entry(LINK, item.mode, item.uid, item.gid, os.fsencode(item.target))
        return
    mode = old.mode if old is not None and old.kind == FILE else item.mode
    stack[path] = Entry(FILE, mode, item.uid, item.gid, StaticContent(item.digest, str(item.source)))


def apply_rendered(stack: Stack, rendered: Rendered) -> None:
    """The outputs of one template, in their order."""
    item = rendered.item
    for output in rendered.outputs:
        path = output.path
        if output.make_parents:
            make_parents(stack, path, rendered)
        old = stack.get(path)
        if old is not None and old.kind == DIRECTORY:
            raise clash(rendered.overlay, path, f"is a {output.kind} here, but there is already", old)
        if output.kind == LINK:
            # The same overlay may come to a node by two profiles: the same link twice is one link.
            if old is not None and (old.kind != LINK or old.content != output.content):
                raise clash(rendered.overlay, path, "becomes a link here, but there is already", old)
            stack[path] = Entry(LINK, 0o777, item.uid, item.gid, output.content)
            continue
        if old is not None and output.backup:
            stack.setdefault(path + BACKUP, old)
        mode = old.mode if old is not None and old.kind == FILE else item.mode
        stack[path] = Entry(FILE, mode, item.uid, item.gid, output.content)


def make_parents(stack: Stack, path: str, rendered: Rendered) -> None:
    """Directories for an absolute output name, with the mode and owner of the template's own directory."""
    pieces = path.split("/")[:-1]
    own = stack.get(rendered.item.path.rpartition("/")[0])
    mode, uid, gid = (own.mode, own.uid, own.gid) if own is not None else (0o755, 0, 0)
    for depth in range(1, len(pieces) + 1):
        parent = "/".join(pieces[:depth])
        old = stack.get(parent)
        if old is None:
            stack[parent] = Entry(DIRECTORY, mode, uid, gid)
        elif old.kind == FILE:
            raise clash(rendered.overlay, path, f"needs the directory {parent}, but there is", old)


def apply(stack: Stack, items: Iterable[tuple[str, Item] | Rendered]) -> Stack:
    """Apply (overlay, item) pairs and rendered templates in their order."""
    for each in items:
        if isinstance(each, Rendered):
            apply_rendered(stack, each)
        else:
            apply_static(stack, each[1], each[0])
    return stack


def difference(new: Stack, old: Stack) -> list[tuple[str, Entry]]:
    """What `new` has beyond `old`, parents first. `old` is that stack with fewer items: adding one removes nothing."""
    return sorted((path, entry) for path, entry in new.items() if old.get(path) != entry)


def clash(overlay: str, path: str, what: str, old: Entry) -> ConfigError:
    kind = {DIRECTORY: "a directory", FILE: "a file", LINK: "a symbolic link"}[old.kind]
    return ConfigError(
        f"overlay {overlay}: /{path} {what} {kind}", hint="rename one of them, or take one overlay from the list"
    )
