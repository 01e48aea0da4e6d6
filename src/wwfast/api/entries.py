"""What may be done to the entries of nodes.conf, for nodes and for profiles alike: each a change for Service.write.

Nothing here prints or asks; what is to be told is told by `warn`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from wwfast.config import checks, words, yaml
from wwfast.config.schema import shape
from wwfast.config.yaml import Tree
from wwfast.errors import ConfigError, NotFoundError, UsageError, WwfastError
from wwfast.nodes import former, groups, hostlist
from wwfast.nodes.edit import change
from wwfast.nodes.edit.change import Request
from wwfast.nodes.edit.store import Change, Draft, Key, differ
from wwfast.nodes.merge import SCHEMA
from wwfast.nodes.registry import Snapshot
from wwfast.nodes.text.source import NAMES, NODES, NOUN, PROFILES, Source

Place = Callable[[str, tuple[str | int, ...]], str]  # an entry, and where in it -> `FILE:LINE: `
Warn = Callable[[str], None]

COUNTED = ("ipaddr", "ipmiaddr")  # flags whose address is counted up over the nodes of one `add`
RANK = {key: index for index, key in enumerate(SCHEMA)}


@dataclass(frozen=True, slots=True)
class Entries:
    """The changes of one section (NODES or PROFILES)."""

    section: str
    warn: Warn

    @property
    def noun(self) -> str:
        return NOUN[self.section]

    def named(self, patterns: Sequence[str]) -> list[str]:
        """Nodes are named by hostlists, profiles one by one."""
        if self.section == NODES:
            return hostlist.expand(patterns)
        return words.names(patterns)

    def found(self, draft: Draft, patterns: Sequence[str], *, force: bool = False) -> list[str]:
        """The entries that are meant. Raises NotFoundError for what means none, which `force` skips, unless all do."""
        entries = draft.source.trees[self.section]
        if self.section == NODES:
            there, lost = groups.meant(patterns, entries, lambda: Snapshot(draft.source), globs=False)
        else:
            wanted = dict.fromkeys(
                it for word in patterns for it in ([word] if word in entries else self.named([word]))
            )
            there, lost = [it for it in wanted if it in entries], [it for it in wanted if it not in entries]
        if lost and not (force and there):
            skips = "; --force skips it" if there else ""
            raise NotFoundError(groups.unknown(lost, self.noun), hint=f"wwfast {self.noun} list{skips}")
        if lost:
            self.warn(groups.unknown(lost, self.noun))
        return there

    def add(self, names: Sequence[str], request: Request) -> Change:
        """New entries; addresses are counted up from node to node."""
        first = {flag: request.values[flag] for flag in COUNTED if request.values.get(flag)}
        counted = first if self.section == NODES else {}

        def edit(draft: Draft) -> None:
            seen: set[str] = set()
            for index, name in enumerate(names):
                self._addable(draft, name, seen)
                seen.add(name)
                for flag, address in counted.items():
                    request.values[flag] = change.following(address, index)
                tree: dict[str, Any] = {}
                change.apply(tree, request)
                if self.section == NODES and "profiles" not in tree and draft.has(PROFILES, "default"):
                    tree = {"profiles": ["default"], **tree}
                draft.put(self.section, name, ordered(tree))

        return edit

    def _addable(self, draft: Draft, name: str, before: Set[str]) -> None:
        if wrong := NAMES[self.section](name):
            raise UsageError(f"{self.noun} {wrong}")
        if name in before:
            raise UsageError(f"{self.noun} '{name}' is named twice")
        if draft.has(self.section, name):
            raise ConfigError(f"{self.noun} '{name}' exists", hint=f"wwfast {self.noun} set {name} ...")

    def set(self, patterns: Sequence[str] | None, request: Request, *, force: bool = False) -> Change:
        """The given fields of these entries; None is all."""

        def edit(draft: Draft) -> None:
            for name in draft.names(self.section) if patterns is None else self.found(draft, patterns, force=force):
                change.apply(draft.get(self.section, name), request)

        return edit

    def unset(self, patterns: Sequence[str], request: Request, *, force: bool) -> Change:
        """Own values go."""

        def edit(draft: Draft) -> None:
            for name in self.found(draft, patterns, force=force):
                change.unset(draft.get(self.section, name), request)

        return edit

    def delete(self, patterns: Sequence[str], *, force: bool) -> Change:
        """A profile in use is refused; `force` also takes it out of its users."""

        def edit(draft: Draft) -> None:
            for name in self.found(draft, patterns, force=force):
                if self.section == PROFILES:
                    release(draft, name, force)
                draft.delete(self.section, name)

        return edit

    def written(self, source: Source, patterns: Sequence[str]) -> dict[str, Tree]:
        """The trees of these entries as they are written; without patterns all."""
        trees = source.trees[self.section]
        return {name: trees[name] for name in (self.found(Draft(source), patterns) if patterns else trees)}

    def edited(self, source: Source, before: Mapping[str, Tree], after: Mapping[str, Tree]) -> Change:
        """What somebody made of the entries `before`, as they stood in `source`. Refused when they changed since."""
        changed = [name for name in {**before, **after} if differ(before.get(name, ...), after.get(name, ...))]

        def edit(draft: Draft) -> None:
            now, then = draft.source.trees[self.section], source.trees[self.section]
            if lost := [name for name in changed if differ(now.get(name, ...), then.get(name, ...))]:
                raise WwfastError(
                    f"{self.noun} {', '.join(lost[:5])} was changed by someone else meanwhile; nothing was written",
                    hint=f"wwfast {self.noun} edit {' '.join(lost[:5])} begins from what is there now",
                )
            for name in changed:
                if name in after:
                    draft.put(self.section, name, after[name])
                else:
                    draft.delete(self.section, name)

        return edit

    def check_edited(self, source: Source, before: Mapping[str, Tree], after: Mapping[str, Tree], place: Place) -> None:
        """Raises ConfigError for what the editor should be opened again for."""
        if before and not after:
            raise ConfigError(
                f"nothing is left of {count(len(before), self.section)}",
                hint=f"wwfast {self.noun} delete removes {self.noun}s",
            )
        if taken := [name for name in after if name not in before and name in source.trees[self.section]]:
            known = ", ".join(map(repr, taken[:5]))
            together = (hostlist.compress if self.section == NODES else ",".join)([*before, *taken])
            raise ConfigError(
                f"{place(taken[0], ())}{self.noun} {known} exists and was not edited: it would be replaced",
                hint=f"wwfast {self.noun} edit {together} edits them together; --force replaces it",
            )
        wrong = wrong_values({(self.section, name): (before.get(name), tree) for name, tree in after.items()}, place)
        if wrong:
            raise ConfigError("\n".join(wrong[:10]), hint="--force writes it all the same")

    def take(self, trees: Mapping[str, Tree], *, replace: bool) -> Change:
        """Entries, laid over those of the same names or instead of them."""

        def edit(draft: Draft) -> None:
            for name, tree in trees.items():
                draft.put(self.section, name, tree if replace else change.laid(draft.written(self.section, name), tree))

        return edit

    def parse(self, data: bytes, name: str) -> dict[str, Any]:
        """A map of entries from its text. Raises ConfigError with file and line."""
        tree = yaml.load(data, name)
        if tree is None:
            return {}
        place = places(data, name)
        if not isinstance(tree, dict):
            raise ConfigError(f"{name}:1: must be a map of {self.noun}s by name, not {shape(tree)}")
        if tree.keys() <= {NODES, PROFILES}:
            raise ConfigError(
                f"{name}: this is a whole nodes.conf, not a map of {self.noun}s",
                hint=f"copy it to its place, or take what stands below '{self.section}:'",
            )
        for key, entry in tree.items():
            if checks.fatal(NAMES[self.section], key):
                raise ConfigError(f"{place(key, ())}{self.noun} {NAMES[self.section](key)}")
            if entry is None:
                tree[key] = {}
            elif not isinstance(entry, dict):
                raise ConfigError(f"{place(key, ())}{self.noun} {key}: must be a map of keys, not {shape(entry)}")
        return tree


def places(data: bytes, name: str) -> Place:
    """Where a text of entries says something."""
    positions = yaml.Positions(data)
    return lambda entry, path: f"{name}:{positions.line((entry, *path))}: "


def nowhere(_entry: str, _path: tuple[str | int, ...]) -> str:
    """The Place of what came from no text."""
    return ""


def wrong_values(changes: Mapping[Key, tuple[Tree, Tree]], place: Place) -> list[str]:
    """What is wrong with the ids and the values that are new, one line each."""
    found: list[str] = []
    for (section, name), (before, after) in changes.items():
        if after is None:
            continue
        if before is None and (wrong := NAMES[section](name)):
            found.append(f"{place(name, ())}{NOUN[section]} {wrong}")
        found += [f"{place(name, issue.path)}{NOUN[section]} {name}: {issue}" for issue in change.faults(before, after)]
    return found


def ordered(tree: dict[str, Any]) -> dict[str, Any]:
    """Keys in the order of the model."""
    return dict(sorted(tree.items(), key=lambda item: RANK.get(item[0], len(RANK))))


def count(number: int, section: str) -> str:
    return f"{number} {NOUN[section]}{'' if number == 1 else 's'}"


def release(draft: Draft, name: str, force: bool) -> None:
    """Nobody may refer to a profile that goes; forced, those who do let go of it."""
    users = [
        (section, each)
        for section in (PROFILES, NODES)
        for each in draft.names(section)
        if name in former.profiles(draft.source.trees[section].get(each))
    ]
    if users and not force:
        raise ConfigError(
            f"profile '{name}' is used by {', '.join(each for _, each in users[:5])}{' ...' if len(users) > 5 else ''}",
            hint="--force also takes it out of them",
        )
    for section, each in users:
        tree = draft.get(section, each)
        tree["profiles"] = [word for word in former.profiles(tree) if word.lstrip("~") != name]
