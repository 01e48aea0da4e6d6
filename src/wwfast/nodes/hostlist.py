"""Hostlists: `r[1-2]-n[01-03],login` names r1-n01 r1-n02 r1-n03 r2-n01 r2-n02 r2-n03 login.

Order is as written, nothing is sorted or made unique. Padding comes from the width of the first number of a range.
Unlike Warewulf, a bad bracket is an error that names it instead of being taken literally or left out: one that is
empty, runs backwards or pads its two ends differently. So is a range that would make more than LARGEST names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from wwfast.config.checks import shown
from wwfast.errors import UsageError

LARGEST = 1_000_000
DIGITS = 18
LONGEST = 253  # of a name in DNS (RFC 1035 2.3.4)
BRACKET = re.compile(r"\[([^\[\]]*)\]")
RANGE = re.compile(r"([0-9]*)(?:-([0-9]+))?")


def expand(words: Iterable[str]) -> list[str]:
    """Every name the words mean; a word of commas alone means itself, which is the name of nothing, and not all. Raises
    UsageError on a bad bracket or a range too large."""
    names: list[str] = []
    for word in words:
        for pattern in split(word) or ([word] if word else []):
            names += one(pattern)
            if len(names) > LARGEST:
                raise UsageError(f"hostlist {shown(word)} names more than {LARGEST} nodes")
    return names


def split(word: str) -> list[str]:
    """Cut at commas outside brackets; empty parts are left out."""
    parts, depth, start = [], 0, 0
    for index, letter in enumerate(word):
        depth += (letter == "[") - (letter == "]")
        if letter == "," and depth == 0:
            parts.append(word[start:index])
            start = index + 1
    parts.append(word[start:])
    return [part for part in parts if part]


def _too_long(pattern: str) -> UsageError:
    return UsageError(f"hostlist {shown(pattern)} makes names longer than {LONGEST} letters")


def one(pattern: str) -> list[str]:
    """The cartesian product of the brackets of one pattern, left to right."""
    pieces = BRACKET.split(pattern)
    if any("[" in piece or "]" in piece for piece in pieces[::2]):
        raise UsageError(f"hostlist {shown(pattern)}: a bracket is not closed", hint="write it like n[1-3,5]")
    if sum(len(piece) for piece in pieces[::2]) > LONGEST:  # before there are a million of them
        raise _too_long(pattern)
    names = [pieces[0]]
    for inside, tail in zip(pieces[1::2], pieces[2::2], strict=True):
        numbers = bracket(inside, pattern)
        if len(names) * len(numbers) > LARGEST:
            raise UsageError(f"hostlist {shown(pattern)} names more than {LARGEST} nodes")
        names = [f"{name}{number}{tail}" for name in names for number in numbers]
        if max(map(len, names)) > LONGEST:
            raise _too_long(pattern)
    return names


def bracket(inside: str, pattern: str) -> list[str]:
    """`1-3,07` -> 1 2 3 07; an empty start of a range is 0."""
    numbers: list[str] = []
    for part in inside.split(","):
        match = RANGE.fullmatch(part)
        if match is None or part == "":
            raise wrong(pattern, f"{shown(part)} is no number or range")
        first, last = match.groups()
        if max(map(len, part.split("-"))) > DIGITS:
            raise wrong(pattern, f"a number is larger than {LARGEST}")
        if last is None:
            numbers.append(first)
            continue
        start, stop = int(first or 0), int(last)
        if stop < start:
            raise wrong(pattern, f"range {part} runs backwards")
        if len(last) > 1 and last[0] == "0" and len(last) != len(first):
            raise wrong(pattern, f"the ends of range {part} have different widths")
        if stop - start >= LARGEST or len(numbers) > LARGEST:
            raise UsageError(f"hostlist {shown(pattern)}: range {part} is larger than {LARGEST}")
        numbers += [f"{number:0{len(first)}d}" for number in range(start, stop + 1)]
    return numbers


def wrong(pattern: str, cause: str) -> UsageError:
    return UsageError(f"hostlist {shown(pattern)}: {cause}", hint="write it like n[1-3,5] or n[01-10]")


def compress(names: Iterable[str]) -> str:
    """The shortest way to write names that differ in their last number: `n[01-03,05],login`."""
    groups: dict[tuple[str, int], list[int] | None] = {}
    for name in names:
        head = name.rstrip("0123456789")
        digits = name[len(head) :]
        if not 0 < len(digits) <= DIGITS:
            groups[(name, -1)] = None  # no number, or one that expand() would not take
            continue
        width = len(digits) if digits[0] == "0" and len(digits) > 1 else 0
        numbers = groups.setdefault((head, width or (len(digits) if padded(groups, head, len(digits)) else 0)), [])
        assert numbers is not None
        numbers.append(int(digits))
    return ",".join(written(head, width, numbers) for (head, width), numbers in groups.items())


def padded(groups: dict[tuple[str, int], list[int] | None], head: str, width: int) -> bool:
    """Whether a zero-padded group of this width is open: n10 joins n01..n09."""
    return (head, width) in groups


def written(head: str, width: int, numbers: list[int] | None) -> str:
    if numbers is None:
        return head
    parts: list[str] = []
    ordered = sorted(set(numbers))
    start = previous = ordered[0]
    for number in [*ordered[1:], None]:
        if number is not None and number == previous + 1:
            previous = number
            continue
        low, high = f"{start:0{width}d}", f"{previous:0{width}d}"
        parts.append(low if start == previous else f"{low}-{high}")
        if number is not None:
            start = previous = number
    return f"{head}{parts[0]}" if len(parts) == 1 and "-" not in parts[0] else f"{head}[{','.join(parts)}]"
