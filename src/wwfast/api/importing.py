"""Nodes of another provisioner: read from its files, judged, and made a change of nodes.conf.

Nothing here prints or asks. What is refused (a name, a hardware address or an address twice, in the files or in
nodes.conf) is one error with every place; what is not carried over is in `Import.left`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from wwfast.api import references
from wwfast.api.entries import ordered
from wwfast.config import checks
from wwfast.errors import ConfigError, UsageError
from wwfast.nodes import former
from wwfast.nodes.edit.change import laid, leaves, spelled
from wwfast.nodes.edit.store import Draft
from wwfast.nodes.foreign.common import Found, Host, Place
from wwfast.nodes.foreign.profile import Common, common
from wwfast.nodes.model import Node, address, mac
from wwfast.nodes.registry import Snapshot
from wwfast.nodes.text.source import NODES, PROFILES
from wwfast.paths import Paths

SHOWN = 10  # clashes told of one import
SECRETS = (("ipmi", "password"), ("asset key",))


@dataclass(slots=True)
class Import:
    """One import: `edit` is the change. What it did is known once that ran."""

    found: Found
    profile: str  # the name of the profile for what nodes have in common
    images: set[str] | None  # those there are; None: take every name
    with_secrets: bool = False
    new: list[str] = field(default_factory=list)
    there: list[str] = field(default_factory=list)  # that say already what would be written
    members: int = 0  # nodes that take the profile
    profile_is_new: bool = False
    shared: dict[str, Any] = field(default_factory=dict)  # what the profile says
    places: dict[str, Place] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if wrong := checks.name(self.profile):
            raise UsageError(f"--profile: {wrong}")
        clashes(self.found.hosts)
        for host in self.found.hosts:
            self.places[host.name] = host.place
            self.without(host)

    def without(self, host: Host) -> None:
        """Leave out of an entry what does not come along: secrets, and images that are not here."""
        if not self.with_secrets:
            for path in SECRETS:
                inner = host.entry if len(path) == 1 else host.entry.get(path[0], {})
                if inner.pop(path[-1], None) is not None:
                    self.found.left.add(spelled(path), host.name, "a secret: --with-secrets takes it")
                    if len(path) > 1 and not inner:
                        del host.entry[path[0]]
        key, image = host.image
        if image and (self.images is None or image in self.images):
            host.entry["image name"] = image
        elif image:
            why = f"no image {checks.shown(image)} is here: wwfast profile set {self.profile} --image NAME"
            self.found.left.add(key, host.name, why)

    def place(self, name: str, _path: tuple[str | int, ...]) -> str:
        """Where a node was described, for messages (`wwfast.api.entries.Place`)."""
        return f"{self.places[name]}: " if name in self.places else ""

    def edit(self, draft: Draft) -> None:
        """Put the nodes and their profile into nodes.conf. Raises ConfigError for what is there and says otherwise."""
        hosts = self.found.hosts
        shared = self.common(draft)
        base = ["default"] if draft.has(PROFILES, "default") and self.profile != "default" else []
        self.there, self.members = [], 0
        refused = taken(hosts, draft)
        made: dict[str, dict[str, Any]] = {}
        for host in hosts:
            if draft.has(NODES, host.name):
                before = draft.written(NODES, host.name)
                known = before if isinstance(before, dict) else {}
                belongs = self.profile in former.profiles(known)
                if other := differences(known, shared.rest(host.entry) if belongs else host.entry):
                    refused.append(f"{host.place}: node {host.name} is in nodes.conf, and says otherwise: {other}")
                self.there.append(host.name)
                self.members += belongs
                continue
            member = shared.fits(host.entry)
            self.members += member
            chain = [*base, *([self.profile] if member else [])]
            own = shared.rest(host.entry) if member else host.entry
            made[host.name] = ordered({**({"profiles": chain} if chain else {}), **own})
        refuse(refused, "nodes that are there are not changed; wwfast node delete, or leave them out of the file")
        self.new = list(made)
        takers = any(self.profile in entry.get("profiles", ()) for entry in made.values())
        self.profile_is_new = takers and not draft.has(PROFILES, self.profile)
        if self.profile_is_new:
            draft.put(PROFILES, self.profile, self.shared)
        for name, entry in made.items():
            draft.put(NODES, name, entry)

    def common(self, draft: Draft) -> Common:
        """The profile of these nodes: the one of that name, or what the new ones have alike."""
        hosts = self.found.hosts
        if draft.has(PROFILES, self.profile):
            tree = draft.written(PROFILES, self.profile)
        else:
            tree = common([host.entry for host in hosts if not draft.has(NODES, host.name)])
        self.shared = ordered(tree) if isinstance(tree, dict) else {}
        return Common(self.shared, [host.entry for host in hosts])


def differences(known: Mapping[str, Any], entry: Mapping[str, Any]) -> str:
    """What the entry of a node that is there says otherwise, "" for nothing; what else it says is the site's own."""
    mine = {key: value for key, value in entry.items() if key != "image name"}
    if laid(known, mine) == known:
        return ""
    now, then = leaves(mine), leaves(known)
    keys = [key for key, value in now.items() if then.get(key) != value]
    return ", ".join(spelled(key) for key in keys[:3]) + (" ..." if len(keys) > 3 else "")


def claims(host: Host) -> Iterable[tuple[str, str]]:
    """What a host has for itself alone: hardware addresses, addresses, that of its BMC."""
    for device in host.entry.get("network devices", {}).values():
        if device.get("hwaddr"):
            yield "hardware address", mac(device["hwaddr"])
        for key in ("ipaddr", "ipaddr6"):
            if device.get(key, "0.0.0.0") != "0.0.0.0":
                yield "address", address(device[key])
    if bmc := host.entry.get("ipmi", {}).get("ipaddr"):
        yield "BMC address", address(bmc)


def clashes(hosts: Iterable[Host]) -> None:
    """Raises ConfigError for what two hosts of the files have alike."""
    first: dict[tuple[str, str], Host] = {}
    found: list[str] = []
    for host in hosts:
        for kind, value in (("name", host.name.lower()), *claims(host)):
            other = first.setdefault((kind, value), host)
            if other is not host:
                of = "" if kind == "name" else f" of {checks.shown(host.name)}"
                found.append(f"{host.place}: {kind} {checks.shown(value)}{of} is that of {named(other, kind)}")
    refuse(found, "leave one of each out")


def named(host: Host, kind: str) -> str:
    place: Place = host.place
    return f"the node at {place}" if kind == "name" else f"{checks.shown(host.name)} ({place})"


def taken(hosts: Iterable[Host], draft: Draft) -> list[str]:
    """Addresses of these hosts that nodes of other names have."""
    if not draft.source.trees[NODES]:
        return []
    snapshot = Snapshot(draft.source)
    bmcs = {address(node.ipmi.ipaddr): node for node in snapshot.nodes.values() if node.ipmi.ipaddr}
    find: dict[str, Callable[[str], Node | None]] = {
        "hardware address": snapshot.by_mac,
        "address": snapshot.by_ip,
        "BMC address": bmcs.get,
    }
    found: list[str] = []
    for host in hosts:
        for kind, value in claims(host):
            other = find[kind](value)
            if other is not None and other.id != host.name:
                found.append(f"{host.place}: {kind} {checks.shown(value)} of {host.name} is that of node {other.id}")
    return found


def refuse(found: list[str], hint: str) -> None:
    if found:
        more = [f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
        raise ConfigError("\n".join(found[:SHOWN] + more), hint=hint)


def images(paths: Paths) -> set[str]:
    return set(references.names("image", paths))
