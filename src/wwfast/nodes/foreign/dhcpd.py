"""ISC dhcpd.conf: its `host` blocks, with what they inherit from the blocks around them and from their subnet.

Shape: dhcpd.conf(5) and dhcp-options(5) of ISC DHCP 4.4: statements end with `;`, blocks nest, options inherit, `#`
begins a comment, `include "FILE";` stands for the text of a file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from wwfast.config import checks
from wwfast.nodes.foreign.common import (
    BY_WWFAST,
    UNKNOWN,
    Found,
    Given,
    Host,
    Networks,
    Place,
    Text,
    addressed,
    devices,
    mac,
)

TOKEN = re.compile(r'[ \t\r\f]*(?:(\n)|#[^\n]*|"([^"\n]*)"|([{};])|([^\s{};"#]+))')
DEEPEST = 64  # blocks in blocks
#: Options of a host that have a field.
OPTIONS = {"option routers": "gateway", "option subnet-mask": "netmask", "option interface-mtu": "mtu"}
#: Words behind a statement that is used, at least.
NEEDED = {"hardware": 2, "fixed-address": 1, "fixed-address6": 1, **dict.fromkeys(OPTIONS, 1)}
WHY = {
    **dict.fromkeys(("filename", "next-server", "server-name", "range", "authoritative"), BY_WWFAST),
    **dict.fromkeys(("allow", "deny", "ignore", "default-lease-time", "max-lease-time"), BY_WWFAST),
    **dict.fromkeys(("option domain-name", "option domain-name-servers"), "of the network: warewulf.conf"),
}

Word = tuple[str, int]  # a token and its line


@dataclass(slots=True, eq=False)
class Scope:
    """A block: what it says, and the one around it."""

    above: Scope | None = None
    head: tuple[str, ...] = ()
    text: Text | None = None
    line: int = 0
    said: dict[str, list[str]] = field(default_factory=dict)
    hosts: int = 0  # those that inherit from it
    example: str = ""

    def find(self, key: str, subnet: Scope | None) -> list[str]:
        """What counts for a host here: the blocks around it, its subnet and what is around that, the file."""
        for start in (self, subnet):
            here = start
            while here is not None and (here.above is not None or subnet is None or start is subnet):
                if key in here.said:
                    return here.said[key]
                here = here.above
        return []

    @property
    def depth(self) -> int:
        return 1 + self.above.depth if self.above else 0


def parse(given: Given) -> Found:
    top = Scope()
    scopes = [top]
    for text in given.texts:
        read(text, top, scopes, given)
    networks, by_network = Networks(), {}
    for scope in scopes:
        if scope.head[:1] == ("subnet",) and len(scope.head) == 4:
            where = str(id(scope))
            if networks.add(scope.head[1], scope.head[3], scope=where):
                by_network[where] = scope
    found = Found()
    for scope in scopes:
        if scope.head[:1] == ("host",):
            found.hosts.append(made(scope, networks, by_network, found))
    if not found.hosts:
        raise given.texts[0].fault(1, "no host block is in it", "leases of a pool are no nodes: dhcpd names hosts")
    for scope in scopes:
        if scope.head[:1] != ("host",):
            for key in scope.said.keys() - OPTIONS.keys():
                found.left.add(key, scope.example, WHY.get(key, UNKNOWN), scope.hosts)
            if scope.head and scope.head[0] not in ("subnet", "group", "shared-network", "pool"):
                found.left.add(scope.head[0], scope.example, UNKNOWN, scope.hosts)
    return found


def words(text: Text) -> Iterator[Word]:
    """Tokens; what stood in quotes begins with one."""
    line, at, body = 1, 0, text.body
    while at < len(body):
        found = TOKEN.match(body, at)
        if found is None:
            if not body[at:].strip():
                return
            raise text.fault(line, "a quote that does not end in its line")
        at = found.end()
        if found[1]:
            line += 1
        elif found[2] is not None:
            yield '"' + found[2], line
        elif found[3] or found[4]:
            yield found[3] or found[4], line


def read(text: Text, scope: Scope, scopes: list[Scope], given: Given) -> None:
    """Put what a file says into `scope` and, below it, new ones."""
    outer, line = scope, 1
    depth = scope.depth
    statement: list[str] = []
    for token, number in words(text):
        line = number
        if token == "{":
            if depth == DEEPEST:
                raise text.fault(line, f"blocks stand more than {DEEPEST} deep in each other")
            depth += 1
            scope = Scope(scope, tuple(word.removeprefix('"') for word in statement), text, line)
            scopes.append(scope)
            statement = []
        elif token == "}":
            if statement or scope is outer or scope.above is None:
                raise text.fault(
                    line, "a } without its {" if not statement else f"no ; behind {checks.shown(statement[0])}"
                )
            scope, depth = scope.above, depth - 1
        elif token == ";":
            if statement[:1] == ["include"] and len(statement) == 2:
                for each in given.include(text, line, statement[1].removeprefix('"')):
                    read(each, scope, scopes, given)
            elif statement:
                key, values = parted([word.removeprefix('"') for word in statement])
                if len(values) < NEEDED.get(key, 0):
                    raise text.fault(line, f"{key}: a word is missing behind it")
                scope.said.setdefault(key, values)
            statement = []
        else:
            statement.append(token)
    if scope is not outer or statement:
        raise text.fault(line, "the file ends inside a block or statement", "is it whole?")


def parted(statement: list[str]) -> tuple[str, list[str]]:
    """What a statement is about, and what it says of it."""
    count = 2 if statement[0] == "option" and len(statement) > 1 else 1
    return " ".join(statement[:count]), [word for part in statement[count:] for word in part.split(",") if word]


def made(scope: Scope, networks: Networks, by_network: dict[str, Scope], found: Found) -> Host:
    assert scope.text is not None
    said = dict(scope.said)
    label = scope.head[1] if len(scope.head) > 1 else ""
    name = next(iter(said.pop("option host-name", ())), "")
    if checks.hostname(name):
        name = label
    host = Host(name, Place(scope.text.name, scope.line))
    if label not in ("", name):
        found.left.add("host (its name in dhcpd)", name, "option host-name is the node's")
    nic: dict[str, Any] = {}
    if "hardware" in said:
        kind, *address = said.pop("hardware")
        nic["hwaddr"] = mac("".join(address))
        if kind != "ethernet":
            nic["type"] = kind
    for at, each in enumerate([*said.pop("fixed-address", ()), *said.pop("fixed-address6", ())]):
        if checks.ip(each):
            found.left.add("fixed-address", name, "a name, where the address is needed")
        elif at and ("ipaddr6" if ":" in each else "ipaddr") in nic:
            found.left.add("fixed-address (further ones)", name, "a device has one")
        else:
            addressed(nic, each)
    subnet = by_network.get(networks.of(nic.get("ipaddr", "")).get("scope", ""))
    if subnet is not None:
        nic["netmask"] = networks.of(nic["ipaddr"])["netmask"]
    for key, ours in OPTIONS.items():
        if values := scope.find(key, subnet):
            nic[ours] = values[0]
            said.pop(key, None)
            if len(values) > 1:
                found.left.add(f"{key} (further ones)", name, "a device has one")
    for key in said:
        found.left.add(key, name, WHY.get(key, UNKNOWN))
    inherits(scope.above, subnet, name)
    devices(host, [nic])
    return host


def inherits(above: Scope | None, subnet: Scope | None, name: str) -> None:
    """Count a host in every block that it has something from, in each once."""
    seen: set[int] = set()
    for start in (above, subnet):
        here = start
        while here is not None and id(here) not in seen:
            seen.add(id(here))
            here.hosts += 1
            here.example = here.example or name
            here = here.above
