"""Warewulf 3: what `wwsh node print`, `wwsh provision print` and `wwsh ipmi print` say, one after the other.

Shape: `#### NAME ####` begins a node, lines are `NAME: KEY = VALUE`, UNDEF is no value; a NIC's keys are `eth0.HWADDR`.
Source: the print commands of Warewulf 3.8 (module/cli of warewulf-common, -provision and -ipmi).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from wwfast.config import checks, words
from wwfast.nodes.foreign.common import (
    BY_WWFAST,
    OVERLAY,
    UNKNOWN,
    Found,
    Given,
    Host,
    Left,
    Place,
    Text,
    addressed,
    devices,
    legible,
    mac,
)

HEAD = re.compile(r"#{2,} *(\S+) *#{2,}")
VALUE = re.compile(r"\s*(\S+): *([A-Za-z0-9_.-]+) *= ?(.*)")
#: Key -> where it goes.
FIELDS: dict[str, tuple[str, ...]] = {
    "CLUSTER": ("cluster name",),
    "IPMI_IPADDR": ("ipmi", "ipaddr"),
    "IPMI_NETMASK": ("ipmi", "netmask"),
    "IPMI_GATEWAY": ("ipmi", "gateway"),
    "IPMI_USERNAME": ("ipmi", "username"),
    "IPMI_PASSWORD": ("ipmi", "password"),
    "IPMI_VLANID": ("ipmi", "tags", "vlan"),
    "IPMI_PROTO": ("ipmi", "interface"),
}
NIC = ("HWADDR", "IPADDR", "NETMASK", "GATEWAY", "MTU")
WHY = {
    "ID": BY_WWFAST,
    "NODENAME": "a node has one name",
    "ARCH": "told by the firmware at each boot",
    "ENABLED": "a node that is there boots",
    "BOOTSTRAP": "the kernel is that of the image",
    "FILES": OVERLAY,
    "PXELINUX": BY_WWFAST,
    "DOMAIN": "of the network: warewulf.conf",
    "FS": "to do: wwfast node set --fsname",
}


def parse(given: Given) -> Found:
    """A node may come in several parts; they say one thing together."""
    found = Found()
    hosts: dict[str, tuple[Place, dict[str, str]]] = {}
    for text in given.texts:
        for line, name, key, value in pairs(text):
            values = hosts.setdefault(name, (Place(text.name, line), {}))[1]
            if values.setdefault(key, value) != value:
                raise text.fault(line, f"{legible(name)} says {legible(key)} twice, and differently")
    for name, (place, values) in hosts.items():
        found.hosts.append(made(name, place, values, found.left))
    return found


def pairs(text: Text) -> Iterator[tuple[int, str, str, str]]:
    """Line, node, key and value; keys without a value are left out, all but the name."""
    here = ""
    for number, line in text.lines():
        if not line.strip():
            continue
        if head := HEAD.fullmatch(line.strip()):
            here = head[1]
            yield number, here, "NAME", here
        elif pair := VALUE.fullmatch(line):
            name, key, value = pair[1], pair[2], pair[3].strip()
            if here and not here.startswith(name):
                raise text.fault(number, f"a line of {checks.shown(name)} stands below {checks.shown(here)}")
            if value not in ("", "UNDEF"):
                yield number, here or name, key, here if key == "NAME" and here else value
        elif not line.lstrip().startswith("#"):
            hint = "wwsh node print; wwsh provision print; wwsh ipmi print"
            raise text.fault(number, f"{checks.shown(line.strip())} is no line of `wwsh node print`", hint)


def made(name: str, place: Place, said: dict[str, str], left: Left) -> Host:
    host = Host(name, place)
    said.pop("NAME", None)
    for key, where in FIELDS.items():
        host.put(said.pop(key, ""), *where)
    host.put(said.pop("GROUPS", "").replace(",", " ").split(), "groups")
    if image := said.pop("VNFS", ""):
        host.image = ("VNFS", image)
    arguments = words.ARGUMENT.findall(said.pop("KARGS", "").removeprefix('"').removesuffix('"'))
    if console := said.pop("CONSOLE", ""):
        arguments.append(f"console={console}")
    host.put(arguments, "kernel", "args")
    if wanted := said.pop("IPMI_AUTOCONFIG", ""):
        meant = checks.truth(wanted)
        host.put(wanted if meant is None else "true" if meant else "false", "ipmi", "write")
    nics: dict[str, dict[str, Any]] = {}
    for key in list(said):
        device, _, what = key.rpartition(".")
        if device and what in NIC:
            nic(nics.setdefault(device, {"device": device}), what, said.pop(key))
    for key in said:
        device, _, what = key.rpartition(".")
        left.add(f"*.{what}" if device else key, name, UNKNOWN if device else WHY.get(key, UNKNOWN))
    primary = next((at for at, each in enumerate(nics.values()) if "hwaddr" in each), 0)
    devices(host, list(nics.values()), primary)
    return host


def nic(device: dict[str, Any], what: str, value: str) -> None:
    if what == "IPADDR":
        addressed(device, value)
    else:
        device[what.lower()] = mac(value) if what == "HWADDR" else value
