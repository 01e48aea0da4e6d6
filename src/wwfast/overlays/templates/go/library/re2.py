"""Patterns as RE2 and Go's regexp/syntax read them, as a tree; what RE2 refuses is refused.

No look-around, back-references or possessive repeats; `\\d`, `\\w`, `\\s`, `\\b` are ASCII; `$` is the end of the text
and not the place before a final newline. `matching` says how a tree is looked for.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from wwfast.overlays.templates.faults import Refused

REPEAT = 1000
DEEPEST = 200
Ranges = list[tuple[int, int]]

DIGIT: Ranges = [(48, 57)]
BLANK: Ranges = [(9, 10), (12, 13), (32, 32)]
LETTER: Ranges = [(48, 57), (65, 90), (95, 95), (97, 122)]
PERL = {"d": DIGIT, "s": BLANK, "w": LETTER}
POSIX: dict[str, Ranges] = {
    "alnum": [(48, 57), (65, 90), (97, 122)],
    "alpha": [(65, 90), (97, 122)],
    "ascii": [(0, 127)],
    "blank": [(9, 9), (32, 32)],
    "cntrl": [(0, 31), (127, 127)],
    "digit": DIGIT,
    "graph": [(33, 126)],
    "lower": [(97, 122)],
    "print": [(32, 126)],
    "punct": [(33, 47), (58, 64), (91, 96), (123, 126)],
    "space": [(9, 13), (32, 32)],
    "upper": [(65, 90)],
    "word": LETTER,
    "xdigit": [(48, 57), (65, 70), (97, 102)],
}
ESCAPES = {"a": 7, "f": 12, "t": 9, "n": 10, "r": 13, "v": 11}
_WORD = "[0-9A-Za-z_]"
EDGE = f"(?:(?<={_WORD})(?!{_WORD})|(?<!{_WORD})(?={_WORD}))"
NO_EDGE = f"(?:(?<={_WORD})(?={_WORD})|(?<!{_WORD})(?!{_WORD}))"
_REPEAT = re.compile(r"\{(\d+)(,(\d*))?\}")
_FLAGS = re.compile(r"\(\?([imsU]*)(?:-([imsU]+))?([:)])")
_NAME = re.compile(r"\(\?P?<(\w+)>", re.ASCII)


class One(NamedTuple):
    """A character, or (not `wide`) a place between two; `python` is its spelling in Python's `re`."""

    python: str
    wide: bool = True


class Sequence(NamedTuple):
    parts: tuple[Tree, ...] = ()


class Either(NamedTuple):
    parts: tuple[Tree, ...]


class Repeat(NamedTuple):
    """`most` is None without an end; one that is not `greedy` prefers fewer."""

    of: Tree
    least: int
    most: int | None
    greedy: bool


class Group(NamedTuple):
    number: int
    of: Tree


Tree: TypeAlias = One | Sequence | Either | Repeat | Group


class _State(NamedTuple):
    i: bool = False
    m: bool = False
    s: bool = False
    U: bool = False


def inverted(ranges: Ranges) -> Ranges:
    made: Ranges = []
    start = 0
    for low, high in sorted(ranges):
        if low > start:
            made.append((start, low - 1))
        start = max(start, high + 1)
    if start <= sys.maxunicode:
        made.append((start, sys.maxunicode))
    return made


@lru_cache(64)
def category(name: str) -> tuple[tuple[int, int], ...]:
    """Ranges of a general category (`L`, `Lu`); of scripts there is no list here."""
    if not re.fullmatch("[LMNPSZC][a-z]?", name) and name != "Any":
        raise Refused("regular expression: character class \\p{{}} is not supported", name)
    made: Ranges = []
    for rune in range(sys.maxunicode + 1):
        found = unicodedata.category(chr(rune))
        if name == "Any" or (found.startswith(name) and found != "Cn"):
            if made and made[-1][1] == rune - 1:
                made[-1] = (made[-1][0], rune)
            else:
                made.append((rune, rune))
    return tuple(made)


class Reader:
    def __init__(self, pattern: str) -> None:
        self.text, self.at = pattern, 0
        self.state = _State()
        self.names: dict[str, int] = {}
        self.groups = 0
        self.depth = 0

    def wrong(self, said: str) -> Refused:
        return Refused(f"regular expression: {said}: {{}}", self.text)

    def whole(self) -> Tree:
        made, _ = self.alternatives()
        if self.at < len(self.text):
            raise self.wrong("unexpected )")
        return made

    def alternatives(self) -> tuple[Tree, int]:
        """A tree, and how often its repeats multiply."""
        self.depth += 1
        if self.depth > DEEPEST:
            raise self.wrong("nested too deeply")
        parts: list[list[Tree]] = [[]]
        most = 1
        while self.at < len(self.text) and self.text[self.at] != ")":
            if self.text[self.at] == "|":
                self.at += 1
                parts.append([])
                continue
            made, times = self.repeated()
            parts[-1] += made
            most = max(most, times)
        self.depth -= 1
        trees: list[Tree] = [each[0] if len(each) == 1 else Sequence(tuple(each)) for each in parts]
        return trees[0] if len(trees) == 1 else Either(tuple(trees)), most

    def repeated(self) -> tuple[list[Tree], int]:
        """What stands next; a repeat is of the last of it."""
        atoms, times = self.atom()
        least, most, end = self.operator()
        if end == self.at or not atoms:
            return atoms, times
        self.at = end
        lazy = self.text.startswith("?", end)
        self.at += lazy
        if self.operator()[2] != self.at:
            raise self.wrong("invalid nested repetition operator")
        count = max(least, most or 0)
        if count > REPEAT or times * max(count, 1) > REPEAT:
            raise self.wrong("invalid repeat count")
        return [*atoms[:-1], Repeat(atoms[-1], least, most, lazy == self.state.U)], times * max(count, 1)

    def operator(self) -> tuple[int, int | None, int]:
        """Least and most, and where the operator ends; here when there is none."""
        sign = self.text[self.at : self.at + 1]
        if sign and sign in "*+?":
            return (1 if sign == "+" else 0), (1 if sign == "?" else None), self.at + 1
        match = _REPEAT.match(self.text, self.at)
        if match is None:
            return 0, 0, self.at
        least = int(match[1])
        most = least if match[2] is None else int(match[3]) if match[3] else None
        if least > REPEAT or (most is not None and (most > REPEAT or most < least)):
            raise self.wrong("invalid repeat count")
        return least, most, match.end()

    def atom(self) -> tuple[list[Tree], int]:
        letter = self.text[self.at]
        if letter in "*+?":
            raise self.wrong("missing argument to repetition operator")
        match letter:
            case "(":
                return self.group()
            case "[":
                return [self.cased(self.bracket())], 1
            case "\\":
                return self.escape(), 1
        if letter == "{" and _REPEAT.match(self.text, self.at):
            raise self.wrong("missing argument to repetition operator")
        self.at += 1
        match letter:
            case ".":
                return [One("[\\s\\S]" if self.state.s else "[^\\n]")], 1
            case "^":
                return [One("(?m:^)" if self.state.m else "\\A", wide=False)], 1
            case "$":
                return [One("(?m:$)" if self.state.m else "\\Z", wide=False)], 1
        return [self.cased(re.escape(letter))], 1

    def cased(self, made: str) -> One:
        return One(f"(?i:{made})" if self.state.i else made)

    def group(self) -> tuple[list[Tree], int]:
        before = self.state
        flags = _FLAGS.match(self.text, self.at)
        name = _NAME.match(self.text, self.at)
        number = 0
        if flags is not None and (flags[1] or flags[2] or flags[3] == ":"):
            on, off = flags[1], flags[2] or ""
            self.state = self.state._replace(**dict.fromkeys(on, True), **dict.fromkeys(off, False))
            self.at = flags.end()
            if flags[3] == ")":
                return [], 1
        elif name is None and self.text.startswith("(?", self.at):
            raise self.wrong("invalid or unsupported Perl syntax")
        else:
            self.groups += 1
            number = self.groups
            if name is not None:
                self.names.setdefault(name[1], number)
            self.at = name.end() if name is not None else self.at + 1
        made, times = self.alternatives()
        if self.at >= len(self.text):
            raise self.wrong("missing closing )")
        self.at += 1
        self.state = before
        return [Group(number, made) if number else made], times

    def escape(self) -> list[Tree]:
        letter = self.text[self.at + 1 : self.at + 2]
        if not letter:
            raise self.wrong("trailing backslash at end of expression")
        fixed = {"A": "\\A", "z": "\\Z", "b": EDGE, "B": NO_EDGE}.get(letter)
        if fixed is not None:
            self.at += 2
            return [One(fixed, wide=False)]
        if letter == "Q":
            end = self.text.find("\\E", self.at + 2)
            inner = self.text[self.at + 2 : end if end >= 0 else len(self.text)]
            self.at += 2 + len(inner) + (2 if end >= 0 else 0)
            return [self.cased(re.escape(each)) for each in inner]
        ranges = self.class_escape()
        if ranges is not None:
            return [self.cased(spelled(ranges))]
        return [self.cased(re.escape(chr(self.rune())))]

    def class_escape(self) -> Ranges | None:
        """`\\d`, `\\pL`, `\\p{Lu}` and their opposites."""
        letter = self.text[self.at + 1 : self.at + 2]
        if letter.lower() in PERL:
            self.at += 2
            ranges = PERL[letter.lower()]
            return inverted(ranges) if letter.isupper() else ranges
        if letter not in ("p", "P"):
            return None
        match = re.compile(r"\\[pP](?:\{(\^?)(\w+)\}|(\w))").match(self.text, self.at)
        if match is None:
            raise self.wrong("invalid character class range")
        self.at = match.end()
        ranges = list(category(match[2] or match[3]))
        return inverted(ranges) if (letter == "P") != (match[1] == "^") else ranges

    def rune(self) -> int:
        """The character of an escape that stands for one."""
        match = re.compile(r"\\(?:x\{([0-9a-fA-F]+)\}|x([0-9a-fA-F]{2})|(0[0-7]{0,2}|[1-7][0-7]{1,2}))").match(
            self.text, self.at
        )
        if match is not None:
            self.at = match.end()
            found = int(match[3], 8) if match[3] else int(match[1] or match[2], 16)
            if found > sys.maxunicode:
                raise self.wrong("invalid escape sequence")
            return found
        letter = self.text[self.at + 1 : self.at + 2]
        self.at += 2
        if letter in ESCAPES:
            return ESCAPES[letter]
        if letter and (ord(letter) >= 128 or letter.isalnum()):
            raise self.wrong("invalid escape sequence")
        if not letter:
            raise self.wrong("trailing backslash at end of expression")
        return ord(letter)

    def bracket(self) -> str:
        """A class in brackets."""
        self.at += 1
        negative = self.text.startswith("^", self.at)
        self.at += negative
        ranges: Ranges = []
        first = True
        while first or not self.text.startswith("]", self.at):
            if self.at >= len(self.text):
                raise self.wrong("missing closing ]")
            first = False
            named = re.compile(r"\[:(\^?)(\w+):\]").match(self.text, self.at)
            if named is not None:
                if named[2] not in POSIX:
                    raise self.wrong("invalid character class range")
                self.at = named.end()
                ranges += inverted(POSIX[named[2]]) if named[1] else POSIX[named[2]]
                continue
            if self.text.startswith("\\", self.at) and (more := self.class_escape()) is not None:
                ranges += more
                continue
            low = high = self.letter()
            if self.text.startswith("-", self.at) and not self.text.startswith("-]", self.at):
                self.at += 1
                if self.at >= len(self.text):
                    raise self.wrong("missing closing ]")
                high = self.letter()
                if high < low:
                    raise self.wrong("invalid character class range")
            ranges.append((low, high))
        self.at += 1
        return spelled(ranges, negative=negative)

    def letter(self) -> int:
        if self.text.startswith("\\", self.at):
            return self.rune()
        self.at += 1
        return ord(self.text[self.at - 1])


def spelled(ranges: Ranges, *, negative: bool = False) -> str:
    if not ranges:
        return "[\\s\\S]" if negative else "(?!)"
    inner = "".join(f"\\U{low:08x}" + (f"-\\U{high:08x}" if high > low else "") for low, high in sorted(set(ranges)))
    return f"[{'^' if negative else ''}{inner}]"
