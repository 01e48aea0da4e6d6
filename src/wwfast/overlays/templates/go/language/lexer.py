"""Text of a Go template to tokens (text/template's grammar, Go 1.26): text, and what stands between `{{` and `}}`.

Trim markers are done here: the parser sees the text as it will be written.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator
from enum import Enum, auto
from typing import NamedTuple

SPACE = " \t\r\n"


class Kind(Enum):
    TEXT = auto()
    COMMENT = auto()
    LEFT = auto()
    RIGHT = auto()
    SPACE = auto()
    WORD = auto()  # a keyword or the name of a function
    FIELD = auto()
    VARIABLE = auto()
    DOT = auto()
    STRING = auto()
    RAW = auto()
    CHARACTER = auto()
    NUMBER = auto()
    DECLARE = auto()
    ASSIGN = auto()
    PIPE = auto()
    OPEN = auto()
    CLOSE = auto()
    COMMA = auto()
    END = auto()


class Token(NamedTuple):
    kind: Kind
    text: str
    at: int  # offset in the source, in characters


class SyntaxFault(Exception):
    """What is wrong with the text of a template, and where."""

    def __init__(self, at: int, said: str) -> None:
        super().__init__(said)
        self.at, self.said = at, said


class Places:
    """Line and column, both from 1, of offsets in a text."""

    def __init__(self, source: str) -> None:
        self._starts = [0, *(match.end() for match in re.finditer("\n", source))]

    def of(self, at: int) -> tuple[int, int]:
        line = bisect.bisect_right(self._starts, at)
        return line, at - self._starts[line - 1] + 1


# What an action is made of, the first that fits. Words and numbers must end where something else may begin.
_INSIDE = re.compile(
    r"""(?P<SPACE>[ \t\r\n]+)
    |(?P<DECLARE>:=)|(?P<ASSIGN>=)|(?P<PIPE>\|)|(?P<OPEN>\()|(?P<CLOSE>\))|(?P<COMMA>,)
    |(?P<STRING>"(?:\\[^\n]|[^"\\\n])*")
    |(?P<RAW>`[^`]*`)
    |(?P<CHARACTER>'(?:\\[^\n]|[^'\\\n])+')
    |(?P<VARIABLE>\$\w*)
    |(?P<NUMBER>[+-]?(?:0[xX][0-9a-fA-F_]*(?:\.[0-9a-fA-F_]*)?(?:[pP][+-]?[0-9_]*)?
        |0[bB][01_]*|0[oO][0-7_]*|(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][+-]?[0-9_]*)?)i?)
    |(?P<FIELD>\.\w+)|(?P<DOT>\.)
    |(?P<WORD>\w+)""",
    re.VERBOSE,
)
_TERMINATORS = re.compile(r"[ \t\r\n.,|:()]|-?\}\}|$")
_UNCLOSED = {'"': "unterminated quoted string", "`": "unterminated raw quoted string", "'": "unterminated character"}


def tokens(source: str) -> Iterator[Token]:
    """Raises SyntaxFault."""
    at, trim = 0, False
    while True:
        start = source.find("{{", at)
        text = source[at : start if start >= 0 else len(source)]
        left = start >= 0 and source.startswith("-", start + 2) and source[start + 3 : start + 4] in tuple(SPACE)
        shift = len(text) - len(text.lstrip(SPACE)) if trim else 0
        text = text[shift:]
        if left:
            text = text.rstrip(SPACE)
        if text:
            yield Token(Kind.TEXT, text, at + shift)
        if start < 0:
            yield Token(Kind.END, "", len(source))
            return
        inner = start + (4 if left else 2)
        if source.startswith("/*", inner):
            end, trim = _comment_end(source, inner)
            yield Token(Kind.COMMENT, source[inner:end], inner)
            at = source.index("}}", end) + 2
            continue
        yield Token(Kind.LEFT, "{{", start)
        for token in _action(source, inner):
            yield token
        assert token.kind is Kind.RIGHT
        trim = token.text != "}}"
        at = token.at + len(token.text)


def _comment_end(source: str, start: int) -> tuple[int, bool]:
    end = source.find("*/", start + 2) + 2
    if end < start + 4:
        raise SyntaxFault(start, "unclosed comment")
    if source.startswith("}}", end):
        return end, False
    if source[end : end + 1] in tuple(SPACE) and source.startswith("-}}", end + 1):
        return end, True
    raise SyntaxFault(end, "comment ends before closing delimiter")


def _action(source: str, at: int) -> Iterator[Token]:
    """The tokens up to the closing delimiter, that one last; its text has the trim marker if there is one."""
    depth = 0
    while True:
        right = "}}" if source.startswith("}}", at) else ""
        if source[at : at + 1] in tuple(SPACE) and source.startswith("-}}", at + 1):
            right = source[at : at + 4]
        if right:
            if depth:
                raise SyntaxFault(at, "unclosed left paren")
            yield Token(Kind.RIGHT, right, at)
            return
        match = _INSIDE.match(source, at)
        if match is None:
            raise SyntaxFault(at, _trouble(source, at))
        kind = Kind[match.lastgroup or ""]
        end = match.end()
        if kind is Kind.SPACE and source.startswith("-}}", end):  # the last blank belongs to the trim marker
            end -= 1
        elif kind in (Kind.WORD, Kind.FIELD, Kind.VARIABLE) and not _TERMINATORS.match(source, end):
            raise SyntaxFault(end, f"bad character {source[end]!r}")
        elif kind is Kind.NUMBER and (source[end : end + 1].isalnum() or source[end : end + 1] == "_"):
            raise SyntaxFault(at, f"bad number syntax: {source[at : end + 1]!r}")
        depth += {Kind.OPEN: 1, Kind.CLOSE: -1}.get(kind, 0)
        if depth < 0:
            raise SyntaxFault(at, "unexpected right paren")
        yield Token(kind, source[at:end], at)
        at = end


def _trouble(source: str, at: int) -> str:
    if at >= len(source):
        return "unclosed action"
    if source[at] in _UNCLOSED:
        return _UNCLOSED[source[at]]
    if source[at] == ":":
        return "expected :="
    if source[at] in "+-":
        return "bad number syntax"
    return f"unexpected {source[at]!r} in an action"
