"""Go's fmt as templates print: text of values, numbers, quotes (Go 1.26); printf is in `printf`."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

from wwfast.overlays.templates.faults import Refused
from wwfast.overlays.templates.go.values import (
    Address,
    Flag,
    Null,
    Object,
    Word,
)


def text(value: Any) -> str:
    """As `%v` prints it."""
    if type(value) is str:
        return value
    if value is None or type(value) is Null:
        return "<nil>"
    if type(value) is bool:
        return "true" if value else "false"
    if type(value) is float:
        return general(value)
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, Object):
        return _object(value)
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{text(item)}" for key, item in sorted(value.items())) + "]"
    return "[" + " ".join(map(text, value)) + "]"


def _object(value: Object) -> str:
    if isinstance(value, Word | Address):
        return value.text
    if type(value) is Flag:
        return "true" if value.says else "false"
    printed = getattr(value, "printed", None)
    if printed is not None:
        return str(printed())
    raise Refused(f"a value of type {value.GO} is not printed as a whole", hint="print its fields: {{ .Field }}")


def show(value: Any) -> str:
    """What an action prints."""
    if type(value) is str:
        return value
    if type(value) is Address:
        return value.text
    return "<no value>" if value is None else text(value)


def print_(*values: Any) -> str:
    """Blanks between two values where neither is a text."""
    made: list[str] = []
    before = True
    for number, value in enumerate(values):
        is_text = type(value) in (str, Word)
        if number and not is_text and not before:
            made.append(" ")
        made.append(text(value))
        before = is_text
    return "".join(made)


def println(*values: Any) -> str:
    return " ".join(map(text, values)) + "\n"


# -- numbers -----------------------------------------------------------------------------------------------------------


def shortest(value: float) -> tuple[str, int]:
    """The digits that tell a number from all others, and where its point is: 0.DIGITS * 10**POINT."""
    _, digits, exponent = Decimal(repr(abs(value))).normalize().as_tuple()
    assert isinstance(exponent, int)
    made = "".join(map(str, digits))
    return made, 0 if made == "0" else len(made) + exponent


def general(value: float, limit: int = 6, letter: str = "e") -> str:
    """%v of a float: the shortest text, with an exponent below -4 and from `limit` (%g of Go: 21 only with #) on."""
    if math.isnan(value) or math.isinf(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    sign = "-" if math.copysign(1, value) < 0 else ""
    digits, point = shortest(value)
    exponent = point - 1 if digits != "0" else 0
    if exponent < -4 or exponent >= limit:
        fraction = "." + digits[1:] if len(digits) > 1 else ""
        return f"{sign}{digits[0]}{fraction}{letter}{'-' if exponent < 0 else '+'}{abs(exponent):02d}"
    return sign + plain(digits, point)


def plain(digits: str, point: int) -> str:
    """Digits without an exponent."""
    if digits == "0":
        return "0"
    if point <= 0:
        return "0." + "0" * -point + digits
    if point >= len(digits):
        return digits + "0" * (point - len(digits))
    return digits[:point] + "." + digits[point:]


# -- quoting -----------------------------------------------------------------------------------------------------------

_ESCAPES = {7: "\\a", 8: "\\b", 12: "\\f", 10: "\\n", 13: "\\r", 9: "\\t", 11: "\\v", 92: "\\\\"}


def quote(value: str, mark: str = '"', *, ascii_only: bool = False) -> str:
    """strconv.Quote."""
    return mark + "".join(_quoted(letter, mark, ascii_only) for letter in value) + mark


def _quoted(letter: str, mark: str, ascii_only: bool) -> str:
    rune = ord(letter)
    if letter == mark:
        return "\\" + letter
    if rune in _ESCAPES:
        return _ESCAPES[rune]
    if 0xDC80 <= rune <= 0xDCFF:
        return f"\\x{rune - 0xDC00:02x}"
    if (rune < 0x80 or not ascii_only) and letter.isprintable():
        return letter
    if rune < 32 or rune == 127:
        return f"\\x{rune:02x}"
    return f"\\u{rune:04x}" if rune < 0x10000 else f"\\U{rune:08x}"
