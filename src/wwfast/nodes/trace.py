"""Where a value comes from: the rows of `list -a`.

The column PROFILE is `--` for the node's own value, the profile's id for an inherited one, SUPERSEDED for an own value
that overrides an inherited one, and the ids of all who added to a list. A list is shown as it was put together,
with its `~item` words; the effective node has them applied.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from wwfast.config import words
from wwfast.config.schema import Fields, Kind, fields
from wwfast.nodes.merge import SCHEMA, free


class Row(NamedTuple):
    field: str
    source: str
    value: str


Layer = tuple[str, dict[str, Any]]  # id, cleaned tree; the last one is the entry itself


def rows(layers: Sequence[Layer], primary: str = "") -> list[Row]:
    """One row per value that is set; `primary` is the effective primary device."""
    own = layers[-1][1]
    kept = [
        (name, {key: value for key, value in tree.items() if SCHEMA[key].doc.inherit and not SCHEMA[key].doc.node_only})
        for name, tree in layers[:-1]
    ]
    found = struct([*kept, (layers[-1][0], own)], SCHEMA, "", layers[-1][0])
    if primary and not any(row.field == "PrimaryNetDev" for row in found):
        found.append(Row("PrimaryNetDev", "--", primary))
    return found


def struct(layers: Sequence[Layer], schema: Fields, title: str, own: str) -> list[Row]:
    found: list[Row] = []
    for spec in schema.values():
        said = [(name, tree[spec.key]) for name, tree in layers if tree.get(spec.key) not in (None, "", [], {})]
        if not said:
            continue
        here = f"{title}{spec.doc.title}"
        if spec.kind is Kind.STRUCT:
            assert spec.struct is not None
            found += struct(said, fields(spec.struct), "" if not title else f"{here}.", own)
        elif spec.kind is Kind.STRUCTS:
            assert spec.struct is not None
            for name in sorted({name for _, tree in said for name in tree}):
                inner = [(layer, tree[name]) for layer, tree in said if name in tree]
                found += struct(inner, fields(spec.struct), f"{here}[{name}].", own)
        elif spec.kind in (Kind.TAGS, Kind.FREE):
            for name in sorted({name for _, tree in said for name in tree}):
                values = [(layer, tree[name]) for layer, tree in said if name in tree]
                found.append(value(f"{here}[{name}]", spec.kind, values, own))
        else:
            found.append(value(here, spec.kind, said, own))
    return found


def value(title: str, kind: Kind, said: Sequence[tuple[str, Any]], own: str) -> Row:
    names = [name for name, _ in said]
    if kind is Kind.LIST:
        source = ",".join(names) if len(names) > 1 else "--" if names == [own] else names[0]
        return Row(title, source, words.join(item for _, items in said for item in items))
    if kind is Kind.FREE:
        merged = said[0][1]
        for _, item in said[1:]:
            merged = free(merged, item)
        if len(said) > 1 and isinstance(merged, list):
            return Row(title, ",".join(names), shown(merged))
        return Row(title, source_of(names, own), shown(merged))
    return Row(title, source_of(names, own), shown(said[-1][1]))


def source_of(names: Sequence[str], own: str) -> str:
    if names[-1] != own:
        return names[-1]
    return "SUPERSEDED" if len(names) > 1 else "--"


def shown(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def whole(tree: Mapping[str, Any], schema: Fields = SCHEMA, title: str = "") -> Iterator[tuple[str, str]]:
    """Fields and values of one entry in the order of the model, empty ones too, by the parts that are there."""
    for spec in schema.values():
        if spec.doc.node_only:
            continue
        here, mine = f"{title}{spec.doc.title}", tree.get(spec.key)
        if spec.kind is Kind.STRUCT and spec.struct is not None:
            if isinstance(mine, dict) and mine:
                yield from whole(mine, fields(spec.struct), title)
        elif spec.kind is Kind.STRUCTS and spec.struct is not None:
            for name, inner in sorted((mine or {}).items()):
                yield from whole(inner, fields(spec.struct), f"{here}[{name}].")
        elif spec.kind in (Kind.TAGS, Kind.FREE):
            yield from ((f"{here}[{name}]", shown(item)) for name, item in sorted((mine or {}).items()))
        else:
            yield here, words.join(mine) if isinstance(mine, list) else shown("" if mine is None else mine)
