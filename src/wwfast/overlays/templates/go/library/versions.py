"""sprig's functions of versions: `semver` and `semverCompare`, as Masterminds/semver 3.3 reads and orders them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from wwfast.overlays.templates.faults import Refused
from wwfast.overlays.templates.go.language.functions import Known
from wwfast.overlays.templates.go.library.matching import compiled
from wwfast.overlays.templates.go.library.patterns import matches, replaced
from wwfast.overlays.templates.go.values import Object, UInt64

_TAIL = r"(-([0-9A-Za-z\-]+(\.[0-9A-Za-z\-]+)*))?(\+([0-9A-Za-z\-]+(\.[0-9A-Za-z\-]+)*))?"
_VERSION = r"v?([0-9]+)(\.[0-9]+)?(\.[0-9]+)?" + _TAIL
_LOOSE = r"v?([0-9|x|X|\*]+)(\.[0-9|x|X|\*]+)?(\.[0-9|x|X|\*]+)?" + _TAIL
_SIGN = r"=||!=|>|<|>=|=>|<=|=<|~|~>|\^"
_ONE = rf"^\s*({_SIGN})\s*({_LOOSE})\s*$"
_RANGE = rf"\s*({_LOOSE})\s+-\s+({_LOOSE})\s*"
_EACH = rf"({_SIGN})\s*({_LOOSE})"
_ALL = rf"^(\s*({_SIGN})\s*({_LOOSE})\s*)((?:\s+|,\s*)({_SIGN})\s*({_LOOSE})\s*)*$"
ANY = ("x", "X", "*", "")


class Numbers(NamedTuple):
    """What orders versions; `before` are the parts of a version before its release, of which there is none."""

    major: int
    minor: int
    patch: int
    before: tuple[str, ...]

    def compare(self, other: Numbers) -> int:
        if self[:3] != other[:3]:
            return 1 if self[:3] > other[:3] else -1
        if not self.before or not other.before:
            return bool(other.before) - bool(self.before)
        mine, its = [_order(it) for it in self.before], [_order(it) for it in other.before]
        return (mine > its) - (mine < its)


def _order(part: str) -> tuple[int, int, str]:
    """Numbers before words."""
    number = part.isdigit() and int(part) < 1 << 64
    return (0, int(part), "") if number else (1, 0, part)


class Version(Object):
    """*semver.Version; `whole` is false for what IncMajor and its relatives give, which is no pointer in Go."""

    __slots__ = ("metadata", "numbers", "original", "whole")
    GO = "*semver.Version"
    NUMBER = "ptr"

    def __init__(self, numbers: Numbers, metadata: str, original: str, *, whole: bool = True) -> None:
        self.numbers, self.metadata, self.original, self.whole = numbers, metadata, original, whole

    def printed(self) -> str:
        before = "-" + ".".join(self.numbers.before) if self.numbers.before else ""
        return ".".join(map(str, self.numbers[:3])) + before + (f"+{self.metadata}" if self.metadata else "")

    def json(self) -> str:
        return self.printed()

    def member(self, name: str) -> Any:
        numbers = self.numbers
        match name:
            case "Major" | "Minor" | "Patch":
                return UInt64(getattr(numbers, name.lower()))
            case "Prerelease":
                return ".".join(numbers.before)
            case "Metadata":
                return self.metadata
            case "String":
                return self.printed()
            case "Original" if self.whole:
                return self.original
            case "IncMajor":
                return self._next(numbers.major + 1, 0, 0)
            case "IncMinor":
                return self._next(numbers.major, numbers.minor + 1, 0)
            case "IncPatch":
                return self._next(numbers.major, numbers.minor, numbers.patch + (not numbers.before))
            case "Compare" | "Equal" | "LessThan" | "LessThanEqual" | "GreaterThan" | "GreaterThanEqual":
                raise Refused("wrong number of args for {}: want 1 got 0", name)
        return super().member(name)

    def _next(self, major: int, minor: int, patch: int) -> Version:
        return Version(Numbers(major, minor, patch, ()), "", "", whole=False)

    def call(self, name: str, arguments: tuple[Any, ...]) -> Any:
        if not self.whole or len(arguments) != 1 or type(arguments[0]) is not Version:
            return super().call(name, arguments)
        order = self.numbers.compare(arguments[0].numbers)
        match name:
            case "Compare":
                return order
            case "Equal":
                return order == 0
            case "LessThan":
                return order < 0
            case "LessThanEqual":
                return order <= 0
            case "GreaterThan":
                return order > 0
            case "GreaterThanEqual":
                return order >= 0
        return super().call(name, arguments)


def version(text: str) -> Version:
    found = compiled(f"^{_VERSION}$").search(text, 0)
    if found is None:
        raise Refused("semver: this is no version")
    three = [int(found.text(group).lstrip(".") or "0") for group in (1, 2, 3)]
    before = tuple(found.text(5).split(".")) if found.text(5) else ()
    if max(three) >= 1 << 64:
        raise Refused("semver: a number is too large")
    if any(part.isdigit() and len(part) > 1 and part[0] == "0" for part in before):
        raise Refused("semver: a part of the pre-release begins with 0")
    return Version(Numbers(three[0], three[1], three[2], before), found.text(8), text)


class Wanted(NamedTuple):
    """One condition: a version, of which only so many of its three numbers are `given`."""

    sign: str
    numbers: Numbers
    given: int

    def holds(self, it: Numbers) -> bool:
        if it.before and not self.numbers.before and (self.sign, self.given) != ("!=", 3):
            return False  # whoever wants early versions says so
        return SIGNS[self.sign](self, it)


def wanted(text: str) -> Wanted:
    found = compiled(_ONE).search(text, 0)
    if found is None:
        raise Refused("semverCompare: this is no condition")
    parts = [found.text(group).removeprefix(".") for group in (3, 4, 5)]
    given = next((number for number, part in enumerate(parts) if part in ANY), 3)
    made = ".".join([*parts[:given], *["0"] * (3 - given)]) + found.text(6)
    return Wanted(found.text(1), version(made if given < 3 else found.text(2)).numbers, given)


def _greater(want: Wanted, it: Numbers) -> bool:
    """What is not given is any: 11.1 is not greater than 11."""
    if want.given == 0:
        return it.major > want.numbers.major
    return it[: want.given] > want.numbers[: want.given] if want.given < 3 else it.compare(want.numbers) > 0


def _at_most(want: Wanted, it: Numbers) -> bool:
    if want.given == 3:
        return it.compare(want.numbers) <= 0
    return it[: max(want.given, 1)] <= want.numbers[: max(want.given, 1)]


def _tilde(want: Wanted, it: Numbers) -> bool:
    if it.compare(want.numbers) < 0:
        return False
    if want.numbers[:3] == (0, 0, 0) and want.given in (0, 3):
        return True
    same = min(want.given, 2)
    return it[:same] == want.numbers[:same]


def _caret(want: Wanted, it: Numbers) -> bool:
    """The first number that is not 0 stays."""
    if it.compare(want.numbers) < 0:
        return False
    same = next((place + 1 for place in range(3) if want.numbers[place]), 3)
    same = min(same, max(want.given, 1)) if want.given else 1
    return it[:same] == want.numbers[:same]


def _differs(want: Wanted, it: Numbers) -> bool:
    if want.given == 3:
        return it.compare(want.numbers) != 0
    if want.given == 2 and it[:2] == want.numbers[:2]:
        return it.before != want.numbers.before
    return it[: max(want.given, 1)] != want.numbers[: max(want.given, 1)]


def _equals(want: Wanted, it: Numbers) -> bool:
    return _tilde(want, it) if want.given < 3 else it.compare(want.numbers) == 0


SIGNS: dict[str, Callable[[Wanted, Numbers], bool]] = {
    **dict.fromkeys(("", "="), _equals),
    "!=": _differs,
    ">": _greater,
    "<": lambda want, it: it.compare(want.numbers) < 0,
    **dict.fromkeys((">=", "=>"), lambda want, it: it.compare(want.numbers) >= 0),
    **dict.fromkeys(("<=", "=<"), _at_most),
    **dict.fromkeys(("~", "~>"), _tilde),
    "^": _caret,
}


def compare(conditions: str, text: str) -> bool:
    """Whether a version is what one of the alternatives (`||`) wants, all of its conditions together."""
    ranged = replaced(_RANGE, conditions, lambda _, found: f">= {found.text(1)}, <= {found.text(11)} ")
    alternatives: list[list[Wanted]] = []
    for each in ranged.split("||"):
        if compiled(_ALL).search(each, 0) is None:
            raise Refused("semverCompare: this is no condition")
        alternatives.append([wanted(found.text()) for found in matches(compiled(_EACH), each)])
    numbers = version(text).numbers
    return any(all(it.holds(numbers) for it in each) for each in alternatives)


FUNCTIONS: dict[str, Known] = {
    "semver": Known(version, "s"),
    "semverCompare": Known(compare, "ss"),
}
