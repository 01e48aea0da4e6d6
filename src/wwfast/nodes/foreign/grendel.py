"""Grendel: a dump (`Hosts`, `Images`, `Users`), or a list of hosts (`grendel host show`).

Shape: {name, provision, boot_image, firmware, tags, interfaces, bonds}; an interface is {mac, ip "A/LEN", ifname, fqdn,
bmc, vlan, mtu}, a bond has peers (interfaces by name or hardware address) as well. Source: pkg/model of Grendel 0.2.
"""

from __future__ import annotations

from typing import Any

from wwfast.config import checks
from wwfast.nodes.foreign.common import (
    BY_WWFAST,
    UNKNOWN,
    Found,
    Given,
    Host,
    Left,
    Place,
    Text,
    addressed,
    devices,
    mac,
    objects,
    word,
)

OTHERS = ("Users", "Images", "Roles")  # of a dump
WHY = {
    "id": BY_WWFAST,
    "_id": BY_WWFAST,
    "firmware": "told by the firmware at each boot",
    "fqdn": "a node has one name",
    "vlan": "to do: wwfast node set --nettagadd vlan_id=N",
}
NONE = ("", "0", "false")  # what Go writes for nothing


def parse(given: Given) -> Found:
    found = Found()
    for text in given.texts:
        tree = objects(text)
        if isinstance(tree, dict):
            low = {key.lower(): value for key, value in tree.items()}
            for key in OTHERS:
                for each in low.get(key.lower()) or ():
                    found.left.add(key, word(each.get("name")) if isinstance(each, dict) else "?", UNKNOWN)
            tree = low.get("hosts", [tree] if "name" in low else None)
        if not isinstance(tree, list):
            raise text.fault(1, "neither a dump of Grendel nor a list of its hosts", "grendel host show > hosts.json")
        found.hosts += [made(text, at, each, found.left) for at, each in enumerate(tree, 1)]
    return found


def made(text: Text, at: int, tree: Any, left: Left) -> Host:
    if not isinstance(tree, dict) or not word(tree.get("name")):
        raise text.fault(1, f"host number {at} of the list has no name")
    said = dict(tree)
    host = Host(word(said.pop("name")), Place(text.name, 0))
    nics: list[dict[str, Any]] = []
    for kind in ("interfaces", "bonds"):
        for each in items(text, host, kind, said.pop(kind, None)):
            interface(host, each, nics, left, bond=kind == "bonds")
    if image := word(said.pop("boot_image", "")):
        host.image = ("boot_image", image)
    tags = said.pop("tags", None)
    for tag in tags if isinstance(tags, list) else ():
        key, colon, value = word(tag).partition(":")
        if colon:
            host.put(value, "tags", key)
        elif checks.name(key):
            left.add("tags", host.name, "no name of a group")
        else:
            host.join([key], "groups")
    if said.pop("provision", True) is False:
        left.add("provision: false", host.name, "a node that is there boots")
    for key, value in said.items():
        if word(value) not in NONE or isinstance(value, dict | list):
            left.add(key, host.name, WHY.get(key, UNKNOWN))
    devices(host, nics)
    return host


def items(text: Text, host: Host, kind: str, value: Any) -> list[dict[str, Any]]:
    if value is not None and not (isinstance(value, list) and all(isinstance(each, dict) for each in value)):
        raise text.fault(1, f"host {checks.shown(host.name)}: {kind} must be a list of maps")
    return [dict(each) for each in value or ()]


def interface(host: Host, said: dict[str, Any], nics: list[dict[str, Any]], left: Left, *, bond: bool) -> None:
    """One interface or bond; that of a BMC says its address."""
    name, address, hardware = (word(said.pop(key, "")) for key in ("ifname", "ip", "mac"))
    mtu = word(said.pop("mtu", ""))
    peers = said.pop("peers", None)
    is_bmc = said.pop("bmc", False) is True
    for key, value in said.items():
        if word(value) not in NONE or isinstance(value, dict | list):
            left.add(f"interfaces: {key}", host.name, WHY.get(key, UNKNOWN))
    if is_bmc:
        bmc: dict[str, Any] = {}
        addressed(bmc, address)
        host.put(bmc.get("ipaddr", bmc.get("ipaddr6")), "ipmi", "ipaddr")
        host.put(bmc.get("netmask"), "ipmi", "netmask")
        if hardware:
            left.add("interfaces: mac (of a BMC)", host.name, "a BMC is reached by its address")
        return
    nic: dict[str, Any] = {"device": name, "type": "bond"} if bond else {"device": name}
    addressed(nic, address)
    nic |= {"hwaddr": mac(hardware), "mtu": mtu if mtu not in NONE else ""}
    nic = {key: value for key, value in nic.items() if value}
    for peer in peers if isinstance(peers, list) else ():
        meant = word(peer)
        for each in nics:
            if (meant and meant in (each.get("device"), each.get("hwaddr"))) or mac(meant) == each.get("hwaddr"):
                each.setdefault("tags", {})["master"] = name or "bond0"
    nics.append(nic)
