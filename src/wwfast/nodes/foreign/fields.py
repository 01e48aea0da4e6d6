"""Fields of nodes by the names that columns and variables have: those of the flags, and what others call them."""

from __future__ import annotations

import difflib
import functools
from typing import Any, NamedTuple

from wwfast.config import checks, words
from wwfast.config.schema import Kind
from wwfast.nodes.edit.change import put
from wwfast.nodes.edit.flags import Flag, flags
from wwfast.nodes.foreign.common import Host, addressed, mac, netmask

NAME = "name"
#: What others call it: our flag. `mac ip fqdn` are Grendel's.
ALIASES = {
    "mac": "hwaddr",
    "macaddr": "hwaddr",
    "macaddress": "hwaddr",
    "mac_address": "hwaddr",
    "ip": "ipaddr",
    "ip_address": "ipaddr",
    "ipaddress": "ipaddr",
    "mask": "netmask",
    "interface": "netdev",
    "ifname": "netdev",
    "device": "netdev",
    "bmc": "ipmiaddr",
    "bmc_ip": "ipmiaddr",
    "group": "groups",
}
NAMES = ("name", "node", "nodename", "hostname", "host", "id")
FAMILIES = ("", "net")  # disks and file systems are not of one row a node


class Field(NamedTuple):
    """Where a value goes: a flag, of one network device ("" for that of the row), or one key of its tags."""

    flag: Flag
    device: str = ""
    tag: str = ""


@functools.cache
def known() -> dict[str, Flag]:
    """Flags by every name they have: `ipmiaddr`, `ipmi.ipaddr`, `image name`, `container`. What a node has itself goes
    before what its network device has: `tags`."""
    found: dict[str, Flag] = {}
    for flag in sorted(flags(), key=lambda each: each.family):
        if flag.family in FAMILIES:
            inner = ".".join(step.key for step in flag.path if step.key and step.key != "network devices")
            for name in (flag.name, inner, *(each for each in flag.doc.hidden if len(each) > 1)):
                found.setdefault(plain(name), flag)
    return found | {plain(name): found[plain(flag)] for name, flag in ALIASES.items()}


def plain(name: str) -> str:
    return name.strip().lower().replace(" ", "").replace("_", "").replace("-", "")


def named(text: str) -> Field | None:
    """The field a text means: FLAG, DEVICE.FLAG, tag.KEY, DEVICE.nettag.KEY; None when it is none."""
    if flag := known().get(plain(text)):
        return Field(flag)
    head, _, tail = text.strip().partition(".")
    flag = known().get(plain(head))
    if flag is not None and tail and flag.kind is Kind.TAGS:
        return Field(flag, tag=tail)
    inner = named(tail) if tail else None
    return (
        inner._replace(device=head) if inner is not None and inner.flag.family == "net" and not inner.device else None
    )


def close(text: str) -> str:
    """The name of a field that looks like this one, or ""."""
    return next(iter(difflib.get_close_matches(plain(text), [*known(), *NAMES], n=1)), "")


def store(host: Host, nics: dict[str, dict[str, Any]], field: Field, text: str, device: str = "") -> None:
    """Give a host one value, as text; `device`: the network device that a row is about. Raises ValueError for a list
    or tags that are none, and for two values of one field."""
    flag = field.flag
    path = tuple(step.key for step in flag.path)
    if flag.family == "net":
        into, path = nics.setdefault(field.device or device, {}), path[2:]
    else:
        into = host.entry
    if flag.kind is Kind.TAGS:
        for name, value in tags(field, text).items():
            once(into, (*path, name), value)
    elif flag.kind is Kind.LIST:
        once(into, path, (flag.doc.split or words.items)(text))
    elif flag.name == "ipaddr":
        made: dict[str, Any] = {}
        addressed(made, text)
        for key, value in made.items():
            once(into, (key,), value)
    else:
        once(into, path, shaped(flag, text))


def once(tree: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    """Say it where nothing else was said. Raises ValueError."""
    here: Any = tree
    for key in path:
        here = here.get(key) if isinstance(here, dict) else None
    if here is None:
        put(tree, path, value)
    elif here != value:
        raise ValueError(f"{checks.shown(str(value))}, and {checks.shown(str(here))} was said before")


def tags(field: Field, text: str) -> dict[str, str]:
    return {field.tag: text} if field.tag else dict(words.pairs(text))


def shaped(flag: Flag, text: str) -> str:
    """A value in the form that nodes.conf has; what is none stays, and is refused by its check."""
    if flag.name == "hwaddr":
        return mac(text)
    if flag.doc.check is checks.mask:
        return netmask(text) or text
    meant = checks.truth(text) if flag.takes_bool else None
    return text if meant is None else "true" if meant else "false"
