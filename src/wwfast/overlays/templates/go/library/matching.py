"""A pattern of RE2 looked for in a text, in a time that grows with the text and not with what might match.

A pattern that can match in few ways is Python's `re`'s, which tries one after another. Where it would try too many
(`(a+)+$`), all of them go through the text at once, as in Go's `regexp`: one step for each character and place of the
pattern. Both prefer the first alternative and the longer of a greedy repeat, so what is found is the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from wwfast.overlays.templates.go.library.re2 import Either, Group, One, Reader, Repeat, Sequence, Tree

# What is left to `re`: at most so many ways through a pattern, and two repeats without an end, each of one way. Then
# it is as fast as ever, and what it may try grows with the third power of the text at worst.
WAYS = 1000
OPEN = 2
ENDLESS = 1 << 40

Spans = tuple[int, ...]


class Found(NamedTuple):
    """As re.Match; a group that took no part has a span of -1."""

    value: str
    spans: Spans

    def start(self) -> int:
        return self.spans[0]

    def end(self) -> int:
        return self.spans[1]

    def text(self, group: int = 0) -> str:
        """What a group matched, or nothing."""
        begin, end = self.spans[2 * group : 2 * group + 2]
        return self.value[begin:end] if end >= 0 else ""


Search = Callable[[str, int], Found | None]


class Pattern(NamedTuple):
    """`names` are of groups by their numbers; `search` finds the first match at a place or after it."""

    search: Search
    groups: int
    names: dict[str, int]


class Cost(NamedTuple):
    """In how many ways a tree can match at one place, repeats without an end apart, of which `open` are in a row."""

    ways: int
    open: int
    empty: bool  # whether it matches nothing, too


def cost(tree: Tree) -> Cost:
    match tree:
        case One(_, wide):
            return Cost(1, 0, not wide)
        case Group(_, of):
            return cost(of)
        case Repeat(of, least, most, _):
            inner = cost(of)
            empty = inner.empty or not least
            if most is None:
                return Cost(1 if inner == (1, 0, False) else ENDLESS, 1, empty)
            if inner.ways == 1:
                return Cost(most - least + 1, inner.open * most, empty)
            return Cost(ENDLESS if most > 20 else min(ENDLESS, inner.ways**most * (most - least + 1)), most, empty)
    parts = [cost(each) for each in tree.parts]
    if isinstance(tree, Either):
        return Cost(sum(it.ways for it in parts), max(it.open for it in parts), any(it.empty for it in parts))
    ways = 1
    for each in parts:
        ways = min(ENDLESS, ways * each.ways)
    return Cost(ways, sum(it.open for it in parts), all(it.empty for it in parts))


def spelling(tree: Tree) -> str:
    """The pattern for Python's `re`."""
    match tree:
        case One(python, _):
            return python
        case Group(_, of):
            return f"({spelling(of)})"
        case Sequence(parts):
            return "".join(f"(?:{spelling(it)})" if isinstance(it, Either) else spelling(it) for it in parts)
        case Either(parts):
            return "|".join(map(spelling, parts))
        case Repeat(of, least, most, greedy):
            sign = {(0, None): "*", (1, None): "+", (0, 1): "?"}.get((least, most))
            if sign is None:
                sign = f"{{{least},{'' if most is None else most}}}"
            return f"(?:{spelling(of)}){sign}{'' if greedy else '?'}"


def of_python(tree: Tree) -> Search:
    python = re.compile(spelling(tree))

    def search(value: str, at: int) -> Found | None:
        match = python.search(value, at)
        return Found(value, tuple(place for span in match.regs for place in span)) if match is not None else None

    return search


class Step(NamedTuple):
    """A place of the pattern. `test` looks at a text and a place in it; `ways` are what comes next, the best first.

    `save` is the place of Spans that is set here, -1 for none. The last one has neither test nor ways.
    """

    test: Callable[[str, int], object] | None
    wide: bool
    ways: tuple[int, ...]
    save: int


class Automaton:
    """All ways through a pattern at once, the better ones first; regexp's machine of Thompson and Pike."""

    def __init__(self, tree: Tree, groups: int) -> None:
        self.steps = [Step(None, False, (), -1)]
        self.begin = self.build(Group(0, tree), 0)
        self.none: Spans = (-1,) * (2 * groups + 2)

    def step(self, ways: tuple[int, ...], save: int = -1) -> int:
        self.steps.append(Step(None, False, ways, save))
        return len(self.steps) - 1

    def build(self, tree: Tree, after: int) -> int:
        """Where `tree` begins; it goes on at `after`."""
        match tree:
            case One(python, wide):
                self.steps.append(Step(re.compile(python).match, wide, (after,), -1))
                return len(self.steps) - 1
            case Group(number, of):
                return self.step((self.build(of, self.step((after,), 2 * number + 1)),), 2 * number)
            case Either(parts):
                return self.step(tuple(self.build(it, after) for it in parts))
            case Sequence(parts):
                for each in reversed(parts):
                    after = self.build(each, after)
                return after
            case Repeat(of, least, most, greedy):
                return self.repeat(of, least, most, greedy, after)

    def repeat(self, of: Tree, least: int, most: int | None, greedy: bool, after: int) -> int:
        """x{2,4} is xx(x(x)?)?, x{2,} is xx+; x* is (x+)? where x may be empty, so that it is tried before nothing."""

        def ways(more: int, end: int) -> tuple[int, ...]:
            return (more, end) if greedy else (end, more)

        begin = after
        if most is None:
            again = self.step(())
            inner = self.build(of, again)
            self.steps[again] = Step(None, False, ways(inner, after), -1)
            optional = least == 0 and cost(of).empty
            begin = inner if least else self.step(ways(inner, after)) if optional else again
            least -= 1
        for _ in range((most or least) - least if most is not None else 0):
            begin = self.step(ways(self.build(of, begin), after))
        for _ in range(least):
            begin = self.build(of, begin)
        return begin

    def follow(
        self, ready: list[tuple[int, Spans]], seen: set[int], begin: int, spans: Spans, at: tuple[str, int]
    ) -> None:
        """Add to `ready` the steps that look at a character, or end, and are reached from `begin` without one."""
        stack = [(begin, spans)]
        while stack:
            number, spans = stack.pop()
            if number in seen:
                continue
            seen.add(number)
            step = self.steps[number]
            if step.wide or not step.ways:
                ready.append((number, spans))
            elif step.test is None or step.test(*at):
                if step.save >= 0:
                    spans = (*spans[: step.save], at[1], *spans[step.save + 1 :])
                stack += [(each, spans) for each in reversed(step.ways)]

    def search(self, value: str, at: int) -> Found | None:
        found: Spans | None = None
        ready: list[tuple[int, Spans]] = []
        seen: set[int] = set()
        for here in range(at, len(value) + 1):
            if found is None:
                self.follow(ready, seen, self.begin, self.none, (value, here))
            if not ready:
                if found is not None:
                    break
                seen.clear()
                continue
            before, ready, seen = ready, [], set()
            for number, spans in before:
                step = self.steps[number]
                if step.test is None:
                    found = spans
                    break  # those after it are worse
                if here < len(value) and step.test(value, here):
                    self.follow(ready, seen, step.ways[0], spans, (value, here + 1))
        return Found(value, found) if found is not None else None


@lru_cache(1024)
def compiled(pattern: str) -> Pattern:
    """Raises Refused for what RE2 refuses."""
    reader = Reader(pattern)
    try:
        tree = reader.whole()
        found = cost(tree)
        easy = found.ways <= WAYS and found.open <= OPEN
        search = of_python(tree) if easy else Automaton(tree, reader.groups).search
        return Pattern(search, reader.groups, reader.names)
    except (re.error, RecursionError, OverflowError) as error:
        raise reader.wrong("it cannot be used") from error
