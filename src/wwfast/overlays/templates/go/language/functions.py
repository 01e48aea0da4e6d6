"""What a template can call: a function of Python, and the types that Go wants its arguments to have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from wwfast.overlays.templates.faults import Refused
from wwfast.overlays.templates.go.language.tree import Literal
from wwfast.overlays.templates.go.values import Flag, told


def wrong(wanted: str, value: Any) -> Refused:
    if value is None:
        return Refused(f"invalid value; expected {wanted}", hint='say what holds when it is not set: default "" VALUE')
    return Refused(f"wrong type for value; expected {wanted}; got {told(value)}")


def string(value: Any) -> str:
    if type(value) is str:
        return value
    raise wrong("string", value)


def integer(value: Any) -> int:
    if type(value) is int:
        return value
    raise wrong("int", value)


def boolean(value: Any) -> bool:
    if type(value) is bool:
        return value
    if type(value) is Flag:
        return value.says
    raise wrong("bool", value)


def real(value: Any) -> float:
    if type(value) is float:
        return value
    raise wrong("float64", value)


def mapping(value: Any) -> dict[str, Any]:
    if type(value) is dict:
        return value
    if value is None:
        return {}
    raise wrong("map[string]any", value)


class Known(NamedTuple):
    """A function of templates: `parameters` and `rest` (if it takes more) are letters of KINDS.

    One that is `placed` gets the run as its first argument: it acts where it stands in the output.
    """

    call: Callable[..., Any]
    parameters: str = ""
    rest: str = ""
    placed: bool = False


class Type(NamedTuple):
    """A type of parameters: its name in Go, what lets a value in, and which literals it takes."""

    name: str
    check: Callable[[Any], Any] | None
    literal: Callable[[Literal], bool]


KINDS: dict[str, Type] = {
    "a": Type("any", None, lambda it: True),
    "s": Type("string", string, lambda it: type(it.value) is str),
    "i": Type("int", integer, lambda it: it.exact is not None),
    "b": Type("bool", boolean, lambda it: type(it.value) is bool),
    "f": Type("float64", real, lambda it: type(it.value) in (int, float)),
    "m": Type("map[string]any", mapping, lambda it: False),
}
CHECKS = {f"to_{letter}": kind.check for letter, kind in KINDS.items() if kind.check is not None}
