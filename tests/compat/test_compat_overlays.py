"""Files of the shipped overlays, where the real program's were looked at; node by node, nasty ones too."""

from __future__ import annotations

import re
from typing import Any

import pytest

from support.shipped import BONDS, File, lay
from wwfast.paths import SHARE, Paths

NETWORK = ("NetworkManager", "netplan", "systemd.networkd", "ifcfg", "wicked", "ifupdown")
MAC = "52:54:00:00:00:01"


def text_of(paths: Paths, overlay: str, device: dict[str, Any], **node: Any) -> str:
    """All that an overlay writes for a node with one device, without what only names it."""
    files = lay(paths, [overlay], {"n1": {"network devices": {"default": {"device": "eth0", **device}}, **node}})["n1"]
    kept = [file for path, file in files.items() if "default" in path or path.endswith("warewulf.yaml")]
    return "\n".join(file.text for file in kept if not file.directory)


# ---- A device without addresses, and masked ones ------------------------------------------------------------------

BARE = {
    "NetworkManager": (["method=disabled"], ["method=auto"]),
    "netplan": (["dhcp4: false"], ["accept-ra", "dhcp4: true"]),
    "systemd.networkd": (["DHCP=no"], ["IPv6AcceptRA", "DHCP=ipv4"]),
    "ifcfg": (["BOOTPROTO=none", "IPV6INIT=yes", "IPV6_AUTOCONF=yes"], ["IPADDR", "dhcp"]),
    "wicked": (["<ipv6>\n    <enabled>true</enabled>"], ["accept-ra", "ipv4:dhcp", "ipv4:static"]),
    "ifupdown": (["iface eth0 inet manual"], ["dhcp", "accept_ra", "inet6"]),
}
ASKING = {
    "NetworkManager": "[ipv4]\nmethod=auto",
    "netplan": "dhcp4: true",
    "systemd.networkd": "DHCP=ipv4",
    "ifcfg": "BOOTPROTO=dhcp",
    "wicked": "<ipv4:dhcp>",
    "ifupdown": "iface eth0 inet dhcp",
}
NO_SIX = {
    "NetworkManager": "[ipv6]\nmethod=disabled",
    "netplan": "accept-ra: false",
    "systemd.networkd": "IPv6AcceptRA=no",
    "ifcfg": "IPV6INIT=no",
    "wicked": "<accept-ra>disable</accept-ra>",
    "ifupdown": "",
}
SIX = {
    "NetworkManager": "[ipv6]\nmethod=auto",
    "netplan": "accept-ra: true",
    "systemd.networkd": "IPv6AcceptRA=yes",
    "ifcfg": "IPV6_AUTOCONF=yes",
    "wicked": "<accept-ra>router</accept-ra>",
    "ifupdown": "iface eth0 inet6 auto",
}


@pytest.mark.parametrize("overlay", NETWORK)
@pytest.mark.parametrize("ipaddr", ["", "0.0.0.0"])
def test_compat_a_primary_device_without_address_stays_bare_and_ipv6_is_the_systems(
    paths: Paths, overlay: str, ipaddr: str
) -> None:
    text = text_of(paths, overlay, {"hwaddr": MAC, "ipaddr": ipaddr, "netmask": "255.255.0.0"})
    there, absent = BARE[overlay]
    assert [it for it in there if it not in text] == []
    assert [it for it in absent if it in text] == []


@pytest.mark.parametrize("overlay", NETWORK)
def test_compat_tags_ask_dhcp_and_say_what_becomes_of_ipv6(paths: Paths, overlay: str) -> None:
    def tagged(**tags: str) -> str:
        return text_of(paths, overlay, {"hwaddr": MAC, "tags": tags})

    assert ASKING[overlay] in tagged(ipv4_method="auto")
    assert NO_SIX[overlay] in tagged(ipv6_method="disabled")
    assert SIX[overlay] in tagged(ipv6_method="auto")


@pytest.mark.parametrize("overlay", NETWORK)
@pytest.mark.parametrize("other", ["systemd.netname", "udev.netname"])
@pytest.mark.parametrize("by_tag", [False, True], ids=["field", "tag"])
def test_compat_bond_slave_is_a_member_that_is_an_ethernet_device(
    paths: Paths, overlay: str, other: str, by_tag: bool
) -> None:
    kind = {"type": "bond-slave"}
    tags = {"master": "bond0", **(kind if by_tag else {})}
    member = {"hwaddr": MAC, "tags": tags, **({} if by_tag else kind)}
    text = text_of(paths, overlay, member)
    assert "slave" not in text.lower().replace("slave-type=bond", "").replace("slave=yes", "")
    assert "slave" not in text_of(paths, other, member).lower()


@pytest.mark.parametrize("overlay", NETWORK)
@pytest.mark.parametrize("device", ["four", "six", "both"])
def test_compat_a_masked_gateway_is_none(paths: Paths, overlay: str, device: str) -> None:
    """0.0.0.0 in a node is the only way to do without what its profile says."""
    four = {"ipaddr": "10.0.1.1", "netmask": "255.255.0.0", "gateway": "0.0.0.0"}
    six = {"ipaddr6": "fd00::1", "prefixlen6": "64", "gateway": "0.0.0.0", "gateway6": "::"}
    text = text_of(paths, overlay, {"hwaddr": MAC} | {"four": four, "six": six, "both": four | six}[device])
    assert "0.0.0.0" not in text
    assert not re.search(r"(?im)gateway.*::$|via.*\"::\"|gw=::$|gateway ::$", text)


# ---- NetworkManager; its own reader takes the same in tests/interop ------------------------------------------------

MADE: dict[str, tuple[list[str], list[str]]] = {
    "bond": (["type=bond", "[bond]", "mode=active-backup"], ["[infiniband]"]),
    "bond of infiniband": (
        ["type=bond", "[bond]", "mode=active-backup", "[infiniband]\nmtu=2044\ntransport-mode=datagram"],
        ["[ethernet]", "mac-address"],
    ),
    "infiniband member": (
        ["type=infiniband", "master=bond0", "slave-type=bond", "transport-mode=datagram"],
        ["[bond]", "[ethernet]", "[ipv4]"],
    ),
    "bond-slave": (["type=ethernet", "master=bond0", "slave-type=bond"], ["bond-slave", "[ipv4]"]),
    "bond-slave of none": (["type=ethernet", "address1=10.0.1.1/16"], ["slave", "master"]),
    "vlan": (["type=vlan", "[vlan]\nid=100\nparent=eth0", "address1=10.0.1.1/16"], []),
}


@pytest.mark.parametrize("case", BONDS)
def test_compat_networkmanager_makes_bonds_of_any_device(paths: Paths, case: str) -> None:
    there, absent = MADE[case]
    text = text_of(paths, "NetworkManager", BONDS[case])
    assert [it for it in there if it not in text] == []
    assert [it for it in absent if it in text] == []


# ---- Single files ------------------------------------------------------------------------------------------------


def one(paths: Paths, overlay: str, path: str, **node: Any) -> File:
    return lay(paths, [overlay], {"n1": node})["n1"][path]


def test_compat_hosts_has_the_aliases_of_localhost(paths: Paths) -> None:
    lines = [line.split() for line in one(paths, "hosts", "etc/hosts").text.splitlines()]
    four = next(line for line in lines if line[:1] == ["127.0.0.1"])
    six = next(line for line in lines if line[:1] == ["::1"])
    assert four[1:] == ["localhost", "localhost.localdomain", "localhost4", "localhost4.localdomain4"]
    assert six[1:5] == ["localhost", "localhost.localdomain", "localhost6", "localhost6.localdomain6"]


@pytest.mark.parametrize("path", ["etc/chrony.conf", "etc/chrony/chrony.conf"])
def test_compat_chrony_takes_drop_ins_of_the_image_and_steps_at_any_time(paths: Paths, path: str) -> None:
    lines = one(paths, "chrony", path).text.splitlines()
    assert {"confdir /etc/chrony.d /etc/chrony/conf.d", "makestep 1.0 -1", "rtcsync", "server 10.0.0.1 iburst"} <= set(
        lines
    )


KERNEL = [
    "rootfs / tmpfs defaults 0 0",
    "devpts /dev/pts devpts gid=5,mode=620 0 0",
    "tmpfs /run/shm tmpfs defaults 0 0",
    "sysfs /sys sysfs defaults 0 0",
    "proc /proc proc defaults 0 0",
]
FSTAB: list[tuple[dict[str, Any], list[str]]] = [
    ({}, []),
    (
        {"filesystems": {"/dev/a": {"format": "ext4", "path": "/a"}, "/dev/b": {"format": "swap"}}},
        ["/dev/a /a ext4 noauto,defaults 0 0", "/dev/b none swap noauto,defaults 0 0"],
    ),
    (
        {"filesystems": {"/dev/a": {"format": "xfs", "path": "/a b", "mount_options": "noatime,nofail"}}},
        ["/dev/a /a\\040b xfs noauto,noatime,nofail 0 0"],
    ),
    ({"filesystems": {"/dev/a": {"format": "ext4", "path": "/"}}}, []),
    ({"filesystems": {"/dev/a": {"format": "ext4"}}}, []),
    ({"filesystems": {"/dev/b": {"format": "swap", "path": "swap"}}}, ["/dev/b swap swap noauto,defaults 0 0"]),
    (
        {"resources": {"fstab": [{"spec": "warewulf:/home", "file": "/home"}]}},
        ["warewulf:/home /home nfs defaults 0 0"],
    ),
]


@pytest.mark.parametrize(("node", "lines"), FSTAB)
def test_compat_fstab_has_the_kernels_file_systems_and_leaves_local_ones_to_units(
    paths: Paths, node: dict[str, Any], lines: list[str]
) -> None:
    text = one(paths, "fstab", "etc/fstab", **node).text
    assert [line for line in text.splitlines() if not line.startswith("#")] == [*KERNEL, *lines]


def test_compat_wwclient_has_an_environment_of_the_image_and_comes_before_who_wants_its_files() -> None:
    unit = (SHARE / "overlays/wwclient/rootfs/etc/systemd/system/wwclient.service").read_text()
    assert "EnvironmentFile=-/etc/default/wwclient\n" in unit
    before = re.findall(r"^Before=(.*)$", unit, re.M)[0].split()
    assert {"sshd.service", "munge.service", "slurmd.service", "systemd-user-sessions.service"} <= set(before)
    assert {"network.target"} <= set(re.findall(r"^After=(.*)$", unit, re.M)[0].split())
