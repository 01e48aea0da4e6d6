"""What of the templates of an overlay is sure not to run, before a node asks for it."""

from __future__ import annotations

from collections.abc import Iterator

from jinja2 import nodes as ast

from wwfast.errors import ConfigError, WwfastError
from wwfast.overlays.files import model
from wwfast.overlays.files.model import Overlay
from wwfast.overlays.templates import environment, info, render
from wwfast.overlays.templates.data import ALIASES, FIELDS, SERVER
from wwfast.overlays.templates.go import render as go
from wwfast.overlays.templates.sources import Sources
from wwfast.paths import Paths


class Linter:
    def __init__(self, paths: Paths) -> None:
        self._env = environment.make(Sources(paths, (), lambda name: None))
        self.templates = 0  # that were looked at

    def overlay(self, overlay: Overlay) -> Iterator[str]:
        """Each thing that is wrong, with overlay, file and line."""
        try:
            items = overlay.items()
        except WwfastError as error:
            yield error.message
            return
        for item in items:
            if not item.path.endswith(model.TEMPLATES) or item.kind == model.DIRECTORY:
                continue
            where = f"overlay {overlay.name}, {item.path}"
            self.templates += 1
            try:
                if item.kind == model.LINK:
                    raise ConfigError(f"{where}: a symbolic link to a template is not followed")
                source = item.read().decode()
                check = self._go if item.path.endswith(model.GO_TEMPLATE) else self._jinja
                yield from check(source, where)
            except UnicodeDecodeError:
                yield f"{where} is not UTF-8 text"
            except ConfigError as error:
                yield error.message

    def _go(self, source: str, where: str) -> list[str]:
        return go.Program(go.engine(self._env), source, where).doubts()

    def _jinja(self, source: str, where: str) -> Iterator[str]:
        """Syntax, filters and tests by compiling; and names that nothing has."""
        render.Program(self._env, source, where)
        tree = render.parse(self._env, source, where)
        known = {*FIELDS, *ALIASES, *SERVER, *info.BUILD, *self._env.globals, *IMPLIED}
        unknown = {path[0] for path in info.mentioned(tree)} - known
        for name in tree.find_all(ast.Name):
            if name.name in unknown and name.ctx == "load":
                unknown.discard(name.name)
                yield f"{where}, line {name.lineno}: '{name.name}' is undefined"


IMPLIED = frozenset({"this_node", "all_nodes", "loop", "self", "super", "caller", "varargs", "kwargs"})
