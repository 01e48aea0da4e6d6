"""Editing YAML as text: only the lines of what changed are touched.

`rewrite(text, old, new)` turns a text that says `old` into one that says `new`. Comments, blank lines, key order,
quoting and unknown keys of everything else stay byte for byte. Where a construct cannot be edited in place (flow
style over several lines, a key that shares its line with a dash) the smallest value around it is written anew, and
comments amid it stand above it from then on.

Positions come from libyaml; the caller reads the result back and compares, so a construct that this module gets
wrong is refused, never written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from wwfast.config import yaml
from wwfast.config.schema import Fields, Kind, fields, written
from wwfast.config.yaml import Tree

LINE = re.compile("[^\n\r\x85\u2028\u2029]*(?:\r\n|[\n\r\x85\u2028\u2029]|$)")  # where libyaml breaks lines
BLOCKS = (4, 5)  # styles of texts that begin on the line below `|` or `>`
COMMENT = re.compile(r"\s+#.*$")


class Awkward(Exception):
    """This value cannot be edited in place; whoever holds it writes it anew."""


class Mark(NamedTuple):
    """One composed value: where it stands (lines and columns from 0) and its parts."""

    kind: str  # scalar, alias, list, map
    line: int
    column: int
    end_line: int
    end_column: int
    flow: bool
    value: Any
    anchored: bool
    style: int

    @property
    def begin(self) -> tuple[int, int]:
        """Of its text: behind the `|` of one that begins below may be a comment."""
        return (self.line + 1, 0) if self.style in BLOCKS else (self.line, self.column)


class Edit(NamedTuple):
    """Lines [first, last) give way to `lines`."""

    first: int
    last: int
    lines: list[str]


def rewrite(text: str, old: Tree, new: Tree, schema: Fields | None = None, depth: int = 0) -> str:
    """`schema` orders keys that are added `depth` levels down; higher maps get new keys at their end. Raises Awkward
    where not even the outermost map can be edited."""
    old, new = written(old, schema, depth), written(new, schema, depth)
    lines = [line for line in LINE.findall(text) if line]
    composed = yaml.compose(text.encode())
    if composed is None:
        return text + ("" if not text or text.endswith("\n") else "\n") + (yaml.dump(new) if new else "")
    root = Mark(*composed)
    if root.kind != "map" or root.flow:
        return "".join([*lines[: root.line], *whole(lines, root, new), *lines[last(root) + 1 :]])
    edits: list[Edit] = []
    Patch(lines, edits).map(root, old, new, schema, depth)
    out: list[str] = []
    done = 0
    for _, edit in sorted(enumerate(edits), key=lambda it: (it[1].first, it[1].last, it[0])):
        out += lines[done : edit.first]
        if edit.lines and out and out[-1] == out[-1].rstrip("\n\r"):
            out[-1] += "\n"
        out += edit.lines
        done = max(done, edit.last)
    return "".join([*out, *lines[done:]])


def whole(lines: Sequence[str], root: Mark, new: Tree) -> list[str]:
    """The lines of a document that is one value on a few of them; what stands before it (`---`) has its own."""
    before = lines[root.line][: root.column].rstrip() if root.line < len(lines) else ""
    remark = behind(lines, root).lstrip()
    amid = list(comments(lines, root.line, root.column, root))
    stay = [before, *amid[: len(amid) - bool(remark)], remark]
    return [f"{line}\n" for line in stay if line] + split(yaml.dump(new))


def alike(old: Sequence[Any], new: Sequence[Any]) -> tuple[int, int]:
    """How many items at the start, and of the others at the end, are the same."""
    head = tail = 0
    while head < min(len(old), len(new)) and old[head] == new[head]:
        head += 1
    while tail < min(len(old), len(new)) - head and old[-1 - tail] == new[-1 - tail]:
        tail += 1
    return head, tail


def last(mark: Mark) -> int:
    """The last line that belongs to a value, comments and blank lines behind it not counted."""
    if mark.kind == "map" and not mark.flow:
        return last(Mark(*mark.value[-1][1]))
    if mark.kind == "list" and not mark.flow:
        return last(Mark(*mark.value[-1]))
    return mark.end_line - 1 if mark.end_column == 0 and mark.end_line > mark.line else mark.end_line


class Patch:
    """Collects the edits of one text."""

    def __init__(self, lines: Sequence[str], edits: list[Edit]) -> None:
        self.lines = lines
        self.edits = edits

    def map(self, mark: Mark, old: Any, new: Any, schema: Fields | None, depth: int) -> None:
        """A block map, key by key."""
        children = [(Mark(*key), Mark(*value)) for key, value in mark.value]
        order = list(schema) if schema is not None and depth == 0 else []
        present: dict[str, int] = {}
        for key, value in children:
            name = key.value or ""
            end = last(value) + 1
            if name == "<<":
                continue
            present[name] = end
            if name not in new:
                if self.lines[key.line][: key.column].strip():
                    raise Awkward
                self.edits.append(Edit(key.line, end, []))
            elif new[name] != old[name]:
                self.entry(key, value, old[name], new[name], *within(name, schema, depth))
        for name in old:
            if name not in present and name not in new:
                raise Awkward  # it came by a merge key
        first = min((key for key, _ in children), key=lambda key: key.line)
        top = first.line  # above the comments that stand over the first key
        while top and self.lines[top - 1].startswith(" " * first.column + "#"):
            top -= 1
        for name in new:
            if name in present or (name in old and old[name] == new[name]):
                continue
            text = yaml.dump({name: new[name]}, first.column)
            before = (
                [present[other] for other in order[: order.index(name)] if other in present] if name in order else []
            )
            known = name in order and any(other in present for other in order)
            at = max(before, default=top) if known else last(mark) + 1
            if at == top and self.lines[first.line][: first.column].strip():
                raise Awkward
            self.edits.append(Edit(at, at, split(text)))
            if name in order:
                present[name] = at

    def entry(self, key: Mark, value: Mark, old: Any, new: Any, schema: Fields | None, depth: int) -> None:
        """The value of one key, in place if possible."""
        mine: list[Edit] = []
        inner = Patch(self.lines, mine)
        try:
            if (value.anchored and value.kind != "scalar") or (value.flow and not value.value):
                raise Awkward  # `{}` gives way to a block
            if value.kind == "map" and not value.flow and isinstance(new, dict) and new:
                inner.map(value, old, new, schema, depth)
            elif value.kind == "list" and not value.flow and isinstance(new, list) and new:
                inner.list(value, old, new)
            else:
                inner.inline(key, value, new)
        except Awkward:
            mine[:] = [self.anew(key, value, new)]
        self.edits += mine

    def list(self, mark: Mark, old: Any, new: Any) -> None:
        """A block list: the items before and behind the change keep their lines."""
        items = [Mark(*item) for item in mark.value]
        if any(self.lines[item.line][: item.column].strip() != "-" for item in items):
            raise Awkward
        head, tail = alike(old, new)
        gone, come = items[head : len(items) - tail], new[head : len(new) - tail]
        for item in gone:
            self.edits.append(Edit(item.line, last(item) + 1, []))
        at = gone[0].line if gone else last(items[head - 1]) + 1 if head else items[0].line
        if come:
            self.edits.append(Edit(at, at, split(yaml.dump(come, mark.column))))

    def inline(self, key: Mark, value: Mark, new: Any) -> None:
        """A value on the line of its key: the comment behind it stays."""
        if value.line != key.line or value.end_line != key.line or (isinstance(new, dict | list) and not value.flow):
            raise Awkward
        line = self.lines[key.line]
        text = flow(new) if isinstance(new, dict | list) else yaml.leaf(new)
        gap = " " if value.column == value.end_column and not line[: value.column].endswith(" ") else ""
        self.edits.append(Edit(key.line, key.line + 1, [line[: value.column] + gap + text + line[value.end_column :]]))

    def anew(self, key: Mark, value: Mark, new: Any) -> Edit:
        """The key and its value written again, at the same indentation."""
        if self.lines[key.line][: key.column].strip():
            raise Awkward
        name = str(key.value or "")
        fresh = split(yaml.dump({name: new}, key.column))
        head = comment(self.lines[key.line], key.end_column + 1) if value.line > key.line else ""
        tail = behind(self.lines, value)
        fresh[0] = fresh[0].rstrip("\n") + head + tail + "\n"
        amid = list(comments(self.lines, key.line, key.end_column, value))
        stay = [f"{' ' * key.column}{line}\n" for line in amid[bool(head) : len(amid) - bool(tail)]]
        return Edit(key.line, last(value) + 1, stay + fresh)


def comment(line: str, column: int) -> str:
    """The comment behind a column, with the blanks before it."""
    found = COMMENT.search(line.rstrip("\n\r")[column:])
    return found.group() if found else ""


def behind(lines: Sequence[str], value: Mark) -> str:
    """The comment that is of a value as a whole: behind its end, or behind the `|` of a text that begins below."""
    if value.style in BLOCKS:
        return comment(lines[value.line], value.column)
    in_place = value.flow or value.kind in ("scalar", "alias")
    return comment(lines[value.end_line], value.end_column) if in_place and value.end_line < len(lines) else ""


def texts(mark: Mark) -> Iterator[Mark]:
    """The keys and values that have no parts, in the order of the text."""
    if mark.kind == "map":
        for key, value in mark.value:
            yield from texts(Mark(*key))
            yield from texts(Mark(*value))
    elif mark.kind == "list":
        for item in mark.value:
            yield from texts(Mark(*item))
    else:
        yield mark


def comments(lines: Sequence[str], line: int, column: int, value: Mark) -> Iterator[str]:
    """Every comment from a place (line and column from 0) to the end of the last line of a value."""
    parts = texts(value)
    part = next(parts, None)
    for number in range(line, min(last(value) + 1, len(lines))):
        at = lines[number].find("#", column)
        while at >= 0:
            while part and (part.end_line, part.end_column) <= (number, at):
                part = next(parts, None)
            if part is None or (number, at) < part.begin:
                yield lines[number][at:].rstrip()
                break
            at = lines[number].find("#", part.end_column) if part.end_line == number else -1
        column = 0


def within(name: str, schema: Fields | None, depth: int) -> tuple[Fields | None, int]:
    """The schema of the value of a key, and how many levels down it begins."""
    if schema is None or depth > 0:
        return schema, depth - 1
    spec = schema.get(name)
    if spec is None or spec.struct is None:
        return None, 0
    return fields(spec.struct), 1 if spec.kind is Kind.STRUCTS else 0


def flow(tree: Tree) -> str:
    """Flow style on one line: `{a: 1, b: [x, y]}`."""
    if isinstance(tree, dict):
        return "{" + ", ".join(f"{flow(key)}: {flow(value)}" for key, value in tree.items()) + "}"
    if isinstance(tree, list):
        return "[" + ", ".join(flow(item) for item in tree) + "]"
    text = yaml.leaf(tree)
    return f"'{text}'" if text[:1] not in "'\"" and set(text) & set(",[]{}") else text


def split(text: str) -> list[str]:
    return text.splitlines(keepends=True)
