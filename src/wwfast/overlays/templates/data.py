"""What templates see of a node, the cluster, the settings and the build; what they looked at, and digests of that.

What a template looked at while it ran decides when it has to run again: the same reads that give the same values give
the same output. There is nothing to see but by a name, an attribute or a function, and each of them notes the read.
"""

from __future__ import annotations

import operator
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import xxhash
from jinja2.utils import missing

from wwfast._ext.attributes import WHOLE, Lookup, Reader, View
from wwfast.config.settings import Conf
from wwfast.nodes.model import Disk, Ipmi, NetDev, Node
from wwfast.system import records

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
FIELDS = frozenset(Node.__struct_fields__)
ALIASES = {"hostname": "id", "container_name": "image_name"}

# What was looked at of files (see sources.Dependency), and the digest of what was seen.
Seen = tuple[tuple[tuple[str, str, str], bytes], ...]
_encode = records.packer("deterministic")


def digest(value: object) -> bytes:
    """xxh3-128 of a value made of structs, maps, lists and scalars."""
    return xxhash.xxh3_128_digest(_encode(value))


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


class Rests(NamedTuple):
    """What the outputs of some templates rest on, all of it looked at while they ran, with digests of what was seen.

    `node` are fields of the node itself (their digest is kept with the node), `cluster` fields of every node (None:
    nobody asked who is there), `settings` names of warewulf.conf and the build.
    """

    node: tuple[str, ...] = ()
    cluster: tuple[str, ...] | None = None
    cluster_digest: bytes = b""
    settings: tuple[str, ...] = ()
    settings_digest: bytes = b""
    seen: Seen = ()


class Server:
    """Names that are the same for every node of one warewulf.conf."""

    def __init__(self, conf: Conf) -> None:
        self.values: dict[str, Any] = {name: getattr(conf, name) for name in SERVER}
        self.values["settings"] = conf
        self.values["build_host"] = platform.node()

    def digest(self, names: Sequence[str]) -> bytes:
        return digest([(name, digest(self.values.get(name))) for name in names])


class Cluster:
    """The nodes of one snapshot as templates see them, and digests of their fields.

    `kernel_of` gives the default kernel version of an image. What was made of unchanged nodes is taken over from
    `before`.
    """

    def __init__(
        self, nodes: Mapping[str, Node], kernel_of: Callable[[str], str], before: Cluster | None = None
    ) -> None:
        self.nodes = nodes
        self._kernel_of = kernel_of
        self._kernels: dict[str, str] = {}
        self._digests: dict[tuple[str, ...], bytes] = {}
        # Each is compared with its node, and its kernel, when it is asked for.
        self._seen: dict[str, tuple[Node, str, Node]] = before._seen if before else {}
        self._of_node: dict[tuple[str, ...], dict[str, tuple[Node, bytes]]] = before._of_node if before else {}
        kept: list[dict[str, Any]] = [self._seen, *self._of_node.values()]
        for known in kept:
            for name in [name for name in known if name not in nodes] if len(known) > len(nodes) else ():
                del known[name]

    def stands(self) -> bool:
        """Whether images have the kernels that were seen."""
        return all(self._kernel_of(image) == version for image, version in self._kernels.items())

    def kernel(self, image: str) -> str:
        """The version of an image's kernel; nothing of no image."""
        if image and image not in self._kernels:
            self._kernels[image] = self._kernel_of(image)
        return self._kernels[image] if image else ""

    def see(self, node: Node) -> Node:
        """The node as templates see it: the kernel's version is that of the image when not set, maps in order."""
        version = "" if node.kernel.version else self.kernel(node.image_name)
        known = self._seen.get(node.id)
        if known is not None and known[0] is node and known[1] == version:
            return known[2]
        seen: Node = ordered(node)
        if version:
            seen = msgspec.structs.replace(seen, kernel=msgspec.structs.replace(node.kernel, version=version))
        self._seen[node.id] = (node, version, seen)
        return seen

    def values(self, node: Node, fields: Sequence[str]) -> bytes:
        """Digest of these fields of a node."""
        seen = self.see(node)
        return digest([seen if field == WHOLE else getattr(seen, field) for field in fields])

    def digest(self, fields: tuple[str, ...]) -> bytes:
        """Digest of these fields of all nodes, in their order."""
        found = self._digests.get(fields)
        if found is None:
            known = self._of_node.setdefault(fields, {})
            parts: list[bytes] = []
            for name, node in self.nodes.items():
                seen = self.see(node)
                pair = known.get(name)
                if pair is None or pair[0] is not seen:
                    pair = known[name] = (seen, self.values(node, fields))
                parts.append(pair[1])
            found = self._digests[fields] = xxhash.xxh3_128_digest(b"".join(parts))
        return found


# Fields of the node, fields of others, and other names.
Note = tuple[frozenset[str], frozenset[str], frozenset[str]]
NAMED = {**{name: name for name in FIELDS}, **ALIASES}
FACTS = frozenset({"build_time", "build_time_unix"})


class Names:
    """Resolves the names that stand in templates, for the node of `begin`, and notes what was asked for."""

    def __init__(self, functions: Mapping[str, Any], reader: Reader, server: Server, cluster: Cluster) -> None:
        """`reader` is that of the environment in which the templates were compiled."""
        self._fixed = {**functions, **server.values}
        self._settings = frozenset(server.values)
        self._server = server
        self._cluster = cluster
        self.reader = reader
        reader.forget()
        self._asked: set[str] = set()
        self._others: set[str] = set()
        self.lookup = Lookup(reader, NAMED, self._asked, self._rest)
        self._all: list[View] | None = None
        self._facts: dict[str, str] = {}
        self._known: dict[Note, Rests] = {}

    def begin(self, node: Node) -> None:
        self.reader.begin(self._cluster.see(node))
        self._facts = {}
        self.taken()

    def taken(self) -> Note:
        """What was noted since it was last taken."""
        own = self.reader.fields
        note = frozenset(own), frozenset(self._others), frozenset(self._asked)
        self._asked.clear()
        own.clear()
        self._others.clear()
        return note

    def note(self, note: Note) -> None:
        """Count as looked at what was looked at when a kept output was made."""
        own, others, asked = note
        self.reader.fields.update(own)
        self._others.update(others)
        self._asked.update(asked)

    def rests(self, note: Note, seen: Seen) -> Rests:
        """On what that rests whose reads are in `note`; `seen` are the files."""
        known = self._known.get(note)
        if known is None:
            own, others, asked = note
            settings = tuple(sorted(asked & self._settings))
            cluster = tuple(sorted(others)) if "all_nodes" in asked else None
            known = self._known[note] = Rests(
                tuple(sorted(own)),
                cluster,
                self._cluster.digest(cluster) if cluster is not None else b"",
                settings,
                self._server.digest(settings) if settings else b"",
            )
        return known._replace(seen=seen)

    @property
    def own(self) -> set[str]:
        """The fields of the node that were looked at; whoever shows it another way adds to them."""
        return self.reader.fields

    def plain(self, name: str) -> Any:
        """What is no field of a node, as it is."""
        self._asked.add(name)
        return self._rest(name)

    def everybody(self) -> tuple[list[Node], set[str]]:
        """All nodes, as templates see them, and where it is noted which of their fields are looked at."""
        self._asked.add("all_nodes")
        return [self._cluster.see(node) for node in self._cluster.nodes.values()], self._others

    def _rest(self, name: str) -> Any:
        """What is no field of the node; `jinja2.runtime.missing` for a name that nothing has."""
        if name == "this_node":
            return self.reader.top
        if name == "all_nodes":
            if self._all is None:
                self._all = [View(self._cluster.see(node), self._others) for node in self._cluster.nodes.values()]
            return self._all
        return self._now(name) if name in FACTS else self._fixed.get(name, missing)

    def _now(self, name: str) -> str:
        if not self._facts:
            now = time.time()
            said = time.strftime("%m-%d-%Y %H:%M:%S %Z", time.localtime(now))
            self._facts = {"build_time": said, "build_time_unix": str(int(now))}
        return self._facts[name]
