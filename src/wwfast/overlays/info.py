"""What a template is for and what it reads: for `overlay info`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, get_args, get_type_hints

from wwfast.config.schema import Doc
from wwfast.config.settings import Settings
from wwfast.errors import UsageError
from wwfast.nodes.model import Node
from wwfast.overlays import analysis, environment, model
from wwfast.overlays.sources import Sources
from wwfast.paths import Paths

BUILD = {
    "build_host": "Host name of the server.",
    "build_time": "Moment of rendering.",
    "build_time_unix": "Moment of rendering, seconds.",
    "build_source": "Path of the template.",
    "overlay": "Name of the overlay.",
    "settings": "All of warewulf.conf.",
}


class Variable(NamedTuple):
    variable: str
    option: str
    type: str
    help: str


@dataclass
class Description:
    general: list[str] = field(default_factory=list)
    variables: list[Variable] = field(default_factory=list)


def describe(paths: Paths, file: Path, overlay: str) -> Description:
    if file.suffix != model.TEMPLATE:
        raise UsageError(f"{file.name} of overlay {overlay} is not a template", hint="templates end in .j2")
    env = environment.make(Sources(paths, (), lambda name: None))
    source = file.read_text()
    where = f"overlay {overlay}, {file.name}"
    found = analysis.reads(analysis.parse(env, source, where), frozenset(env.globals))
    general, said = analysis.documentation(env, source)
    rows = {".".join(read) if read != (analysis.WHOLE,) else "this_node": _node(read) for read in found.node}
    if found.cluster is not None:
        for name in sorted(found.cluster):
            rows[f"all_nodes[].{name}"] = _node((name,))
    for name in found.names:
        hints = get_type_hints(Settings, include_extras=True)
        if name in hints:
            rows[name] = Variable(name, "", "settings", _doc(hints[name]).help)
        elif name in BUILD:
            rows[name] = Variable(name, "", "string", BUILD[name])
        elif hasattr(Settings, name):
            rows[name] = Variable(name, "", "settings", "Of the server, from its addresses.")
    for name, text in said.items():
        rows[name] = rows.get(name, Variable(name, "", "", ""))._replace(help=text)
    return Description(general, [row._replace(variable=name) for name, row in sorted(rows.items())])


def _node(read: tuple[str, ...]) -> Variable:
    hints = get_type_hints(Node, include_extras=True)
    if read[0] not in hints or not get_args(hints[read[0]]):
        return Variable("", "", "node", "")
    doc = _doc(hints[read[0]])
    kind = get_args(hints[read[0]])[0]
    flag = f"--{doc.flag}" if doc.flag else ""
    return Variable("", flag, str(getattr(kind, "__name__", kind)), doc.help)


def _doc(hint: object) -> Doc:
    return next((each for each in get_args(hint) if isinstance(each, Doc)), Doc(""))
