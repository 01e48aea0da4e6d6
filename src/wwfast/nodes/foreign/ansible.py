"""An inventory of Ansible: what `ansible-inventory --list` prints (JSON, or YAML with `--yaml`), or a YAML inventory.

Groups become groups, `ansible_host` the address where it is one; which other variable is which field only the site
knows: --map. Shape: `_meta: hostvars:` and groups with hosts and children, or groups as nested maps (Ansible's user
guide, "How to build your inventory"). INI is Ansible's own affair: it expands ranges and variables of groups.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from wwfast.config import checks, yaml
from wwfast.errors import UsageError
from wwfast.nodes import hostlist
from wwfast.nodes.foreign import fields
from wwfast.nodes.foreign.common import UNKNOWN, Found, Given, Host, Place, Text, devices, legible, objects, word

ADDRESS = "ansible_host"
EVERY = ("all", "ungrouped")  # groups that say nothing
LIST = "ansible-inventory -i FILE --list | wwfast import ansible -"
DEEPEST = 100  # groups in groups
HOSTS = 4_000_000  # groups and their hosts, counted in each group: aliases multiply
VARIABLES = 10_000  # of one host


class Inventory:
    """Variables and groups of hosts; a host is told of by each group that has it."""

    def __init__(self, text: Text) -> None:
        self.text = text
        self.hosts: dict[str, dict[str, Any]] = {}
        self.groups: dict[str, dict[str, None]] = {}

    def host(self, name: str, variables: Any) -> None:
        known = self.hosts.setdefault(name, {})
        if isinstance(variables, dict):
            known.update(variables)
        elif variables not in (None, ""):
            raise self.text.fault(self.line(name), f"the variables of {checks.shown(name)} are no map")

    def join(self, name: str, group: str) -> None:
        if group not in EVERY:
            self.groups.setdefault(name, {})[group] = None

    def line(self, name: str) -> int:
        at = self.text.body.find(name)
        return self.text.body.count("\n", 0, at) + 1 if at >= 0 else 1


def parse(given: Given) -> Found:
    found = Found()
    for text in given.texts:
        inventory = Inventory(text)
        if text.body.lstrip()[:1] == "{":
            tree = objects(text)
            listed(inventory, tree) if "_meta" in tree else nested(inventory, tree)
        elif text.body.lstrip()[:1] == "[":
            raise text.fault(1, "an inventory in INI, whose variables Ansible alone can tell", LIST)
        else:
            nested(inventory, yaml.foreign(text.body, text.name))
        for name, variables in inventory.hosts.items():
            found.hosts.append(made(inventory, name, variables, given.fields, found))
    return found


def listed(inventory: Inventory, tree: dict[str, Any]) -> None:
    """The JSON of --list: variables of hosts are whole, groups name hosts and groups."""
    meta = tree["_meta"].get("hostvars") if isinstance(tree["_meta"], dict) else None
    if not isinstance(meta, dict):
        raise inventory.text.fault(1, "_meta has no hostvars", LIST)
    for name, variables in meta.items():
        inventory.host(name, variables)
    groups = {name: each for name, each in tree.items() if name != "_meta" and isinstance(each, dict)}
    above: dict[str, list[str]] = {}
    for name, each in groups.items():
        if not all(isinstance(each.get(key, []), list) for key in ("hosts", "children")):
            raise inventory.text.fault(inventory.line(name), f"group {checks.shown(name)} has no list of hosts", LIST)
        for child in each.get("children", ()):
            above.setdefault(word(child), []).append(name)
    for name, each in groups.items():
        known = list(reached(name, above))
        for host in each.get("hosts", ()):
            inventory.host(word(host), None)
            for group in known:
                inventory.join(word(host), group)


def reached(name: str, above: Mapping[str, list[str]]) -> Iterator[str]:
    """A group and those it is in, each once, whatever circles they make."""
    pending, seen = [name], {name}
    while pending:
        here = pending.pop()
        yield here
        fresh = [each for each in above.get(here, ()) if each not in seen]
        seen.update(fresh)
        pending += fresh


def nested(inventory: Inventory, tree: Any) -> None:
    """The YAML form: groups in groups. What a group says its hosts have, unless they or a group below say otherwise."""
    text = inventory.text
    if not isinstance(tree, dict) or not tree:
        raise text.fault(1, "neither JSON of `ansible-inventory --list` nor a YAML inventory", LIST)
    budget = [HOSTS]
    for name, each in tree.items():
        group(inventory, str(name), each, {}, (), budget)


def group(
    inventory: Inventory, name: str, tree: Any, inherited: dict[str, Any], above: tuple[str, ...], budget: list[int]
) -> None:
    text = inventory.text
    if len(above) > DEEPEST:
        raise text.fault(inventory.line(name), f"groups stand more than {DEEPEST} deep in each other")
    if tree is None:
        return
    if not isinstance(tree, dict) or not tree.keys() <= {"hosts", "children", "vars"}:
        raise text.fault(
            inventory.line(name), f"group {checks.shown(name)} is no map of hosts, children and vars", LIST
        )
    here = (*above, name)
    spend(text, budget)
    parts = {key: tree.get(key) or {} for key in ("hosts", "children", "vars")}
    for key, value in parts.items():
        if not isinstance(value, dict):
            raise text.fault(inventory.line(name), f"{key} of group {checks.shown(name)} must be a map")
    variables = {**inherited, **parts["vars"]}
    for pattern, own in parts["hosts"].items():
        for host in ranged(text, inventory, str(pattern)):
            spend(text, budget)
            inventory.host(host, variables)
            inventory.host(host, own)
            for each in here:
                inventory.join(host, each)
    for child, each in parts["children"].items():
        group(inventory, str(child), each, variables, here, budget)


def spend(text: Text, budget: list[int]) -> None:
    budget[0] -= 1
    if budget[0] < 0:
        raise text.fault(1, f"its groups have more than {HOSTS} hosts")


def ranged(text: Text, inventory: Inventory, pattern: str) -> list[str]:
    """`n[01:10]` is Ansible's `n[01-10]`."""
    if "[" not in pattern:
        return [pattern]
    try:
        return hostlist.one(pattern.replace(":", "-"))
    except UsageError as error:
        raise text.fault(inventory.line(pattern), error.message) from None


def made(inventory: Inventory, name: str, variables: dict[str, Any], known: Mapping[str, str], found: Found) -> Host:
    host = Host(name, Place(inventory.text.name, 0))
    nics: dict[str, dict[str, Any]] = {"": {}}
    for count, (key, value) in enumerate(flat(variables)):
        if count == VARIABLES:
            raise inventory.text.fault(inventory.line(name), f"{checks.shown(name)} has more than {count} variables")
        text = word(value)
        field = fields.named(known[key]) if key in known else None
        if key == ADDRESS and field is None and not checks.ip(text):
            field = fields.named("ipaddr")
        if field is None or (isinstance(value, list) and not all(isinstance(each, str) for each in value)):
            why = "a name, where the address is needed" if key == ADDRESS else f"--map {key}=FIELD"
            found.left.add(key, name, UNKNOWN if key.startswith("ansible_") and key != ADDRESS else why)
        elif text or value:
            try:
                fields.store(host, nics, field, ",".join(value) if isinstance(value, list) else text)
            except ValueError as error:
                raise inventory.text.fault(
                    inventory.line(name), f"{checks.shown(name)}: {legible(key)}: {error}"
                ) from None
    for each in inventory.groups.get(name, ()):
        if checks.name(each):
            found.left.add(f"group {each}", name, "no name of a group")
        else:
            host.join([each], "groups")
    first = nics.pop("")
    devices(host, [first])
    for device, nic in nics.items():
        host.put(nic, "network devices", device)
    if len(nics) > 0 and first:
        host.put("default", "primary network")
    return host


def flat(variables: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Variables by name; those of a map in one as `map.key`."""
    for key, value in variables.items():
        if isinstance(value, dict) and value and above.count(".") < DEEPEST:
            yield from flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value
