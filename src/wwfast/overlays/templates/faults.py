"""What is said when a template fails: where, which function, what kind of error; never a value that may be a secret.

Exceptions of filters quote what they were given (`'hunter2' is not a valid netmask`), and what is said here reaches
logs, the status for everybody and the console of the node. So only texts of our own are told, and of names and paths
only those that stand in the template itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import CodeType, TracebackType
from typing import Any

import jinja2
from jinja2 import nodes as ast
from jinja2.exceptions import SecurityError

from wwfast.errors import ConfigError

# By class, the first that fits; what is in none of them is told by the name of its class.
KINDS: tuple[tuple[type[Exception], str], ...] = (
    (ZeroDivisionError, "division by zero"),
    (OverflowError, "a number is too large"),
    (RecursionError, "endless recursion"),
    (MemoryError, "there is not that much memory for it"),
    (SecurityError, "the sandbox of templates forbids this"),
    (ArithmeticError, "this cannot be computed"),
    (LookupError, "there is no such key or element"),
    (re.error, "this is no regular expression"),
    (ValueError, "a value cannot be used here"),
    (TypeError, "a value or argument of the wrong kind"),
    (ConfigError, "a value cannot be used here"),
)
WIDTH = 160
TAG = re.compile(r"\{[{%].*?[%}]\}")
QUOTED = re.compile(r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'")


class Refused(ConfigError):
    """A template asks for what cannot be; `{}` in the texts stands for `value`.

    The value may have come from anywhere, so it is told only where the template itself spells it (see `told`).
    """

    def __init__(self, said: str, value: object = "", *, hint: str | None = None) -> None:
        super().__init__(said.replace("{}", "(computed)"), hint=hint)
        self.said, self.value = said, str(value)

    def told(self, spelled: frozenset[str]) -> str:
        return self.said.replace("{}", self.value) if self.value in spelled else self.message


class Exceeded(BaseException):
    """A template took more than it may; no filter that catches exceptions catches this one."""

    LIMITS: Mapping[str, tuple[str, str]] = {
        "seconds": ("it ran for more than {} s of CPU time", "template seconds"),
        "memory": ("it took more than {} MiB of memory", "template memory"),
        "output": ("it wrote more than {} MiB for this node", "template output"),
    }

    def __init__(self, what: str, limit: float) -> None:
        self.what, self.limit = what, limit
        said, key = self.LIMITS[what]
        super().__init__(said.replace("{}", f"{limit:g}"))
        self.hint = f"an endless loop or expression? if not: warewulf.conf, wwfast: {{{key}: NUMBER}}"


def limited(error: BaseException, memory: float) -> BaseException:
    """The same, or in its place that `memory` MiB (0: no limit) were not enough."""
    if memory and isinstance(error, MemoryError):
        return Exceeded("memory", memory).with_traceback(error.__traceback__)
    return error


class Missing(jinja2.StrictUndefined):
    """What is not there; using it is refused in words that do not depend on Jinja2's."""

    __slots__ = ()

    @property
    def _undefined_message(self) -> str:
        hint = 'say what to write when it is not set: NAME | default("")'
        name, owner = self._undefined_name, self._undefined_obj
        if self._undefined_hint:  # constant texts of Jinja2, and names of parameters
            raise Refused(self._undefined_hint, hint=hint)
        if owner is jinja2.utils.missing:
            raise Refused("'{}' is undefined", name, hint=hint)
        if isinstance(owner, dict):
            raise Refused("there is no such key in this map: '{}'", name, hint=hint)
        raise Refused(f"'{type(owner).__name__}' has no attribute or element '{{}}'", name, hint=hint)


def spelled(tree: ast.Template) -> frozenset[str]:
    """Names and constants that stand in a template; of dotted ones the parts, too."""
    found: set[str] = set()
    for node in tree.find_all((ast.Name, ast.Getattr, ast.Const)):
        said = str(next(getattr(node, field) for field in ("name", "attr", "value") if field in node.fields))
        found |= {said, *said.split(".")}
    return frozenset(found)


def told(error: BaseException, words: frozenset[str], blame: str) -> tuple[str, str | None]:
    """What may be said of an error, and the hint; `blame` names the function that raised it."""
    if isinstance(error, Exceeded):
        return (f"{blame}: {error}" if blame else str(error)), error.hint
    if isinstance(error, Refused):
        return error.told(words), error.hint
    kind = next((text for kind, text in KINDS if isinstance(error, kind)), "")
    name = type(error).__name__
    what = f"{kind} ({name})" if kind else name
    return (f"{blame}: {what}" if blame else what), None


def names_of_code(**kinds: Mapping[str, Any]) -> dict[CodeType, str]:
    """`filter mac`, `test cidr`, `include()` by the code that a traceback shows."""
    found: dict[CodeType, str] = {}
    for kind, functions in kinds.items():
        for name, function in functions.items():
            code = getattr(getattr(function, "__wrapped__", function), "__code__", None)
            if code is not None:
                found[code] = f"{kind} {name}"
    return found


def blamed(trace: Iterable[TracebackType], known: Mapping[CodeType, str]) -> str:
    return next((known[each.tb_frame.f_code] for each in trace if each.tb_frame.f_code in known), "")


def frames(trace: TracebackType | None) -> list[TracebackType]:
    found: list[TracebackType] = []
    while trace is not None:
        found.append(trace)
        trace = trace.tb_next
    return found


def shown(line: str) -> str:
    """The tags of a line of a template, without what stands in quotes, and not much of them."""
    tags = " ".join(QUOTED.sub('"..."', tag) for tag in TAG.findall(line))
    return tags if len(tags) <= WIDTH else tags[: WIDTH - 3] + "..."
