"""Edits of nodes.conf: under a lock, on what the file says now, published whole or not at all.

The order of one change: take the lock, read, edit the text, read the result back and compare, keep the old version
in the history, write a temporary file, fsync, rename, fsync the directory. A crash at any point leaves the old file
or the new one; a version of a change that was then not made is told by its content, and counts for nothing. Files that
can hold a BMC password are 0600.
"""

from __future__ import annotations

import contextlib
import copy
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import msgspec

from wwfast.config.schema import meaning
from wwfast.config.yaml import Tree
from wwfast.errors import ConfigError, NotFoundError, WwfastError
from wwfast.nodes.merge import SCHEMA
from wwfast.nodes.model import mac
from wwfast.nodes.registry import Snapshot
from wwfast.nodes.text.patch import Awkward
from wwfast.nodes.text.source import NODES, NOUN, PROFILES, Source
from wwfast.paths import Paths
from wwfast.system import files, locks

Key = tuple[str, str]  # section, id
KEPT = re.compile(r"[0-9]{8}-[0-9]+")


@dataclass(slots=True)
class Draft:
    """A version of the file being changed: entries before and after, by section and id; None is no entry.

    An entry without a body (`n1:`, `n1: ~`) is one that says nothing: {}.
    """

    source: Source
    before: dict[Key, Tree] = field(default_factory=dict)
    after: dict[Key, Tree] = field(default_factory=dict)

    def get(self, section: str, name: str) -> Tree:
        """The entry to change in place. Raises NotFoundError."""
        key = (section, name)
        if key not in self.after:
            if name not in self.source.trees[section]:
                raise NotFoundError(f"no {NOUN[section]} '{name}'", hint=f"wwfast {NOUN[section]} list")
            self.before[key] = self.written(section, name)
            self.after[key] = copy.deepcopy(self.before[key])
        tree = self.after[key]
        if tree is None:
            raise NotFoundError(f"no {NOUN[section]} '{name}'")
        if not isinstance(tree, dict):
            raise ConfigError(
                f"{NOUN[section]} '{name}' is not a map of keys", hint=f"wwfast {NOUN[section]} edit {name}"
            )
        return tree

    def written(self, section: str, name: str) -> Tree:
        """The entry in the file, None where there is none."""
        entries = self.source.trees[section]
        if name not in entries:
            return None
        tree = entries[name]
        return {} if tree is None else tree

    def has(self, section: str, name: str) -> bool:
        key = (section, name)
        return self.after[key] is not None if key in self.after else name in self.source.trees[section]

    def names(self, section: str) -> list[str]:
        mine = [name for (where, name), tree in self.after.items() if where == section and tree is not None]
        return [name for name in self.source.trees[section] if self.has(section, name)] + [
            name for name in mine if name not in self.source.trees[section]
        ]

    def put(self, section: str, name: str, tree: Tree) -> None:
        """Make or replace an entry."""
        key = (section, name)
        if key not in self.before:
            self.before[key] = self.written(section, name)
        self.after[key] = tree

    def delete(self, section: str, name: str) -> None:
        if not self.has(section, name):
            raise NotFoundError(f"no {NOUN[section]} '{name}'", hint=f"wwfast {NOUN[section]} list")
        self.put(section, name, None)

    def changes(self) -> dict[Key, tuple[Tree, Tree]]:
        """What really differs: before and after, in the order of editing."""
        return {key: (self.before[key], after) for key, after in self.after.items() if differ(self.before[key], after)}

    def meaning(self) -> dict[Key, list[Tree]]:
        """The changes, to be compared."""
        return {key: [meaning(tree, SCHEMA) for tree in both] for key, both in self.changes().items()}

    def result(self) -> Source:
        """The file with the changes in it. Raises ConfigError when its form cannot take them in place."""
        changes = self.changes()
        if not changes:
            return self.source
        try:
            text = self.source.rewrite({key: after for key, (_, after) in changes.items()}, SCHEMA)
            fresh = Source.parse(text, self.source.name)
            # Read anew: who looked at the nodes meanwhile has typed what was read, in place.
            former = Source.parse(self.source.data, self.source.name)
        except (Awkward, ConfigError) as error:
            raise self.awkward(changes) from error
        for section in (PROFILES, NODES):
            mine = {name: after for (where, name), (_, after) in changes.items() if where == section}
            names = {*self.source.trees[section], *mine} - {name for name, after in mine.items() if after is None}
            if names != set(fresh.trees[section]) or any(
                differ(fresh.trees[section][name], mine[name])
                if name in mine
                else not fresh.same(former, section, name)
                for name in names
            ):
                raise self.awkward(changes)
        return fresh

    def awkward(self, changes: Iterable[Key]) -> ConfigError:
        return ConfigError(
            f"{self.source.name}: cannot change {', '.join(name for _, name in changes)} in place: the text uses "
            "anchors, merge keys or another form that entries share",
            hint="change it with an editor",
        )


def differ(tree: Tree, other: Tree) -> bool:
    """Whether two entries say different things."""
    return bool(meaning(tree, SCHEMA) != meaning(other, SCHEMA))


Change = Callable[[Draft], object]
Review = Callable[[Draft, Source], bool]
Judge = Callable[[Draft, Source], None]


class Store:
    """nodes.conf of an installation."""

    def __init__(self, paths: Paths, *, history: int = 32) -> None:
        self.paths = paths
        self.keep = history

    def change(self, change: Change, *, why: str, review: Review | None = None, judge: Judge | None = None) -> Draft:
        """Apply `change` to the file as it is now. `judge` raises where it is not to be written.

        `review` sees the draft and its result before anything is written, without the lock (it may ask a person);
        False leaves the file alone. If the file changed in the meantime the change is applied again to the new
        file, and refused when an entry it touches is not what was reviewed.
        """
        reviewed: Draft | None = None
        if review is not None:
            reviewed, result = self.draft(change)
            if not reviewed.changes() or not review(reviewed, result):
                return reviewed
        with self.locked():
            draft, result = self.draft(change)
            if reviewed is not None and draft.meaning() != reviewed.meaning():
                raise WwfastError(
                    "an entry was changed by someone else while you were asked; nothing was written", hint="try again"
                )
            if draft.changes():
                if judge is not None:
                    judge(draft, result)
                self.publish(draft.source.data, result.data, why)
            return draft

    def replace(self, reviewed: bytes, data: bytes, *, why: str) -> None:
        """Put another text in the place of the file, which has to be as it was reviewed."""
        with self.locked():
            if self.content() != reviewed:
                raise WwfastError(
                    f"{self.paths.nodes_conf} was changed by someone else while you were asked; nothing was written",
                    hint="try again",
                )
            self.publish(reviewed, data, why)

    def draft(self, change: Change) -> tuple[Draft, Source]:
        """What a change would do, without doing it."""
        draft = Draft(Source.read(self.paths.nodes_conf))
        change(draft)
        return draft, draft.result()

    def claim(self, address: str) -> str | None:
        """Give a hardware address to the first discoverable node; its id, or None when there is none.

        An address that is already known keeps its node, so that a claim may be repeated.
        """
        taken: str | None = None
        if self.paths.mirror is not None:
            return None  # the head that is followed takes them

        def take(draft: Draft) -> None:
            nonlocal taken
            snapshot = Snapshot(draft.source)
            known = snapshot.by_mac(address)
            if known is not None:
                taken = known.id
                return
            node = next(iter(snapshot.discoverable()), None)
            if node is None:
                return
            taken = node.id
            tree = draft.get(NODES, node.id)
            tree.pop("discoverable", None)
            devices = tree["network devices"] = tree.get("network devices") or {}
            device = devices[node.primary_network] = devices.get(node.primary_network) or {}
            device["hwaddr"] = mac(address)

        self.change(take, why=f"discovery of {mac(address)}")
        return taken

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One writer at a time, in all processes of this machine; none where the file is another server's."""
        self.paths.require_edits()
        with locks.waited(self.paths.state / "nodes.lock"):
            self.sweep()
            yield

    def sweep(self) -> None:
        """Forget what was kept for changes that then were not made; the caller holds the lock."""
        for version in self.idle():
            with contextlib.suppress(OSError):
                version.path.unlink()

    def publish(self, before: bytes, data: bytes, why: str) -> None:
        """Replace the file; the caller holds the lock."""
        try:
            self.remember(before, Source.digest_of(data), why)
            files.replace(Path(os.path.realpath(self.paths.nodes_conf)), data)
        except BaseException:
            with contextlib.suppress(OSError):  # what went wrong first is told; the next writer sweeps, too
                self.sweep()
            raise

    # The history: NUMBER-SECONDS.zst, each one version of the file as it was before a change.

    def remember(self, before: bytes, becomes: str, why: str) -> None:
        import zstandard

        versions = self.versions()
        number = (int(versions[-1].name.partition("-")[0]) if versions else 0) + 1
        head = msgspec.json.encode(Head(why, becomes, int(time.time())))
        body = zstandard.ZstdCompressor(level=1).compress(before)
        files.replace(self.paths.history / f"{number:08d}-{int(time.time())}", head + b"\n" + body)
        for old in versions[: max(0, len(versions) + 1 - self.keep)]:
            with contextlib.suppress(OSError):
                old.unlink()

    def versions(self) -> list[Path]:
        """Kept versions, oldest first."""
        if not self.paths.history.is_dir():
            return []
        return sorted(path for path in self.paths.history.iterdir() if KEPT.fullmatch(path.name))

    def recall(self) -> Version:
        """The version before the last change. Raises NotFoundError when there is none."""
        versions = self.versions()
        idle = len(list(self.idle()))
        if idle == len(versions):
            raise NotFoundError("there is no change to take back", hint=f"the history is in {self.paths.history}")
        return Version.read(versions[-1 - idle])

    def idle(self) -> Iterator[Version]:
        """The latest versions, newest first, that are what the file says now: of changes that failed after they were
        kept, or that were taken back and could not be removed."""
        now = Source.digest_of(self.content())
        for path in reversed(self.versions()):
            try:
                version = Version.read(path)
            except ConfigError:  # for `undo` to tell of; it must not keep anybody from editing
                return
            if Source.digest_of(version.data) != now:
                return
            yield version

    def content(self) -> bytes:
        """The file as it is, whatever it says; an absent one is empty."""
        try:
            return files.read(self.paths.nodes_conf)
        except FileNotFoundError:
            return b""

    def require_last(self, version: Version) -> None:
        """Raises WwfastError where the file was changed by hand since."""
        if Source.digest_of(self.content()) != version.becomes:
            raise WwfastError(
                f"{self.paths.nodes_conf} was changed by other means after '{version.why}'",
                hint="--force puts the former version back all the same",
            )

    def undo(self, version: Version, *, force: bool = False) -> None:
        """Put `version` (the last one) back. Raises when the file was changed by hand since, unless forced."""
        with self.locked():
            if not force:
                self.require_last(version)
            files.replace(Path(os.path.realpath(self.paths.nodes_conf)), version.data)
            with contextlib.suppress(OSError):  # one that stays is idle
                version.path.unlink()


class Head(msgspec.Struct):
    """What a kept version says of itself in its first line."""

    why: str
    becomes: str
    at: Annotated[int, msgspec.Meta(ge=0, le=1 << 37)]  # Unix seconds; what comes later has no date


@dataclass(frozen=True, slots=True)
class Version:
    """One kept version: the file before the change `why`, which made it into a file of digest `becomes`."""

    path: Path
    why: str
    becomes: str
    at: int
    data: bytes

    @classmethod
    def read(cls, path: Path) -> Version:
        """Raises ConfigError for what is none, whatever it is: it is in nobody's way."""
        import zstandard

        try:
            head, _, body = path.read_bytes().partition(b"\n")
            said = msgspec.json.decode(head, type=Head)
            data = zstandard.ZstdDecompressor().decompress(body, max_output_size=1 << 31)
            return cls(path, said.why, said.becomes, said.at, data)
        except (OSError, msgspec.DecodeError, zstandard.ZstdError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise ConfigError(f"{path}: not a kept version: {why}", hint=f"remove {path}") from error
