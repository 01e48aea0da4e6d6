"""One template: compiled once, run for many nodes. Errors say overlay, file, line, node and what was missing."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import jinja2
import xxhash
from jinja2.runtime import Context

from wwfast.errors import ConfigError, WwfastError
from wwfast.overlays import analysis
from wwfast.overlays.environment import Abort, Environment, outputs
from wwfast.overlays.model import Item
from wwfast.overlays.stack import Output


class Template:
    """A `.j2` file of an overlay. `reads` is what it can touch; `identity` everything else that decides its output."""

    def __init__(self, env: Environment, overlay: str, item: Item) -> None:
        data = item.read()
        self.overlay = overlay
        self.item = item
        self.where = f"overlay {overlay}, {item.path}"
        try:
            self.source = data.decode()
        except UnicodeDecodeError as error:
            raise ConfigError(f"{self.where} is not UTF-8 text: {error.reason} at byte {error.start}") from error
        tree = analysis.parse(env, self.source, self.where)
        self.reads = analysis.reads(tree, frozenset(env.globals))
        try:
            code = env.compile(tree, self.where, self.where)
        except jinja2.TemplateError as error:
            line = getattr(error, "lineno", None)
            raise ConfigError(f"{self.where}{f', line {line}' if line else ''}: {error}") from error
        self._template = jinja2.Template.from_code(env, code, {})
        self._root = self._template.root_render_func
        self._env = env
        self._facts = {"overlay": overlay, "build_source": str(item.source)}
        content = xxhash.xxh3_128_digest(data)
        self.identity = (overlay, item.path, item.mode, item.uid, item.gid, content)

    def run(self, names: dict[str, Any], node: str) -> tuple[Output, ...]:
        """The outputs for one node; none when the template aborts. Raises ConfigError."""
        context = Context(self._env, names, self.where, self._template.blocks)
        context.vars = dict(self._facts)
        try:
            return outputs("".join(self._root(context)), self.item.output)
        except Abort:
            return ()
        except RecursionError as error:
            raise ConfigError(f"{self.where}, node {node}: endless recursion") from error
        except Exception as error:
            raise self._failure(error, node) from error

    def _failure(self, error: Exception, node: str) -> ConfigError:
        line = self._line(error.__traceback__)
        lines = self.source.splitlines()
        said = error.message if isinstance(error, WwfastError) else str(error) or type(error).__name__
        shown = f"\n    {lines[line - 1].strip()}" if line and line <= len(lines) else ""
        hint = error.hint if isinstance(error, WwfastError) else None
        if isinstance(error, jinja2.UndefinedError):
            said = said.replace("'dict object' has no attribute", "there is no such key in this map:")
            hint = 'say what to write when it is not set: NAME | default("")'
        at = f", line {line}" if line else ""
        return ConfigError(f"{self.where}{at}, node {node}: {said}{shown}", hint=hint)

    def _line(self, trace: TracebackType | None) -> int | None:
        found = None
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == self.where:
                found = self._template.get_corresponding_lineno(trace.tb_lineno)
            trace = trace.tb_next
        return found
