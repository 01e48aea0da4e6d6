"""One template: compiled once, run for many nodes. Errors say where, for which node, and what kind."""

from __future__ import annotations

from functools import cached_property
from types import CodeType
from typing import Any, NamedTuple

import jinja2
import xxhash
from jinja2 import nodes as ast
from jinja2.runtime import Context
from jinja2.utils import missing

from wwfast.errors import ConfigError
from wwfast.overlays.files.model import GO_TEMPLATE, Item
from wwfast.overlays.files.stack import Output
from wwfast.overlays.templates import faults
from wwfast.overlays.templates.data import Names
from wwfast.overlays.templates.environment import Abort, Environment, outputs
from wwfast.overlays.templates.go import render as go
from wwfast.overlays.templates.lazy import steady, walk
from wwfast.overlays.templates.sandbox import Sandbox
from wwfast.overlays.templates.sources import LIMIT


class Named(Context):
    """A context in which every name is looked up by `names`, which notes it."""

    def __init__(self, env: Sandbox, names: Names, template: str | None, blocks: Any) -> None:
        super().__init__(env, {}, template, blocks)
        self._names = names
        self.resolve_or_missing = names.lookup.within(self.vars)  # type: ignore[assignment,method-assign]

    def derived(self, locals: dict[str, Any] | None = None) -> Context:
        """For scoped blocks; Jinja2's own looks at every name there is."""
        inner = {name: value for name, value in (locals or {}).items() if value is not missing}
        made = Named(self.environment, self._names, self.name, {})  # type: ignore[arg-type]
        made.vars.update(self.vars, **inner)
        made.eval_ctx = self.eval_ctx
        made.blocks.update((name, list(blocks)) for name, blocks in self.blocks.items())
        return made


class Code(NamedTuple):
    """What is made of the text of a template."""

    code: CodeType
    steady: bool  # runs of it can be shared (see shared)


class Program:
    """A compiled template; `where` names it, `at` its lines, in messages."""

    def __init__(
        self, env: Sandbox, source: str, where: str, at: str = ", line {}", node: str = "", code: Code | None = None
    ) -> None:
        """`code` is what another process made of it. Raises ConfigError (for `node`, if given) when `source` is no
        template."""
        self.where = where
        self.source = source
        self._env = env
        self._at = at
        self.code = code or compiled(env, source, where, f"{at}, node {node}" if node else at)
        self._template = jinja2.Template.from_code(env, self.code.code, {})
        self._root = self._template.root_render_func
        self._context: tuple[Names, Named] | None = None

    def run(self, names: Names | dict[str, Any], facts: dict[str, str], node: str, memory: float = 0) -> str:
        """The text for one node; `memory` MiB are what the process may grow by. Raises ConfigError, and Abort."""
        if isinstance(names, Names):
            context: Context = self._named(names)
            context.vars.clear()
            context.exported_vars.clear()
            context.vars.update(facts)
        else:
            context = Context(self._env, names, self.where, self._template.blocks)
            context.vars = dict(facts)
        try:
            return "".join(self._root(context))
        except Abort:
            raise
        except (Exception, faults.Exceeded) as error:
            # From None: a traceback would quote the error, and with it values.
            raise self.failure(faults.limited(error, memory), node) from None

    def outputs(
        self, names: Names, facts: dict[str, str], node: str, path: str, *, memory: float = 0, limit: int = 1 << 30
    ) -> tuple[Output, ...]:
        """The outputs for one node, the unnamed one at `path`; none when the template aborts."""
        try:
            text = self.run(names, facts, node, memory)
        except Abort:
            return ()
        try:
            if len(text) > limit:
                raise faults.Exceeded("output", limit >> 20)
            return outputs(text, path)
        except (Exception, faults.Exceeded) as error:
            raise self.failure(error, node) from None

    def _named(self, names: Names) -> Named:
        """The same for all nodes of a generation: what a run leaves in it is cleared before the next."""
        if self._context is None or self._context[0] is not names:
            self._context = (names, Named(self._env, names, self.where, self._template.blocks))
        return self._context[1]

    def failure(self, error: BaseException, node: str) -> ConfigError:
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


def compiled(env: Sandbox, source: str, where: str, at: str) -> Code:
    """Raises ConfigError with overlay, file and line."""
    tree = parse(env, source, where, at)
    is_steady = steady(tree)
    try:
        return Code(env.compile(env.prepared(tree), where, where), is_steady)
    except jinja2.TemplateError as error:
        line = getattr(error, "lineno", None)
        raise ConfigError(f"{where}{at.replace('{}', str(line)) if line else ''}: {error}") from error
    except (RecursionError, MemoryError, SyntaxError) as error:  # what Python cannot compile
        raise ConfigError(f"{where}: it is nested too deeply") from error


def parse(env: jinja2.Environment, source: str, name: str, at: str = ", line {}") -> ast.Template:
    """The syntax tree. Raises ConfigError with overlay, file and line; refuses what needs other templates."""
    try:
        tree = env.parse(source, name)
    except jinja2.TemplateSyntaxError as error:
        raise ConfigError(f"{name}{at.replace('{}', str(error.lineno))}: {error.message}") from error
    except RecursionError as error:
        raise ConfigError(f"{name}: it is nested too deeply") from error
    for node in walk(tree, ast.Include, ast.Import, ast.FromImport, ast.Extends):
        raise ConfigError(
            f"{name}{at.replace('{}', str(node.lineno))}: a template cannot include, import or extend another one",
            hint="include(path) inserts the text of a file below /etc/warewulf",
        )
    return tree


class Template:
    """A `.j2` or `.ww` file of an overlay, or of none (""), as its bytes were when it was read."""

    def __init__(self, env: Environment, overlay: str, item: Item, code: Code | None = None) -> None:
        self.overlay = overlay
        self.item = item
        self.where = where = f"overlay {overlay}, {item.path}" if overlay else str(item.source)
        if item.signature.size > LIMIT:
            raise ConfigError(f"{where} is too large for a template ({item.signature.size} bytes)")
        data = item.read()
        self.content = xxhash.xxh3_128_digest(data)
        try:
            source = data.decode()
        except UnicodeDecodeError as error:
            raise ConfigError(f"{where} is not UTF-8 text: {error.reason} at byte {error.start}") from error
        self._program: Program | go.Program
        if item.path.endswith(GO_TEMPLATE):
            self._program = go.Program(go.engine(env), source, where)
        else:
            self._program = Program(env, source, where, code=code)
        self._path = item.output
        self._facts = {"overlay": overlay, "build_source": str(item.source)}
        self.env = env
        self.code = self._program.code if isinstance(self._program, Program) else None
        self.lazy = self.code is not None and self.code.steady
        self.failure = self._program.failure

    def run(self, names: Names, node: str, *, memory: float = 0, output: int = 1 << 30) -> tuple[Output, ...]:
        """The outputs for one node; none when the template aborts. Raises ConfigError; also where the text has more
        than `output` characters."""
        return self._program.outputs(names, self._facts, node, self._path, memory=memory, limit=output)
