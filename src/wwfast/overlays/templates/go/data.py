"""What Go templates see: the top level, this node and all nodes. Each read is noted as for Jinja2 (see templates.data).

What was made of a node is kept as long as the same node is asked for, so ten templates of it share that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wwfast.nodes.model import Disk, FileSystem, Node
from wwfast.overlays.templates.data import Names
from wwfast.overlays.templates.faults import Refused
from wwfast.overlays.templates.go import structs
from wwfast.overlays.templates.go.shapes import Shape, many, struct
from wwfast.overlays.templates.go.values import Object

NO_FIELD = "can't evaluate field {}: there is no such field"
CHANGED = frozenset({"Resources"})  # a template may change these, so each run gets its own


class NodeView(Object):
    """A node in `.AllNodes`, or `.ThisNode`; `reads` gets which of its fields are looked at."""

    __slots__ = ("_kept", "node", "reads")
    GO = "node.Node"

    def __init__(self, node: Node, reads: set[str]) -> None:
        self.node, self.reads = node, reads
        self._kept: dict[str, Any] = {}

    def member(self, name: str) -> Any:
        pair = structs.NODE.get(name)
        if pair is None:
            if name == "Valid":
                return True
            raise Refused(f"{NO_FIELD} of a node", name)
        field, make = pair
        self.reads.add(field)
        if name in self._kept:
            return self._kept[name]
        made = make(getattr(self.node, field))
        if name not in CHANGED:
            self._kept[name] = made
        return made

    def json(self) -> list[tuple[str, Any]]:
        """Without what is empty."""
        return [(key, value) for name, key in structs.NODE_KEYS if (value := self.member(name))]


class Data:
    """What all Go templates of a generation share."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self._node: Node | None = None
        self.kept: dict[str, Any] = {}  # of the node
        self.shared = structs.Shared()
        self._sections: dict[str, Any] = {}
        self._all: list[NodeView] | None = None

    def begin(self) -> None:
        node = self.names.reader.node
        if node is not self._node:
            self._node = node
            self.kept = {}

    def section(self, name: str) -> Any:
        key, kind = structs.SECTIONS[name]
        raw = self.names.plain(key)
        if name not in self._sections:
            self._sections[name] = kind(raw)
        return self._sections[name]

    def all_nodes(self) -> list[NodeView]:
        nodes, reads = self.names.everybody()
        if self._all is None:
            self._all = [NodeView(node, reads) for node in nodes]
        return list(self._all)

    def this_node(self) -> NodeView:
        if "ThisNode" not in self.kept:
            self.kept["ThisNode"] = NodeView(self.names.reader.node, self.names.own)
        view: NodeView = self.kept["ThisNode"]
        return view


class Top(Object):
    """The dot of the top level."""

    __slots__ = ("_data", "_facts", "_fresh", "_kept", "_own")
    GO = "overlay.TemplateStruct"

    def __init__(self, data: Data, facts: Mapping[str, str], *, changes: bool = True) -> None:
        """`changes` when the template has functions that change maps in place."""
        self._data, self._facts = data, facts
        self._kept, self._own = data.kept, data.names.own
        self._fresh: dict[str, Any] | None = {} if changes else None

    def member(self, name: str) -> Any:
        pair = structs.TOP.get(name)
        if pair is not None:
            field, make = pair
            self._own.add(field)
            kept = self._kept
            if name in CHANGED:
                if self._fresh is not None:
                    kept = self._fresh
                else:
                    make = self._data.shared.resources
            try:
                return kept[name]
            except KeyError:
                made = kept[name] = make(getattr(self._data.names.reader.node, field))
                return made
        data = self._data
        if name in structs.SERVER:
            return data.names.plain(structs.SERVER[name])
        if name in structs.SECTIONS:
            return data.section(name)
        if name in structs.TEMPLATE:
            return self._facts[structs.TEMPLATE[name]]
        if name == "ThisNode":
            return data.this_node()
        if name == "AllNodes":
            return data.all_nodes()
        raise Refused(
            f"{NO_FIELD} at the top level", name, hint="fields of nodes.conf that are yours are tags: .Tags.NAME"
        )

    def storage(self) -> tuple[dict[str, Disk], dict[str, FileSystem]]:
        self._own.update(("disks", "filesystems"))
        node = self._data.names.reader.node
        return node.disks, node.filesystems


KNOWN = frozenset({*structs.TOP, *structs.SERVER, *structs.SECTIONS, *structs.TEMPLATE, "ThisNode", "AllNodes"})


def _shape() -> Shape:
    """The top level, for what is told before a template runs."""
    partition = struct("of a partition", structs.Partition.MEMBERS)
    parts = {"Partitions": many(partition), "PartitionList": many(partition)}
    disks = many(struct("of a disk", structs.Disk.MEMBERS, **parts))
    filesystems = many(struct("of a file system", structs.FileSystem.MEMBERS))
    inner = {
        "NetDevs": many(struct("of a network device", structs.NetDev.MEMBERS, Tags=many(None))),
        "Kernel": struct("of the kernel", structs.Kernel.MEMBERS),
        "Ipmi": struct("in .Ipmi", structs.Ipmi.MEMBERS),
        "Disks": disks,
        "FileSystems": filesystems,
        "Tags": many(None),
    }
    lists = {"DiskList": disks, "FileSystemList": filesystems}
    node = struct("of a node", {**structs.NODE, "Valid": None}, **inner, **lists)
    sections = {name: struct(f"in .{name}", kind.MEMBERS) for name, (_, kind) in structs.SECTIONS.items()}
    names = dict.fromkeys(KNOWN)
    return struct("at the top level", names, **inner, **sections, ThisNode=node, AllNodes=many(node))


SHAPE = _shape()
