"""sprig's functions of lists, maps, defaults and types. Lists are copied, `set` and `unset` change maps in place."""

from __future__ import annotations

import math
from typing import Any

from wwfast.overlays.templates.faults import Refused
from wwfast.overlays.templates.go.comparing import deep_equal
from wwfast.overlays.templates.go.language.functions import Known
from wwfast.overlays.templates.go.library.numbers import to_int
from wwfast.overlays.templates.go.printing import text
from wwfast.overlays.templates.go.values import (
    Strings,
    Struct,
    elements,
    kind_of,
    type_of,
)


def items(value: Any, what: str) -> list[Any]:
    found = elements(value)
    if found is None:
        raise Refused(f"Cannot {what} type {kind_of(value)}" if value is not None else f"Cannot {what} nil")
    return found


def empty(value: Any) -> bool:
    """Whether it is the zero of its type; a struct never is."""
    return not value and not isinstance(value, Struct)


def default(fallback: Any, *given: Any) -> Any:
    return fallback if not given or empty(given[0]) else given[0]


def coalesce(*values: Any) -> Any:
    return next((value for value in values if not empty(value)), None)


def first(value: Any) -> Any:
    found = items(value, "find first on")
    return found[0] if found else None


def last(value: Any) -> Any:
    found = items(value, "find last on")
    return found[-1] if found else None


def without(value: Any, *omitted: Any) -> list[Any]:
    found = items(value, "find without on")
    return [item for item in found if not any(deep_equal(item, each) for each in omitted)]


def uniq(value: Any) -> list[Any]:
    made: list[Any] = []
    for item in items(value, "find uniq on"):
        if not any(deep_equal(item, each) for each in made):
            made.append(item)
    return made


def has(needle: Any, value: Any) -> bool:
    return value is not None and any(deep_equal(needle, item) for item in items(value, "find has on"))


def slice_(value: Any, *at: Any) -> Any:
    found = items(value, "slice")
    if not found:
        return None
    start = to_int(at[0]) if at else 0
    end = to_int(at[1]) if len(at) > 1 else len(found)
    if not 0 <= start <= end <= len(found):
        raise Refused(f"slice: out of range, there are {len(found)}")
    return type(found)(found[start:end])


def concat(*lists: Any) -> list[Any]:
    return [item for each in lists for item in items(each, "concat")]


def chunk(size: int, value: Any) -> list[Any]:
    found = items(value, "chunk")
    if size <= 0:
        raise Refused("chunk: a size of at least 1 is wanted")
    return [list(found[at : at + size]) for at in range(0, math.ceil(len(found) / size) * size, size)]


def dict_(*values: Any) -> dict[str, Any]:
    pairs = [*values, ""] if len(values) % 2 else values
    return {text(pairs[at]): pairs[at + 1] for at in range(0, len(pairs), 2)}


def set_(values: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    values[key] = value
    return values


def unset(values: dict[str, Any], key: str) -> dict[str, Any]:
    values.pop(key, None)
    return values


def keys(*maps: dict[str, Any]) -> Strings:
    """In the order of the keys; Go has none here, so sites sort them anyway."""
    return Strings(key for each in maps for key in sorted(each))


def values_(values: dict[str, Any]) -> list[Any]:
    return [values[key] for key in sorted(values)]


def omit(values: dict[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in names}


def merge(target: dict[str, Any], *sources: dict[str, Any]) -> dict[str, Any]:
    """What the target has stays, unless it is empty; maps are merged all the way down."""
    for source in sources:
        _merge(target, source, overwrite=False)
    return target


def merge_overwrite(target: dict[str, Any], *sources: dict[str, Any]) -> dict[str, Any]:
    for source in sources:
        _merge(target, source, overwrite=True)
    return target


def _merge(target: dict[str, Any], source: dict[str, Any], *, overwrite: bool) -> None:
    for key, value in source.items():
        mine = target.get(key)
        if type(mine) is dict and type(value) is dict:
            _merge(mine, value, overwrite=overwrite)
        elif overwrite or (value is not None and empty(mine)):
            target[key] = value


def dig(*path: Any) -> Any:
    """dig KEY... DEFAULT MAP."""
    if len(path) < 3:
        raise Refused("dig needs at least three arguments")
    *names, fallback, at = path
    for name in names:
        if type(at) is not dict or type(name) is not str:
            raise Refused("dig: it is no map of anything")
        if name not in at:
            return fallback
        at = at[name]
    return at


def deep_copy(value: Any) -> Any:
    if value is None:
        raise Refused("deepCopy of nothing")
    return _copied(value)


def _copied(value: Any) -> Any:
    if type(value) is dict:
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return type(value)(map(_copied, value))
    return value


def ternary(yes: Any, no: Any, which: bool) -> Any:
    return yes if which else no


def type_is_like(name: str, value: Any) -> bool:
    return type_of(value) in (name, "*" + name)


FUNCTIONS: dict[str, Known] = {
    "all": Known(lambda *values: not any(map(empty, values)), "", "a"),
    "any": Known(lambda *values: not all(map(empty, values)), "", "a"),
    "append": Known(lambda value, item: [*items(value, "push on"), item], "aa"),
    "chunk": Known(chunk, "ia"),
    "coalesce": Known(coalesce, "", "a"),
    "compact": Known(lambda value: [item for item in items(value, "compact on") if not empty(item)], "a"),
    "concat": Known(concat, "", "a"),
    "deepCopy": Known(deep_copy, "a"),
    "deepEqual": Known(deep_equal, "aa"),
    "default": Known(default, "a", "a"),
    "dict": Known(dict_, "", "a"),
    "dig": Known(dig, "", "a"),
    "empty": Known(empty, "a"),
    "first": Known(first, "a"),
    "get": Known(lambda values, key: values.get(key, ""), "ms"),
    "has": Known(has, "aa"),
    "hasKey": Known(lambda values, key: key in values, "ms"),
    "initial": Known(lambda value: list(items(value, "find initial on")[:-1]), "a"),
    "keys": Known(keys, "", "m"),
    "kindIs": Known(lambda name, value: kind_of(value) == name, "sa"),
    "kindOf": Known(kind_of, "a"),
    "last": Known(last, "a"),
    "list": Known(lambda *values: list(values), "", "a"),
    "merge": Known(merge, "m", "m"),
    "mergeOverwrite": Known(merge_overwrite, "m", "m"),
    "omit": Known(omit, "m", "s"),
    "pick": Known(lambda values, *names: {name: values[name] for name in names if name in values}, "m", "s"),
    "pluck": Known(lambda key, *maps: [each[key] for each in maps if key in each], "s", "m"),
    "prepend": Known(lambda value, item: [item, *items(value, "prepend on")], "aa"),
    "rest": Known(lambda value: list(items(value, "find rest on")[1:]), "a"),
    "reverse": Known(lambda value: list(reversed(items(value, "find reverse on"))), "a"),
    "set": Known(set_, "msa"),
    "slice": Known(slice_, "a", "a"),
    "ternary": Known(ternary, "aab"),
    "tuple": Known(lambda *values: list(values), "", "a"),
    "typeIs": Known(lambda name, value: type_of(value) == name, "sa"),
    "typeIsLike": Known(type_is_like, "sa"),
    "typeOf": Known(type_of, "a"),
    "uniq": Known(uniq, "a"),
    "unset": Known(unset, "ms"),
    "values": Known(values_, "m"),
    "without": Known(without, "a", "a"),
}
FUNCTIONS["push"] = FUNCTIONS["append"]
# Those that change a map in place.
CHANGING = frozenset(("set", "unset", "merge", "mergeOverwrite", "mustMerge", "mustMergeOverwrite"))
FUNCTIONS |= {
    "must" + name[0].upper() + name[1:]: FUNCTIONS[name]
    for name in (
        "append", "chunk", "compact", "deepCopy", "first", "has", "initial", "last", "merge", "mergeOverwrite",
        "prepend", "push", "rest", "reverse", "slice", "uniq", "without",
    )
}  # fmt: skip
