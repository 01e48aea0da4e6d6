"""xCAT: what `lsdef -z` and `lsdef -l` print.

Shape: an object is `NAME:` in the first column (`Object name: NAME` without -z) and indented `key=value` lines, its
kind is `objtype`. What a NIC has is `nicips.eth0`, or in one key for all: `nicips=eth0!1.2.3.4,ib0!5.6.7.8`. Sources:
man pages of mkdef(1), xcatstanzafile(5), node(7), networks(5), mac(5) of xCAT 2.17.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
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
    Networks,
    Place,
    Text,
    addressed,
    devices,
    legible,
    mac,
)

OBJECT = re.compile(r"(?:Object name: *(\S+)|(\S+):)\s*")
NIC = re.compile(r"(nic[a-z]+)\.(.+)")
QUOTES = ("'", '"')
MOMENT = "of a moment: wwfast node status"
KEY = re.compile(r"[^#\s]\S*")
DEFAULT = "default-"  # of an object: what objects of its kind have below it
#: Key -> where it goes.
FIELDS: dict[str, tuple[str, ...]] = {
    "bmcusername": ("ipmi", "username"),
    "bmcpassword": ("ipmi", "password"),
    "bmcport": ("ipmi", "port"),
    "bmcvlantag": ("ipmi", "tags", "vlan"),
    "usercomment": ("comment",),
    **{key: ("tags", key) for key in ("rack", "room", "chassis", "slot", "unit", "u")},
}
WHY = {
    **dict.fromkeys(("arch", "supportedarchs"), "told by the firmware at each boot"),
    **dict.fromkeys(("postscripts", "postbootscripts", "syslog"), OVERLAY),
    **dict.fromkeys(
        ("netboot", "tftpserver", "nfsserver", "xcatmaster", "servicenode", "setupnameserver", "currchain", "chain"),
        BY_WWFAST,
    ),
    **dict.fromkeys(("os", "profile", "objtype=osimage"), "of the image: wwfast image import"),
    "objtype=group": "lsdef gives nodes what their groups say",
    **dict.fromkeys(
        ("status", "statustime", "currstate", "updatestatus", "updatestatustime"), "of a moment: node status"
    ),
}
BOND = ("mode", "miimon", "xmit_hash_policy", "updelay", "downdelay")


@dataclass(slots=True)
class Object:
    name: str
    text: Text
    line: int
    values: dict[str, str] = field(default_factory=dict)
    kind: str = "node"


def parse(given: Given) -> Found:
    found, networks, known = Found(), Networks(), {}
    objects = [each for text in given.texts for each in stanzas(text)]
    for each in objects:
        if each.kind == "network":
            known[each.name] = network(each, networks, found.left)
        elif each.kind != "node":
            found.left.add(f"objtype={each.kind}", each.name, WHY.get(f"objtype={each.kind}", UNKNOWN))
    for each in objects:
        if each.kind == "node":
            found.hosts.append(Node(each, networks, known, found.left).host)
    return found


def stanzas(text: Text) -> Iterator[Object]:
    """The objects of a file, with what `default-KIND` says for them."""
    current: Object | None = None
    defaults: dict[str, dict[str, str]] = {}
    keys: dict[str, str] = {}  # what stands before a `=`, and the key that it is: a few hundred of a million lines
    for number, line in text.lines():
        before, equals, value = line.partition("=")
        key = keys.get(before, "") if equals else ""
        if equals and not key and before[:1] in (" ", "\t") and KEY.fullmatch(word := before.strip()):
            key = keys[before] = word if word.startswith("nic") else word.lower()
        if key and current:
            value = value.strip()
            value = unquoted(value) if value[:1] in QUOTES else value
            if key == "objtype":
                current.kind = value
            elif current.values.setdefault(key, value) != value:
                raise text.fault(number, f"{legible(current.name)} says {legible(key)} twice, and differently")
        elif (head := OBJECT.fullmatch(line)) and not checks.key(head[1] or head[2]):
            if current:
                yield from finished(current, defaults)
            current = Object(head[1] or head[2], text, number)
        elif line.strip() and not line.lstrip().startswith("#"):
            shown = checks.shown(line.strip())
            hint = "lsdef -t node,network -z prints the form that is read: NAME: and indented key=value lines"
            raise text.fault(number, f"{shown} is neither an object nor a key=value of one", hint)
    if current:
        yield from finished(current, defaults)


def finished(current: Object, defaults: dict[str, dict[str, str]]) -> Iterator[Object]:
    if current.name.startswith(DEFAULT):
        defaults[current.name.removeprefix(DEFAULT)] = current.values
        return
    current.values = {**defaults.get(current.kind, {}), **current.values}
    yield current


def unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] else value


def network(each: Object, networks: Networks, left: Left) -> dict[str, str]:
    """What nodes on a network have from it."""
    said = each.values
    gateway = said.get("gateway", "")
    mask = said.get("mask", said.get("netmask", ""))
    known = {"netmask": mask, "gateway": "" if checks.ip4(gateway) else gateway, "mtu": said.get("mtu", "")}
    for key in said.keys() - {"net", "mask", "netmask", "mtu"} - ({"gateway"} if known["gateway"] else set()):
        left.add(f"network: {key}", each.name, "of the network: warewulf.conf")
    networks.add(said.get("net", ""), mask, gateway=known["gateway"], mtu=known["mtu"])
    return {key: value for key, value in known.items() if value}


class Node:
    """One node in the making: `host` is what becomes of it."""

    def __init__(self, each: Object, networks: Networks, known: dict[str, dict[str, str]], left: Left) -> None:
        self.host = Host(each.name, Place(each.text.name, each.line))
        self.networks, self.known, self.left = networks, known, left
        self.said = dict(each.values)
        self.nics: dict[str, dict[str, Any]] = {}
        nic = [key for key in self.said if key.startswith("nic")]
        self.fields()
        self.boot()
        self.network(self.unfold(nic))
        for key, value in self.said.items():
            if value:
                of_nic = NIC.fullmatch(key) if key.startswith("nic") else None
                self.lose(f"{of_nic[1]}.*" if of_nic else key)

    def lose(self, key: str, why: str = "") -> None:
        self.left.add(key, self.host.name, why or WHY.get(key, UNKNOWN))

    def take(self, key: str) -> str:
        return self.said.pop(key, "")

    def unfold(self, keys: list[str]) -> list[str]:
        """`nicips=eth0!A,ib0!B` as `nicips.eth0=A` and `nicips.ib0=B`; all keys of NICs then."""
        whole = [key for key in keys if "." not in key and "!" in self.said[key]]
        for key in whole:
            for part in self.said.pop(key).split(","):
                name, _, value = part.partition("!")
                if self.said.setdefault(f"{key}.{name}", value) != value:
                    self.lose(f"{key} (said twice)", "the other form counts")
        return [key for key in self.said if key.startswith("nic")] if whole else keys

    def fields(self) -> None:
        for key in [key for key in self.said if key in FIELDS]:
            self.host.put(self.take(key), *FIELDS[key])
        groups = [group for group in self.take("groups").split(",") if group]
        if "all" in groups:
            self.lose("groups: all", "every node is in @all")
        self.host.put([group for group in groups if group != "all"], "groups")
        bmc = self.take("bmc")
        if bmc and checks.ip(bmc):
            self.lose("bmc", "a name, where the address is needed")
        else:
            self.host.put(bmc, "ipmi", "ipaddr")
        if self.said.get("mgt") == "ipmi":
            self.take("mgt")

    def boot(self) -> None:
        """Image, kernel arguments, console."""
        image = self.take("provmethod")
        if image in ("install", "netboot", "statelite"):
            self.lose("provmethod", BY_WWFAST)
        elif image:
            self.host.image = ("provmethod", image)
        arguments = words.ARGUMENT.findall(self.take("addkcmdline"))
        port, speed, flow = self.take("serialport"), self.take("serialspeed"), self.take("serialflow")
        if port:
            arguments.append(
                f"console=ttyS{port}" + (f",{speed}" if speed else "") + "n8r" * (flow == "hard" and speed != "")
            )
        self.host.put(arguments, "kernel", "args")

    def nic(self, name: str) -> dict[str, Any]:
        return self.nics.setdefault(name, {"device": name})

    def network(self, keys: list[str]) -> None:
        for key in keys:
            found = NIC.fullmatch(key)
            if found and self.interface(found[1], found[2], self.said[key]):
                del self.said[key]
        primary = self.primary()
        first = self.nics.get(primary) or {}
        self.nics = {primary: first, **self.nics}
        self.macs(first)
        address = self.take("ip")
        if address and "ipaddr" not in first:
            addressed(first, address)
        for nic in self.nics.values():
            for key, value in self.networks.of(nic.get("ipaddr", "")).items():
                nic.setdefault(key, value)
        devices(self.host, list(self.nics.values()))

    def primary(self) -> str:
        """The interface a node boots from, "" when nothing says which it is."""
        for key in ("installnic", "primarynic"):
            name = self.take(key).partition(",")[0]
            if name and name not in ("mac", "hd") and mac(name).count(":") != 5:
                self.nic(name)
                return name
        address = self.said.get("ip", "")
        return next((name for name, nic in self.nics.items() if address and nic.get("ipaddr") == address), "")

    def macs(self, first: dict[str, Any]) -> None:
        """`MAC!name|MAC2!name2`: the first is that of the NIC it boots from, the others of the NICs so called."""
        called = {f"{self.host.name}{self.said.get(f'nichostnamesuffixes.{name}', '')}": name for name in self.nics}
        for index, part in enumerate(each for each in self.take("mac").split("|") if each):
            address, _, alias = part.partition("!")
            name = called.get(alias, "")
            if index == 0:
                first["hwaddr"] = mac(address)
            elif name and "hwaddr" not in self.nics[name]:
                self.nics[name]["hwaddr"] = mac(address)
            else:
                self.lose("mac (further addresses)", "no NIC is said to have it")
        for name in self.nics:
            if self.said.pop(f"nichostnamesuffixes.{name}", ""):
                self.left.add("nichostnamesuffixes.*", self.host.name, "templates know devices by their name")

    def interface(self, what: str, name: str, value: str) -> bool:
        """One attribute of a NIC; whether it has a place here."""
        nic = self.nics.get(name) or {}
        if what == "nicips":
            first, *more = value.split("|")
            addressed(self.nic(name), first)
            for each in more:
                if ":" in each and "ipaddr6" not in nic:
                    addressed(self.nic(name), each)
                else:
                    self.lose("nicips.* (further addresses)", "a device has one")
        elif what == "nicnetworks" and value.partition("|")[0] in self.known:
            for key, each in self.known[value.partition("|")[0]].items():
                self.nic(name).setdefault(key, each)
        elif what == "nictypes":
            self.nic(name)["type"] = value.partition("|")[0].lower()
        elif what == "nicdevices":
            self.stacked(name, value.split("|"))
        elif what == "nicextraparams":
            return self.extra(name, value)
        else:
            return False
        return True

    def stacked(self, name: str, below: list[str]) -> None:
        """A bond over NICs, or a VLAN over one."""
        if self.said.get(f"nictypes.{name}", "").lower() == "vlan":
            tail = name.rpartition(".")[2]
            tags = self.nic(name).setdefault("tags", {})
            tags |= {"parent_device": below[0]} | ({"vlan_id": tail} if tail.isascii() and tail.isdigit() else {})
        else:
            for each in below:
                self.nic(each).setdefault("tags", {})["master"] = name

    def extra(self, name: str, value: str) -> bool:
        for pair in value.split():
            key, _, said = pair.partition("=")
            if key in BOND:
                self.nic(name).setdefault("tags", {})[key] = said
            elif key.lower() == "mtu":
                self.nic(name)["mtu"] = said
            else:
                self.lose(f"nicextraparams.*: {key}")
        return True
