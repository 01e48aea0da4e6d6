"""printf and the verbs of Go's fmt (Go 1.26)."""

from __future__ import annotations

import math
import re
from typing import Any

from wwfast.overlays.templates.faults import Refused
from wwfast.overlays.templates.go.printing import general, plain, quote, text
from wwfast.overlays.templates.go.values import EMPTY, Address, Byte, Null, StructMap, Word, told, type_of

WIDEST = 1_000_000
_VERB = re.compile(
    r"%([+\-# 0]*)((?:\[[^\]]*\])?)(\*|\d*)(\.(?:\[[^\]]*\])?(?:\*|\d*))?((?:\[[^\]]*\])?)(.?)", re.DOTALL
)


class Style:
    """Flags, width and precision of one verb."""

    __slots__ = ("flags", "precision", "width")

    def __init__(self, flags: str, width: int | None, precision: int | None) -> None:
        self.flags, self.width, self.precision = flags, width, precision

    def pad(self, made: str, *, zero: bool = False) -> str:
        missing = (self.width or 0) - len(made)
        if missing <= 0:
            return made
        if "-" in self.flags:
            return made + " " * missing
        if zero and "0" in self.flags:
            sign = made[:1] if made[:1] in ("+", "-", " ") else ""
            return sign + "0" * missing + made[len(sign) :]
        if "0" in self.flags and not zero:
            return "0" * missing + made
        return " " * missing + made


class Printf:
    def __init__(self, values: tuple[Any, ...]) -> None:
        self._values, self._next, self._reordered = values, 0, False

    def run(self, pattern: str) -> str:
        made: list[str] = []
        at = 0
        while True:
            start = pattern.find("%", at)
            if start < 0:
                made.append(pattern[at:])
                break
            made.append(pattern[at:start])
            match = _VERB.match(pattern, start)
            assert match is not None
            made.append(self._verb(*match.groups()))
            at = match.end()
        if not self._reordered and self._next < len(self._values):
            extra = [f"{type_of(v)}={text(v)}" if v is not None else "<nil>" for v in self._values[self._next :]]
            made.append(f"%!(EXTRA {', '.join(extra)})")
        return "".join(made)

    def _number(self) -> tuple[int | None, str]:
        """The value of a `*`."""
        value = self._take()
        if isinstance(value, tuple) or not isinstance(value, int) or type(value) is bool or abs(value) > WIDEST:
            return None, "%!(BADWIDTH)"
        return int(value), ""

    def _take(self) -> Any:
        """The next value; () when there is none."""
        if self._next >= len(self._values):
            return ()
        self._next += 1
        return self._values[self._next - 1]

    def _indexed(self, brackets: str) -> bool:
        """Take the value that `[N]` names next; False when there is none."""
        if not brackets:
            return True
        self._reordered = True
        number = brackets[1:-1]
        if number.isascii() and number.isdigit() and 1 <= int(number) <= len(self._values):
            self._next = int(number) - 1
            return True
        return False

    def _verb(self, flags: str, first: str, width: str, precision: str | None, last: str, verb: str) -> str:
        made, good = "", True
        wide: int | None = None
        if first and width != "*" and not width:
            first, last = "", last or first
        good = self._indexed(first)
        if width == "*":
            wide, said = self._number()
            made += said
            if wide is not None and wide < 0:
                wide, flags = -wide, flags.replace("0", "") + "-"
        elif width:
            wide = min(int(width), WIDEST)
        exact: int | None = None
        if precision is not None:
            inner = re.fullmatch(r"\.((?:\[[^\]]*\])?)(\*|\d*)", precision)
            assert inner is not None
            good = self._indexed(inner[1]) and good
            if inner[2] == "*":
                exact, said = self._number()
                if said or (exact is not None and exact < 0):
                    made, exact = made + ("%!(BADPREC)" if said or exact is not None else ""), None
            else:
                exact = min(int(inner[2] or 0), WIDEST)
        good = self._indexed(last) and good
        if not verb:
            return made + "%!(NOVERB)"
        if verb == "%":
            return made + "%"
        if not good:
            return f"{made}%!{verb}(BADINDEX)"
        value = self._take()
        if value == ():
            return f"{made}%!{verb}(MISSING)"
        if "-" in flags:
            flags = flags.replace("0", "")
        if verb == "v":
            flags = flags.replace("+", "")  # asks for the names of fields, which there are none of
        return made + formatted(verb, value, Style(flags, wide, exact))


def printf(pattern: str, *values: Any) -> str:
    return Printf(values).run(pattern)


def formatted(verb: str, value: Any, style: Style) -> str:
    """One value by one verb."""
    if verb == "T":
        return style.pad(type_of(value))
    if type(value) is Word and verb not in "vsqxX":
        return _bad(verb, value)
    if value is None:
        return style.pad("<nil>") if verb == "v" else f"%!{verb}(<nil>)"
    if type(value) is bool:
        return style.pad("true" if value else "false") if verb in "vt" else _bad(verb, value)
    if type(value) is float:
        return _float(verb, value, style)
    if isinstance(value, int):
        return _integer(verb, value, style)
    if isinstance(value, str):
        return _string(verb, value, style)
    if isinstance(value, Word | Address):
        if verb in "vsxXq" and (value is not EMPTY or verb != "q"):
            if "#" in style.flags and verb == "v":
                raise Refused("%#v of this type is not supported")
            return _string(verb, value.text, style)
        if isinstance(value, Address):
            return _list(verb, [Byte(byte) for byte in value.packed], style)
        return _bad(verb, value)
    if type(value) is Null:
        return style.pad("<nil>") if verb == "v" else f"%!{verb}({value.GO}=<nil>)"
    if isinstance(value, dict):
        return _map(verb, value, style)
    if isinstance(value, list):
        return _list(verb, value, style)
    if verb in "vs":
        return style.pad(text(value))
    raise Refused(f"printf: a value of type {told(value)} has no such verb")


def _bad(verb: str, value: Any) -> str:
    return f"%!{verb}({type_of(value)}={text(value)})"


def _string(verb: str, value: str, style: Style) -> str:
    if style.precision is not None and verb in "vsq":
        value = value[: style.precision]
    match verb:
        case "v" if "#" in style.flags:
            return style.pad(quote(value))
        case "v" | "s":
            return style.pad(value)
        case "q":
            if "#" in style.flags and "`" not in value and all(c == "\t" or c.isprintable() for c in value):
                return style.pad(f"`{value}`")
            return style.pad(quote(value, ascii_only="+" in style.flags))
        case "x" | "X":
            data = value.encode("utf-8", "surrogateescape")
            if style.precision is not None:
                data = data[: style.precision]
            pairs = [f"{byte:02x}" for byte in data]
            prefix = "0x" if "#" in style.flags and pairs else ""
            made = (" " + prefix).join(pairs) if " " in style.flags else "".join(pairs)
            made = prefix + made
            return style.pad(made.upper() if verb == "X" else made)
    return _bad(verb, value)


def _integer(verb: str, value: int, style: Style) -> str:
    match verb:
        case "v" if "#" in style.flags and type(value) is Byte:
            return style.pad(f"0x{int(value):x}")
        case "v" | "d":
            return _digits(value, 10, style)
        case "b":
            return _digits(value, 2, style, "0b" if "#" in style.flags else "")
        case "o" | "O":
            return _digits(value, 8, style, "0o" if verb == "O" else "0" if "#" in style.flags else "")
        case "x" | "X":
            made = _digits(value, 16, style, "0x" if "#" in style.flags else "")
            return made.upper() if verb == "X" else made
        case "c" | "q" | "U":
            return _rune(verb, value, style)
    return _bad(verb, value)


def _digits(value: int, base: int, style: Style, prefix: str = "") -> str:
    magnitude = format(abs(value), {2: "b", 8: "o", 10: "d", 16: "x"}[base])
    sign = "-" if value < 0 else "+" if "+" in style.flags else " " if " " in style.flags else ""
    if style.precision is not None:
        if style.precision == 0 and value == 0:
            return " " * (style.width or 0)
        magnitude = magnitude.rjust(style.precision, "0")
        if prefix == "0" and magnitude.startswith("0"):
            prefix = ""
        return Style(style.flags.replace("0", ""), style.width, None).pad(sign + prefix + magnitude)
    if "0" in style.flags and style.width:
        magnitude = magnitude.rjust(style.width - len(sign), "0")
    if prefix == "0" and magnitude.startswith("0"):
        prefix = ""
    return Style(style.flags.replace("0", ""), style.width, None).pad(sign + prefix + magnitude)


def _rune(verb: str, value: int, style: Style) -> str:
    valid = 0 <= value <= 0x10FFFF and not 0xD800 <= value < 0xE000
    letter = chr(value) if valid else "\ufffd"
    if verb == "c":
        return style.pad(letter)
    if verb == "q":
        return style.pad(quote(letter, "'", ascii_only="+" in style.flags))
    digits = f"{value:X}".rjust(max(4, style.precision or 4), "0")
    shown = f" '{letter}'" if "#" in style.flags and letter.isprintable() else ""
    return Style(style.flags.replace("0", ""), style.width, None).pad(f"U+{digits}{shown}")


def _float(verb: str, value: float, style: Style) -> str:
    if verb not in "vbgGxXfFeE" or verb in "bxX":
        if verb in "bxX":
            raise Refused(f"printf: %{verb} of a float is not supported")
        return _bad(verb, value)
    sign = "+" if "+" in style.flags else " " if " " in style.flags else ""
    if math.isnan(value) or math.isinf(value):
        made = "NaN" if math.isnan(value) else "Inf" if value > 0 else "-Inf"
        made = made if made.startswith("-") else (sign or ("+" if made == "Inf" else "")) + made
        return Style(style.flags.replace("0", ""), style.width, None).pad(made)
    made = _finite(verb, value, style)
    if not made.startswith("-"):
        made = sign + made
    return style.pad(made, zero=True)


def _finite(verb: str, value: float, style: Style) -> str:
    exact = style.precision
    match verb:
        case "f" | "F":
            return f"{value:.{6 if exact is None else exact}f}"
        case "e" | "E":
            return f"{value:.{6 if exact is None else exact}{verb}}"
    if "#" in style.flags:
        if verb == "v":
            return general(value)
        raise Refused("printf: # with a float is not supported")
    letter = "E" if verb == "G" else "e"
    if exact is None:
        return general(value, letter=letter)
    made = f"{value:.{max(exact, 1) - 1}e}"
    digits = made.lstrip("-").partition("e")[0].replace(".", "").rstrip("0") or "0"
    exponent = int(made.partition("e")[2])
    sign = "-" if made.startswith("-") else ""
    if exponent < -4 or exponent >= max(exact, 1):
        fraction = "." + digits[1:] if len(digits) > 1 else ""
        return f"{sign}{digits[0]}{fraction}{letter}{'-' if exponent < 0 else '+'}{abs(exponent):02d}"
    return sign + plain(digits, exponent + 1)


def _list(verb: str, values: list[Any], style: Style) -> str:
    if verb == "v" and "#" in style.flags:
        if not values and type(values) is list:
            return "[]interface {}{}"
        return type_of(values) + "{" + ", ".join(_go(item, style) for item in values) + "}"
    return "[" + " ".join(formatted(verb, item, style) for item in values) + "]"


def _map(verb: str, values: dict[str, Any], style: Style) -> str:
    if verb == "v" and "#" in style.flags:
        if type(values) is StructMap:
            raise Refused("%#v of a map of structs is not supported")
        inner = ", ".join(f"{quote(key)}:{_go(item, style)}" for key, item in sorted(values.items()))
        return type_of(values) + "{" + inner + "}"
    inner = " ".join(
        f"{formatted(verb, key, style)}:{formatted(verb, item, style)}" for key, item in sorted(values.items())
    )
    return f"map[{inner}]"


def _go(value: Any, style: Style) -> str:
    return "interface {}(nil)" if value is None else formatted("v", value, style)
