"""What templates can do with what they can name: a closed list by type, nothing by default.

Jinja2's own sandbox forbids what is known to be dangerous, so an object that should not have come in is open as a
whole (the methods of a path read and write files). Here nothing of an object is there unless its type is listed:
maps, lists, text, numbers, our structs, and what Jinja2 makes while it runs. There is no loader of other templates.
"""

from __future__ import annotations

from collections.abc import Callable
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import jinja2
import msgspec
from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError
from jinja2.filters import _GroupTuple
from jinja2.runtime import BlockReference, LoopContext, Macro, TemplateReference
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range
from jinja2.utils import Namespace

from wwfast._ext import attributes
from wwfast.overlays.templates import filters
from wwfast.overlays.templates.faults import Missing
from wwfast.overlays.templates.lazy import walk

TEXT = frozenset((
    "capitalize", "casefold", "center", "count", "endswith", "expandtabs", "find", "format", "format_map", "index",
    "isalnum", "isalpha", "isascii", "isdecimal", "isdigit", "isidentifier", "islower", "isnumeric", "isprintable",
    "isspace", "istitle", "isupper", "join", "ljust", "lower", "lstrip", "partition", "removeprefix", "removesuffix",
    "replace", "rfind", "rindex", "rjust", "rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith",
    "strip", "swapcase", "title", "upper", "zfill",
))  # fmt: skip
MAP = frozenset({"items", "keys", "values", "get"})
LOOP = frozenset((
    "changed", "cycle", "depth", "depth0", "first", "index", "index0", "last", "length", "nextitem", "previtem",
    "revindex", "revindex0",
))  # fmt: skip
# Attributes by type, subclasses included; the first that fits.
ATTRIBUTES: tuple[tuple[type, frozenset[str]], ...] = (
    (str, TEXT),
    (dict, MAP),
    (_GroupTuple, frozenset({"grouper", "list", "count", "index"})),
    (list, frozenset({"count", "index"})),
    (tuple, frozenset({"count", "index"})),
    (LoopContext, LOOP),
    (Macro, frozenset({"name", "arguments", "caller", "catch_kwargs", "catch_varargs"})),
)
INDEXED = (str, list, tuple, dict, range, TemplateReference)
HERE = ("defined", "undefined")  # tests that look at nothing
CALLED = (Macro, LoopContext, BlockReference, jinja2.Undefined)
OPEN = frozenset({Namespace})


class Generator(CodeGenerator):
    """Computes nothing while it compiles: an expression of constants may take for ever, and its node may be another.

    It writes down what `lazy` found: `tested` is only asked whether it is true, a `hole` only printed, and the text of
    a `straight` macro is printed as it is.
    """

    def _output_child_to_const(self, node: nodes.Expr, frame: Frame, finalize: Any) -> str:
        if not isinstance(node, nodes.TemplateData | nodes.Const):
            raise nodes.Impossible
        return super()._output_child_to_const(node, frame, finalize)

    def _output_child_pre(self, node: nodes.Expr, frame: Frame, finalize: Any) -> None:
        if hasattr(node, "hole"):
            names = {each.name: None for each in walk(node, nodes.Name)}
            refs = [frame.symbols.ref(name) for name in names]
            self._refs = "".join(f"{ref}, " for ref in refs)
            self.write(f"environment.hole(lambda {', '.join(f'{ref}={ref}' for ref in refs)}: ")
        super()._output_child_pre(node, frame, finalize)

    def _output_child_post(self, node: nodes.Expr, frame: Frame, finalize: Any) -> None:
        super()._output_child_post(node, frame, finalize)
        if hasattr(node, "hole"):
            self.write(f", ({self._refs}))")

    def visit_Name(self, node: nodes.Name, frame: Frame) -> None:
        if hasattr(node, "straight"):
            self.write("environment.straight(")
        super().visit_Name(node, frame)
        if hasattr(node, "straight"):
            self.write(")")

    def visit_Getattr(self, node: nodes.Getattr, frame: Frame) -> None:
        if not hasattr(node, "tested"):
            super().visit_Getattr(node, frame)
            return
        self.write("environment.truth(")
        self.visit(node.node, frame)
        self.write(f", {node.attr!r}, environment.getattr)")

    def visit_AssignBlock(self, node: nodes.AssignBlock, frame: Frame) -> None:
        self._solid(super().visit_AssignBlock, node, frame)

    def visit_FilterBlock(self, node: nodes.FilterBlock, frame: Frame) -> None:
        self._solid(super().visit_FilterBlock, node, frame)

    def _solid(self, visit: Callable[[Any, Frame], None], node: nodes.Node, frame: Frame) -> None:
        self.writeline("environment.capture(1)")
        visit(node, frame)
        self.writeline("environment.capture(-1)")


class Sandbox(ImmutableSandboxedEnvironment):
    """Strict about undefined names; `functions` are what can be called, those of `contextual` get the context."""

    code_generator_class = Generator

    def __init__(
        self,
        functions: dict[str, Callable[..., Any]],
        contextual: frozenset[str] = frozenset(),
        reader: attributes.Reader | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            undefined=Missing, keep_trailing_newline=True, autoescape=False, cache_size=0, optimized=False, **options
        )
        self.globals.clear()
        self.globals.update(functions)
        self.globals.update({"range": safe_range, "dict": dict, "namespace": Namespace})
        self.filters.update(filters.FILTERS)
        self.tests.update(filters.TESTS)
        if reader is not None:
            vars(self)["filters"] = {name: attributes.Plain(function) for name, function in self.filters.items()}
            vars(self)["tests"].update(
                {name: attributes.Plain(it) for name, it in self.tests.items() if name not in HERE}
            )
        self.called = frozenset(map(id, self.globals.values()))

        def undefined(obj: Any, name: str) -> Any:
            return Missing(None, obj, name)

        plain = frozenset(function for name, function in functions.items() if name not in contextual)
        vars(self)["getattr"] = attributes.make_getattr(msgspec.Struct, OPEN, undefined, self.attribute)
        vars(self)["getitem"] = attributes.make_getitem(msgspec.Struct, undefined, self.getattr, self.item)
        viewing = frozenset({LoopContext, Namespace})
        vars(self)["call"] = attributes.make_call(reader, plain, Macro, viewing, self.calling)

    def prepared(self, tree: nodes.Template) -> nodes.Template:
        """The syntax tree as it is to be compiled."""
        return tree

    def attribute(self, obj: Any, name: str) -> Any:
        """An attribute of what is neither a plain map nor a struct."""
        if isinstance(obj, jinja2.Undefined):
            return obj._fail_with_undefined_error()
        for kind, names in ATTRIBUTES:
            if isinstance(obj, kind):
                if name in names:
                    value = getattr(obj, name)
                    return self.wrap_str_format(value) or value if kind is str else value
                break
        if isinstance(obj, TemplateReference | dict):
            return self.item(obj, name)
        return Missing(None, obj, name)

    def item(self, obj: Any, argument: Any) -> Any:
        if isinstance(obj, jinja2.Undefined):
            return obj._fail_with_undefined_error()
        if isinstance(obj, INDEXED):
            try:
                return obj[argument]
            except (LookupError, TypeError):
                if isinstance(obj, TemplateReference | dict):
                    return Missing(None, obj, argument)
        if isinstance(argument, str):
            return self.getattr(obj, argument)
        return Missing(None, obj, argument)

    def calling(self, context: Any, obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call what was listed, or what `attribute` gave."""
        if not (id(obj) in self.called or isinstance(obj, CALLED) or self._method(obj)):
            raise SecurityError("this cannot be called")
        return context.call(obj, *args, **kwargs)

    @staticmethod
    def _method(obj: Any) -> bool:
        if isinstance(obj, FunctionType):  # str.format, as wrapped by Jinja2
            return isinstance(getattr(getattr(obj, "__wrapped__", None), "__self__", None), str)
        if not isinstance(obj, BuiltinFunctionType | MethodType):
            return False
        names = next((names for kind, names in ATTRIBUTES if isinstance(obj.__self__, kind)), ())
        return obj.__name__ in names and not (isinstance(obj.__self__, str) and obj.__name__.startswith("format"))
