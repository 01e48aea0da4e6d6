"""A Go template to a Python function: once per template, by way of Python's own syntax tree.

Nothing of a template becomes a name in Python: variables are numbered, functions come from the table, everything else
is a constant. Each node of the tree carries line and column of the template, so a traceback tells where it failed. What
is sure to fail when it is reached (`lower 1`) is compiled to failing there, as in Go, and told as a doubt.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from types import CodeType
from typing import Any, NamedTuple

from wwfast.overlays.templates.go import comparing, values
from wwfast.overlays.templates.go.language import tree as syntax
from wwfast.overlays.templates.go.language.functions import CHECKS, KINDS, Known
from wwfast.overlays.templates.go.language.lexer import Places
from wwfast.overlays.templates.go.shapes import Shape

RUNTIME: dict[str, Any] = {
    **CHECKS,
    "equal": comparing.equal,
    "field": values.field,
    "method": values.method,
    "one": values.one,
    "two": values.two,
}
LOOPS = 18  # Python allows 20 within each other


class Doubt(NamedTuple):
    """What fails when it is reached."""

    at: int
    said: str


class Compiled(NamedTuple):
    code: CodeType
    doubts: list[Doubt]


class Scope:
    """Which Python name a variable has now; the innermost one of that name."""

    def __init__(self, outer: Scope | None = None) -> None:
        self.outer, self.names = outer, dict[str, str]()

    def find(self, name: str) -> str | None:
        return self.names.get(name) or (self.outer.find(name) if self.outer else None)


def compiled(
    tree: syntax.Tree, source: str, where: str, functions: Mapping[str, Known], top: Shape | None = None
) -> Compiled:
    """A code object that defines `main(run, dot)`; `top` tells what the dot of the top level has."""
    maker = Compiler(tree, source, functions, top)
    module = ast.Module(maker.functions(), [])
    return Compiled(compile(module, where, "exec", dont_inherit=True, optimize=0), maker.doubts)


class Compiler:
    def __init__(self, tree: syntax.Tree, source: str, functions: Mapping[str, Known], top: Shape | None) -> None:
        self._tree, self._functions, self._top = tree, functions, top
        self._places = Places(source)
        self._templates = {name: f"t_{number}" for number, name in enumerate(tree.defined)}
        self._count = 0
        self._loops = 0
        self._placed = False  # whether something acts where it stands, since this was last set
        self._scope = Scope()
        self._dot = "d"
        self._shapes: dict[str, Shape | None] = {}  # of names in Python
        self._there: set[str] = set()  # of these those that never hold nothing
        self.doubts: list[Doubt] = []

    def functions(self) -> list[ast.stmt]:
        main = self._function("main", self._tree.body, whole=True)
        return [main] + [self._function(self._templates[name], body) for name, body in self._tree.defined.items()]

    def _function(self, name: str, body: list[syntax.Part], *, whole: bool = False) -> ast.stmt:
        self._scope, self._dot = Scope(), "d"
        self._scope.names["$"] = "d"
        self._shapes = {"d": self._top if whole else None}
        self._there = {"d"}
        here: dict[str, Any] = {"lineno": 1, "col_offset": 0, "end_lineno": 1, "end_col_offset": 1}
        arguments = ast.arguments([], [ast.arg("run", **here), ast.arg("d", **here)], None, [], [], None, [])
        write = ast.Attribute(ast.Name("run", ast.Load(), **here), "write", ast.Load(), **here)
        first = ast.Assign([ast.Name("w", ast.Store(), **here)], write, **here)
        return ast.FunctionDef(name, arguments, [first, *self._parts(body)], [], None, **here)

    # -- making nodes --------------------------------------------------------------------------------------------

    def _at(self, at: int) -> dict[str, Any]:
        line, column = self._places.of(at)
        return {"lineno": line, "col_offset": column - 1, "end_lineno": line, "end_col_offset": column}

    def _new(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}_{self._count}"

    def _name(self, name: str, at: int) -> ast.expr:
        return ast.Name(name, ast.Load(), **self._at(at))

    def _const(self, value: Any, at: int) -> ast.expr:
        return ast.Constant(value, **self._at(at))

    def _call(self, name: str, arguments: list[ast.expr], at: int) -> ast.expr:
        return ast.Call(self._name(name, at), arguments, [], **self._at(at))

    def _bind(self, name: str, value: ast.expr, at: int) -> ast.expr:
        """`name := value`, which is the value."""
        return ast.NamedExpr(ast.Name(name, ast.Store(), **self._at(at)), value, **self._at(at))

    def _set(self, name: str, value: ast.expr, at: int) -> ast.stmt:
        return ast.Assign([ast.Name(name, ast.Store(), **self._at(at))], value, **self._at(at))

    def _fail(self, said: str, at: int) -> ast.expr:
        self.doubts.append(Doubt(at, said))
        return self._call("fail", [self._const(said, at)], at)

    # -- parts -------------------------------------------------------------------------------------------------

    def _parts(self, parts: list[syntax.Part]) -> list[ast.stmt]:
        """Statements, at least one."""
        made: list[ast.stmt] = []
        written: list[ast.expr] = []
        for part in parts:
            if isinstance(part, syntax.Text):
                written.append(self._const(part.text, part.at))
            elif isinstance(part, syntax.Action) and not part.pipeline.variables:
                self._placed = False
                value = self._shown(self._pipeline(part.pipeline), part)
                if self._placed:  # what was written before it stands before it
                    made += [*self._write(written), *self._write([value])]
                else:
                    written.append(value)
            else:
                made += [*self._write(written), *self._statements(part)]
        return [*made, *self._write(written)] or [ast.Pass(**self._at(0))]

    def _statements(self, part: syntax.Part) -> list[ast.stmt]:
        match part:
            case syntax.Branch(word="range"):
                return self._range(part)
            case syntax.Branch():
                return [self._branch(part)]
            case syntax.Jump():
                return [(ast.Break if part.word == "break" else ast.Continue)(**self._at(part.at))]
            case syntax.Call():
                return [ast.Expr(self._template(part), **self._at(part.at))]
            case syntax.Action():
                return [ast.Expr(self._pipeline(part.pipeline), **self._at(part.at))]
        raise AssertionError(part)

    def _write(self, written: list[ast.expr]) -> list[ast.stmt]:
        """What stands one after the other is written in one piece: most of a run is such calls. Empties the list."""
        if not written:
            return []
        value = written[0]
        here = {name: getattr(value, name) for name in value._attributes}
        if len(written) > 1:
            pieces = [it if isinstance(it, ast.Constant) else ast.FormattedValue(it, -1, **here) for it in written]
            value = ast.JoinedStr([*pieces], **here)
        written.clear()
        return [ast.Expr(ast.Call(ast.Name("w", ast.Load(), **here), [value], [], **here), **here)]

    def _shown(self, value: ast.expr, action: syntax.Action) -> ast.expr:
        if isinstance(value, ast.Constant) and type(value.value) is str:
            return value
        return self._call("show", [value], action.at)

    def _inside(self, parts: list[syntax.Part], dot: str) -> list[ast.stmt]:
        before = self._scope, self._dot
        self._scope, self._dot = Scope(self._scope), dot
        made = self._parts(parts)
        self._scope, self._dot = before
        return made

    def _branch(self, part: syntax.Branch) -> ast.stmt:
        outer = self._scope
        self._scope = Scope(outer)
        test = self._pipeline(part.pipeline)
        dot = self._dot
        if part.word == "with":
            dot = self._new("d")
            self._shapes[dot] = self._shape(part.pipeline)
            self._there.add(dot)
            test = self._bind(dot, test, part.at)
        body = self._inside(part.body, dot)
        otherwise = self._inside(part.otherwise, self._dot) if part.otherwise else []
        self._scope = outer
        return ast.If(test, body, otherwise, **self._at(part.at))

    def _range(self, part: syntax.Branch) -> list[ast.stmt]:
        outer, at = self._scope, part.at
        self._scope = Scope(outer)
        variables = part.pipeline.variables
        # What is gone over is bound to the variables, too, as long as there is no element.
        whole = self._pipeline(part.pipeline)
        names = [self._scope.find(name) or "d" for name in variables]
        items, dot, key = self._new("s"), self._new("d"), self._new("k")
        held = self._shape(part.pipeline)
        self._shapes[dot] = held.element if held is not None else None
        self._there.add(dot)
        self._shapes.update(dict.fromkeys(names))
        if names and variables[-1] not in self._tree.assigned:
            self._shapes[names[-1]] = self._shapes[dot]
            self._there.add(names[-1])
        self._loops += 1
        if self._loops > LOOPS:
            self.doubts.append(Doubt(at, "ranges are nested too deeply"))
            raise RecursionError
        sets = [self._set(names[-1], self._name(dot, at), at)] if names else []
        target: ast.expr = ast.Name(dot, ast.Store(), **self._at(at))
        if len(names) == 2:
            sets.insert(0, self._set(names[0], self._name(key, at), at))
            target = ast.Tuple([ast.Name(key, ast.Store(), **self._at(at)), target], ast.Store(), **self._at(at))
        over = self._call("two" if len(names) == 2 else "one", [whole], at)
        loop = ast.For(target, self._name(items, at), [*sets, *self._inside(part.body, dot)], [], **self._at(at))
        self._loops -= 1
        made: list[ast.stmt] = [self._set(items, over, at), loop]
        if part.otherwise:
            otherwise = self._inside(part.otherwise, self._dot)
            made = [made[0], ast.If(self._name(items, at), [loop], otherwise, **self._at(at))]
        self._scope = outer
        return made

    def _template(self, part: syntax.Call) -> ast.expr:
        dot = self._pipeline(part.pipeline) if part.pipeline is not None else self._const(None, part.at)
        if part.name not in self._templates:
            return self._fail(f"template {part.name!r} is not defined", part.at)
        return self._call(self._templates[part.name], [self._name("run", part.at), dot], part.at)

    # -- expressions -------------------------------------------------------------------------------------------

    def _pipeline(self, pipeline: syntax.Pipeline) -> ast.expr:
        value: ast.expr | None = None
        for command in pipeline.commands:
            value = self._command(command, value)
        assert value is not None
        for name in pipeline.variables:
            if pipeline.declares:
                target = self._scope.names[name] = self._new("v")
            else:
                found = self._scope.find(name)
                if found is None:
                    return self._fail(f"undefined variable {name!r}", pipeline.at)
                target = found
            self._shapes[target] = self._shape(pipeline) if name not in self._tree.assigned else None
            value = self._bind(target, value, pipeline.at)
        return value

    def _shape(self, pipeline: syntax.Pipeline) -> Shape | None:
        """What is known of its value: where it is a field, a variable, or an element by `index`."""
        if len(pipeline.commands) > 1:
            return None
        first, *rest = pipeline.commands[0].operands
        if isinstance(first, syntax.Function) and first.name == "index" and len(rest) == 2:
            held = self._shape(syntax.Pipeline([syntax.Command(rest[:1], first.at)], first.at))
            return held.element if held is not None else None
        if rest:
            return None
        match first:
            case syntax.Pipeline():
                return self._shape(first)
            case syntax.Dot():
                return self._shapes.get(self._dot)
            case syntax.Fields():
                owner, names = self._shapes.get(self._dot), first.names
            case syntax.Variable():
                owner, names = self._shapes.get(self._scope.find(first.name) or ""), first.names
            case syntax.Chain(inner=syntax.Pipeline() as inner):
                owner, names = self._shape(inner), first.names
            case _:
                return None
        return owner.walk(names)[0] if owner is not None else None

    def _command(self, command: syntax.Command, final: ast.expr | None) -> ast.expr:
        first, *rest = command.operands
        match first:
            case syntax.Function():
                return self._apply(first, rest, final)
            case syntax.Fields() | syntax.Variable(names=[_, *_]) | syntax.Chain():
                if rest or final is not None:
                    return self._method(first, rest, final)
                return self._operand(first)
        if rest or final is not None:
            return self._fail("can't give argument to non-function", first.at)
        if isinstance(first, syntax.Nil):
            return self._fail("nil is not a command", first.at)
        return self._operand(first)

    def _operand(self, operand: syntax.Operand) -> ast.expr:
        match operand:
            case syntax.Literal():
                return self._const(operand.value, operand.at)
            case syntax.Nil():
                return self._const(None, operand.at)
            case syntax.Dot():
                return self._name(self._dot, operand.at)
            case syntax.Pipeline():
                return self._pipeline(operand)
            case syntax.Function():
                return self._apply(operand, [], None)
        owner, names = self._owner(operand)
        return self._fields(owner, names, operand)

    def _owner(self, operand: syntax.Fields | syntax.Variable | syntax.Chain) -> tuple[ast.expr, list[str]]:
        match operand:
            case syntax.Fields():
                return self._name(self._dot, operand.at), operand.names
            case syntax.Variable():
                name = self._scope.find(operand.name)
                if name is None:
                    return self._fail(f"undefined variable {operand.name!r}", operand.at), operand.names
                return self._name(name, operand.at), operand.names
            case syntax.Chain():
                return self._operand(operand.inner), operand.names

    def _fields(
        self, owner: ast.expr, names: list[str], operand: syntax.Fields | syntax.Variable | syntax.Chain
    ) -> ast.expr:
        known = self._shapes.get(owner.id) if isinstance(owner, ast.Name) else None
        if isinstance(operand, syntax.Chain) and isinstance(operand.inner, syntax.Pipeline):
            known = self._shape(operand.inner)
        if known is not None and (said := known.walk(names)[1]):
            self.doubts.append(Doubt(operand.at, said))
        there = isinstance(owner, ast.Name) and owner.id in self._there
        for name in names:
            arguments = [self._const(name, operand.at)]
            if there and known is not None and known.members is not None:
                step = ast.Attribute(owner, "member", ast.Load(), **self._at(operand.at))
                owner = ast.Call(step, arguments, [], **self._at(operand.at))
            else:
                owner = self._call("field", [owner, *arguments], operand.at)
                there = False
            known = known.walk([name])[0] if known is not None else None
        return owner

    def _method(
        self, first: syntax.Fields | syntax.Variable | syntax.Chain, rest: list[syntax.Operand], final: ast.expr | None
    ) -> ast.expr:
        owner, names = self._owner(first)
        arguments = [self._operand(each) for each in rest] + ([final] if final is not None else [])
        inner = self._fields(owner, names[:-1], first)
        return self._call("method", [inner, self._const(names[-1], first.at), *arguments], first.at)

    def _apply(self, function: syntax.Function, rest: list[syntax.Operand], final: ast.expr | None) -> ast.expr:
        name, at = function.name, function.at
        known = self._functions[name]
        count = len(rest) + (final is not None)
        wanted = len(known.parameters)
        if count < wanted or (count > wanted and not known.rest):
            least = "at least " if known.rest else ""
            return self._fail(f"wrong number of args for {name}: want {least}{wanted} got {count}", at)
        letters = known.parameters + known.rest * (count - wanted)
        arguments = [self._argument(each, letter) for each, letter in zip(rest, letters, strict=False)]
        if final is not None:
            arguments.append(self._checked(final, letters[-1], at))
        match name:
            case "and" | "or":
                return self._shorted(name, arguments, at)
            case "eq" if count == 2:
                return self._call("equal", arguments, at)
            case "not":
                return ast.UnaryOp(ast.Not(), arguments[0], **self._at(at))
        if known.placed:
            self._placed = True
            arguments.insert(0, self._name("run", at))
        return self._call(f"f_{name}", arguments, at)

    def _argument(self, operand: syntax.Operand, letter: str) -> ast.expr:
        kind = KINDS[letter]
        if isinstance(operand, syntax.Literal):
            if not kind.literal(operand):
                return self._fail(f"expected {kind.name}; found {operand.value!r}", operand.at)
            value = operand.value
            if letter == "i":
                value = operand.exact or 0
            elif letter == "f":
                value = float(operand.value)
            return self._const(value, operand.at)
        if isinstance(operand, syntax.Nil) and letter in "sibf":
            return self._fail(f"cannot assign nil to {kind.name}", operand.at)
        return self._checked(self._operand(operand), letter, operand.at)

    def _checked(self, value: ast.expr, letter: str, at: int) -> ast.expr:
        if KINDS[letter].check is None:
            return value
        return self._call(f"to_{letter}", [value], at)

    def _shorted(self, name: str, arguments: list[ast.expr], at: int) -> ast.expr:
        """`and` and `or`: the first value that decides, or the last."""
        *before, value = arguments
        for each in reversed(before):
            kept = self._new("v")
            test = self._bind(kept, each, at)
            pair = (value, self._name(kept, at)) if name == "and" else (self._name(kept, at), value)
            value = ast.IfExp(test, *pair, **self._at(at))
        return value
