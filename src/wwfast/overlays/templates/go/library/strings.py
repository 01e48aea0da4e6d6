"""sprig's functions of text. Positions and lengths are bytes, as in Go."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from wwfast.overlays.templates.faults import Refused
from wwfast.overlays.templates.go.language.functions import Known
from wwfast.overlays.templates.go.printing import quote, text
from wwfast.overlays.templates.go.values import StringMap, Strings, elements

LONGEST = 64 << 20  # bytes that one call may make
_BLANK = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"


def data(value: str) -> bytes:
    return value.encode("utf-8", "surrogateescape")


def undo(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def strings(value: Any) -> list[str]:
    """The texts of a list, what is nil left out; of anything else its own text."""
    if isinstance(value, Strings):
        return list(value)
    found = elements(value)
    if found is not None:
        return [text(item) for item in found if item is not None]
    return [] if value is None else [text(value)]


def upper(value: str) -> str:
    return value.upper() if value.isascii() else "".join(map(_upper, value))


def lower(value: str) -> str:
    return value.lower() if value.isascii() else "".join(map(_lower, value))


def _upper(letter: str) -> str:
    made = letter.upper()
    return made if len(made) == 1 else letter


def _lower(letter: str) -> str:
    made = letter.lower()
    return made if len(made) == 1 else "i" if letter == "\u0130" else letter


def _title(letter: str) -> str:
    made = letter.title()
    return made if len(made) == 1 else letter


def title(value: str) -> str:
    """strings.Title: the first letter after what separates words."""
    made, before = [], " "
    for letter in value:
        made.append(_title(letter) if _separates(before) else letter)
        before = letter
    return "".join(made)


def _separates(letter: str) -> bool:
    if letter.isascii():
        return not (letter.isalnum() or letter == "_")
    return not letter.isalpha() and unicodedata.category(letter) != "Nd" and letter in _BLANK


def untitle(value: str) -> str:
    made, fresh = [], True
    for letter in value:
        made.append(_lower(letter) if fresh and letter not in _BLANK else letter)
        fresh = letter in _BLANK
    return "".join(made)


def swapcase(value: str) -> str:
    made, blank = [], True
    for letter in value:
        category = unicodedata.category(letter)
        if category == "Lu" or category == "Lt":
            letter = _lower(letter)
        elif category == "Ll":
            letter = _title(letter) if blank else _upper(letter)
        made.append(letter)
        blank = letter in _BLANK
    return "".join(made)


def substr(start: int, end: int, value: str) -> str:
    whole = data(value)
    if start < 0:
        if not 0 <= end <= len(whole):
            raise Refused("substr: out of range")
        return undo(whole[:end])
    if start > len(whole) or (0 <= end <= len(whole) and end < start):
        raise Refused("substr: out of range")
    return undo(whole[start:] if end < 0 or end > len(whole) else whole[start:end])


def trunc(count: int, value: str) -> str:
    whole = data(value)
    if count < 0:
        return undo(whole[len(whole) + count :]) if len(whole) + count > 0 else value
    return undo(whole[:count])


def abbrev(width: int, value: str) -> str:
    return value if width < 4 else _abbreviated(data(value), 0, width)


def abbrevboth(left: int, right: int, value: str) -> str:
    if right < 4 or (left > 0 and right < 7):
        return value
    return _abbreviated(data(value), left, right)


def _abbreviated(value: bytes, offset: int, width: int) -> str:
    if width < 4:
        return ""
    if len(value) <= width:
        return undo(value)
    offset = min(offset, len(value))
    if len(value) - offset < width - 3:
        offset = len(value) - (width - 3)
    if offset <= 4:
        return undo(value[: width - 3]) + "..."
    if width < 7:
        return ""
    if offset + width - 3 < len(value):
        return "..." + _abbreviated(value[offset:], 0, width - 3)
    return "..." + undo(value[len(value) - (width - 3) :])


def initials(value: str) -> str:
    made, fresh = [], True
    for letter in value:
        if letter in _BLANK:
            fresh = True
        elif fresh:
            made.append(letter)
            fresh = False
    return "".join(made)


def wrap(width: int, value: str) -> str:
    return _wrapped(data(value), width, b"\n", cut=False)


def wrap_with(width: int, separator: str, value: str) -> str:
    return _wrapped(data(value), width, data(separator) or b"\n", cut=True)


def _wrapped(value: bytes, width: int, separator: bytes, *, cut: bool) -> str:
    width = max(width, 1)
    made: list[bytes] = []
    at = 0
    while len(value) - at > width:
        if value[at : at + 1] == b" ":
            at += 1
            continue
        space = value.rfind(b" ", at, at + width + 1)
        if space >= 0:
            made += [value[at:space], separator]
            at = space + 1
        elif cut:
            made += [value[at : at + width], separator]
            at += width
        else:
            space = value.find(b" ", at + width)
            if space < 0:
                made.append(value[at:])
                at = len(value)
            else:
                made += [value[at:space], separator]
                at = space + 1
    return undo(b"".join([*made, value[at:]]))


def repeat(count: int, value: str) -> str:
    if count < 0:
        raise Refused("repeat: a negative count")
    if len(value) * count > LONGEST:
        raise Refused("repeat: the text would be too long")
    return value * count


def indent(spaces: int, value: str) -> str:
    if spaces < 0 or spaces * (value.count("\n") + 1) > LONGEST:
        raise Refused("indent: a negative or too large count")
    pad = " " * spaces
    return pad + value.replace("\n", "\n" + pad)


def cat(*values: Any) -> str:
    return " ".join(text(value) for value in values if value is not None)


def quoted(*values: Any) -> str:
    return " ".join(quote(text(value)) for value in values if value is not None)


def single(*values: Any) -> str:
    return " ".join(f"'{text(value)}'" for value in values if value is not None)


def replace(old: str, new: str, source: str) -> str:
    if len(new) * (source.count(old) + 1) > LONGEST:
        raise Refused("replace: the text would be too long")
    return source.replace(old, new)


def split_list(separator: str, value: str, count: int = -1) -> list[str]:
    """strings.SplitN: an empty separator splits into characters."""
    if count == 0:
        return []
    if separator:
        return value.split(separator, count - 1 if count > 0 else -1)
    letters = list(value)
    if 0 < count < len(letters):
        letters[count - 1 :] = ["".join(letters[count - 1 :])]
    return letters


def numbered(parts: list[str]) -> StringMap:
    return StringMap((f"_{number}", part) for number, part in enumerate(parts))


def trim_all(cutset: str, value: str) -> str:
    return value.strip(cutset) if cutset else value


def sort_alpha(value: Any) -> Strings:
    if elements(value) is None:
        return Strings([text(value)])
    return Strings(sorted(strings(value), key=data))


# -- words of names ----------------------------------------------------------------------------------------------------


def camelcase(value: str) -> str:
    """xstrings.ToPascalCase: `some_words` is SomeWords."""
    match = re.match(f"[-_{_BLANK}]*", value)
    assert match is not None
    lead, rest = match[0], value[match.end() :]
    if not rest:
        return lead
    made = [lead]
    was_upper = rest[0].isupper()
    last = _upper(rest[0])
    for letter in rest[1:]:
        before, last = last, letter
        if _joins(before) and _joins(letter):
            made.append(before)
        elif _joins(before):
            was_upper = letter.isupper()
            last = _upper(letter)
        else:
            if was_upper:
                if letter.isupper():
                    last = _lower(letter)
                else:
                    was_upper = False
            made.append(before)
    return "".join([*made, last])


def _joins(letter: str) -> bool:
    return letter in "-_" or letter in _BLANK


# Runs of one class; of `HTTPServer` the S belongs to what follows.
_WORDS = re.compile(
    rf"(?P<join>[-_{_BLANK}]+)|(?P<number>\d+)|(?P<upper>[A-Z]+(?![a-z])|[A-Z][a-z]*)"
    r"|(?P<alpha>[a-z]+)|(?P<punct>[!-#%-*,./:;?@\[\\\]{}]+)|(?P<other>.)",
    re.DOTALL,
)


def _cased(value: str, connector: str) -> str:
    words = [(match.lastgroup or "", match[0]) for match in _WORDS.finditer(value)]
    if not words:
        return ""
    made: list[str] = []
    at = 0

    def take() -> tuple[str, str]:
        nonlocal at
        at += 1
        return words[at - 1] if at <= len(words) else ("", "")

    def put(kind: str, word: str) -> None:
        made.append(connector * len(word) if kind == "join" else lower(word) if kind in ("upper", "alpha") else word)

    kind, word = take()
    while at < len(words):
        if kind != "join":
            put(kind, word)
        before, last = kind, word
        kind, word = take()
        if before == "number":
            while kind in ("alpha", "number"):
                put(kind, word)
                kind, word = take()
            if kind not in ("", "punct", "join"):
                made.append(connector)
        elif before == "join":
            put(before, last)
        elif before != "punct":
            if kind != "number":
                if kind not in ("join", "punct"):
                    made.append(connector)
                continue
            if at >= len(words):
                continue
            last = word
            kind, word = take()
            if kind != "alpha":
                put("number", last)
                if kind not in ("join", "punct"):
                    made.append(connector)
                continue
            made.append(connector)
            put("number", last)
            while kind in ("alpha", "number"):
                put(kind, word)
                kind, word = take()
            if kind not in ("", "join", "punct"):
                made.append(connector)
    put(kind, word)
    return "".join(made)


def plural(one: str, many: str, count: int) -> str:
    return one if count == 1 else many


FUNCTIONS: dict[str, Known] = {
    "abbrev": Known(abbrev, "is"),
    "abbrevboth": Known(abbrevboth, "iis"),
    "camelcase": Known(camelcase, "s"),
    "cat": Known(cat, "", "a"),
    "contains": Known(lambda part, value: part in value, "ss"),
    "hasPrefix": Known(lambda part, value: value.startswith(part), "ss"),
    "hasSuffix": Known(lambda part, value: value.endswith(part), "ss"),
    "hello": Known(lambda: "Hello!"),
    "indent": Known(indent, "is"),
    "initials": Known(initials, "s"),
    "join": Known(lambda separator, value: separator.join(strings(value)), "sa"),
    "kebabcase": Known(lambda value: _cased(value, "-"), "s"),
    "lower": Known(lower, "s"),
    "nindent": Known(lambda spaces, value: "\n" + indent(spaces, value), "is"),
    "nospace": Known(lambda value: undo(bytes(b for b in data(value) if chr(b) not in _BLANK)), "s"),
    "plural": Known(plural, "ssi"),
    "quote": Known(quoted, "", "a"),
    "repeat": Known(repeat, "is"),
    "replace": Known(replace, "sss"),
    "snakecase": Known(lambda value: _cased(value, "_"), "s"),
    "sortAlpha": Known(sort_alpha, "a"),
    "split": Known(lambda separator, value: numbered(split_list(separator, value)), "ss"),
    "splitList": Known(lambda separator, value: Strings(split_list(separator, value)), "ss"),
    "splitn": Known(lambda separator, count, value: numbered(split_list(separator, value, count)), "sis"),
    "squote": Known(single, "", "a"),
    "substr": Known(substr, "iis"),
    "swapcase": Known(swapcase, "s"),
    "title": Known(title, "s"),
    "toString": Known(text, "a"),
    "toStrings": Known(lambda value: Strings(strings(value)), "a"),
    "trim": Known(lambda value: value.strip(_BLANK), "s"),
    "trimAll": Known(trim_all, "ss"),
    "trimPrefix": Known(lambda part, value: value.removeprefix(part), "ss"),
    "trimSuffix": Known(lambda part, value: value.removesuffix(part), "ss"),
    "trimall": Known(trim_all, "ss"),
    "trunc": Known(trunc, "is"),
    "untitle": Known(untitle, "s"),
    "upper": Known(upper, "s"),
    "wrap": Known(wrap, "is"),
    "wrapWith": Known(wrap_with, "iss"),
}
