"""What fields the values of a template have, as far as that is known before it runs: lint finds wrong names by it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Shape(NamedTuple):
    """`members` are the fields of a struct; of a map or list `element` is what it holds. None: nothing is known.

    Where a value has a shape with members it is an Object, or nothing.
    """

    what: str
    members: Mapping[str, Shape | None] | None = None
    element: Shape | None = None

    def walk(self, names: list[str]) -> tuple[Shape | None, str]:
        """What `.A.B` of it is, and what is wrong with that."""
        at: Shape | None = self
        for name in names:
            if at is None:
                break
            if at.members is None:
                at = at.element
            elif name in at.members:
                at = at.members[name]
            else:
                return None, f"there is no field {name} {at.what}"
        return at, ""


def struct(what: str, names: Mapping[str, object], **known: Shape) -> Shape:
    return Shape(what, {**dict.fromkeys(names), **known})


def many(element: Shape | None) -> Shape:
    return Shape("", None, element)
