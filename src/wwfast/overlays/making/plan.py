"""One list of overlays on one image: what is laid over what, and the bytes of the three parts of an archive.

The static part holds the files that are no templates. Templates that looked at nothing of their node when they ran say
the same for every node: they are the shared part. The others are the node's own part. The parts are sent one after
the other; each holds what the stack with its templates has beyond the stack without them, so the end is the same
as if all were laid over each other in order.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import xxhash

from wwfast import __version__
from wwfast.archive import newc
from wwfast.errors import ConfigError, WwfastError
from wwfast.overlays.files.images import Images
from wwfast.overlays.files.model import DIRECTORY, FILE, Item
from wwfast.overlays.files.scan import Overlays
from wwfast.overlays.files.stack import Entry, Output, Rendered, Stack, StaticContent, apply, difference
from wwfast.overlays.templates.data import digest
from wwfast.overlays.templates.sources import Sources

if TYPE_CHECKING:
    from wwfast.images.store import Image
    from wwfast.nodes.model import Node

# One constant for all, so that content alone decides; not 0, which some tools take for "no time".
MTIME = 946684800  # 2000-01-01
# Part of what the outputs of templates are kept under; another number where they would now differ.
RULES = 3

LEVEL = 3  # of zstd, for each part
SYSTEM = "system"

Outputs = Mapping[int, Sequence[Output]]
Key = tuple[tuple[str, ...], str]


def overlays_of(node: Node, context: str) -> tuple[str, ...]:
    return tuple(node.system_overlay if context == SYSTEM else node.runtime_overlay)


def key_of(node: Node, context: str) -> Key:
    """Overlays and image: nodes that agree on them have a plan in common."""
    return overlays_of(node, context), node.image_name


class Changed(Exception):
    """A file changed between looking at it and reading it: look again."""


class Plan:
    """`identity` is everything that decides what is made, but for what templates look at while they run."""

    def __init__(self, overlays: Sequence[tuple[str, Sequence[Item]]], image: str, links: frozenset[str],
                 kind: Callable[[str], str]) -> None:  # fmt: skip
        """`links` are paths that are links in the image, `kind` looks a path up in it. Raises Changed."""
        self.image = image
        self.links = links
        self.sequence = [(overlay, item) for overlay, items in overlays for item in items]
        self.templates = tuple(each for each in self.sequence if each[1].template)
        try:
            sources = [(RULES, __version__, name, item.identity, str(item.source)) for name, item in self.templates]
            self.static: Stack = self.stack((), {})
        except (FileNotFoundError, NotADirectoryError) as error:
            raise Changed from error
        self.skipped = frozenset(
            path for path, it in self.static.items() if it.kind == DIRECTORY and (path in links or kind(path) == "link")
        )
        for path, entry in self.static.items():
            if entry.kind != DIRECTORY and kind(path) == "dir":
                raise over_directory(path, image)
        entries = [(path, it.kind, it.mode, it.uid, it.gid, _content(it)) for path, it in sorted(self.static.items())]
        self.identity = digest([sources, entries, sorted(self.skipped), image, digest(sorted(links))])

    def stack(self, chosen: Collection[int], outputs: Outputs) -> Stack:
        """All laid over each other in order, of the templates the `chosen` ones."""
        stack: Stack = {}
        numbers = iter(range(len(self.templates)))
        for overlay, item in self.sequence:
            if not item.template:
                apply(stack, [(overlay, item)])
            elif (number := next(numbers)) in chosen:
                apply(stack, [Rendered(item, overlay, outputs[number])])
        return stack

    def static_archive(self) -> bytes:
        """The part that holds no template. Raises Changed."""
        if not self.static:
            return b""
        return newc.archive(listing(sorted(self.static.items()), self.skipped.__contains__), trailer=False)

    def quick(self, chosen: Iterable[int], outputs: Outputs, taken: Collection[str]) -> list[tuple[str, Entry]] | None:
        """The entries of outputs that touch nothing else; None when they do, and the stack must be made in full.

        `taken` are the paths of the shared part.
        """
        found: Stack = {}
        static = self.static
        for number in chosen:
            item = self.templates[number][1]
            for output in outputs[number]:
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

    def _parents(self, found: Stack, path: str, item: Item, taken: Collection[str]) -> bool:
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

    def full(self, below: Collection[int], chosen: Collection[int], outputs: Outputs) -> list[tuple[str, Entry]]:
        """What the templates `chosen` add to the stack that has those `below`."""
        lower = self.stack(below, outputs)
        return difference(self.stack({*below, *chosen}, outputs), lower)


class Plans:
    """The plan of a list of overlays on an image: the very same object as long as nothing of it changed."""

    def __init__(self, overlays: Overlays, sources: Sources, images: Images) -> None:
        self._overlays, self._sources, self._images = overlays, sources, images
        self._plans: dict[tuple[tuple[str, ...], str], tuple[list[list[Item]], Image | None, Plan]] = {}

    def get(self, names: tuple[str, ...], image_name: str) -> Plan:
        """Raises WwfastError: no such overlay or image; and Changed."""
        image = self._images.need(image_name)
        lists = [self._overlays.items(name) for name in names]
        found = self._plans.get((names, image_name))
        if found is not None and found[1] is image and all(a is b for a, b in zip(found[0], lists, strict=True)):
            return found[2]
        plan = Plan(
            list(zip(names, lists, strict=True)),
            image_name,
            image.symlinks() if image is not None else frozenset(),
            lambda path: self._sources.kind(image_name, path, record=False),
        )
        self._plans[names, image_name] = (lists, image, plan)
        return plan

    def keep(self, used: Collection[tuple[tuple[str, ...], str]]) -> None:
        """Forget those that no node has any more."""
        for key in [key for key in self._plans if key not in used]:
            del self._plans[key]


def _content(entry: Entry) -> bytes:
    return entry.content.digest if isinstance(entry.content, StaticContent) else entry.content


def over_directory(path: str, image: str) -> WwfastError:
    return ConfigError(
        f"/{path} is a file in the overlays, but a directory in image {image}",
        hint="a node cannot put a file over a directory that is not empty: rename one of them",
    )


class Layout:
    """Where in an archive the outputs of nodes' own templates come, the same for all whose outputs have these paths."""

    def __init__(self, listed: Sequence[newc.Entry], outputs: Sequence[Output]) -> None:
        """`listed` is made of these `outputs`."""
        numbers = {_link(output.path).name: at for at, output in enumerate(outputs)}
        last = {entry.name: entry for entry in listed if not stat.S_ISDIR(entry.mode)}  # not the link before a file
        self._parts = [
            (entry[:5], numbers[entry.name]) if last.get(entry.name) is entry else (entry, -1) for entry in listed
        ]

    def archive(self, outputs: Sequence[Output]) -> bytes:
        """newc bytes, with a trailer. By place: an entry by name takes three times as long, some fifty times a node."""
        device = (0, 0)
        return newc.archive([it if at < 0 else (*it, outputs[at][2], device) for it, at in self._parts])


def listing(entries: Iterable[tuple[str, Entry]], skip: Callable[[str], bool]) -> list[newc.Entry]:
    """The entries of an archive, parents first. Raises Changed.

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
    return listed


@lru_cache(maxsize=1 << 14)
def _link(path: str) -> newc.Entry:
    """The link that stands before a file; the same paths come for every node."""
    return newc.Entry(path.encode("utf-8", "surrogateescape"), stat.S_IFLNK | 0o777, 0, 0, MTIME, b".")


def _read(content: StaticContent) -> bytes:
    try:
        with open(content.source, "rb") as file:  # noqa: PTH123 - a plain path
            data = file.read()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Changed from error
    if xxhash.xxh3_128_digest(data) != content.digest:
        raise Changed
    return data
