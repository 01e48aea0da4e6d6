"""What a template is for and what it reads: for `overlay info`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, get_args, get_type_hints

import jinja2
from jinja2 import nodes as ast

from wwfast.config.schema import Doc
from wwfast.config.settings import Settings
from wwfast.errors import UsageError
from wwfast.nodes.model import Node
from wwfast.overlays.files import model
from wwfast.overlays.files.model import Overlay
from wwfast.overlays.templates import environment, render
from wwfast.overlays.templates.data import ALIASES, FIELDS
from wwfast.overlays.templates.sources import Sources
from wwfast.paths import Paths

BUILD = {
    "build_host": "Host name of the server.",
    "build_time": "Moment of rendering.",
    "build_time_unix": "Moment of rendering, seconds.",
    "build_source": "Path of the template.",
    "overlay": "Name of the overlay.",
    "settings": "All of warewulf.conf.",
}
# Fields of maps where one key is often all that is read.
KEYED = frozenset({"tags", "resources", "kernel", "ipmi"})
METHODS = frozenset({"items", "keys", "values", "get"})

_DOC = re.compile(r"^\s*([A-Za-z0-9_.\[\]\"']+)\s*:\s*(.*)$", re.S)


class Variable(NamedTuple):
    variable: str
    option: str
    type: str
    help: str


@dataclass
class Description:
    general: list[str] = field(default_factory=list)
    variables: list[Variable] = field(default_factory=list)


def describe(paths: Paths, overlay: Overlay, file: Path) -> Description:
    if file.suffix != model.TEMPLATE:
        raise UsageError(f"{file.name} of overlay {overlay.name} is not a template", hint="templates end in .j2")
    env = environment.make(Sources(paths, (), lambda name: None))
    source = (overlay.read(file) or b"").decode()
    tree = render.parse(env, source, f"overlay {overlay.name}, {file.name}")
    general, said = documentation(env, source)
    hints = get_type_hints(Settings, include_extras=True)
    rows: dict[str, Variable] = {}
    for path in sorted(mentioned(tree)):
        field = ALIASES.get(path[0], path[0])
        if field in FIELDS:
            rows[".".join([field, *(path[1:2] if field in KEYED else ())])] = _node(field)
        elif path[0] == "this_node":
            rows[path[1] if path[1:] else "this_node"] = _node(path[1] if path[1:] else "")
        elif path[0] == "all_nodes" and path[1:]:
            rows[f"all_nodes[].{path[1]}"] = _node(path[1])
        elif path[0] in hints:
            rows[path[0]] = Variable(path[0], "", "settings", _doc(hints[path[0]]).help)
        elif path[0] in BUILD:
            rows[path[0]] = Variable(path[0], "", "string", BUILD[path[0]])
        elif hasattr(Settings, path[0]):
            rows[path[0]] = Variable(path[0], "", "settings", "Of the server, from its addresses.")
    for name, text in said.items():
        rows[name] = rows.get(name, Variable(name, "", "", ""))._replace(help=text)
    return Description(general, [row._replace(variable=name) for name, row in sorted(rows.items())])


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


def mentioned(tree: ast.Node) -> set[tuple[str, ...]]:
    """Names that the template does not set itself, with the attributes that stand behind them; for people.

    What is read of a variable that runs over `all_nodes` counts for that.
    """
    loops = {
        loop.target.name: "all_nodes"
        for loop in tree.find_all(ast.For)
        if isinstance(loop.iter, ast.Name) and loop.iter.name == "all_nodes" and isinstance(loop.target, ast.Name)
    }
    own = {name.name for name in tree.find_all(ast.Name) if name.ctx != "load"}
    own |= {macro.name for macro in tree.find_all(ast.Macro)}
    found = set()
    for node in tree.find_all((ast.Name, ast.Getattr, ast.Getitem)):
        words: list[str] = []
        at: ast.Node = node
        while isinstance(at, ast.Getattr | ast.Getitem):
            word = at.attr if isinstance(at, ast.Getattr) else getattr(at.arg, "value", None)
            words = [word, *words] if isinstance(word, str) and word not in METHODS else []
            at = at.node
        if isinstance(at, ast.Name) and (at.name in loops or at.name not in own):
            found.add((loops.get(at.name, at.name), *words))
    return {path for path in found if not any(other != path and other[: len(path)] == path for other in found)}


def _node(field: str) -> Variable:
    hints = get_type_hints(Node, include_extras=True)
    if field not in hints or not get_args(hints[field]):
        return Variable("", "", "node", "")
    doc = _doc(hints[field])
    kind = get_args(hints[field])[0]
    flag = f"--{doc.flag}" if doc.flag else ""
    return Variable("", flag, str(getattr(kind, "__name__", kind)), doc.help)


def _doc(hint: object) -> Doc:
    return next((each for each in get_args(hint) if isinstance(each, Doc)), Doc(""))
