"""What warewulf.conf said for Warewulf 4.3 to 4.5, and how the same is said since 4.6: a tree to a tree.

Source: the upgrade rules of Warewulf 4.6 (`wwctl upgrade config`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from wwfast.config import checks
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


def gave_way(old: str, value: Tree, place: str, stands: Tree) -> str:
    """What to tell of an old key whose value was not carried over for what stands at the new place."""
    before, after = (old, place) if old.endswith("password") else (f"{old}: {value}", f"{place}: {stands}")
    return f"`{before}` gave way to `{after}`"


def upgrade(old: dict[str, Tree]) -> tuple[dict[str, Tree], list[str]]:
    """The tree as it is said now, and what an admin should know, one line each."""
    tree: dict[str, Any] = copied(old)
    told: list[str] = []
    tree.pop("WW_INTERNAL", None)
    network6(tree, told)
    mounts = tree.pop("container mounts", None)
    join(tree, "image mounts", "container mounts", mounts if isinstance(mounts, list) else [mounts], told)
    server = section(tree, "warewulf")
    store = server.pop("datastore", None)
    if store and fits("warewulf: datastore", store, checks.absolute, told):
        for key, _, stands in fill(tree, {"paths": {"datadir": store}}):
            told.append(gave_way("warewulf: datastore", store, key, stands))
    if server.pop("syslog", None) is not None:
        told.append("`warewulf: syslog` is gone: the journal has the log")
    exports(section(tree, "nfs"), told)
    return {key: value for key, value in tree.items() if value != {} or old.get(key) == {}}, told


def network6(tree: dict[str, Any], told: list[str]) -> None:
    """`ipv6net` is an address and the length of its prefix now; the length is that of the address that is there."""
    network = tree.pop("ipv6net", None)
    if not network or not fits("ipv6net", network, checks.cidr6, told):
        return
    address, bits = parted(network)
    stands = tree.get("ipaddr6")
    own, length = parted(stands)
    if own in NOTHING:
        tree["ipaddr6"] = address
    elif length not in ("", bits) or not within(own, network):
        told.append(gave_way("ipv6net", network, "ipaddr6", stands))
        return
    for key, _, there in fill(tree, {"prefixlen6": bits}) if bits and not length else ():
        told.append(gave_way("ipv6net", network, key, there))


def within(address: Tree, network: Tree) -> bool:
    from ipaddress import ip_address, ip_network  # here: 2 ms that few sites need

    try:
        return ip_address(str(address)) in ip_network(str(network), strict=False)
    except ValueError:
        return False


def fits(old: str, value: Tree, check: checks.Check, told: list[str]) -> bool:
    """Whether a value may be carried over: one that is wrong did no harm under its old key, and would under the new."""
    wrong = check(str(value))
    if wrong:
        told.append(f"`{old}` is gone: {wrong}")
    return not wrong


def join(tree: dict[str, Any], key: str, old: str, items: list[Any], told: list[str]) -> None:
    """Add maps to the list of such at `key`, those of another place or path than all that are there."""
    items = [item for item in items if item not in NOTHING]
    there = tree.get(key) or []
    if items and not isinstance(there, list):
        told.append(gave_way(old, items, key, there))
        return
    known = {place(each): each for each in there if isinstance(each, dict)}
    for item in items:
        if not isinstance(item, dict):
            told.append(f"`{old}: {item}` is gone: it is no map of keys")
        elif (same := known.setdefault(place(item), item)) is item:
            tree[key] = there = [*there, item]
        elif {**same, **item} != same:
            told.append(gave_way(old, item, key, same))


def place(item: dict[str, Any]) -> str:
    """Where a mount or an export is: no two are in one place."""
    return str(item.get("dest") or item.get("source") or item.get("path"))


def listed(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def exports(nfs: dict[str, Any], told: list[str]) -> None:
    plain = nfs.pop("exports", None)
    paths = listed(plain) if isinstance(plain, str) else plain if isinstance(plain, list) else [plain] if plain else []
    right = dict.fromkeys(str(path) for path in paths if fits("nfs: exports", path, checks.absolute, told))
    join(nfs, "export paths", "nfs: exports", [{"path": path} for path in right], told)
    for export in nfs.get("export paths") or ():
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
