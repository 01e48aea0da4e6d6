"""Cobbler: one JSON file a system, as in /var/lib/cobbler/collections (2.8 to 3.3), or one system.

`<<inherit>>` is what the system's profile says, and that one's parent; they are read when the directory has them
(collections/systems beside collections/profiles). Source: the collections in Cobbler's own tests, V3_3_7.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
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
    mac,
    objects,
    word,
)

INHERIT = "<<inherit>>"
DEEPEST = 32  # profiles over profiles
IPMI = {"ipmilan": "lan", "ipmilanplus": "lanplus", "ipmitool": "lan"}
BONDED = ("bond_slave", "bonded_bridge_slave", "bridge_slave")
WHY = {
    **dict.fromkeys(("uid", "parent", "depth", "ctime", "mtime", "is_subobject", "owners", "status"), BY_WWFAST),
    **dict.fromkeys(
        ("netboot_enabled", "boot_loaders", "enable_ipxe", "enable_gpxe", "next_server_v4", "next_server", "filename"),
        BY_WWFAST,
    ),
    **dict.fromkeys(("name_servers", "name_servers_search", "proxy", "server"), "of the network: warewulf.conf"),
    **dict.fromkeys(("template_files", "fetchable_files", "boot_files"), OVERLAY),
    **dict.fromkeys(("autoinstall", "autoinstall_meta", "kickstart", "ks_meta"), "an image is not installed"),
    "static_routes": OVERLAY,
    "dns_name": "a node has one name",
    "cnames": "a node has one name",
    "static": BY_WWFAST,
}
#: What says nothing, whatever the key.
NOTHING: tuple[Any, ...] = ("", INHERIT, "na", "0", False, None, [], {}, "~", "default")
#: Keys that say nothing worth a line, unless somebody set them.
DEFAULTS = {"serial_baud_rate": "115200", "virt_auto_boot": True, "virt_ram": "512", "virt_cpus": "1"}


def parse(given: Given) -> Found:
    found, profiles, systems = Found(), {}, []
    for text in given.texts:
        tree = objects(text)
        if not isinstance(tree, dict) or not word(tree.get("name")):
            raise text.fault(1, "no object of Cobbler: a map that has a name")
        if "interfaces" in tree:
            systems.append((text, tree))
        elif PurePath(text.name).parent.name in ("profiles", "profiles.d") or "distro" in tree:
            profiles[word(tree["name"])] = tree
        else:
            found.left.add(f"collection {PurePath(text.name).parent.name}", word(tree["name"]), UNKNOWN)
    if not systems:
        raise given.texts[0].fault(1, "none of these is a system: they have interfaces")
    for text, tree in systems:
        found.hosts.append(System(text, tree, profiles, found.left).host)
    return found


class System:
    """One system in the making: `host` is what becomes of it."""

    def __init__(self, text: Text, tree: dict[str, Any], profiles: Mapping[str, Any], left: Left) -> None:
        self.host = Host(word(tree["name"]), Place(text.name, 1))
        self.text, self.left, self.profiles = text, left, profiles
        self.said = {key: value for key, value in tree.items() if key != "name"}
        profile = word(self.said.pop("profile", ""))
        image = word(self.said.pop("image", ""))
        if profile or image:
            self.host.image = ("image", image) if image else ("profile", profile)
        self.above = self.chain(profile)
        self.boot()
        self.bmc()
        self.network(self.said.pop("interfaces"))
        for key, value in self.said.items():
            if self.tells(key, value):
                self.left.add(key, self.host.name, WHY.get(key, UNKNOWN))

    def tells(self, key: str, value: Any) -> bool:
        return value not in NOTHING and value != DEFAULTS.get(key)

    def chain(self, profile: str) -> list[Mapping[str, Any]]:
        """The profile and what it is made from. Raises ConfigError when they go round."""
        found: list[Mapping[str, Any]] = []
        name = profile
        while name in self.profiles and name:
            if len(found) > DEEPEST:
                raise self.text.fault(1, f"the parents of profile {checks.shown(profile)} go round")
            found.append(self.profiles[name])
            name = word(found[-1].get("parent"))
        return found

    def take(self, key: str) -> Any:
        """A value of the system, or what it inherits; "" for none."""
        value = self.said.pop(key, "")
        if value == INHERIT:
            value = next((each[key] for each in self.above if each.get(key, INHERIT) != INHERIT), "")
        return value

    def boot(self) -> None:
        options = self.take("kernel_options")
        if isinstance(options, dict):
            arguments = [
                f"{key}={each}" if each not in ("", "~") else key
                for key, value in options.items()
                for each in ([word(item) for item in value] if isinstance(value, list) else [word(value)])
            ]
        else:
            arguments = words.ARGUMENT.findall(word(options))
        self.host.put(arguments, "kernel", "args")
        self.host.put(word(self.take("comment")), "comment")

    def bmc(self) -> None:
        address, kind = word(self.take("power_address")), word(self.take("power_type"))
        if address and checks.ip(address):
            self.left.add("power_address", self.host.name, "a name, where the address is needed")
        elif address:
            self.host.put(address, "ipmi", "ipaddr")
        if kind in IPMI:
            self.host.put(IPMI[kind] if address else "", "ipmi", "interface")
        elif kind:
            self.left.add("power_type", self.host.name, "only IPMI")
        self.host.put(word(self.take("power_user")), "ipmi", "username")
        self.host.put(word(self.take("power_pass")), "ipmi", "password")

    def network(self, interfaces: Any) -> None:
        if not isinstance(interfaces, dict) or not all(isinstance(each, dict) for each in interfaces.values()):
            raise self.text.fault(1, "interfaces must be a map of maps")
        gateway = word(self.take("gateway"))
        nics: list[dict[str, Any]] = []
        primary, managed = 0, False
        for name, said in interfaces.items():
            nic = self.interface(name, dict(said))
            if nic is None:
                continue
            if not managed and said.get("management") is True:
                primary, managed = len(nics), True
            nics.append(nic)
        if gateway and not nics:
            self.left.add("gateway", self.host.name, "it has no interface")
        elif gateway:
            nic = next((each for each in nics if each.get("gateway")), None)
            if nic is None and not self.reached(nics, gateway):
                nics[primary].setdefault("gateway", gateway)
        devices(self.host, nics, primary)

    def reached(self, nics: list[dict[str, Any]], gateway: str) -> bool:
        """Give the gateway to the device in whose network it is; whether there is one."""
        for nic in nics:
            networks = Networks()
            if networks.add(nic.get("ipaddr", ""), nic.get("netmask", "")) and networks.of(gateway):
                nic["gateway"] = gateway
                return True
        return False

    def interface(self, name: str, said: dict[str, Any]) -> dict[str, Any] | None:
        """A device; None for that of the BMC, which says its address."""
        texts = {key: word(value) for key, value in said.items()}
        kind = texts["interface_type"] = texts.get("interface_type", "")
        if kind == "bmc":
            if "ipaddr" not in self.host.entry.get("ipmi", {}):
                self.host.put(texts.get("ip_address"), "ipmi", "ipaddr")
            self.host.put(texts.get("netmask"), "ipmi", "netmask")
            return None
        nic: dict[str, Any] = {"device": "" if name == "default" else name, "hwaddr": mac(texts.get("mac_address", ""))}
        addressed(nic, texts.get("ip_address", ""))
        addressed(nic, texts.get("ipv6_address", ""))
        taken = {"mac_address", "ip_address", "ipv6_address", "interface_type", "management"}
        same = {"netmask": "netmask", "if_gateway": "gateway", "mtu": "mtu"}
        six = {"ipv6_prefix": "prefixlen6", "ipv6_default_gateway": "gateway6"}
        for key, ours in (same | six).items():
            nic[ours] = texts.get(key) or nic.get(ours, "")
            taken.add(key)
        tags = self.stacked(name, kind, texts, taken)
        nic |= {"type": {"bond": "bond", "bridge": "bridge", "infiniband": "infiniband"}.get(kind, ""), "tags": tags}
        for key, value in said.items():
            if key not in taken and self.tells(key, value):
                self.left.add(f"interfaces: {key}", self.host.name, WHY.get(key, UNKNOWN))
        return {key: value for key, value in nic.items() if value}

    def stacked(self, name: str, kind: str, texts: dict[str, str], taken: set[str]) -> dict[str, str]:
        """Tags of a bond or bridge, of what is in one, and of a VLAN (`eth0.6`)."""
        tags: dict[str, str] = {}
        if kind in BONDED and texts.get("interface_master"):
            tags["master"] = texts["interface_master"]
            taken.add("interface_master")
        if kind.startswith("bond") and kind not in BONDED and texts.get("bonding_opts"):
            pairs = (each.partition("=") for each in texts["bonding_opts"].split())
            tags |= {key: value for key, _, value in pairs if value}
            taken.add("bonding_opts")
        below, dot, number = name.rpartition(".")
        if dot and number.isascii() and number.isdigit() and kind not in BONDED:
            tags |= {"parent_device": below, "vlan_id": number}
        return tags
