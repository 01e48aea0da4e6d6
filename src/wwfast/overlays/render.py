"""One template: compiled once, run for many nodes. Errors say where, for which node, and what kind."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import jinja2
import xxhash
from jinja2.runtime import Context

from wwfast.errors import ConfigError
from wwfast.overlays import analysis, faults
from wwfast.overlays.environment import Abort, Environment, outputs
from wwfast.overlays.model import Item
from wwfast.overlays.sandbox import Sandbox
from wwfast.overlays.stack import Output

# Part of what the outputs of templates are kept under; another number where they would now differ.
RULES = 2


class Program:
    """A compiled template; `where` names it, `at` its lines, in messages."""

    def __init__(self, env: Sandbox, source: str, where: str, at: str = ", line {}", node: str = "") -> None:
        """Raises ConfigError (for `node`, if given) when `source` is no template."""
        self.where = where
        self.source = source
        self._env = env
        self._at = at
        first = f"{at}, node {node}" if node else at
        tree = analysis.parse(env, source, where, first)
        self.reads = analysis.reads(tree, frozenset(env.globals))
        try:
            code = env.compile(tree, where, where)
        except jinja2.TemplateError as error:
            line = getattr(error, "lineno", None)
            raise ConfigError(f"{where}{first.replace('{}', str(line)) if line else ''}: {error}") from error
        self._template = jinja2.Template.from_code(env, code, {})
        self._root = self._template.root_render_func

    def run(self, names: dict[str, Any], facts: dict[str, str], node: str) -> str:
        """The text for one node. Raises ConfigError, and Abort."""
        context = Context(self._env, names, self.where, self._template.blocks)
        context.vars = dict(facts)
        try:
            return "".join(self._root(context))
        except Abort:
            raise
        except Exception as error:
            # From None: a traceback would quote the error, and with it values.
            raise self.failure(error, node) from None

    def failure(self, error: Exception, node: str) -> ConfigError:
        """The error in words that hold no value."""
        trace = faults.frames(error.__traceback__)
        mine = [each for each in trace if each.tb_frame.f_code.co_filename == self.where]
        line = self._template.get_corresponding_lineno(mine[-1].tb_lineno) if mine else None
        known = faults.names_of_code(filter=self._env.filters, test=self._env.tests, function=self._env.globals)
        said, hint = faults.told(error, self._spelled, faults.blamed(trace, known))
        lines = self.source.splitlines()
        shown = faults.shown(lines[line - 1]) if line and line <= len(lines) else ""
        at = self._at.replace("{}", str(line)) if line else ""
        return ConfigError(f"{self.where}{at}, node {node}: {said}" + (f"\n    {shown}" if shown else ""), hint=hint)

    @cached_property
    def _spelled(self) -> frozenset[str]:
        return faults.spelled(self._env.parse(self.source))


class Template:
    """A `.j2` file of an overlay. `reads` is what it can touch; `identity` everything else that decides its output."""

    def __init__(self, env: Environment, overlay: str, item: Item) -> None:
        data = item.read()
        self.overlay = overlay
        self.item = item
        self.where = where = f"overlay {overlay}, {item.path}"
        try:
            self.source = source = data.decode()
        except UnicodeDecodeError as error:
            raise ConfigError(f"{where} is not UTF-8 text: {error.reason} at byte {error.start}") from error
        self._program = Program(env, source, where)
        self.reads = self._program.reads
        self._facts = {"overlay": overlay, "build_source": str(item.source)}
        content = xxhash.xxh3_128_digest(data)
        place = str(item.source) if "build_source" in self.reads.names else ""
        self.identity = (RULES, overlay, item.path, item.mode, item.uid, item.gid, content, place)

    def run(self, names: dict[str, Any], node: str) -> tuple[Output, ...]:
        """The outputs for one node; none when the template aborts. Raises ConfigError."""
        try:
            text = self._program.run(names, self._facts, node)
        except Abort:
            return ()
        try:
            return outputs(text, self.item.output)
        except Exception as error:
            raise self._program.failure(error, node) from None
