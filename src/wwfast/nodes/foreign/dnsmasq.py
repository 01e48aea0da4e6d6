"""dnsmasq: its `dhcp-host=` lines, /etc/ethers and /etc/hosts, in one file or several.

Shape: dnsmasq(8) 2.89: the fields of dhcp-host stand in any order; hosts take the mask of the dhcp-range, router and
MTU of dhcp-option (3 and 26) from what is said for all or for their tag. ethers(5) is `MAC NAME-or-ADDRESS`, hosts(5)
`ADDRESS NAME ...`.
"""

from __future__ import annotations

import re
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
    netmask,
    number,
)

COMMENT = re.compile(r"(?:^|\s)#.*")
HARDWARE = re.compile(r"(?:[0-9A-Fa-f]{2}-)?([0-9A-Fa-f]{1,2}(?:[:-][0-9A-Fa-f]{1,2}){5})")
LEASE = re.compile(r"[0-9]+[smhdw]?|infinite")
OPTION = re.compile(r"([a-z0-9][a-z0-9-]*)\s*(?:=\s*(.*))?")
FILES = ("conf-file", "conf-dir", "dhcp-hostsfile", "dhcp-hostsdir", "addn-hosts", "hostsdir")
SENT = {"3": "gateway", "option:router": "gateway", "26": "mtu", "option:mtu": "mtu"}
SERVING = "dhcp-boot enable-tftp tftp-root pxe-service dhcp-match dhcp-authoritative interface bind-interfaces"
WHY = dict.fromkeys(SERVING.split(), BY_WWFAST)


@dataclass(slots=True)
class Line:
    """One dhcp-host or line of ethers."""

    place: Place
    macs: list[str] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    name: str = ""
    ignored: bool = False


@dataclass(slots=True)
class Site:
    """All that the files say."""

    given: Given
    lines: list[Line] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)  # address: name, of hosts
    networks: Networks = field(default_factory=Networks)
    sent: dict[tuple[str, str], str] = field(default_factory=dict)  # tag (or "") and field: value
    others: dict[str, None] = field(default_factory=dict)  # options without a place


def parse(given: Given) -> Found:
    site = Site(given)
    for text in given.texts:
        read(text, site)
    found = Found()
    addresses: dict[str, str] = {}
    for address, name in site.names.items():
        addresses.setdefault(name, address)
    for line in site.lines:
        made(line, site, addresses, found)
    for key in site.others:
        first = found.hosts[0].name if found.hosts else ""
        found.left.add(key, first, WHY.get(key, UNKNOWN), len(found.hosts))
    if not site.lines:
        raise given.texts[0].fault(1, "no dhcp-host and no line of ethers is in it")
    return found


def read(text: Text, site: Site) -> None:
    for at, whole in text.lines():
        line = COMMENT.sub("", whole).strip()
        if not line:
            continue
        place, words = Place(text.name, at), line.split()
        if HARDWARE.fullmatch(words[0]) and len(words) == 2:
            address = not checks.ip(words[1])
            found = Line(place, [words[0]], [words[1]] if address else [], [], "" if address else words[1])
            site.lines.append(found)
        elif not checks.ip(words[0]) and len(words) > 1:
            site.names.setdefault(words[0], words[1])
        elif option := OPTION.fullmatch(line):
            say(text, at, option[1], (option[2] or "").strip(), site)
        elif "," in line and (HARDWARE.fullmatch(line.partition(",")[0]) or line.partition(":")[0] in ("set", "id")):
            site.lines.append(host(place, line))  # of a dhcp-hostsfile
        else:
            raise text.fault(at, f"{checks.shown(line)} is no line of dnsmasq, ethers or hosts")


def say(text: Text, at: int, key: str, value: str, site: Site) -> None:
    if key == "dhcp-host":
        site.lines.append(host(Place(text.name, at), value))
    elif key in FILES:
        name, *endings = [each.strip() for each in value.split(",")]
        keep = tuple(each.removeprefix("*") for each in endings if each.startswith("*"))
        skip = tuple(each for each in endings if each and not each.startswith("*"))
        for each in site.given.include(text, at, name):
            if (not keep or each.name.endswith(keep)) and not (skip and each.name.endswith(skip)):
                read(each, site)
    elif key == "dhcp-range":
        parts = [each for each in value.split(",") if not checks.ip4(each.strip())]
        mask = next((each for each in parts if each != "0.0.0.0" and netmask(each)), "")
        if not parts or not mask or not site.networks.add(parts[0], mask):
            site.others["dhcp-range"] = None
    elif key in ("dhcp-option", "dhcp-option-force"):
        parts = [each.strip() for each in value.split(",")]
        tags = [each.removeprefix("tag:") for each in parts if each.startswith("tag:")]
        rest = [each for each in parts if not each.startswith("tag:")]
        if len(rest) == 2 and rest[0] in SENT and len(tags) < 2:
            site.sent[tags[0] if tags else "", SENT[rest[0]]] = rest[1]
        else:
            site.others[f"{key}={','.join(rest[:1])}"] = None
    elif key in ("host-record", "address"):
        names = value.strip("/").replace("/", ",").split(",")
        if not checks.ip(names[-1]) and len(names) > 1:
            site.names.setdefault(names[-1], names[0])
        else:
            site.others[key] = None
    else:
        site.others[key] = None


def host(place: Place, value: str) -> Line:
    line = Line(place)
    for part in map(str.strip, value.split(",")):
        hardware = HARDWARE.fullmatch(part)
        bare = part.removeprefix("[").partition("]")[0]
        if hardware:
            line.macs.append(hardware[1])
        elif part.startswith(("set:", "net:")):
            line.groups.append(part[4:])
        elif part == "ignore":
            line.ignored = True
        elif part.startswith(("tag:", "id:")) or not part or (LEASE.fullmatch(part) and (line.name or line.addresses)):
            continue
        elif not checks.ip(bare):
            line.addresses.append(bare)
        else:
            line.name = part
    return line


def made(line: Line, site: Site, addresses: dict[str, str], found: Found) -> None:
    """The host of a line, if it is one that boots."""
    name = line.name or next((site.names[each] for each in line.addresses if each in site.names), "")
    shown = name or next(iter(line.macs + line.addresses), "?")
    if line.ignored:
        found.left.add("dhcp-host=...,ignore", shown, "dnsmasq does not serve it")
        return
    if not name:
        found.left.add("dhcp-host without a name", shown, "give it one there, or add the line of /etc/hosts")
        return
    node = Host(name, line.place)
    nic: dict[str, Any] = {}
    for each in line.addresses or ([addresses[name]] if name in addresses else []):
        if ("ipaddr6" if ":" in each else "ipaddr") in nic:
            found.left.add("dhcp-host (further addresses)", name, "a device has one")
        else:
            addressed(nic, each)
    if line.macs:
        nic["hwaddr"] = mac(line.macs[0])
    if len(line.macs) > 1:
        found.left.add("dhcp-host (further hardware addresses)", name, "a device has one")
    nic |= site.networks.of(nic.get("ipaddr", ""))
    for key in ("gateway", "mtu"):
        value = next((site.sent[tag, key] for tag in [*line.groups, ""] if (tag, key) in site.sent), "")
        if key == "gateway" and value and not near(nic, value):
            found.left.add("dhcp-option=3", name, "a router that is not in its network")
        elif value:
            nic[key] = value
    for group in line.groups:
        if checks.name(group):
            found.left.add("dhcp-host set:", name, "no name of a group")
        else:
            node.join([group], "groups")
    devices(node, [nic])
    found.hosts.append(node)


def near(nic: dict[str, Any], gateway: str) -> bool:
    """Whether a router is in the network of a device, as far as one can say."""
    if checks.ip4(gateway) or "netmask" not in nic or "ipaddr" not in nic:
        return True
    mask = number(nic["netmask"])
    return number(gateway) & mask == number(nic["ipaddr"]) & mask
