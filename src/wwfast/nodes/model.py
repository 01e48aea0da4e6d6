"""What a node and a profile are: each field declared once.

The class is the schema (wwfast.config.schema): order of fields is the order on disk, the YAML key is the name with
blanks for underscores (partitions and file systems keep the underscores Warewulf gave them). Scalars are text, ""
when unset; lists of text; `*bool` true, false or None. Resolved nodes are frozen and shared between threads: do not
change the lists and maps in them.
"""

# No `from __future__ import annotations`: msgspec reads the annotations of these classes when they are made.

from functools import lru_cache
from typing import Annotated, Any

import msgspec

from wwfast.config import checks, words
from wwfast.config.schema import Doc


def spaced(name: str) -> str:
    return name.replace("_", " ")


class Kernel(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    version: Annotated[
        str,
        Doc(
            "Kernel version, or its beginning, or a path in the image.",
            "kernelversion",
            title="Kernel.Version",
            check=checks.argument,
        ),
    ] = ""
    args: Annotated[
        list[str],
        Doc("Kernel arguments.", "kernelargs", "A", title="Kernel.Args", split=words.arguments, check=checks.argument),
    ] = []
    override: Annotated[
        str,
        Doc(
            "Kernel kept apart from the image (wwfast kernel list).",
            "kerneloverride",
            title="Kernel.Override",
            complete="kernel",
            check=checks.argument,
        ),
    ] = ""


class Ipmi(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    username: Annotated[str, Doc("User name at the BMC.", "ipmiuser", title="Ipmi.UserName")] = ""
    password: Annotated[str, Doc("Password at the BMC.", "ipmipass", title="Ipmi.Password")] = ""
    ipaddr: Annotated[str, Doc("Address of the BMC.", "ipmiaddr", title="Ipmi.Ipaddr", check=checks.host)] = ""
    gateway: Annotated[str, Doc("Gateway of the BMC.", "ipmigateway", title="Ipmi.Gateway", check=checks.host)] = ""
    netmask: Annotated[str, Doc("Netmask of the BMC.", "ipminetmask", title="Ipmi.Netmask", check=checks.mask)] = ""
    port: Annotated[str, Doc("Port of the BMC.", "ipmiport", title="Ipmi.Port", check=checks.port)] = ""
    interface: Annotated[str, Doc("ipmitool's interface: lan, lanplus.", "ipmiinterface", title="Ipmi.Interface")] = ""
    escapechar: Annotated[
        str,
        Doc(
            "Escape character of the serial console.", "ipmiescapechar", title="Ipmi.EscapeChar", check=checks.character
        ),
    ] = ""
    write: Annotated[
        str, Doc("Program the BMC with these values at boot.", "ipmiwrite", title="Ipmi.Write", check=checks.wwbool)
    ] = ""
    template: Annotated[str, Doc("Template of the power commands.", "ipmitemplate", title="Ipmi.Template")] = ""
    tags: Annotated[dict[str, str], Doc("Tags of the BMC: vlan, bit-rate.", "ipmitag", title="Ipmi.Tags")] = {}


class NetDev(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    type: Annotated[str, Doc("Kind of device: ethernet, infiniband, bond, vlan.", "type", "T", title="Type")] = ""
    onboot: Annotated[str, Doc("Bring the device up at boot.", "onboot", title="OnBoot", check=checks.wwbool)] = ""
    device: Annotated[str, Doc("Name of the interface.", "netdev", "N", title="Device", check=checks.interface)] = ""
    hwaddr: Annotated[str, Doc("Hardware (MAC) address.", "hwaddr", "H", title="Hwaddr", check=checks.hwaddr)] = ""
    ipaddr: Annotated[str, Doc("IPv4 address.", "ipaddr", "I", title="Ipaddr", check=checks.host4)] = ""
    netmask: Annotated[str, Doc("Netmask.", "netmask", "M", title="Netmask", check=checks.mask)] = ""
    gateway: Annotated[str, Doc("IPv4 gateway.", "gateway", "G", title="Gateway", check=checks.host4)] = ""
    ipaddr6: Annotated[str, Doc("IPv6 address.", "ipaddr6", title="Ipaddr6", check=checks.host6)] = ""
    prefixlen6: Annotated[str, Doc("IPv6 prefix length.", "prefixlen6", title="PrefixLen6", check=checks.prefix6)] = ""
    gateway6: Annotated[str, Doc("IPv6 gateway.", "gateway6", title="Gateway6", check=checks.host6)] = ""
    mtu: Annotated[str, Doc("Largest packet.", "mtu", title="MTU", check=checks.mtu)] = ""
    tags: Annotated[dict[str, str], Doc("Tags of the device.", "nettag", title="Tags")] = {}
    primary: bool = False
    written: str = ""  # the hardware address, where it was not written as `hwaddr` has it

    def is_called(self, address: str) -> bool:
        """Whether a hardware address, as firmware says it, is that of this device."""
        return self.hwaddr != "" and ethernet(address) == ethernet(self.hwaddr)

    @property
    def ip_cidr(self) -> str:
        """`10.0.0.1/24`; "" when the address or a proper netmask is missing."""
        bits = checks.MASKS.get(self.netmask)
        return f"{self.ipaddr}/{bits}" if bits is not None and self.ipaddr not in ("", "0.0.0.0") else ""

    @property
    def ip_cidr6(self) -> str:
        usable = (
            ":" in self.ipaddr6 and self.ipaddr6.strip(":0") and self.prefixlen6 and not checks.prefix6(self.prefixlen6)
        )
        return f"{self.ipaddr6}/{self.prefixlen6}" if usable else ""


class Partition(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    number: Annotated[
        str,
        Doc("Number of the partition; 0 is the next free one.", "partnumber", title="Number", check=checks.partition),
    ] = ""
    size_mib: Annotated[
        str, Doc("Size in MiB; 0 is all that is left.", "partsize", title="SizeMiB", check=checks.mebibytes)
    ] = ""
    start_mib: Annotated[str, Doc("Start in MiB.", title="StartMiB", check=checks.mebibytes)] = ""
    type_guid: Annotated[str, Doc("GPT type of the partition.", "parttype", title="TypeGuid")] = ""
    guid: Annotated[str, Doc("GPT id of the partition.", title="Guid")] = ""
    wipe_partition_entry: Annotated[
        bool | None, Doc("Overwrite a partition that does not match.", "partwipe", title="WipePartitionEntry")
    ] = None
    should_exist: Annotated[
        bool | None, Doc("Create the partition, or with false delete it.", "partcreate", title="ShouldExist")
    ] = None
    resize: Annotated[bool | None, Doc("Resize the partition if it is smaller.", title="Resize")] = None
    id: str = ""


class Disk(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    wipe_table: Annotated[bool | None, Doc("Overwrite the partition table.", "diskwipe", title="WipeTable")] = None
    partitions: Annotated[
        dict[str, Partition], Doc("Partitions by label.", "part", title="Partitions", names=checks.label)
    ] = {}
    id: str = ""

    @property
    def partition_list(self) -> list[Partition]:
        """By number, unnumbered ones last, then by label."""
        return sorted(
            self.partitions.values(),
            key=lambda it: (not it.number.isdecimal(), int(it.number) if it.number.isdecimal() else 0, it.id),
        )


class FileSystem(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    format: Annotated[str, Doc("File system: ext4, xfs, btrfs, vfat, swap.", "fsformat", title="Format")] = ""
    path: Annotated[str, Doc("Where it is mounted.", "fspath", title="Path")] = ""
    wipe_filesystem: Annotated[
        bool | None, Doc("Make the file system anew at each boot.", "fswipe", title="WipeFileSystem")
    ] = None
    label: Annotated[str, Doc("Label of the file system.", title="Label")] = ""
    uuid: Annotated[str, Doc("UUID of the file system.", title="UUID")] = ""
    options: Annotated[list[str], Doc("Options for mkfs.", title="Options")] = []
    mount_options: Annotated[str, Doc("Options for mount.", title="MountOptions")] = ""
    id: str = ""


class Wwfast(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, rename=spaced):
    """What Warewulf does not know; it passes over the key."""

    two_stage: Annotated[
        str,
        Doc(
            "When the image comes in two stages: auto (unset), always, never.",
            "twostage",
            title="Wwfast.TwoStage",
            check=checks.two_stage,
        ),
    ] = ""
    upper: Annotated[
        str,
        Doc(
            "Where what is written over a root of squashfs or erofs is kept: tmpfs (unset), zram.",
            "upper",
            title="Wwfast.Upper",
            check=checks.upper,
        ),
    ] = ""
    cache: Annotated[
        str,
        Doc(
            "Partition where stage-1 keeps the pieces of images: /dev/..., LABEL=, UUID=.",
            "cache",
            title="Wwfast.Cache",
            check=checks.cache,
        ),
    ] = ""
    disk_root: Annotated[
        str,
        Doc(
            "What becomes of a root on a disk at a boot: rebuild (unset), update with what changed in the image.",
            "diskroot",
            title="Wwfast.DiskRoot",
            check=checks.disk_root,
        ),
    ] = ""


class Node(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, rename=spaced):
    """A node; a profile is the same without its `node_only` fields."""

    discoverable: Annotated[
        str,
        Doc(
            "Take the next unknown hardware address that boots.",
            "discoverable",
            "e",
            title="Discoverable",
            check=checks.wwbool,
            node_only=True,
        ),
    ] = ""
    asset_key: Annotated[
        str,
        Doc(
            "Secret compared with the chassis asset tag.",
            "asset",
            title="AssetKey",
            check=checks.asset_key,
            node_only=True,
        ),
    ] = ""
    profiles: Annotated[
        list[str],
        Doc(
            "Profiles in order; ~name takes one out.",
            "profile",
            "P",
            title="Profiles",
            check=checks.reference,
            complete="profile",
            inherit=False,
        ),
    ] = []
    comment: Annotated[str, Doc("Free text.", "comment", title="Comment", check=checks.note, inherit=False)] = ""
    cluster_name: Annotated[
        str,
        Doc("Group the node is sorted and scheduled with.", "cluster", "c", title="ClusterName", check=checks.argument),
    ] = ""
    groups: Annotated[
        list[str],
        Doc(
            "Groups it is in, named as @GROUP; ~name takes one out.",
            "groups",
            "g",
            title="Groups",
            check=checks.reference,
        ),
    ] = []
    image_name: Annotated[
        str,
        Doc(
            "Operating system image, or NAME@BUILD.",
            "image",
            hidden=("container", "C"),
            title="ImageName",
            complete="image",
            check=checks.image,
        ),
    ] = ""
    ipxe_template: Annotated[str, Doc("Name of the iPXE template.", "ipxe", title="Ipxe", check=checks.argument)] = ""
    runtime_overlay: Annotated[
        list[str],
        Doc(
            "Overlays refreshed while the node runs.",
            "runtime-overlays",
            "R",
            hidden=("runtime",),
            title="RuntimeOverlay",
            check=checks.reference,
            complete="overlay",
        ),
    ] = []
    system_overlay: Annotated[
        list[str],
        Doc(
            "Overlays applied at boot.",
            "system-overlays",
            "O",
            hidden=("wwinit",),
            title="SystemOverlay",
            check=checks.reference,
            complete="overlay",
        ),
    ] = []
    kernel: Annotated[Kernel, Doc("Kernel.", title="Kernel")] = Kernel()
    ipmi: Annotated[Ipmi, Doc("Board management controller.", title="Ipmi")] = Ipmi()
    init: Annotated[str, Doc("Program started as init.", "init", "i", title="Init", check=checks.argument)] = ""
    root: Annotated[
        str,
        Doc(
            "Root file system: initramfs, tmpfs, ramfs, squashfs, erofs or a device.",
            "root",
            title="Root",
            check=checks.root,
        ),
    ] = ""
    wwfast: Annotated[Wwfast, Doc("Settings of wwfast alone.", title="Wwfast")] = Wwfast()
    network_devices: Annotated[
        dict[str, NetDev], Doc("Network devices by name.", "net", title="NetDevs", names=checks.label)
    ] = {}
    tags: Annotated[dict[str, str], Doc("Tags for templates.", "tag", title="Tags")] = {}
    primary_network: Annotated[
        str, Doc("Name of the network device the node boots from.", "primarynet", "p", title="PrimaryNetDev")
    ] = ""
    disks: Annotated[dict[str, Disk], Doc("Disks by device.", "disk", title="Disks")] = {}
    filesystems: Annotated[dict[str, FileSystem], Doc("File systems by device.", "fs", title="FileSystems")] = {}
    resources: Annotated[dict[str, Any], Doc("Any data for templates (edit only).", title="Resources")] = {}
    id: str = ""

    @property
    def primary(self) -> NetDev | None:
        return self.network_devices.get(self.primary_network)

    @property
    def is_discoverable(self) -> bool:
        return truth(self.discoverable)


Profile = Node


def truth(word: str, default: bool = False) -> bool:
    """A WWbool (`discoverable`, `onboot`, `ipmi: write`) as a boolean; `default` is for an empty or odd word.

    The unset words (unset, undef, --, nil ...) are always false, as in Warewulf.
    """
    if word.lower() in checks.UNSET:
        return False
    meant = checks.truth(word)
    return default if meant is None else meant


def mac(text: str) -> str:
    """A hardware address in the one form we compare: lower case, colons."""
    return text.lower().replace("-", ":")


def address(text: str) -> str:
    """An IP address in the one form we compare, which is how sockets say it: IPv6 has many (RFC 5952)."""
    return _address6(text) if ":" in text else text


@lru_cache(4096)
def _address6(text: str) -> str:
    from ipaddress import AddressValueError, IPv6Address  # here: 8 ms that few commands need

    try:
        return str(IPv6Address(text))
    except AddressValueError:
        return text


def ethernet(address: str) -> str:
    """A hardware address in six octets. A port of InfiniBand has a GUID of eight, alone or at the end of twenty; the
    boot code of its cards shows the first three and the last three. Any other address is returned as it is."""
    octets = address.split(":")[-8:]
    return ":".join(octets[:3] + octets[5:]) if len(octets) == 8 else address
