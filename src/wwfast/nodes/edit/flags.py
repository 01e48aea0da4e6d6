"""The flags of add, set and unset, derived from the model: what each one addresses.

A family is a map of structs: `--netname` picks a network device, `--netdel` removes one, and so for disks,
partitions and file systems. A tag map has `--tagadd`, `--tagdel` and, in unset, `--tag`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import msgspec

from wwfast.config import checks
from wwfast.config.schema import Doc, Field, Kind, fields
from wwfast.nodes.model import Node

DEFAULT = {"net": "default"}  # the device addressed when no --netname is given
FAMILY_NOUN = {"net": "network device", "disk": "disk", "part": "partition", "fs": "file system"}


@dataclass(frozen=True, slots=True)
class Step:
    """One key on the way to a value; with `family`, the key is what `--<family>name` says."""

    key: str
    family: str = ""


@dataclass(frozen=True, slots=True)
class Flag:
    """One value an admin can set. `path` ends in the key of the value."""

    name: str
    path: tuple[Step, ...]
    field: Field

    @property
    def doc(self) -> Doc:
        return self.field.doc

    @property
    def kind(self) -> Kind:
        return self.field.kind

    @property
    def variable(self) -> str:
        return self.name.replace("-", "_")

    @property
    def family(self) -> str:
        """The innermost family it belongs to, or ""."""
        return next((step.family for step in reversed(self.path) if step.family), "")

    @property
    def takes_bool(self) -> bool:
        return self.kind is Kind.BOOL or self.doc.check is checks.wwbool


@functools.cache
def flags() -> tuple[Flag, ...]:
    """Every flag, in the order of the file."""
    return tuple(walk(Node, ()))


@functools.cache
def families() -> dict[str, tuple[Step, ...]]:
    """Family -> the way to its map; the last step has no family."""
    return dict(family_walk(Node, ()))


@functools.cache
def name_checks() -> dict[str, checks.Check]:
    """Family -> what its names may be."""
    found: dict[str, checks.Check] = {}
    pending: list[type[msgspec.Struct]] = [Node]
    while pending:
        for spec in fields(pending.pop()).values():
            if spec.struct is not None:
                pending.append(spec.struct)
                found |= {spec.doc.flag: spec.doc.names} if spec.kind is Kind.STRUCTS else {}
    return found


def walk(struct: type[msgspec.Struct], above: tuple[Step, ...]) -> list[Flag]:
    found: list[Flag] = []
    for spec in fields(struct).values():
        here = (*above, Step(spec.key))
        if spec.kind is Kind.STRUCT and spec.struct is not None:
            found += walk(spec.struct, here)
        elif spec.kind is Kind.STRUCTS and spec.struct is not None:
            found += walk(spec.struct, (*here, Step("", spec.doc.flag)))
        elif spec.doc.flag:
            found.append(Flag(spec.doc.flag, here, spec))
    return found


def family_walk(struct: type[msgspec.Struct], above: tuple[Step, ...]) -> list[tuple[str, tuple[Step, ...]]]:
    found: list[tuple[str, tuple[Step, ...]]] = []
    for spec in fields(struct).values():
        if spec.kind is Kind.STRUCTS and spec.struct is not None:
            here = (*above, Step(spec.key))
            found.append((spec.doc.flag, here))
            found += family_walk(spec.struct, (*here, Step("", spec.doc.flag)))
    return found
