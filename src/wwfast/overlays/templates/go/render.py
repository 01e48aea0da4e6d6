"""One Go template: compiled once, run for many nodes; errors say overlay, file, line, column and node, and no value."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any
from weakref import WeakKeyDictionary

from wwfast.errors import ConfigError
from wwfast.overlays.files import model
from wwfast.overlays.files.stack import Output
from wwfast.overlays.templates import faults
from wwfast.overlays.templates.data import Names
from wwfast.overlays.templates.environment import Abort, Environment, Slots, encode
from wwfast.overlays.templates.faults import Refused
from wwfast.overlays.templates.go import data, printing
from wwfast.overlays.templates.go.language.compiler import RUNTIME, Doubt, compiled
from wwfast.overlays.templates.go.language.functions import Known
from wwfast.overlays.templates.go.language.lexer import Places, SyntaxFault
from wwfast.overlays.templates.go.language.parser import parse
from wwfast.overlays.templates.go.library import site
from wwfast.overlays.templates.go.library.builtin import REFUSED, SPRIG
from wwfast.overlays.templates.go.library.lists import CHANGING
from wwfast.overlays.templates.go.library.site import BACKUP, FILE, Event, Run
from wwfast.overlays.templates.go.shapes import Shape
from wwfast.overlays.templates.go.values import Object

OVERLAY, SCRIPT = ", line {}, column {}", ":{}:{}"


def stop(said: str) -> Any:
    raise Refused(said)


class Engine:
    """What templates of one kind can call; `show` gives, for the words of a template, what makes text of what it
    prints; `top` says which fields the top level has."""

    def __init__(
        self,
        functions: Mapping[str, Known],
        show: Callable[[frozenset[str]], Callable[[Any], str]] = lambda words: printing.show,
        top: Shape | None = None,
    ) -> None:
        self.functions = functions
        self.top, self.show = top, show
        self.names: dict[str, Any] = {
            "__builtins__": {},
            **RUNTIME,
            "fail": stop,
            **{f"f_{name}": known.call for name, known in functions.items()},
        }
        self.codes = faults.names_of_code(function={name: known.call for name, known in functions.items()})
        self._data: data.Data | None = None

    def data(self, names: Names) -> data.Data:
        """What the templates of a generation share."""
        if self._data is None or self._data.names is not names:
            self._data = data.Data(names)
        self._data.begin()
        return self._data


_engines: WeakKeyDictionary[Environment, Engine] = WeakKeyDictionary()


def engine(env: Environment) -> Engine:
    """The functions of overlay templates, beside those that Jinja2 has; one for each environment."""
    made = _engines.get(env)
    if made is None:
        made = _engines[env] = Engine({**SPRIG, **site.functions(env.sources)}, top=data.SHAPE)
    return made


class Program:
    """A compiled template; `where` names it in messages, `at` how its line and column are told."""

    def __init__(self, engine: Engine, source: str, where: str, at: str = OVERLAY, node: str = "") -> None:
        """Raises ConfigError (for `node`, if given) when `source` is no template."""
        self.where, self._engine, self._at = where, engine, at
        whom = f", node {node}" if node else ""
        self._lines = source.splitlines()
        places = Places(source)
        try:
            tree = parse(source, engine.functions, REFUSED)
            made = compiled(tree, source, where, engine.functions, engine.top)
        except SyntaxFault as error:
            raise ConfigError(f"{where}{self._place(places, error.at)}{whom}: {error.said}") from error
        except (RecursionError, MemoryError, SyntaxError, ValueError) as error:  # what Python cannot compile
            raise ConfigError(f"{where}{whom}: it is nested too deeply") from error
        names = {**engine.names, "show": engine.show(tree.words)}
        exec(made.code, names)  # made by the compiler: constants, numbered names, and functions of the table
        self._main: Callable[[Run, Any], None] = names["main"]
        self.words = tree.words
        self._changes = not tree.words.isdisjoint(CHANGING)
        self.comments = tree.comments
        self._doubts, self._places = made.doubts, places

    def doubts(self) -> list[str]:
        """What will fail when it is reached, each with its place."""
        return [f"{self.where}{self._place(self._places, at)}: {said}" for at, said in map(Doubt._make, self._doubts)]

    def _place(self, places: Places, at: int) -> str:
        line, column = places.of(at)
        return self._told(line, column)

    def _told(self, line: int, column: int) -> str:
        return self._at.replace("{}", str(line), 1).replace("{}", str(column), 1)

    def run(self, top: Object, node: str, path: str = "", memory: float = 0) -> list[str | Event]:
        """What it writes for one node, the unnamed output at `path`; `memory` MiB are what the process may grow by.

        Raises ConfigError, and Abort.
        """
        run = Run(top, path)
        try:
            self._main(run, top)
        except Abort:
            raise
        except (Exception, faults.Exceeded) as error:
            # From None: a traceback would quote the error, and with it values.
            raise self.failure(faults.limited(error, memory), node) from None
        return run.out

    def outputs(
        self, names: Names, facts: Mapping[str, str], node: str, path: str, *, memory: float = 0, limit: int = 1 << 30
    ) -> tuple[Output, ...]:
        """The outputs for one node, the unnamed one at `path`; none when the template aborts."""
        try:
            pieces = self.run(data.Top(self._engine.data(names), facts, changes=self._changes), node, path, memory)
        except Abort:
            return ()
        try:
            try:
                plain: str | None = "".join(pieces)  # type: ignore[arg-type]
            except TypeError:  # few have an event among them
                plain = None
            length = len(plain) if plain is not None else sum(len(piece) for piece in pieces if type(piece) is str)
            if length > limit:
                raise faults.Exceeded("output", limit >> 20)
            return (Output(path, model.FILE, encode(plain), True),) if plain is not None else laid(pieces, path)
        except (Exception, faults.Exceeded) as error:
            raise self.failure(error, node) from None

    def failure(self, error: BaseException, node: str) -> ConfigError:
        """The error in words that hold no value."""
        trace = faults.frames(error.__traceback__)
        mine = [each for each in trace if each.tb_frame.f_code.co_filename == self.where]
        said, hint = faults.told(error, self.words, faults.blamed(trace, self._engine.codes))
        if not mine:
            return ConfigError(f"{self.where}, node {node}: {said}", hint=hint)
        line, column = position(mine[-1])
        shown = faults.shown(self._lines[line - 1]) if line <= len(self._lines) else ""
        at = self._told(line, column)
        return ConfigError(f"{self.where}{at}, node {node}: {said}" + (f"\n    {shown}" if shown else ""), hint=hint)


def position(trace: TracebackType) -> tuple[int, int]:
    """Line and column of the template, both from 1, where a frame of it is."""
    found = next(itertools.islice(trace.tb_frame.f_code.co_positions(), trace.tb_lasti // 2, None), None)
    return trace.tb_lineno, (found[2] or 0) + 1 if found is not None else 1


def laid(pieces: list[str | Event], path: str) -> tuple[Output, ...]:
    """Texts and events as the outputs they make. Raises Refused for names that leave the root of the node."""
    slots = Slots(path)
    for piece in pieces:
        if type(piece) is str:
            slots.write(piece)
        elif isinstance(piece, Event):
            if piece.kind == FILE:
                slots.file(piece.argument)
            elif piece.kind == BACKUP:
                slots.backup = False
            else:
                slots.link(piece.argument)
    return slots.finished()
