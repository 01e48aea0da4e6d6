"""What data a template can touch, read off its syntax tree.

`tags.rack` reads the tag `rack` and nothing else of the node; `tags` used any other way reads all tags. The answer
covers every branch, so it holds for every node: two nodes that agree on it get the same output, and an
edit elsewhere cannot change it. Loops over `all_nodes` are followed one level: which fields of the nodes they read.

Scopes are not followed, which errs on the safe side only. Data comes in by no other way than by names that stand in the
template, so each use of a name counts for all it may mean: for what the context has under it, and where a loop over
`all_nodes` sets it anywhere, for the nodes, too. A name that is set anywhere is read as a whole wherever it stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import jinja2
from jinja2 import nodes as ast

from wwfast.errors import ConfigError
from wwfast.nodes.model import Node

NODE_FIELDS = frozenset(Node.__struct_fields__)
ALIASES = {"hostname": "id", "container_name": "image_name"}
WHOLE = "*"

# Fields that (nearly) every node has to itself. A template that reads one makes an output per node.
UNIQUE = frozenset({WHOLE, "id", "network_devices", "ipmi", "asset_key", "comment"})
# Fields of maps where one key is often all that is read.
KEYED = frozenset({"tags", "resources", "kernel", "ipmi"})
# Computed fields, and what they are computed from.
COMPUTED = {
    "primary": ("network_devices", "primary_network"),
    "network_devices": ("network_devices", "primary_network"),
}
NEVER_CAUSES = frozenset({"build_time", "build_time_unix"})

# What a loop tells of its place, without its items.
PLACES = frozenset(
    {"index", "index0", "revindex", "revindex0", "first", "last", "length", "depth", "depth0", "cycle", "changed"}
)

Read = tuple[str, ...]

_DOC = re.compile(r"^\s*([A-Za-z0-9_.\[\]\"']+)\s*:\s*(.*)$", re.S)


@dataclass(frozen=True)
class Reads:
    """`node`: fields of the node, `(field,)` or `(field, key)`; `cluster`: fields of every node, None if not at all;
    `names`: everything else by its first name (settings and build facts)."""

    node: frozenset[Read]
    cluster: frozenset[str] | None
    names: frozenset[str]

    @property
    def unique(self) -> bool:
        return any(read[0] in UNIQUE for read in self.node)


def parse(env: jinja2.Environment, source: str, name: str, at: str = ", line {}") -> ast.Template:
    """The syntax tree. Raises ConfigError with overlay, file and line; refuses what needs other templates."""
    try:
        tree = env.parse(source, name)
    except jinja2.TemplateSyntaxError as error:
        raise ConfigError(f"{name}{at.replace('{}', str(error.lineno))}: {error.message}") from error
    for node in tree.find_all((ast.Include, ast.Import, ast.FromImport, ast.Extends)):
        raise ConfigError(
            f"{name}{at.replace('{}', str(node.lineno))}: a template cannot include, import or extend another one",
            hint="include(path) inserts the text of a file below /etc/warewulf",
        )
    return tree


def reads(tree: ast.Template, known: frozenset[str]) -> Reads:
    """What the template can touch; `known` are the functions of the environment."""
    node: set[Read] = set()
    cluster: set[str] | None = None
    names: set[str] = set()
    assigned = {name.name for name in tree.find_all(ast.Name) if name.ctx != "load"}
    assigned |= {macro.name for macro in tree.find_all(ast.Macro)}
    members = set(_cluster_names(tree))
    for name, attribute in _uses(tree, None):
        path = None if name in assigned else attribute
        if name == "ignition_json":
            node |= {("disks",), ("filesystems",)}
        if name in members:
            cluster = (cluster or set()) | {_node_read(attribute)[0]}
        if name == "loop" and members and (attribute or ("",))[0] not in PLACES:
            cluster = (cluster or set()) | {WHOLE}  # its neighbours are nodes, too
        if name == "all_nodes":
            cluster = (cluster or set()) | ({WHOLE} if attribute is not None else set())
        elif name == "this_node":
            node.add(_node_read(path))
        elif name in NODE_FIELDS or name in ALIASES:
            node.add(_node_read((name, *(path or ()))))
        elif name not in known:
            names.add(name)
    for field, parts in COMPUTED.items():
        if (field,) in node:
            node = node - {(field,)} | {(part,) for part in parts}
        if cluster is not None and field in cluster:
            cluster = cluster - {field} | set(parts)
    return Reads(frozenset(node), frozenset(cluster) if cluster is not None else None, frozenset(names - NEVER_CAUSES))


def documentation(env: jinja2.Environment, source: str) -> tuple[list[str], dict[str, str]]:
    """`wwdoc` texts and help by variable, from comments of the form `key: value`."""
    general: list[str] = []
    variables: dict[str, str] = {}
    for _, kind, value in env.lex(source):
        found = _DOC.match(value) if kind == "comment" else None
        if found is None:
            continue
        key, said = found[1], " ".join(found[2].split())
        if "wwdoc" in key:
            general.append(said)
        else:
            variables[key] = said
    return general, variables


def _node_read(path: tuple[str, ...] | None) -> Read:
    """A read of the node cut to the depth that is told apart."""
    if not path:
        return (WHOLE,)
    field = ALIASES.get(path[0], path[0])
    if field not in NODE_FIELDS and field not in COMPUTED:
        return (WHOLE,)  # a property: computed from anything
    return (field, path[1]) if len(path) > 1 and field in KEYED else (field,)


def _cluster_names(tree: ast.Template) -> Iterator[str]:
    """Loop variables that run over `all_nodes` itself."""
    for loop in tree.find_all(ast.For):
        if isinstance(loop.iter, ast.Name) and loop.iter.name == "all_nodes" and isinstance(loop.target, ast.Name):
            yield loop.target.name


def _uses(node: ast.Node, parent: ast.Node | None) -> Iterator[tuple[str, tuple[str, ...] | None]]:
    """Every use of a name and the constant attributes taken from it: None if it is used whole.

    `all_nodes` has None where only a loop or a count makes use of it, else WHOLE.
    """
    chain: list[str] = []
    at = node
    while isinstance(at, ast.Getattr | ast.Getitem):
        chain.append(_constant(at))
        at = at.node
    if chain and isinstance(at, ast.Name):
        path = list(reversed(chain))
        if "" in path:
            path = path[: path.index("")]
        # A method of a map is no key; everything of the map may come out of it.
        for place, word in enumerate(path):
            if word in ("items", "keys", "values", "get"):
                path = path[:place]
                break
        whole_list = at.name == "all_nodes"  # one of its items: any node may come out of it
        yield at.name, (WHOLE,) if whole_list else tuple(path) or None
        for inner in _indices(node):
            yield from _uses(inner, node)
        return
    if isinstance(node, ast.Name):
        if node.ctx == "load":
            looped = isinstance(parent, ast.For) and node is parent.iter and isinstance(parent.target, ast.Name)
            counted = isinstance(parent, ast.Filter) and node is parent.node and parent.name in ("length", "count")
            yield node.name, (WHOLE,) if node.name == "all_nodes" and not (looped or counted) else None
        return
    for child in node.iter_child_nodes():
        yield from _uses(child, node)


def _indices(node: ast.Node) -> Iterator[ast.Node]:
    while isinstance(node, ast.Getattr | ast.Getitem):
        if isinstance(node, ast.Getitem) and not isinstance(node.arg, ast.Const):
            yield node.arg
        node = node.node


def _constant(node: ast.Getattr | ast.Getitem) -> str:
    if isinstance(node, ast.Getattr):
        return node.attr
    return node.arg.value if isinstance(node.arg, ast.Const) and isinstance(node.arg.value, str) else ""
