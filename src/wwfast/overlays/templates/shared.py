"""What a template made, found again for every node for which it sees the same.

While a template runs it is noted what decides its way (see lazy): these reads are a branch of a tree, at its end
stands the text, open where something of the node is only printed. The next node goes down the tree by what it has in
these places: a template runs once for each way that there is. What was printed the same for the first nodes is closed:
to look whether it is the same costs less than to say it again. All of it holds as long as nodes and settings are the
same and the files that were read (`stands`): an edit of one template leaves the trees of the others, and of some nodes
what they said.
"""

from __future__ import annotations

from types import CodeType
from typing import NamedTuple

from wwfast._ext import attributes
from wwfast.errors import WwfastError
from wwfast.nodes.model import Node
from wwfast.overlays.files.model import FILE
from wwfast.overlays.files.stack import Output
from wwfast.overlays.templates.data import FACTS, Names, Note, Seen
from wwfast.overlays.templates.environment import Hole, encode, opened
from wwfast.overlays.templates.faults import Exceeded
from wwfast.overlays.templates.render import Template
from wwfast.overlays.templates.sources import Sources

TRIED = 32  # runs after which a template must have been found again more often than it ran
FIRST = 16  # nodes after which it is decided what is closed
WAYS = 1000  # of one template
LARGE = 1 << 20  # bytes of a text that is not kept for other nodes if it rests on this one
ROOM = 1 << 20  # bytes of what one template said to nodes, kept for when another template of theirs was edited
EACH = 300  # what keeping an output takes beside its content


class Leaf(NamedTuple):
    """Outputs, with the holes of each (None: it has none); and what was looked at."""

    outputs: tuple[Output, ...]
    pieces: tuple[list[str | Hole] | None, ...]
    note: Note
    seen: Seen


class Told(NamedTuple):
    """What was said to a node, and what was looked at for that: there is more in the holes than at the leaf."""

    node: Node
    outputs: tuple[Output, ...]
    note: Note
    seen: Seen


class Shared:
    """A template, for the nodes of `names`. `common` once it was seen that it looks at nothing of the node."""

    def __init__(self, template: Template, names: Names, sources: Sources, said: bytes = b"", room: int = ROOM) -> None:
        """`said` tells who asks which template runs; `room` are the bytes that are kept of what it said to nodes."""
        self.template = template
        self.said = said
        self.common = False
        self._names, self._sources = names, sources
        self._tree: attributes.Branch | Leaf | None = None
        self._told: dict[str, Told] = {}
        self._room = room
        self._files: set[tuple[tuple[str, str, str], bytes]] = set()  # that any run looked at
        self._ran = self._found = 0
        self._open = template.lazy
        self._closed: frozenset[CodeType] = frozenset()
        self._said: dict[CodeType, set[str]] | None = {}  # by the holes of the first nodes

    def stands(self) -> bool:
        """Whether the files that runs looked at are as they were."""
        try:
            return self._sources.same(tuple(self._files))
        except WwfastError:  # one cannot be read any more: who runs it is told so
            return False

    def run(self, node: str, memory: float, limit: int) -> tuple[Output, ...]:
        """As Template.run."""
        names = self._names
        told = self._told.get(node)
        if told is not None and told.node is names.reader.node:
            names.note(told.note)
            if told.seen:
                self._sources.record(told.seen)
            return told.outputs
        if self._room <= 0:
            return self._run(node, memory, limit)[0]
        before = names.taken()
        made, seen = self._run(node, memory, limit)
        note = names.taken()
        names.note(before)
        names.note(note)
        if seen is not None and not note[2] & FACTS:
            self._room -= EACH + sum([len(output.content) + EACH for output in made])
            self._told[node] = Told(names.reader.node, made, note, seen)
        return made

    def _run(self, node: str, memory: float, limit: int) -> tuple[tuple[Output, ...], Seen | None]:
        """And the files that were looked at; None where it is not known that it says the same again."""
        leaf: Leaf | None = attributes.found(self._tree)
        if leaf is None:
            if not self._open:
                return self.template.run(self._names, node, memory=memory, output=limit), None
            return self._first(node, memory, limit)
        self._found += 1
        if self._found == FIRST and self._said is not None:
            self._close()
        self._names.note(leaf.note)
        if leaf.seen:
            self._sources.record(leaf.seen)
        return self._complete(leaf, node, memory, limit)

    def _complete(self, leaf: Leaf, node: str, memory: float, limit: int) -> tuple[tuple[Output, ...], Seen | None]:
        if not any(leaf.pieces):
            return leaf.outputs, leaf.seen
        try:
            made = tuple([
                # By place: _replace takes three times as long, some twenty times a node.
                it if pieces is None else Output(it[0], it[1], encode(self._text(pieces)), it[3], it[4])
                for it, pieces in zip(leaf.outputs, leaf.pieces, strict=True)
            ])  # fmt: skip
            if sum([len(output.content) for output in made]) <= limit:
                return made, leaf.seen
        except Exceeded as error:
            raise self.template.failure(error, node) from None
        except Exception:
            pass  # what is wrong, and in which line, says the run that follows
        return self.template.run(self._names, node, memory=memory, output=limit), None

    def _text(self, pieces: list[str | Hole]) -> str:
        if self._said is None:
            return "".join([it if type(it) is str else it() for it in pieces])  # type: ignore[operator]
        made = list(pieces)
        for at, it in enumerate(pieces):
            if not isinstance(it, str):
                made[at] = said = it()
                known = self._said.setdefault(it.__code__, set())
                if len(known) < 2:
                    known.add(said)
        return "".join(made)  # type: ignore[arg-type]

    def _close(self) -> None:
        """What was always the same is looked at from now on."""
        said, self._said = self._said or {}, None
        self._closed = frozenset(code for code, texts in said.items() if len(texts) == 1)
        if self._closed:
            self._tree, self._ran, self._found = None, 0, 0

    def _first(self, node: str, memory: float, limit: int) -> tuple[tuple[Output, ...], Seen | None]:
        """Run it, and keep what it made."""
        names, template = self._names, self.template
        before = names.taken()
        holes = template.env.record(self._closed)
        with self._sources.recording() as seen:
            outputs = template.run(names, node, memory=memory, output=limit)
        note = names.taken()
        pieces = tuple(self._pieces(output, holes) for output in outputs)
        leaf = Leaf(outputs, pieces, note, seen())
        self._files.update(leaf.seen)
        self.common = not note[0] and not any(pieces)
        self._ran += 1
        large = sum(len(output.content) for output in outputs) > LARGE
        if (self.common or not large) and not note[2] & FACTS:
            self._tree = attributes.grown(names.reader, leaf, self._tree)
        names.reader.record(None)
        self._prune()
        names.note(before)
        names.note(note)
        return self._complete(leaf, node, memory, limit)

    def _prune(self) -> None:
        if self._ran > WAYS or (self._ran >= TRIED and self._ran > self._found):
            self._tree, self._open = None, self._ran <= self._found
            self._ran = self._found = 0

    @staticmethod
    def _pieces(output: Output, holes: list[Hole]) -> list[str | Hole] | None:
        if not holes or output.kind != FILE:
            return None
        cut = opened(output.content.decode("utf-8", "surrogateescape"))
        return [holes[it] if isinstance(it, int) else it for it in cut] if cut is not None else None
