"""`eq`, `lt` and their relatives, and reflect.DeepEqual."""

from __future__ import annotations

from typing import Any

from wwfast.overlays.templates.faults import Refused
from wwfast.overlays.templates.go.values import TYPES, Object, Struct, Word, is_nil, kind_of, told

# The kinds that can be compared by order.
NUMBERS = {
    **dict.fromkeys(("int", "int64"), "int"),
    **dict.fromkeys(("uint8", "uint64"), "uint"),
    "float64": "float",
    "string": "string",
    "bool": "bool",
}


def _comparable(value: Any) -> tuple[str, Any]:
    """Its kind for comparisons, and what is compared."""
    if type(value) is Word:
        return "string", value.text
    if isinstance(value, Object):
        return "", value
    return NUMBERS.get(TYPES[type(value)], ""), value


def eq(first: Any, *others: Any) -> bool:
    if not others:
        raise Refused("missing argument for comparison")
    return any(equal(first, other) for other in others)


def equal(a: Any, b: Any) -> bool:
    """`eq` of two."""
    if type(a) is str and type(b) is str:
        return a == b
    kind, a = _comparable(a)
    other, b = _comparable(b)
    if kind != other:
        if {kind, other} == {"int", "uint"}:
            return bool(a == b)
        if a is not None and b is not None:
            raise Refused(f"incompatible types for comparison: {told(a)} and {told(b)}")
        return False
    if kind:
        return bool(a == b)
    return _same(a, b)


def _same(a: Any, b: Any) -> bool:
    """Values that are neither text nor number nor yes and no."""
    if a is not None and b is not None and kind_of(a) != kind_of(b):
        raise Refused(f"non-comparable types {told(a)} and {told(b)}")
    if is_nil(a) or is_nil(b):
        return is_nil(a) == is_nil(b)
    if kind_of(b) != "ptr" and not isinstance(b, Struct):
        raise Refused(f"non-comparable type {told(b)}")
    return a is b


def ne(a: Any, b: Any) -> bool:
    return not equal(a, b)


def lt(a: Any, b: Any) -> bool:
    kind, a = _comparable(a)
    other, b = _comparable(b)
    if not kind or not other:
        raise Refused("invalid type for comparison")
    if kind != other and {kind, other} != {"int", "uint"}:
        raise Refused(f"incompatible types for comparison: {told(a)} and {told(b)}")
    if kind == "bool":
        raise Refused("invalid type for comparison")
    if kind == "string" and not (a.isascii() and b.isascii()):
        a, b = a.encode("utf-8", "surrogateescape"), b.encode("utf-8", "surrogateescape")
    return bool(a < b)


def le(a: Any, b: Any) -> bool:
    return lt(a, b) or equal(a, b)


def gt(a: Any, b: Any) -> bool:
    return not le(a, b)


def ge(a: Any, b: Any) -> bool:
    return not lt(a, b)


def deep_equal(a: Any, b: Any) -> bool:
    """reflect.DeepEqual: types count, all the way down."""
    if type(a) is not type(b):
        return False
    if isinstance(a, list):
        return len(a) == len(b) and all(map(deep_equal, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(deep_equal(value, b[key]) for key, value in a.items())
    return bool(a == b)
