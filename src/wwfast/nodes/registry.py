"""The registry: resolved nodes, found by name, hardware address, IP address.

A Snapshot never changes as seen from outside; inside it resolves a node when it is first asked for, so that a
command about one node costs one node. `Registry.reload()` resolves everything before it hands the new snapshot out,
reusing every node whose own text and profiles are unchanged.
"""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from operator import attrgetter
from typing import NamedTuple, cast

from wwfast._ext.accept import accepts
from wwfast.config import checks
from wwfast.config.schema import Cleaner, Issue, plan, unknown
from wwfast.config.yaml import Tree
from wwfast.errors import WwfastError
from wwfast.nodes import former, merge
from wwfast.nodes.model import Node, Profile, address, ethernet, mac
from wwfast.nodes.text.source import NAMES, NODES, NOUN, PROFILES, SECTIONS, Source
from wwfast.paths import Paths

PLAN = plan(Node)
ETHERNET = len("00:00:00:00:00:00")  # a longer address is of InfiniBand


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """No garbage collection while very many objects are made that all stay: it would look at them in vain."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with one entry. A fatal one keeps the entry out of service; the values of a mismatch are right,
    and do not fit together; a rival is the other node with the same address: either may be the one to change."""

    kind: str  # node, profile, or "" for what is of no entry
    id: str
    message: str
    fatal: bool = False
    mismatch: bool = False
    rival: str = ""

    @property
    def mend(self) -> str:
        """The command for it."""
        return f"wwfast {self.kind} edit {self.id}" if self.kind else f"correct {self.id} with an editor"

    def __str__(self) -> str:
        if not self.kind:
            return self.message
        return f"{self.kind} {self.id if self.id.isprintable() else checks.shown(self.id)}: {self.message}"


class Rebase(NamedTuple):
    base: merge.Base
    changed: frozenset[str]


class NodeMap(Mapping[str, Node]):
    """Nodes by id. Looking one up resolves that one; iteration is by cluster name, then id."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def __getitem__(self, name: str) -> Node:
        node = self._snapshot._node(name)
        if node is None:
            raise KeyError(name)
        return node

    def __iter__(self) -> Iterator[str]:
        return iter(self._snapshot._order())

    def __len__(self) -> int:
        return len(self._snapshot._order())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._snapshot._node(name) is not None


class Snapshot:
    """One version of nodes.conf, resolved. Of two that this process read, the newer has the higher `number`."""

    _numbers = count()

    def __init__(self, source: Source, previous: Snapshot | None = None) -> None:
        self.number = next(self._numbers)
        self.source = source
        self._lock = threading.RLock()
        self._problems: dict[tuple[str, str], dict[Problem, None]] = {}  # each said once
        self._cleaner = Cleaner()
        self._bases: dict[tuple[str, ...], merge.Base] = {}
        self._nodes: dict[str, Node | None] = {}
        self._owns: dict[str, merge.Own] = {}  # what the entries of those say themselves
        self._sorted: list[str] | None = None
        self._indexed = False
        self._macs: dict[str, Node] = {}
        self._ips: dict[str, Node] = {}
        self._bad: set[str] = set()
        self._left_out: dict[str, str] = {}
        self._own_profiles = {name: self._clean(PROFILES, name) for name in source.trees[PROFILES]}
        self._sound = self._own_profiles.keys() - self._bad
        self._check_profiles()
        self._check_top()
        if previous is not None:
            self._inherit(previous)

    @property
    def nodes(self) -> Mapping[str, Node]:
        """Made anew each time: a map kept here would be a cycle, and an old snapshot would wait for the collector."""
        return NodeMap(self)

    @property
    def digest(self) -> str:
        return self.source.digest

    @property
    def profiles(self) -> dict[str, Profile]:
        """Profiles as written (not merged with each other), by name."""
        return {name: merge.resolve(name, own, merge.Base([], {})) for name, own in sorted(self._own_profiles.items())}

    @property
    def problems(self) -> tuple[Problem, ...]:
        self._index()
        return tuple(problem for each in self._problems.values() for problem in each)

    @property
    def asked(self) -> set[str]:
        """Ids that were looked up so far, found or not usable."""
        return set(self._nodes)

    def found_problems(self) -> list[Problem]:
        """Problems met so far: of the nodes that were looked up, and of all profiles."""
        return [problem for each in self._problems.values() for problem in each]

    def by_mac(self, said: str) -> Node | None:
        """The node that owns a hardware address; a discoverable node is not found."""
        self._index()
        said = mac(said)
        return self._macs.get(said) or self._macs.get(ethernet(said))

    def left_out(self, said: str) -> str:
        """The id of the node that claims a hardware address but whose entry is unusable, or ""."""
        self._index()
        return self._left_out.get(mac(said), "")

    def by_ip(self, said: str) -> Node | None:
        self._index()
        return self._ips.get(address(said))

    def addresses(self) -> Iterator[str]:
        """Every address that an entry names for something on its network: of devices, gateways and BMCs."""
        for node in self.nodes.values():
            for device in node.network_devices.values():
                yield from (device.ipaddr, device.gateway, device.ipaddr6, device.gateway6)
            yield from (node.ipmi.ipaddr, node.ipmi.gateway)

    def discoverable(self) -> list[Node]:
        """Nodes waiting for a hardware address, in order; only those with a network device."""
        return [node for node in self.nodes.values() if node.is_discoverable and node.network_devices]

    def own(self, section: str, name: str) -> merge.Own:
        """What the entry itself says, cleaned."""
        if section == PROFILES:
            return self._own_profiles[name]
        return self._owns.get(name) or self._clean(NODES, name)

    def chain(self, name: str) -> tuple[str, ...]:
        """The profiles a node takes from, in merge order."""
        return self._base(self.own(NODES, name).get("profiles", ())).chain

    def _say(self, kind: str, name: str, message: str, fatal: bool = False, mismatch: bool = False) -> None:
        self._note(Problem(kind, name, message, fatal, mismatch))

    def _note(self, problem: Problem) -> None:
        self._problems.setdefault((problem.kind, problem.id), {})[problem] = None

    def _shared(self, node: Node, what: str, first: Node) -> None:
        self._note(Problem("node", node.id, f"{what} also belongs to node {first.id}", rival=first.id))

    def _clean(self, section: str, name: str) -> merge.Own:
        tree = self.source.trees[section][name]
        if wrong := NAMES[section](name):
            fatal = checks.fatal(NAMES[section], name)
            self._say(
                NOUN[section],
                checks.shown(name),
                f"{self.source.name}:{self.source.line(section, name)}: {wrong}",
                fatal,
            )
            self._bad |= {name} if fatal and section == PROFILES else set()
        if accepts(tree, PLAN):
            return cast(merge.Own, tree)
        cleaner = self._cleaner
        clean = cleaner.struct(tree, merge.SCHEMA, ())
        if cleaner.issues:
            issues: list[Issue] = cleaner.issues[:]
            cleaner.issues.clear()
            for issue in issues:
                line = self.source.line(section, name, *issue.path)
                said = f"{self.source.name}:{line}: {issue}{former.hint(issue.path, issue.message)}"
                self._say(NOUN[section], name, said, issue.fatal)
                if issue.fatal and section == PROFILES:
                    self._bad.add(name)
        return clean

    def _check_profiles(self) -> None:
        for name, own in self._own_profiles.items():
            for word in own.get("profiles", ()):
                if word.lstrip("~") not in self._own_profiles:
                    self._say("profile", name, f"no profile '{word.lstrip('~')}'")

    def _check_top(self) -> None:
        """A key that nobody reads hides what stands below it, for one letter that is wrong."""
        for key, line in self.source.unread():
            hidden = entries(self.source.others[key])
            self._say("", self.source.name, f"{self.source.name}:{line}: {unknown(key, SECTIONS)}", fatal=hidden)

    def _base(self, words: tuple[str, ...] | list[str]) -> merge.Base:
        key = tuple(words)
        base = self._bases.get(key)
        if base is None:
            base = self._bases[key] = merge.Base(merge.expand(key, self._own_profiles), self._own_profiles)
        return base

    def _node(self, name: str) -> Node | None:
        if name in self._nodes:
            return self._nodes[name]
        if name not in self.source.trees[NODES]:
            return None
        with self._lock:
            node = self._nodes[name] = self._resolve(name)
        return node

    def _resolve(self, name: str) -> Node | None:
        own = self._owns[name] = self._clean(NODES, name)
        base = self._base(own.get("profiles", ()))
        if not self._sound.issuperset(base.chain):
            for word in base.chain:
                if word in self._bad:
                    self._say("node", name, f"its profile '{word}' is unusable", fatal=True)
                elif word not in self._own_profiles:
                    self._say("node", name, f"no profile '{word}'")
        if self._problems and any(problem.fatal for problem in self._problems.get(("node", name), ())):
            return None
        node = merge.resolve(name, own, base)
        wanted = own.get("primary network") or base.raw.get("primary network")
        if wanted and node.network_devices and wanted not in node.network_devices:
            told = f"primary network {checks.shown(wanted)} is none of its network devices, and it boots from"
            self._say("node", name, f"{told} {node.primary_network}", mismatch=True)
        if node.wwfast.two_stage and (wrong := checks.way(node.root, node.wwfast.two_stage)):
            self._say("node", name, wrong, mismatch=True)
        return node

    def _inherit(self, previous: Snapshot) -> None:
        """Take over the nodes whose own text did not change, but for what their profiles say now."""
        if previous._bad != self._bad:
            return
        rebased: dict[tuple[str, ...], Rebase | None] = {}
        for name in self.source.unchanged(previous.source, NODES):
            node = previous._nodes.get(name)
            if node is None or ("node", name) in previous._problems:
                continue
            own = previous._owns[name]
            words = tuple(own.get("profiles", ()))
            if words not in rebased:
                rebased[words] = self._rebase(previous, words)
            if (rebase := rebased[words]) is not None:
                fresh = node if not rebase.changed else merge.rebased(node, own, *rebase)
                if fresh is not None:
                    self._nodes[name], self._owns[name] = fresh, own

    def _rebase(self, previous: Snapshot, words: tuple[str, ...]) -> Rebase | None:
        """What became of these profiles; None where nodes of theirs have to be resolved anew."""
        base, before = self._base(words), previous._base(words)
        changed = base.changed(before)
        known = base.chain == before.chain and self._sound.issuperset(base.chain)
        return Rebase(base, changed) if known and changed.isdisjoint(merge.BUILT) else None

    def _order(self) -> list[str]:
        """Resolve everything, once; ids in order."""
        if self._sorted is None:
            with self._lock:
                if self._sorted is None:
                    with uncollected():
                        nodes = []
                        for name in self.source.trees[NODES]:
                            node = self._nodes.get(name) or self._node(name)
                            if node is not None:
                                nodes.append(node)
                    self.source.forget()
                    nodes.sort(key=attrgetter("cluster_name", "id"))
                    self._sorted = [node.id for node in nodes]
        return self._sorted

    def _index(self) -> None:
        """By address, once; the first in order keeps a duplicate, the others are reported."""
        if self._indexed:
            return
        with self._lock:
            if not self._indexed:
                self._index_all()
                self._index_left_out()
                self._indexed = True

    def _index_left_out(self) -> None:
        for name in [name for name in self.source.trees[NODES] if self._nodes.get(name) is None]:
            tree = self.source.trees[NODES][name]
            devices = tree.get("network devices") if isinstance(tree, dict) else None
            for device in devices.values() if isinstance(devices, dict) else ():
                said = device.get("hwaddr") if isinstance(device, dict) else None
                if isinstance(said, str) and mac(said) not in self._macs:
                    self._left_out.setdefault(mac(said), name)

    def _index_all(self) -> None:
        bmcs: dict[str, Node] = {}
        shown: dict[str, Node] = {}  # by what firmware shows of longer addresses: who has it in full goes first
        for node in self.nodes.values():
            for device in node.network_devices.values():
                if device.hwaddr and not node.is_discoverable:
                    first = self._macs.setdefault(device.hwaddr, node)
                    if first is not node:
                        self._shared(node, f"hardware address {device.hwaddr}", first)
                    if len(device.hwaddr) > ETHERNET:
                        shown.setdefault(ethernet(device.hwaddr), node)
                for said in (device.ipaddr, device.ipaddr6):
                    if said and said != "0.0.0.0":
                        first = self._ips.setdefault(address(said), node)
                        if first is not node:
                            self._shared(node, f"address {said}", first)
            bmc = node.ipmi.ipaddr
            if bmc and bmc != "0.0.0.0" and (first := bmcs.setdefault(address(bmc), node)) is not node:
                self._shared(node, f"BMC address {bmc}", first)
        self._macs = shown | self._macs


def entries(tree: Tree) -> bool:
    """Whether these are nodes or profiles by name, as far as one can tell."""
    maps = [it or {} for it in tree.values()] if isinstance(tree, dict) else []
    return bool(maps) and all(isinstance(it, dict) and (not it or it.keys() & merge.SCHEMA.keys()) for it in maps)


class Registry:
    """The current snapshot of nodes.conf."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        self.error: WwfastError | None = None  # why the last reload failed
        self._snapshot: Snapshot | None = None
        self._lock = threading.Lock()

    def snapshot(self) -> Snapshot:
        """The current one; loads on first use. Raises ConfigError when that first load fails."""
        if self._snapshot is None:
            with self._lock:
                if self._snapshot is None:
                    self._snapshot = Snapshot(Source.read(self.paths.nodes_conf))
        return self._snapshot

    def reload(self) -> Snapshot:
        """Read the file again; on error keep the last good snapshot and say why in `error`.

        Raises ConfigError only when there is no good one yet.
        """
        with self._lock:
            try:
                source = Source.read(self.paths.nodes_conf, self._snapshot.source if self._snapshot else None)
                if self._snapshot is None or self._snapshot.digest != source.digest:
                    fresh = Snapshot(source, self._snapshot)
                    fresh._index()
                    self._snapshot = fresh
                self.error = None
            except WwfastError as error:
                self.error = error
                if self._snapshot is None:
                    raise
            return self._snapshot
