"""What warewulf.conf said for Warewulf 4.3 to 4.5, and how the same is said since 4.6: a tree to a tree.

Source: the upgrade rules of Warewulf 4.6 (`wwctl upgrade config`).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

from wwfast.config.yaml import Tree

COMMAND = "wwfast upgrade config"
#: Places of old keys.
OLD_KEYS = {
    ("WW_INTERNAL",),
    ("ipv6net",),
    ("container mounts",),
    ("warewulf", "datastore"),
    ("warewulf", "syslog"),
    ("nfs", "exports"),
}
NOTHING: tuple[Tree, ...] = (None, "", [], {})  # what is written of a key that says nothing
OLD_EXPORT = {"mount", "mount options"}  # what an export said of its mount on the nodes


class Yielded(NamedTuple):
    """A value that was to be filled in at a place where another one stands."""

    place: str
    value: Tree
    stands: Tree


def fill(tree: dict[str, Any], given: Mapping[str, Tree]) -> list[Yielded]:
    """Put what is given where the tree says nothing, at every level; what says something stays, whatever it is."""
    yielded: list[Yielded] = []
    for key, value in given.items():
        there = tree.get(key)
        if there in NOTHING:
            tree[key] = copied(value)
        elif isinstance(value, dict) and isinstance(there, dict):
            yielded += [each._replace(place=f"{key}: {each.place}") for each in fill(there, value)]
        elif value not in (*NOTHING, there):
            yielded.append(Yielded(key, value, there))
    return yielded


def copied(tree: Any) -> Any:
    """With maps and lists of its own. What `yaml.load` returns holds no loops, for which `deepcopy` would look."""
    if isinstance(tree, dict):
        return {key: copied(value) for key, value in tree.items()}
    return [copied(value) for value in tree] if isinstance(tree, list) else tree


def parted(cidr: Tree) -> tuple[Tree, str]:
    """Address and prefix length or mask; what is no text is left whole."""
    if not isinstance(cidr, str):
        return cidr, ""
    address, _, bits = cidr.partition("/")
    return address, bits


def hint(path: tuple[str | int, ...]) -> str:
    """What to add to what is said of `path`: the way out where it is an old key, else nothing."""
    old = path in OLD_KEYS or (path[:2] == ("nfs", "export paths") and path[-1] in OLD_EXPORT)
    return f" - Warewulf before 4.6 wrote it so: {COMMAND}" if old else ""


def upgrade(old: dict[str, Tree]) -> tuple[dict[str, Tree], list[str]]:
    """The tree as it is said now, and what an admin should know, one line each."""
    tree: dict[str, Any] = copy.deepcopy(old)
    told: list[str] = []
    tree.pop("WW_INTERNAL", None)
    network = tree.pop("ipv6net", None)
    if network and not tree.get("ipaddr6"):
        address, _, bits = str(network).partition("/")
        tree["ipaddr6"] = address
        if bits and not tree.get("prefixlen6"):
            tree["prefixlen6"] = bits
    mounts = tree.pop("container mounts", None)
    if mounts and not tree.get("image mounts"):
        tree["image mounts"] = mounts
    server = section(tree, "warewulf")
    store = server.pop("datastore", None)
    if store and not section(tree, "paths").get("datadir"):
        tree["paths"] = {**section(tree, "paths"), "datadir": store}
    if server.pop("syslog", None) is not None:
        told.append("`warewulf: syslog` is gone: the journal has the log")
    exports(section(tree, "nfs"), told)
    return {key: value for key, value in tree.items() if value != {} or old.get(key) == {}}, told


def exports(nfs: dict[str, Any], told: list[str]) -> None:
    plain = nfs.pop("exports", None)
    if isinstance(plain, list):
        paths = nfs["export paths"] = list(nfs.get("export paths") or [])
        there = {each.get("path") for each in paths if isinstance(each, dict)}
        paths += [{"path": str(path)} for path in plain if path not in there]
    for export in nfs.get("export paths") or []:
        if isinstance(export, dict) and OLD_EXPORT & export.keys():
            for key in OLD_EXPORT & export.keys():
                del export[key]
            told.append(
                f"how nodes mount {export.get('path')} is a resource of nodes.conf now: `wwfast import warewulf` "
                "carries it over, and `wwfast upgrade nodes`, if it reads this file as it was"
            )


def mounts(conf: Tree) -> list[dict[str, str]]:
    """The fstab lines for the exports that an old warewulf.conf has its nodes mount."""
    nfs = section(conf, "nfs") if isinstance(conf, dict) else {}
    return [
        {"spec": f"warewulf:{export['path']}", "file": str(export["path"]), "vfstype": "nfs"}
        | ({"mntops": str(export["mount options"])} if export.get("mount options") else {})
        for export in nfs.get("export paths") or []
        if isinstance(export, dict) and export.get("path") and str(export.get("mount", "")).lower() == "true"
    ]


def section(tree: dict[str, Any], key: str) -> dict[str, Any]:
    """A section to change in place; an empty one that is nobody's where it is no map."""
    found = tree.get(key)
    return found if isinstance(found, dict) else {}
