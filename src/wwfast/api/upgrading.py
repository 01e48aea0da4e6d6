"""nodes.conf and warewulf.conf of Warewulf 4.3 to 4.5 as they are said since 4.6: the texts, with their comments."""

from __future__ import annotations

from wwfast.config import former, yaml
from wwfast.config.schema import fields
from wwfast.config.settings import Settings
from wwfast.config.yaml import Tree
from wwfast.errors import ConfigError
from wwfast.nodes import hostlist
from wwfast.nodes.edit.store import Draft
from wwfast.nodes.former import Upgrade
from wwfast.nodes.text.patch import Awkward, rewrite
from wwfast.nodes.text.source import NODES, NOUN, PROFILES, Source


def edit(run: Upgrade, draft: Draft) -> None:
    """A change of nodes.conf: every entry that is said otherwise now."""
    run.told.clear()
    for section, entries in run.entries(draft.source.trees).items():
        for name, tree in entries.items():
            if tree != draft.written(section, name):
                draft.put(section, name, tree)


def leaving(data: bytes, name: str, fresh: Source) -> list[str]:
    """Which entries of nodes.conf are not in what takes its place, one line a section."""
    try:
        trees = Source.parse(data, name).trees
    except ConfigError:  # what cannot be read has no nodes, and may be why it is replaced
        return []
    gone = {section: [each for each in trees[section] if each not in fresh.trees[section]] for section in trees}
    return [
        f"{NOUN[section]} {hostlist.compress(gone[section])} goes: it is not in {fresh.name}"
        for section in (PROFILES, NODES)
        if gone[section]
    ]


def conf_tree(data: bytes, name: str) -> dict[str, Tree]:
    """What warewulf.conf says. Raises ConfigError, naming the file, for what is none."""
    tree = yaml.load(data, name) or {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{name}: is no map of keys, so no warewulf.conf")
    return tree


def conf(data: bytes, name: str) -> tuple[bytes, list[str]]:
    """Its text as it is said now, and what an admin should know. Raises ConfigError."""
    tree = conf_tree(data, name)
    made, told = former.upgrade(tree)
    return said(data, name, tree, made), told


def said(data: bytes, name: str, tree: dict[str, Tree], made: dict[str, Tree]) -> bytes:
    """The text `data` of `tree`, saying `made`: what stays the same stays as it is written."""
    if made == tree:
        return data
    try:
        fresh = rewrite(data.decode(), tree, made, fields(Settings)).encode()
    except Awkward:
        fresh = b""
    if yaml.load(fresh, name) != (made or None):  # an unusual form: written anew, as Warewulf does
        fresh = yaml.dump(made).encode()
    return fresh
