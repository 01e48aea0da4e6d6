"""nodes.conf as text: its two sections and the tree of each entry, with where they stand.

A file in everyday form (see _ext.yamlblocks) is cut into entries, and an entry is parsed when it is asked for; an
entry in another form goes through libyaml alone. A file whose entries do not stand alone (anchors, a bracket or quote
over several entries, anything libyaml refuses) goes through libyaml as a whole. The trees are the same either way.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import xxhash

from wwfast._ext import yamlblocks
from wwfast.config import checks, yaml
from wwfast.config.schema import Fields, shape
from wwfast.config.yaml import Tree, YamlError
from wwfast.errors import ConfigError
from wwfast.nodes.text.patch import rewrite
from wwfast.system import settled

NODES, PROFILES = "nodes", "nodeprofiles"
SECTIONS = (PROFILES, NODES)
NOUN = {NODES: "node", PROFILES: "profile"}
NAMES = {NODES: checks.hostname, PROFILES: checks.name}  # what ids may be

WAREWULFS = ("WW_INTERNAL",)  # what its own nodes.conf had beside the sections

Range = tuple[int, int]
#: The end of a document behind a line break that libyaml knows besides LF: alone it ends well, in a file it does not.
ENDS = re.compile(rb"(?:\r|\xc2\x85|\xe2\x80[\xa8\xa9])\.\.\.")

_encode = msgspec.msgpack.Encoder(enc_hook=lambda quoted: [str(quoted)]).encode


class Entries(Mapping[str, Tree]):
    """The entries of one section, each parsed when it is first asked for. Raises YamlError then."""

    def __init__(self, name: str, data: bytes, ranges: dict[str, Range]) -> None:
        self.name = name
        self.data = data
        self.ranges = ranges
        self.parsed: dict[str, Tree] = {}

    def __getitem__(self, name: str) -> Tree:
        if name in self.parsed:
            return self.parsed[name]
        start, end = self.ranges[name]
        found = yamlblocks.parse(self.data, start, end)
        if found is None:
            if not self.stands_alone(name):
                yaml.load(self.data, self.name)  # raises, naming the line
            return self.parsed[name]
        self.parsed[name] = found[0]
        return found[0]

    def text(self, name: str) -> bytes:
        start, end = self.ranges[name]
        return self.data[start:end]

    def stands_alone(self, name: str) -> bool:
        """Parse one entry by libyaml; False when it is no YAML of its own or shares anchors."""
        start, end = self.ranges[name]
        if ENDS.search(self.data, start, end):
            return False
        try:
            tree, anchored = yaml.load_anchored(self.data[start:end], self.name)
        except YamlError:
            return False
        if anchored or not isinstance(tree, dict) or list(tree) != [name]:
            return False
        self.parsed[name] = tree[name]
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(self.ranges)

    def __len__(self) -> int:
        return len(self.ranges)

    def __contains__(self, name: object) -> bool:
        return name in self.ranges


class Whole(dict[str, Tree]):
    """The entries of one section of a file that was read as a whole, and what each said then."""

    def __init__(self, trees: dict[str, Tree]) -> None:
        super().__init__(trees)
        self.said = {name: _encode(tree) for name, tree in trees.items()}


@dataclass(slots=True, eq=False)
class Source:
    """One version of the file. `trees[section][id]` is the entry as written (None for an empty one)."""

    name: str
    data: bytes
    digest: str
    trees: dict[str, Mapping[str, Tree]]
    others: dict[str, Tree] = field(default_factory=dict)  # what else stands at the top
    _counted: tuple[int, int] = (0, 0)  # a place in the text, and the line ends before it
    _placed: tuple[bytes, yaml.Positions] | None = None  # the text in which a place was last asked for

    @classmethod
    def parse(cls, data: bytes, name: str, former: Source | None = None) -> Source:
        """Raises YamlError when the text is no YAML, ConfigError when it is not two maps of entries."""
        sections = cut(data, name, former)
        trees, others = (sections, {}) if sections is not None else whole(data, name)
        return cls(name, data, cls.digest_of(data), trees, others)

    @classmethod
    def read(cls, path: Path, former: Source | None = None) -> Source:
        """The file as it is now; an absent one is empty. What is in it as it was in `former` is not looked at again."""
        try:
            data = settled.read(path)
        except FileNotFoundError:
            data = b""
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from error
        return cls.parse(data, str(path), former)

    @staticmethod
    def digest_of(data: bytes) -> str:
        return xxhash.xxh3_128_hexdigest(data)

    def fragment(self, section: str, name: str) -> bytes | None:
        """The text of an entry, if it stands alone."""
        entries = self.trees[section]
        return entries.text(name) if isinstance(entries, Entries) and name in entries.ranges else None

    def unchanged(self, before: Source, section: str) -> Iterator[str]:
        """The entries that say the same as in another version."""
        mine, theirs = self.trees[section], before.trees[section]
        if not isinstance(mine, Entries) or not isinstance(theirs, Entries):
            yield from (name for name in mine if self.same(before, section, name))
            return
        data, former = self.data, before.data  # of 10,000 entries all but a few are the same: 4 ms, by `same` 30
        for name, (start, end) in mine.ranges.items():
            at = theirs.ranges.get(name)
            if at is not None and (data[start:end] == former[at[0] : at[1]] or self.same(before, section, name)):
                yield name

    def same(self, other: Source, section: str, name: str) -> bool:
        """Whether an entry says the same in two versions; cheap when its text is the same."""
        mine, theirs = self.fragment(section, name), other.fragment(section, name)
        if mine is not None and mine == theirs:
            return True
        if name not in self.trees[section] or name not in other.trees[section]:
            return False
        alike = isinstance(self.trees[section], Whole) == isinstance(other.trees[section], Whole)
        return self.said(section, name, quotes=not alike) == other.said(section, name, quotes=not alike)

    def said(self, section: str, name: str, *, quotes: bool = False) -> bytes:
        """What an entry said when it was read, as bytes: of Python's own values 1, 1.0 and True are equal, and so are a
        quoted and a plain text; and trees are cleaned in their place. With `quotes` as libyaml says it, which tells of
        quotes also where they make no difference: what was read as a whole has them."""
        entries = self.trees[section]
        if isinstance(entries, Entries):
            if quotes:
                return _encode(yaml.load(entries.text(name), self.name)[name])
            return _encode(Entries(entries.name, entries.data, entries.ranges)[name])
        assert isinstance(entries, Whole)
        return entries.said[name]

    def rewrite(self, changes: Mapping[tuple[str, str], Tree], schema: Fields) -> bytes:
        """The text with entries (by section and id) changed, made, or, where None, taken out."""
        edits: list[tuple[Range, bytes]] = []
        for section in SECTIONS:
            mine = {name: tree for (where, name), tree in changes.items() if where == section}
            entries = self.trees[section]
            if not mine:
                continue
            if not isinstance(entries, Entries) or not entries.ranges:
                return self.rewrite_whole(changes, schema)
            last = next(reversed(entries.ranges))
            made = {name: tree for name, tree in mine.items() if name not in entries.ranges and tree is not None}
            for name in dict.fromkeys([*(name for name in mine if name in entries.ranges), *([last] if made else [])]):
                after = {name: mine.get(name, entries[name])}
                after = {key: tree for key, tree in after.items() if tree is not None or key not in mine}
                if name == last:
                    after |= made
                start, end = entries.ranges[name]
                text = rewrite(self.data[start:end].decode(), {name: entries[name]}, after, schema, 1)
                edits.append(((start, end), text.encode()))
        out, at = [], 0
        for (start, end), fresh in sorted(edits):
            out += [self.data[at:start], fresh]
            at = end
        return b"".join([*out, self.data[at:]])

    def rewrite_whole(self, changes: Mapping[tuple[str, str], Tree], schema: Fields) -> bytes:
        """The same for a file whose entries do not stand alone."""
        old = dict(yaml.load(self.data, self.name) or {})
        new = old | {section: dict(old.get(section) or {}) for section in dict.fromkeys(where for where, _ in changes)}
        for (section, name), tree in changes.items():
            entries = new[section]
            if tree is None:
                entries.pop(name, None)
            else:
                entries[name] = tree
        return rewrite(self.data.decode(), old, new, schema, 2).encode()

    def line(self, section: str, name: str, *path: str | int) -> int:
        """The line of a place, from 1; for messages. Who has asked for many may `forget` what that rests on."""
        fragment = self.fragment(section, name)
        if fragment is None:
            return self._positions(self.data).line((section, name, *path))
        entries = self.trees[section]
        assert isinstance(entries, Entries)
        start = entries.ranges[name][0]
        # From the last place asked for: counting from the top for each of 36,000 bad entries took over five minutes.
        place, lines = self._counted if self._counted[0] <= start else (0, 0)
        lines += self.data.count(b"\n", place, start)
        self._counted = (start, lines)
        return lines + self._positions(fragment).line((name, *path))

    def unread(self) -> Iterator[tuple[str, int]]:
        """The keys at the top that nobody reads and nobody meant for himself, each with its line: not those that
        Warewulf wrote, extensions (`x-...`, `.anchors`), and what is there to be referred to."""
        for key in self.others:
            if key not in WAREWULFS and not key.startswith(("x-", ".")):
                positions = self._positions(self.data)
                if not positions.anchored((key,)):
                    yield key, positions.line((key,))

    def _positions(self, text: bytes) -> yaml.Positions:
        placed = self._placed
        if placed is None or placed[0] != text:
            placed = self._placed = (text, yaml.Positions(text))
        return placed[1]

    def forget(self) -> None:
        """Let go of a text with all its places, several times its size."""
        self._placed = None


def cut(data: bytes, name: str, former: Source | None = None) -> dict[str, Mapping[str, Tree]] | None:
    """The sections as entries that stand alone; None when the text is not of that form."""
    found = yamlblocks.split(data)
    if found is None:
        return None
    ranges, odd = found
    if not ranges.keys() <= {*SECTIONS}:
        return None  # what nobody asks for is never parsed here, and may be no YAML
    sections = {section: Entries(name, data, ranges.get(section, {})) for section in SECTIONS}
    for section, entry in odd:
        if section not in sections:
            return None
        if former is not None and sections[section].text(entry) == former.fragment(section, entry):
            continue
        if not sections[section].stands_alone(entry):
            return None
    return dict(sections)


def whole(data: bytes, name: str) -> tuple[dict[str, Mapping[str, Tree]], dict[str, Tree]]:
    """The sections, and what else stands beside them."""
    top = yaml.load(data, name)
    if top is not None and not isinstance(top, dict):
        raise ConfigError(f"{name}: must be a map of nodeprofiles and nodes, not {shape(top)}")
    sections: dict[str, Mapping[str, Tree]] = {}
    for section in SECTIONS:
        entries = (top or {}).get(section)
        if entries is not None and not isinstance(entries, dict):
            line = yaml.locate(data, (section,))
            raise ConfigError(f"{name}:{line}: {section}: must be a map of names, not {shape(entries)}")
        sections[section] = Whole(entries or {})
    return sections, {key: tree for key, tree in (top or {}).items() if key not in SECTIONS}
