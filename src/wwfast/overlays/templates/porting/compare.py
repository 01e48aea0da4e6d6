"""Porting an overlay from Go templates to Jinja2: what could be converted, and whether it writes the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from wwfast.config.settings import Settings
from wwfast.errors import WwfastError
from wwfast.nodes.model import Node
from wwfast.overlays.files import model
from wwfast.overlays.files.images import Images
from wwfast.overlays.files.model import Item, Overlay
from wwfast.overlays.files.stack import Output
from wwfast.overlays.templates import environment
from wwfast.overlays.templates.data import Cluster, Names, Server
from wwfast.overlays.templates.go import render as go
from wwfast.overlays.templates.go.language.lexer import Places, SyntaxFault
from wwfast.overlays.templates.go.language.parser import parse
from wwfast.overlays.templates.go.library.builtin import REFUSED
from wwfast.overlays.templates.porting.convert import converted
from wwfast.overlays.templates.render import Template
from wwfast.overlays.templates.sources import Sources
from wwfast.paths import Paths

MOST = 200  # nodes that both are run for


class Ported(NamedTuple):
    """A template; `source` is it in Jinja2, unless `wrong` says why not; `same` when both write the same."""

    item: Item
    source: str = ""
    wrong: str = ""
    same: bool = False


class Porter:
    def __init__(self, paths: Paths, settings: Settings, nodes: Mapping[str, Node], work: Path) -> None:
        """`work` is a directory for what is tried."""
        images = Images(paths)
        self._work = work
        self._env = environment.make(Sources(paths, tuple(settings.wwfast.include), images.rootfs))
        self._names = Names(
            self._env.globals, self._env.reader, Server(settings.conf), Cluster(nodes, images.kernel_version)
        )
        self._nodes = list(nodes.values())[:MOST]

    def overlay(self, overlay: Overlay) -> Iterator[Ported]:
        for item in overlay.items():
            if item.template and item.path.endswith(model.GO_TEMPLATE):
                yield self._one(overlay.name, item)

    def _one(self, overlay: str, item: Item) -> Ported:
        text = item.read().decode(errors="replace")
        try:
            made = converted(parse(text, go.engine(self._env).functions, REFUSED))
        except SyntaxFault as fault:
            line, column = Places(text).of(fault.at)
            return Ported(item, wrong=f"line {line}, column {column}: {fault.said}")
        trial = self._work / "trial"
        trial.write_text(made)
        copy = replace(item, path=item.output + model.TEMPLATE, source=trial)
        try:
            theirs, ours = Template(self._env, overlay, item), Template(self._env, overlay, copy)
        except WwfastError as error:
            return Ported(item, made, error.message)
        for node in self._nodes:
            if (said := self._differ(theirs, ours, node)) is not None:
                return Ported(item, made, said)
        return Ported(item, made, same=True)

    def _differ(self, theirs: Template, ours: Template, node: Node) -> str | None:
        wanted = self._run(theirs, node)
        found = self._run(ours, node)
        if isinstance(wanted, str):  # it does not run for this node in Go either
            return None
        if isinstance(found, str):
            return found
        return None if found == wanted else f"it writes something else for node {node.id}"

    def _run(self, template: Template, node: Node) -> tuple[Output, ...] | str:
        self._names.begin(node)
        try:
            return template.run(self._names, node.id)
        except WwfastError as error:
            return error.message
