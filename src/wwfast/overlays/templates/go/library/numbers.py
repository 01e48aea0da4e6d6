"""sprig's arithmetic: 64 bits that wrap, and what text and yes and no count as (spf13/cast)."""

from __future__ import annotations

import math
import re
from decimal import Decimal, DivisionByZero, InvalidOperation, localcontext
from typing import Any

from wwfast.overlays.templates.faults import Refused
from wwfast.overlays.templates.go.language.functions import Known
from wwfast.overlays.templates.go.printing import text
from wwfast.overlays.templates.go.values import Int64, Ints

MOST = 1_000_000  # numbers that one call may make
_ZEROS = re.compile(r"\.0+$")
_WHOLE = re.compile(r"[+-]?(?:0[xX](?:_?[0-9a-fA-F])+|0[bB](?:_?[01])+|0[oO]?(?:_?[0-7])+|[1-9](?:_?[0-9])*|0)")
_REAL = re.compile(r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|inf|infinity|nan)", re.IGNORECASE)


def wrapped(value: int) -> Int64:
    return Int64((value + (1 << 63)) % (1 << 64) - (1 << 63))


def whole(value: Any) -> int:
    """What counts as a whole number; 0 for what does not."""
    if type(value) is float:
        if math.isnan(value) or math.isinf(value) or abs(value) >= 1 << 63:
            return -(1 << 63)
        return int(value)
    if isinstance(value, int):
        return int(value)
    if type(value) is not str:
        return 0
    bare = _ZEROS.sub("", value)
    if not _WHOLE.fullmatch(bare):
        return 0
    sign, digits = ("-" if bare[0] == "-" else ""), bare.lstrip("+-").replace("_", "")
    if re.fullmatch("0[0-7]+", digits):
        digits = "0o" + digits
    found = int(sign + digits, 0)
    return found if -(1 << 63) <= found < 1 << 63 else 0


def to_int64(value: Any) -> Int64:
    return Int64(whole(value))


def to_int(value: Any) -> int:
    return whole(value)


def to_float(value: Any) -> float:
    if isinstance(value, int | float):
        return float(value)
    if type(value) is str and _REAL.fullmatch(value):
        return float(value)
    return 0.0


def atoi(value: str) -> int:
    if re.fullmatch(r"[+-]?[0-9]+", value):
        found = int(value)
        return min(max(found, -(1 << 63)), (1 << 63) - 1)
    return 0


def divided(a: Any, b: Any) -> Int64:
    above, below = whole(a), whole(b)
    if not below:
        raise Refused("div: division by zero")
    quotient = abs(above) // abs(below)
    return wrapped(quotient if (above < 0) == (below < 0) else -quotient)


def remainder(a: Any, b: Any) -> Int64:
    above, below = whole(a), whole(b)
    if not below:
        raise Refused("mod: division by zero")
    return Int64(int(math.copysign(1, above)) * (abs(above) % abs(below)))


def multiplied(first: Any, *others: Any) -> Int64:
    made = to_int64(first)
    for each in others:
        made = wrapped(made * whole(each))
    return made


def added(*values: Any) -> Int64:
    return wrapped(sum(map(whole, values)))


def decimals(first: Any, others: tuple[Any, ...], step: str) -> float:
    """Computed in decimal, as shopspring/decimal does: divisions to 16 places."""
    with localcontext() as context:
        context.prec = 400
        made = Decimal(repr(to_float(first)))
        for each in others:
            other = Decimal(repr(to_float(each)))
            try:
                match step:
                    case "+":
                        made += other
                    case "-":
                        made -= other
                    case "*":
                        made *= other
                    case _:
                        made = (made / other).quantize(Decimal(1).scaleb(-16), "ROUND_HALF_UP")
            except (DivisionByZero, InvalidOperation) as error:
                raise Refused("divf: division by zero") from error
        return float(made) + 0.0  # there is no -0 in decimal


def rounded(value: Any, places: int, *rest: float) -> float:
    on = rest[0] if rest else 0.5
    power = math.pow(10, float(places))
    digit = power * to_float(value)
    fraction = math.modf(digit)[0]
    return (math.ceil(digit) if fraction >= on else math.floor(digit)) / power


def until_step(start: int, stop: int, step: int) -> Ints:
    if (stop < start and step >= 0) or (stop >= start and step <= 0):
        return Ints()
    numbers = range(start, stop, step)
    if len(numbers) > MOST:
        raise Refused(f"more than {MOST} numbers")
    return Ints(numbers)


def seq(*at: int) -> str:
    match at:
        case (end,):
            start, step = 1, -1 if end < 1 else 1
        case (start, end):
            step = -1 if end < start else 1
        case (start, step, end):
            if end < start and step > 0:
                return ""
        case _:
            return ""
    return " ".join(map(str, until_step(start, end + (-1 if end < start else 1), step)))


def octal(value: Any) -> Int64:
    bare = text(value)
    return Int64(int(bare, 8)) if re.fullmatch(r"[+-]?[0-7]+", bare) and len(bare) < 22 else Int64(0)


FUNCTIONS: dict[str, Known] = {
    "add": Known(added, "", "a"),
    "add1": Known(lambda value: wrapped(whole(value) + 1), "a"),
    "add1f": Known(lambda value: decimals(value, (1,), "+"), "a"),
    "addf": Known(lambda *values: decimals(0.0, values, "+"), "", "a"),
    "atoi": Known(atoi, "s"),
    "biggest": Known(lambda first, *others: Int64(max(map(whole, (first, *others)))), "a", "a"),
    "ceil": Known(lambda value: math.copysign(math.ceil(to_float(value)), to_float(value)), "a"),
    "div": Known(divided, "aa"),
    "divf": Known(lambda first, *others: decimals(first, others, "/"), "a", "a"),
    "float64": Known(to_float, "a"),
    "floor": Known(lambda value: float(math.floor(to_float(value))), "a"),
    "int": Known(to_int, "a"),
    "int64": Known(to_int64, "a"),
    "max": Known(lambda first, *others: Int64(max(map(whole, (first, *others)))), "a", "a"),
    "maxf": Known(lambda first, *others: max(map(to_float, (first, *others))), "a", "a"),
    "min": Known(lambda first, *others: Int64(min(map(whole, (first, *others)))), "a", "a"),
    "minf": Known(lambda first, *others: min(map(to_float, (first, *others))), "a", "a"),
    "mod": Known(remainder, "aa"),
    "mul": Known(multiplied, "a", "a"),
    "mulf": Known(lambda first, *others: decimals(first, others, "*"), "a", "a"),
    "round": Known(rounded, "ai", "f"),
    "seq": Known(seq, "", "i"),
    "sub": Known(lambda a, b: wrapped(whole(a) - whole(b)), "aa"),
    "subf": Known(lambda first, *others: decimals(first, others, "-"), "a", "a"),
    "toDecimal": Known(octal, "a"),
    "until": Known(lambda count: until_step(0, count, -1 if count < 0 else 1), "i"),
    "untilStep": Known(until_step, "iii"),
}
