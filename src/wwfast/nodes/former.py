"""What nodes.conf said for Warewulf 4.3 to 4.5, and how the same is said since 4.6: trees to trees, nothing is read or
written. What `wwctl upgrade nodes` does, without what it loses.

Source: the upgrade rules of Warewulf 4.6 (`wwctl upgrade nodes`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from wwfast.config import checks, words
from wwfast.config.former import NOTHING, copied, fill, gave_way, listed, parted
from wwfast.config.yaml import Tree
from wwfast.nodes.text.source import NODES, PROFILES

COMMAND = "wwfast upgrade nodes"
HINT = f" - Warewulf before 4.6 wrote it so: {COMMAND}"
#: Old key of an entry or device: the key it is now.
RENAMED = {"container name": "image name", "keys": "tags", "ip6addr": "ipaddr6"}
FLAT_KEYS = {  # `ipmi ipaddr` is `ipmi: ipaddr` now
    *(f"kernel {key}" for key in ("args", "override", "version")),
    *(
        f"ipmi {key}"
        for key in (
            "username",
            "password",
            "ipaddr",
            "netmask",
            "port",
            "gateway",
            "interface",
            "escapechar",
            "write",
        )
    ),
}
DROPPED = {"disabled", "id", "valid", "prefix"}  # they said nothing
NODE_ONLY = {"asset key", "discoverable"}  # without meaning in a profile
OLD_KEYS = {*RENAMED, *FLAT_KEYS, *DROPPED, "tagsdel", "ipcidr", "primary", "default"}
LISTS = ("runtime overlay", "system overlay", "profiles")

#: What replaced the two overlays of 4.5 that did everything.
REPLACED = {
    "wwinit": [
        *("wwinit", "wwclient", "fstab", "hostname", "ssh.host_keys", "issue", "resolv", "udev.netname"),
        *("systemd.netname", "ifcfg", "ifupdown", "NetworkManager", "wicked", "ignition"),
    ],
    "generic": ["hosts", "ssh.authorized_keys", "syncuser"],
}
#: What the profile `default` says where it says nothing.
DEFAULTS: dict[str, Tree] = {
    "ipxe template": "default",
    "runtime overlay": REPLACED["generic"],
    "system overlay": REPLACED["wwinit"],
    "kernel": {"args": ["quiet", "crashkernel=no", "net.ifnames=1"]},
    "ipmi": {"template": "ipmitool.tmpl"},
    "init": "/sbin/init",
    "root": "initramfs",
    "resources": {
        "fstab": [
            {"spec": "warewulf:/home", "file": "/home", "vfstype": "nfs", "mntops": "defaults,nofail"},
            {"spec": "warewulf:/opt", "file": "/opt", "vfstype": "nfs", "mntops": "defaults,noauto,nofail,ro"},
        ]
    },
}
DEVICE_DEFAULTS = {"type": "ethernet", "netmask": "255.255.255.0"}


def hint(path: tuple[str | int, ...], message: str) -> str:
    """What to add to what is said of `path` of an entry: the way out where that was right before 4.6, else nothing."""
    old = (
        path[-1:] and path[-1] in OLD_KEYS
        if message.startswith("unknown key")
        else message.startswith("must be a list") and path in (("kernel", "args"), *((each,) for each in LISTS))
    )
    return HINT if old else ""


@dataclass(slots=True)
class Upgrade:
    """One run over the entries of a file. `told`: what an admin should know, one line each.

    `mounts`: the NFS mounts of an old warewulf.conf, as fstab lines; `kept`: whether a kernel is kept apart from the
    images under that name; `defaults`: what `add_defaults` fills into the profile `default`.
    """

    add_defaults: bool = False
    replace_overlays: bool = False
    mounts: list[dict[str, str]] = field(default_factory=list)
    kept: Callable[[str], bool] = lambda name: False
    defaults: Mapping[str, Tree] = field(default_factory=lambda: DEFAULTS)
    told: list[str] = field(default_factory=list)

    def entries(self, sections: Mapping[str, Mapping[str, Tree]]) -> dict[str, dict[str, Tree]]:
        """Both sections as they are said now. Entries that are no maps stay as they are."""
        made: dict[str, dict[str, Tree]] = {}
        for section in (PROFILES, NODES):
            made[section] = {
                name: self.entry(section, name, tree) if isinstance(tree, dict) else tree
                for name, tree in sections[section].items()
            }
        if self.mounts or self.add_defaults:
            self.default(made)
        return made

    def entry(self, section: str, name: str, old: Mapping[str, Tree]) -> dict[str, Tree]:
        tree: dict[str, Any] = copied(dict(old))
        where = f"{'node' if section == NODES else 'profile'} {name}"
        self.rename(tree, where)
        self.unfold(tree, where)
        for key in LISTS:
            if isinstance(tree.get(key), str):
                tree[key] = listed(tree[key])
        self.kernel(tree, where)
        self.devices(tree, where, is_profile=section == PROFILES)
        if tree.get("ipxe template") == "dracut":
            tree["ipxe template"] = "default"
            self.carry(tree, where, "ipxe template", "dracut", {"tags": {"IPXEMenuEntry": "dracut"}})
        if isinstance(tree.get("ipmi"), dict):
            without(tree["ipmi"])
        if section == PROFILES:
            for key in sorted(NODE_ONLY & tree.keys()):
                self.told.append(f"{where}: `{key}` had no effect in a profile and is gone")
                del tree[key]
        if self.replace_overlays:
            for key in ("system overlay", "runtime overlay"):
                if isinstance(tree.get(key), list):
                    tree[key] = replaced(tree[key])
        return tree

    def carry(self, tree: dict[str, Any], where: str, old: str, value: Tree, now: Mapping[str, Tree]) -> None:
        """Say `now` what `old` said with its value, unless the tree says something else already."""
        for place, _, stands in fill(tree, now):
            self.told.append(f"{where}: {gave_way(old, value, place, stands)}")

    def rename(self, tree: dict[str, Any], where: str) -> None:
        """Keys that have another name now, and those that said nothing; what is there under both names stays as new."""
        for old, new in RENAMED.items():
            for place, value, stands in fill(tree, {new: tree.pop(old)}) if old in tree else ():
                said = gave_way(old + place.removeprefix(new), value, place, stands)
                self.told.append(f"{where}: {said}")
        without(tree)
        for key in DROPPED & tree.keys():
            if key == "disabled" and checks.truth(str(tree[key])):
                self.told.append(f"{where}: `disabled` is gone, and had no effect since 4.0: it boots")
            del tree[key]

    def unfold(self, tree: dict[str, Any], where: str) -> None:
        """`ipmi ipaddr: X` is `ipmi: {ipaddr: X}` now; what the map says already stays."""
        for old in [each for each in tree if each in FLAT_KEYS]:
            value = tree.pop(old)
            if value not in NOTHING:
                key, _, inner = old.partition(" ")
                self.carry(tree, where, old, value, {key: {inner: value}})

    def kernel(self, tree: dict[str, Any], where: str) -> None:
        kernel = tree.get("kernel")
        if not isinstance(kernel, dict):
            return
        if isinstance(kernel.get("args"), str):
            kernel["args"] = words.ARGUMENT.findall(kernel["args"])
        named = kernel.get("override")
        if not isinstance(named, str) or not named or self.kept(named):
            return
        del kernel["override"]
        if kernel.get("version") in NOTHING:
            kind = "a path in the image" if named.startswith("/") else "of a version in the image"
            self.told.append(f"{where}: `kernel: override: {named}` is `kernel: version` now, {kind}")
        self.carry(tree, where, "kernel: override", named, {"kernel": {"version": named}})

    def devices(self, tree: dict[str, Any], where: str, *, is_profile: bool) -> None:
        devices = tree.get("network devices")
        if not isinstance(devices, dict):
            return
        for name, device in devices.items():
            if not isinstance(device, dict):
                continue
            here = f"{where}, device {name}"
            self.rename(device, here)
            self.addresses(device, here)
            for key in ("primary", "default"):
                if checks.truth(str(device.pop(key, ""))):
                    self.carry(tree, here, key, "true", {"primary network": name})
        if is_profile and self.add_defaults:
            fill(devices, dict.fromkeys(devices, DEVICE_DEFAULTS))

    def addresses(self, device: dict[str, Any], where: str) -> None:
        """`ipcidr` is an address and a netmask now, and the prefix length of an IPv6 address stands by itself."""
        cidr = device.pop("ipcidr", None)
        address, bits = parted(cidr)
        if address not in NOTHING:
            self.carry(device, where, "ipcidr", cidr, {"ipaddr": address})
        mask = next((mask for mask, length in checks.MASKS.items() if bits in (mask, str(length))), "")
        if mask:
            self.carry(device, where, "ipcidr", cidr, {"netmask": mask})
        elif bits:
            self.told.append(f"{where}: `{bits}` of `ipcidr: {cidr}` is no netmask, and is gone")
        cidr = device.get("ipaddr6")
        address, bits = parted(cidr)
        if address != cidr:
            device["ipaddr6"] = address
        if bits:
            self.carry(device, where, "ipaddr6", cidr, {"prefixlen6": bits})

    def default(self, made: dict[str, dict[str, Tree]]) -> None:
        """The profile `default` says what nodes mount and what 4.6 has there, where nothing is said; nodes without any
        profile get that one."""
        profile = made[PROFILES].get("default")
        if profile in NOTHING:
            made[PROFILES]["default"] = profile = {}
        if isinstance(profile, dict):
            self.mounted(profile)
            if self.add_defaults:
                fill(profile, self.defaults)
        else:
            self.told.append("profile default: is no map of keys, so nothing was filled in; it stays as it is")
        for name, tree in made[NODES].items() if self.add_defaults else ():
            if tree is None:
                made[NODES][name] = {"profiles": ["default"]}
            elif isinstance(tree, dict) and not tree.get("profiles"):
                tree["profiles"] = ["default"]

    def mounted(self, profile: dict[str, Any]) -> None:
        """The NFS mounts, in the form of 4.6."""
        for place, _, stands in fill(profile, {"resources": {"fstab": self.mounts}}) if self.mounts else ():
            there = stands if isinstance(stands, list) else []
            if lost := [line["file"] for line in self.mounts if line not in there]:
                self.told.append(
                    f"profile default: the NFS mounts of {', '.join(lost)} in warewulf.conf gave way to `{place}`"
                )


def profiles(tree: Tree) -> list[str]:
    """Which profiles an entry names, in a list or, as before 4.6, in one text."""
    named = tree.get("profiles") if isinstance(tree, dict) else None
    if isinstance(named, str):
        return listed(named)
    return [word for word in named if isinstance(word, str)] if isinstance(named, list) else []


def without(tree: dict[str, Any]) -> None:
    """Tags less those that `tagsdel` took out."""
    gone = tree.pop("tagsdel", None)
    tags = tree.get("tags")
    if isinstance(gone, list) and isinstance(tags, dict):
        tree["tags"] = {key: value for key, value in tags.items() if key not in gone}


def replaced(overlays: list[Tree]) -> list[Tree]:
    made: list[Tree] = []
    for overlay in overlays:
        named = REPLACED.get(overlay, [overlay]) if isinstance(overlay, str) else [overlay]
        made += [each for each in named if each not in made]
    return made
