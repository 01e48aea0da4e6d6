"""What a Go template is made of, as read; `at` is the offset in its source."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Text:
    text: str
    at: int


@dataclass(slots=True)
class Literal:
    """A string, number or yes/no; `rune` are characters, which are whole numbers whatever they look like."""

    value: str | int | float | bool
    at: int
    exact: int | None = None  # a number that is also whole: 1e3


@dataclass(slots=True)
class Nil:
    at: int


@dataclass(slots=True)
class Dot:
    at: int


@dataclass(slots=True)
class Fields:
    """`.A.B` of the dot."""

    names: list[str]
    at: int


@dataclass(slots=True)
class Variable:
    """`$x.A.B`."""

    name: str
    names: list[str]
    at: int


@dataclass(slots=True)
class Function:
    name: str
    at: int


@dataclass(slots=True)
class Chain:
    """`(PIPELINE).A.B`, `function.A`."""

    inner: Operand
    names: list[str]
    at: int


@dataclass(slots=True)
class Command:
    operands: list[Operand]
    at: int


@dataclass(slots=True)
class Pipeline:
    commands: list[Command]
    at: int
    variables: list[str] = field(default_factory=list)
    declares: bool = True  # and does not assign


Operand = Literal | Nil | Dot | Fields | Variable | Function | Chain | Pipeline


@dataclass(slots=True)
class Action:
    pipeline: Pipeline
    at: int


@dataclass(slots=True)
class Branch:
    """`if`, `with` or `range`."""

    word: str
    pipeline: Pipeline
    body: list[Part]
    otherwise: list[Part]
    at: int


@dataclass(slots=True)
class Jump:
    """`break` or `continue`."""

    word: str
    at: int


@dataclass(slots=True)
class Call:
    """`template NAME PIPELINE`."""

    name: str
    pipeline: Pipeline | None
    at: int


Part = Text | Action | Branch | Jump | Call


@dataclass(slots=True)
class Tree:
    """A template with those that it defines; `words` are all names and texts that stand in it, `assigned` the
    variables that get another value somewhere."""

    body: list[Part]
    defined: dict[str, list[Part]]
    words: frozenset[str]
    comments: list[str]
    assigned: frozenset[str]
