"""Where nodes can be imported from: the table of formats, and reading one. Light: what reads is imported then."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from wwfast.nodes.foreign.common import Found, Given


class Format(NamedTuple):
    """A source of nodes: its parser's module, what the command says of it, and what a directory of it holds."""

    module: str
    summary: str
    example: str
    files: str = ""
    mapped: bool = False  # its keys are the site's own: --map says which field each is


FORMATS = {
    "ansible": Format("ansible", "An inventory of Ansible.", "ansible inventory.json --map mac=hwaddr", mapped=True),
    "cobbler": Format("cobbler", "Systems of Cobbler.", "cobbler /var/lib/cobbler/collections", "**/*.json"),
    "csv": Format("table", "A table, one row a node.", "csv nodes.csv --map 'MAC address=hwaddr'", mapped=True),
    "dhcpd": Format("dhcpd", "Hosts of an ISC dhcpd.conf.", "dhcpd /etc/dhcp/dhcpd.conf"),
    "dnsmasq": Format("dnsmasq", "Hosts of dnsmasq, ethers and hosts.", "dnsmasq /etc/dnsmasq.d", "*"),
    "grendel": Format("grendel", "Hosts of Grendel.", "grendel hosts.json"),
    "warewulf3": Format("warewulf3", "Nodes of Warewulf 3 (wwsh node print).", "warewulf3 nodes.txt"),
    "xcat": Format("xcat", "Nodes of xCAT (lsdef -z).", "xcat nodes.stanza"),
}


def read(name: str, place: str, mapping: Iterable[str] = ()) -> Found:
    """The hosts that the files at `place` (`-`: standard input) describe, and what of them has no field.

    `mapping`: `KEY=FIELD`. Raises ConfigError with file and line, UsageError for a field that is none.
    """
    from wwfast.errors import ConfigError
    from wwfast.nodes.foreign.common import Given
    from wwfast.nodes.foreign.files import Reader

    form = FORMATS[name]
    parser: Callable[[Given], Found] = importlib.import_module(f"wwfast.nodes.foreign.{form.module}").parse
    reader = Reader()
    given = Given(reader.texts(place, form.files), reader.includer(place), mappings(mapping))
    found = parser(given)
    if not found.hosts:
        raise ConfigError(f"{place} describes no node")
    return found


def mappings(said: Iterable[str]) -> dict[str, str]:
    """What each key is to be. Raises UsageError for one that is said to be two things."""
    from wwfast.errors import UsageError

    found: dict[str, str] = {}
    for key, name in map(mapped, said):
        if found.setdefault(key, name) != name:
            raise UsageError(f"--map: {key} is said to be {found[key]} and {name}")
    return found


def mapped(text: str) -> tuple[str, str]:
    from wwfast.config import checks
    from wwfast.errors import UsageError
    from wwfast.nodes.foreign import fields

    key, equals, name = text.partition("=")
    if not (key and equals and name):
        raise UsageError(f"--map {text}: not KEY=FIELD", hint="for example --map mac=hwaddr")
    if fields.named(name) is None and fields.plain(name) not in fields.NAMES:
        close = fields.close(name)
        raise UsageError(
            f"--map {text}: no field is called {checks.shown(name)}" + (f", did you mean {close}?" if close else ""),
            hint="fields are the flags of `wwfast node set`, as DEVICE.hwaddr those of another device, tag.NAME a tag",
        )
    return key, name
