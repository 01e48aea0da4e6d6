"""What templates see of a node, the cluster, the settings and the build; and digests of the parts they read."""

from __future__ import annotations

import operator
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import xxhash

from wwfast.config.settings import Settings
from wwfast.nodes.model import Disk, Ipmi, NetDev, Node
from wwfast.overlays.analysis import NODE_FIELDS, WHOLE, Read

SERVER = (
    "ipaddr",
    "ip_cidr",
    "netmask",
    "network",
    "network_cidr",
    "ipaddr6",
    "prefixlen6",
    "ip_cidr6",
    "network6",
    "network_cidr6",
    "ipv6",
    "fqdn",
    "warewulf",
    "dhcp",
    "tftp",
    "nfs",
    "ssh",
    "paths",
    "wwclient",
)
FIELDS = tuple(sorted(NODE_FIELDS))
# What is not there and what is null are two things to a template (`is defined`).
ABSENT = msgspec.msgpack.Ext(1, b"")
_encode = msgspec.msgpack.Encoder(order="deterministic", enc_hook=str).encode


def digest(value: object) -> bytes:
    """xxh3-128 of a value made of structs, maps, lists and scalars."""
    return xxhash.xxh3_128_digest(_encode(value))


def same(node: Node, other: Node) -> bool:
    """Whether templates see the same in both; 1, 1.0 and true are equal, and are not the same."""
    return node is other or (node == other and (not node.resources or digest(node) == digest(other)))


def ordered(value: Any) -> Any:
    """Maps in the order of their keys, all the way down; what is in order is the very object."""
    kind = type(value)
    if kind is dict:
        changes = {}
        for name, it in value.items():
            if type(it) is not str and (made := ordered(it)) is not it:
                changes[name] = made
        if len(value) > 1 and (names := sorted(value)) != list(value):
            return {name: changes.get(name, value[name]) for name in names}
        return {**value, **changes} if changes else value
    if kind is list:
        items = [ordered(it) for it in value]
        return value if all(map(operator.is_, items, value)) else items
    if fields := MAPS.get(kind):
        changes = {}
        for name in fields:
            if (it := getattr(value, name)) and (made := ordered(it)) is not it:
                changes[name] = made
        return msgspec.structs.replace(value, **changes) if changes else value
    return value


# Which fields hold maps, or what holds them.
MAPS: dict[type, tuple[str, ...]] = {
    Node: ("network_devices", "tags", "disks", "filesystems", "resources", "ipmi"),
    NetDev: ("tags",),
    Ipmi: ("tags",),
    Disk: ("partitions",),
}


class ServerData:
    """Names that are the same for every node of one warewulf.conf."""

    def __init__(self, settings: Settings) -> None:
        conf = settings.conf  # where the file is and what was wrong with it reaches no template
        self.values: dict[str, Any] = {name: getattr(conf, name) for name in SERVER}
        self.values["settings"] = conf
        self.values["build_host"] = platform.node()

    def digest_of(self, name: str) -> bytes:
        return digest(self.values.get(name))

    def digest(self, names: Sequence[str]) -> bytes:
        return digest([(name, self.digest_of(name)) for name in names])


class ClusterData:
    """The nodes of one snapshot: views for templates, and digests of what templates read of them.

    `kernel_of` gives the default kernel version of an image. Digests of unchanged nodes are taken over from
    the former snapshot.
    """

    def __init__(
        self,
        nodes: Mapping[str, Node],
        kernel_of: Callable[[str], str],
        before: ClusterData | None = None,
    ) -> None:
        self.nodes = nodes
        self._kernel_of = kernel_of
        self._views: dict[str, tuple[Node, Node]] = {}
        self._digests: dict[tuple[Any, ...], bytes] = {}
        self._of_node: dict[frozenset[str], dict[str, tuple[Node, bytes]]] = before._of_node if before else {}
        self._all: list[Node] | None = None
        if before is not None:
            self._views = before._views  # each is compared with its node when it is asked for
            if self._views:
                for name in self._views.keys() - nodes.keys():
                    del self._views[name]

    def view(self, node: Node) -> Node:
        """The node as templates see it: the kernel's version is that of the image when not set, maps in order."""
        pair = self._views.get(node.id)
        if pair is not None and pair[0] is node:
            return pair[1]
        changes: dict[str, Any] = {}
        if not node.kernel.version and node.image_name and (version := self._kernel_of(node.image_name)):
            changes["kernel"] = msgspec.structs.replace(node.kernel, version=version)
        seen: Node = ordered(node)
        if changes:
            seen = msgspec.structs.replace(seen, **changes)
        self._views[node.id] = (node, seen)
        return seen

    def all_nodes(self) -> list[Node]:
        if self._all is None:
            self._all = [self.view(node) for node in self.nodes.values()]
        return self._all

    def names(self, node: Node, server: ServerData) -> dict[str, Any]:
        """Every name a template can use, for one node."""
        view = self.view(node)
        names: dict[str, Any] = dict(server.values)
        for field in FIELDS:
            names[field] = getattr(view, field)
        names["hostname"] = view.id
        names["container_name"] = view.image_name
        names["this_node"] = view
        return names

    def values(self, node: Node, reads: Sequence[Read]) -> bytes:
        """What the given reads give for this node, encoded."""
        view = self.view(node)
        found: list[Any] = []
        for read in reads:
            value: Any = view if read[0] == WHOLE else getattr(view, read[0])
            if len(read) > 1:
                value = value.get(read[1], ABSENT) if isinstance(value, dict) else getattr(value, read[1], ABSENT)
            found.append(value)
        return _encode(found)

    def cluster_digest(self, fields: frozenset[str]) -> bytes:
        """Digest of these fields of all nodes, in their order."""
        key = ("cluster", fields)
        found = self._digests.get(key)
        if found is None:
            known = self._of_node.setdefault(fields, {})
            reads = sorted((field,) for field in fields)
            parts: list[bytes] = []
            for name, node in self.nodes.items():
                pair = known.get(name)
                if pair is None or pair[0] is not node:
                    pair = known[name] = (node, xxhash.xxh3_128_digest(self.values(node, reads)))
                parts.append(pair[1])
            found = self._digests[key] = xxhash.xxh3_128_digest(b"".join(parts))
        return found


def build_facts(names: dict[str, Any]) -> None:
    """The moment of rendering; it never causes a rebuild."""
    now = time.time()
    names["build_time"] = time.strftime("%m-%d-%Y %H:%M:%S %Z", time.localtime(now))
    names["build_time_unix"] = str(int(now))
