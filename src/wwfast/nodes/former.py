"""What nodes.conf said for Warewulf 4.3 to 4.5, and how the same is said since 4.6: trees to trees, nothing is read or
written. What `wwctl upgrade nodes` does, without what it loses.

Source: the upgrade rules of Warewulf 4.6 (`wwctl upgrade nodes`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from wwfast.config import checks, words
from wwfast.config.yaml import Tree
from wwfast.nodes.text.source import NODES, PROFILES

COMMAND = "wwfast upgrade nodes"
HINT = f" - Warewulf before 4.6 wrote it so: {COMMAND}"
#: Old key of an entry or device: the key it is now.
RENAMED = {"container name": "image name", "keys": "tags", "ip6addr": "ipaddr6"}
FLAT = ("ipmi", "kernel")  # `ipmi ipaddr` is `ipmi: ipaddr` now
FLAT_KEYS = {
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
            profile = made[PROFILES].get("default")
            made[PROFILES]["default"] = profile = profile if isinstance(profile, dict) else {}
            resources = profile.setdefault("resources", {}) if self.mounts else {}
            if isinstance(resources, dict) and self.mounts:
                resources.setdefault("fstab", self.mounts)
        if self.add_defaults:
            self.default(made)
        return made

    def entry(self, section: str, name: str, old: Mapping[str, Tree]) -> dict[str, Tree]:
        tree: dict[str, Any] = copied(dict(old))
        where = f"{'node' if section == NODES else 'profile'} {name}"
        self.rename(tree, where)
        for key in FLAT:
            unfold(tree, key)
        for key in LISTS:
            if isinstance(tree.get(key), str):
                tree[key] = listed(tree[key])
        self.kernel(tree, where)
        self.devices(tree, where, is_profile=section == PROFILES)
        if tree.get("ipxe template") == "dracut":
            tree["ipxe template"] = "default"
            tags = tree.setdefault("tags", {})
            tags.setdefault("IPXEMenuEntry", "dracut")
        if isinstance(tree.get("ipmi"), dict):
            without(tree["ipmi"])
        if section == PROFILES:
            for key in NODE_ONLY & tree.keys():
                self.told.append(f"{where}: `{key}` had no effect in a profile and is gone")
                del tree[key]
        if self.replace_overlays:
            for key in ("system overlay", "runtime overlay"):
                if isinstance(tree.get(key), list):
                    tree[key] = replaced(tree[key])
        return tree

    def rename(self, tree: dict[str, Any], where: str) -> None:
        """Keys that have another name now, and those that said nothing; what is there under both names stays as new."""
        for old, new in RENAMED.items():
            if old not in tree:
                continue
            value = tree.pop(old)
            if isinstance(value, dict) and isinstance(tree.get(new), dict):
                tree[new] = {**value, **tree[new]}
            elif tree.get(new) in (None, "", {}):
                tree[new] = value
            elif tree[new] != value:
                self.told.append(f"{where}: `{old}: {value}` gave way to `{new}: {tree[new]}`")
        without(tree)
        for key in DROPPED & tree.keys():
            if key == "disabled" and checks.truth(str(tree[key])):
                self.told.append(f"{where}: `disabled` is gone, and had no effect since 4.0: it boots")
            del tree[key]

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
        if kernel.get("version"):
            self.told.append(f"{where}: `kernel: override: {named}` gave way to `kernel: version: {kernel['version']}`")
            return
        kernel["version"] = named
        kind = "a path in the image" if named.startswith("/") else "of a version in the image"
        self.told.append(f"{where}: `kernel: override: {named}` is `kernel: version` now, {kind}")

    def devices(self, tree: dict[str, Any], where: str, *, is_profile: bool) -> None:
        devices = tree.get("network devices")
        for name, device in devices.items() if isinstance(devices, dict) else ():
            if not isinstance(device, dict):
                continue
            self.rename(device, f"{where}, device {name}")
            address, _, bits = str(device.pop("ipcidr", "") or "").partition("/")
            if address:
                device.setdefault("ipaddr", address)
                mask = next((mask for mask, length in checks.MASKS.items() if str(length) == bits), "")
                if mask:
                    device.setdefault("netmask", mask)
            six, slash, length = str(device.get("ipaddr6") or "").partition("/")
            if slash:
                device["ipaddr6"] = six
                device.setdefault("prefixlen6", length)
            chosen = [checks.truth(str(device.pop(key))) for key in ("primary", "default") if key in device]
            if any(chosen) and not tree.get("primary network"):
                tree["primary network"] = name
            if is_profile and self.add_defaults:
                for key, value in DEVICE_DEFAULTS.items():
                    device.setdefault(key, value)

    def default(self, made: dict[str, dict[str, Tree]]) -> None:
        """What 4.6 says in the profile `default`, where nothing is said; and nodes without a profile get that one."""
        fill(made[PROFILES]["default"], self.defaults)
        for name, tree in made[NODES].items():
            if tree is None:
                made[NODES][name] = {"profiles": ["default"]}
            elif isinstance(tree, dict) and not tree.get("profiles"):
                tree["profiles"] = ["default"]


def listed(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def profiles(tree: Tree) -> list[str]:
    """Which profiles an entry names, in a list or, as before 4.6, in one text."""
    named = tree.get("profiles") if isinstance(tree, dict) else None
    if isinstance(named, str):
        return listed(named)
    return [word for word in named if isinstance(word, str)] if isinstance(named, list) else []


def unfold(tree: dict[str, Any], key: str) -> None:
    """`ipmi ipaddr: X` is `ipmi: {ipaddr: X}` now; what the map says already stays."""
    for old in [each for each in tree if each in FLAT_KEYS and each.startswith(f"{key} ")]:
        value = tree.pop(old)
        inner = tree[key] = tree.get(key) or {}
        if isinstance(inner, dict) and value not in (None, ""):
            inner.setdefault(old.removeprefix(f"{key} "), value)


def without(tree: dict[str, Any]) -> None:
    """Tags less those that `tagsdel` took out."""
    gone = tree.pop("tagsdel", None)
    tags = tree.get("tags")
    if isinstance(gone, list) and isinstance(tags, dict):
        tree["tags"] = {key: value for key, value in tags.items() if key not in gone}


def replaced(overlays: list[str]) -> list[str]:
    made: dict[str, None] = {}
    for overlay in overlays:
        made |= dict.fromkeys(REPLACED.get(overlay, [overlay]))
    return list(made)


def copied(tree: Any) -> Any:
    """With maps and lists of its own. What `yaml.load` returns holds no loops, for which `deepcopy` would look."""
    if isinstance(tree, dict):
        return {key: copied(value) for key, value in tree.items()}
    return [copied(value) for value in tree] if isinstance(tree, list) else tree


def fill(tree: Tree, defaults: Mapping[str, Tree]) -> None:
    """Put `defaults` where the tree says nothing, at every level."""
    for key, value in defaults.items():
        if tree.get(key) in (None, "", [], {}):
            tree[key] = copied(value)
        elif isinstance(value, dict) and isinstance(tree[key], dict):
            fill(tree[key], value)
