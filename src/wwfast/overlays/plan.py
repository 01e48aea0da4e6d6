"""The render plan of one list of overlays on one image: what is shared by whom, and the bytes of each part.

Templates fall into three classes by what they can read: the cluster as a whole (`hosts`), fields that many nodes agree
on (tags, image, file systems), and fields a node has to itself (names, addresses). Together with the files that are no
templates that makes four parts of an archive, sent one after the other. Each holds what the stack with its
class has beyond the stack without it, so the end is the same as if all were laid over each other in order.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import xxhash

from wwfast.errors import ConfigError
from wwfast.overlays.analysis import WHOLE, Read
from wwfast.overlays.data import digest
from wwfast.overlays.model import DIRECTORY, FILE, Item
from wwfast.overlays.render import Template
from wwfast.overlays.stack import (
    Entry,
    Output,
    Rendered,
    Stack,
    StaticContent,
    apply,
    difference,
)
from wwfast.pack import newc

# One constant for all, so that content alone decides; not 0, which some tools take for "no time".
MTIME = 946684800  # 2000-01-01

CLUSTER, VARIANT, NODE = range(3)


class Changed(Exception):
    """A file of an overlay changed between looking at it and reading it: look again."""


@dataclass(frozen=True, eq=False)
class Part:
    """The templates of one class and the union of what they read."""

    templates: tuple[Template, ...]
    reads: tuple[Read, ...] = field(init=False)
    names: tuple[str, ...] = field(init=False)
    cluster: frozenset[str] | None = field(init=False)
    identity: bytes = field(init=False)

    def __post_init__(self) -> None:
        reads = {read for template in self.templates for read in template.reads.node}
        whole = {read[0] for read in reads if len(read) == 1}
        reads = {(WHOLE,)} if WHOLE in whole else {r for r in reads if len(r) == 1 or r[0] not in whole}
        clusters = [template.reads.cluster for template in self.templates if template.reads.cluster is not None]
        fields = frozenset().union(*clusters)
        set_ = object.__setattr__
        set_(self, "reads", tuple(sorted(reads)))
        set_(self, "names", tuple(sorted({name for template in self.templates for name in template.reads.names})))
        set_(self, "cluster", (frozenset({WHOLE}) if WHOLE in fields else fields) if clusters else None)
        set_(self, "identity", digest([template.identity for template in self.templates]))


class Plan:
    """One list of overlays, scanned and compiled, on one image (or none)."""

    def __init__(
        self,
        overlays: Sequence[tuple[str, Sequence[Item]]],
        templates: dict[tuple[str, str], Template],
        image: str,
        kind: Callable[[str], str],
        symlinks: frozenset[str],
    ) -> None:
        self.image = image
        self.symlinks = symlinks
        self.sequence: list[tuple[str, Item] | Template] = []
        for overlay, items in overlays:
            for item in items:
                self.sequence.append(templates[overlay, item.path] if item.template else (overlay, item))
        classes: tuple[list[Template], ...] = ([], [], [])
        for each in self.sequence:
            if isinstance(each, Template):
                classes[class_of(each)].append(each)
        self.parts = tuple(Part(tuple(templates)) for templates in classes)
        self.static: Stack = apply({}, (each for each in self.sequence if not isinstance(each, Template)))
        self.skipped = frozenset(
            path
            for path, it in self.static.items()
            if it.kind == DIRECTORY and (path in symlinks or kind(path) == "link")
        )
        for path, entry in self.static.items():
            if entry.kind != DIRECTORY and kind(path) == "dir":
                raise over_directory(path, image)
        entries = sorted(self.static.items())
        shape = [(path, it.kind, it.mode, it.uid, it.gid) for path, it in entries]
        self.shape = digest([shape, sorted(self.skipped)])
        self.static_key = digest([self.shape, [_content(entry) for _, entry in entries]])

    def static_archive(self) -> bytes:
        """The part that holds no template. Raises Changed."""
        return archive(sorted(self.static.items()), self.skipped.__contains__)

    def quick(self, rendered: Iterable[Rendered], taken: frozenset[str]) -> list[tuple[str, Entry]] | None:
        """The entries of outputs that touch nothing else; None when they do, and the stack must be made in full.

        `taken` are the paths of the parts before, apart from the static one.
        """
        found: Stack = {}
        static = self.static
        for each in rendered:
            item = each.item
            for output in each.outputs:
                path = output.path
                if path in static or path in taken or path in found:
                    return None
                parent = path.rpartition("/")[0]
                above = static.get(parent) or found.get(parent)
                there = not parent or (above is not None and above.kind == DIRECTORY)
                if not there and not (output.make_parents and self._parents(found, path, item, taken)):
                    return None
                mode = item.mode if output.kind == FILE else 0o777
                found[path] = Entry(output.kind, mode, item.uid, item.gid, output.content)
        return sorted(found.items())

    def _parents(self, found: Stack, path: str, item: Item, taken: frozenset[str]) -> bool:
        own = self.static.get(item.path.rpartition("/")[0])
        mode, uid, gid = (own.mode, own.uid, own.gid) if own is not None else (0o755, 0, 0)
        at = path.find("/")
        while at > 0:
            parent = path[:at]
            there = self.static.get(parent) or found.get(parent)
            if there is None:
                if parent in taken:
                    return False
                found[parent] = Entry(DIRECTORY, mode, uid, gid)
            elif there.kind != DIRECTORY:
                return False
            at = path.find("/", at + 1)
        return True

    def full(self, upto: int, outputs: Callable[[Template], Sequence[Output]]) -> list[tuple[str, Entry]]:
        """What the class `upto` adds to the stack of those before it, all laid over each other in order."""

        def stack(last: int) -> Stack:
            items: list[tuple[str, Item] | Rendered] = []
            for each in self.sequence:
                if not isinstance(each, Template):
                    items.append(each)
                elif class_of(each) <= last:
                    items.append(Rendered(each.item, each.overlay, outputs(each)))
            return apply({}, items)

        return difference(stack(upto), stack(upto - 1))


def class_of(template: Template) -> int:
    if template.reads.unique:
        return NODE
    return VARIANT if template.reads.node else CLUSTER


def _content(entry: Entry) -> bytes:
    return entry.content.digest if isinstance(entry.content, StaticContent) else entry.content


def over_directory(path: str, image: str) -> ConfigError:
    return ConfigError(
        f"/{path} is a file in the overlays, but a directory in image {image}",
        hint="a node cannot put a file over a directory that is not empty: rename one of them",
    )


def archive(entries: Iterable[tuple[str, Entry]], skip: Callable[[str], bool], *, trailer: bool = False) -> bytes:
    """newc bytes of the entries, parents first.

    A file is preceded by a symbolic link of the same name: Linux removes what was there before, so
    a file of the image that has hard links is replaced and not written through all of its names.
    """
    listed: list[newc.Entry] = []
    for path, entry in entries:
        link = _link(path)
        name = link.name
        if entry.kind == DIRECTORY:
            if not skip(path):
                listed.append(newc.Entry(name, stat.S_IFDIR | entry.mode, entry.uid, entry.gid, MTIME))
            continue
        content = entry.content
        data = content if isinstance(content, bytes) else _read(content)
        if entry.kind == FILE:
            listed.append(link)
            listed.append(newc.Entry(name, stat.S_IFREG | entry.mode, entry.uid, entry.gid, MTIME, data))
        else:
            listed.append(newc.Entry(name, stat.S_IFLNK | 0o777, entry.uid, entry.gid, MTIME, data))
    return newc.archive(listed, trailer=trailer)


@lru_cache(maxsize=1 << 14)
def _link(path: str) -> newc.Entry:
    """The link that stands before a file; the same paths come for every node."""
    return newc.Entry(path.encode("utf-8", "surrogateescape"), stat.S_IFLNK | 0o777, 0, 0, MTIME, b".")


def _read(content: StaticContent) -> bytes:
    try:
        with open(content.source, "rb") as file:  # noqa: PTH123 - a plain path
            data = file.read()
    except FileNotFoundError as error:
        raise Changed from error
    if xxhash.xxh3_128_digest(data) != content.digest:
        raise Changed
    return data
