"""sprig's functions of regular expressions; where matches begin and end is Go's regexp."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from wwfast.overlays.templates.faults import Refused
from wwfast.overlays.templates.go.language.functions import Known
from wwfast.overlays.templates.go.library.matching import Found, Pattern, compiled
from wwfast.overlays.templates.go.values import NoStrings, Strings

_NAMED = re.compile(r"\$(?:(\$)|\{(\w+)\}|(\w+))", re.ASCII)
_META = re.compile(r"[\\.+*?()|\[\]{}^$]")


def matches(pattern: Pattern, value: str, count: int = -1) -> Iterator[Found]:
    """All of them that do not overlap; an empty one right after another does not count."""
    at, before = 0, -1
    while count != 0 and at <= len(value):
        match = pattern.search(value, at)
        if match is None:
            return
        empty = match.end() == match.start()
        counts = not (empty and match.start() == before)
        before = match.end()
        at = match.end() + (1 if empty else 0)
        if counts:
            count -= 1
            yield match


def match(pattern: str, value: str) -> bool:
    """What is no pattern matches nothing, as in sprig."""
    try:
        return compiled(pattern).search(value, 0) is not None
    except Refused:
        return False


def must_match(pattern: str, value: str) -> bool:
    return compiled(pattern).search(value, 0) is not None


def find(pattern: str, value: str) -> str:
    found = compiled(pattern).search(value, 0)
    return found.text() if found is not None else ""


def find_all(pattern: str, value: str, count: int) -> Strings:
    return Strings(found.text() for found in matches(compiled(pattern), value, count)) or NoStrings()


def replaced(pattern: str, value: str, by: Callable[[Pattern, Found], str]) -> str:
    """regexp.ReplaceAll: an empty match right after another is left out, too."""
    known = compiled(pattern)
    made: list[str] = []
    at = 0
    for found in matches(known, value):
        made += [value[at : found.start()], by(known, found)]
        at = found.end()
    return "".join([*made, value[at:]])


def replace(pattern: str, value: str, by: str) -> str:
    def expand(known: Pattern, found: Found) -> str:
        def one(match: re.Match[str]) -> str:
            if match[1]:
                return "$"
            name = match[2] or match[3]
            number = int(name) if name.isdigit() and (name == "0" or name[0] != "0") else known.names.get(name, -1)
            return found.text(number) if 0 <= number <= known.groups else ""

        return _NAMED.sub(one, by)

    return replaced(pattern, value, expand)


def split(pattern: str, value: str, count: int) -> Strings:
    """regexp.Split."""
    if count == 0:
        return NoStrings()
    known = compiled(pattern)
    if pattern and not value:
        return Strings([""])
    made: list[str] = []
    start = end = 0
    for found in matches(known, value, count):
        if count > 0 and len(made) == count - 1:
            break
        end = found.start()
        if found.end() != 0:
            made.append(value[start:end])
        start = found.end()
    if end != len(value):
        made.append(value[start:])
    return Strings(made)


def both(name: str, known: Known) -> dict[str, Known]:
    return {name: known, "must" + name[0].upper() + name[1:]: known}


FUNCTIONS: dict[str, Known] = {
    "regexMatch": Known(match, "ss"),
    "mustRegexMatch": Known(must_match, "ss"),
    **both("regexFind", Known(find, "ss")),
    **both("regexFindAll", Known(find_all, "ssi")),
    **both("regexReplaceAll", Known(replace, "sss")),
    **both(
        "regexReplaceAllLiteral",
        Known(lambda pattern, value, by: replaced(pattern, value, lambda *_: by), "sss"),
    ),
    **both("regexSplit", Known(split, "ssi")),
    "regexQuoteMeta": Known(lambda value: _META.sub(r"\\\g<0>", value), "s"),
}
