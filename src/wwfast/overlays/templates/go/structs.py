"""The structs of nodes and settings under the names and types they have in Warewulf's Go templates: a closed list."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, ClassVar

from wwfast.nodes.model import truth
from wwfast.overlays.templates.go.values import (
    FLAGS,
    NoStrings,
    StringMap,
    Strings,
    Struct,
    StructMap,
    Word,
    address,
)

Member = Callable[[Any], Any]
Word.METHODS = {
    "Bool": lambda text: truth(text),
    "BoolDefaultTrue": lambda text: truth(text, default=True),
}


def plain(name: str) -> Member:
    """Text, number or yes and no as it is."""
    return attrgetter(name)


def ip(name: str) -> Member:
    return lambda raw: address(getattr(raw, name))


def word(name: str) -> Member:
    return lambda raw: Word(getattr(raw, name))


def flag(name: str) -> Member:
    """A yes/no that may be unset, which Go has as a pointer under a name with a P."""
    return lambda raw: FLAGS[getattr(raw, name)]


def says(name: str) -> Member:
    """The method beside it: unset is no."""
    return lambda raw: bool(getattr(raw, name))


def keys(*names: str, **others: str) -> tuple[tuple[str, str], ...]:
    """Names of encoding/json, in the order of Go's structs: mostly the same in lower case."""
    return (*((name, name.lower()) for name in names), *others.items())


def several(raw: Any) -> Strings:
    return Strings(raw) or NoStrings()


def texts(name: str) -> Member:
    return lambda raw: several(getattr(raw, name))


def tags(name: str) -> Member:
    return lambda raw: StringMap(getattr(raw, name))


def struct(name: str, kind: type[Struct]) -> Member:
    return lambda raw: kind(getattr(raw, name))


class Named(StructMap):
    """A map of structs, which `index` gives a nil pointer of where there is no such key."""

    to: str = "*struct"


def named(name: str, kind: type[Struct]) -> Member:
    made = type(f"{kind.__name__}s", (Named,), {"to": "*" + kind.GO})
    return lambda raw: made((key, kind(item)) for key, item in getattr(raw, name).items())


class Kernel(Struct):
    __slots__ = ()
    GO = "node.KernelConf"
    MEMBERS: ClassVar[Mapping[str, Member]] = {"Version": plain("version"), "Args": texts("args")}
    KEYS = keys(*MEMBERS)


class Ipmi(Struct):
    __slots__ = ()
    GO = "node.IpmiConf"
    MEMBERS: ClassVar[Mapping[str, Member]] = {
        "UserName": plain("username"),
        "Password": plain("password"),
        "Ipaddr": ip("ipaddr"),
        "Gateway": ip("gateway"),
        "Netmask": ip("netmask"),
        "Port": plain("port"),
        "Interface": plain("interface"),
        "EscapeChar": plain("escapechar"),
        "Write": word("write"),
        "Template": plain("template"),
        "Tags": tags("tags"),
    }
    KEYS = keys(*MEMBERS)


class NetDev(Struct):
    __slots__ = ()
    GO = "node.NetDev"
    MEMBERS: ClassVar[Mapping[str, Member]] = {
        "Type": plain("type"),
        "OnBoot": word("onboot"),
        "Device": plain("device"),
        "Hwaddr": plain("hwaddr"),
        "Ipaddr": ip("ipaddr"),
        "Netmask": ip("netmask"),
        "Gateway": ip("gateway"),
        "Ipaddr6": ip("ipaddr6"),
        "PrefixLen6": plain("prefixlen6"),
        "Gateway6": ip("gateway6"),
        "MTU": plain("mtu"),
        "Tags": tags("tags"),
        "Primary": plain("primary"),
        "IpCIDR": plain("ip_cidr"),
        "IpCIDR6": plain("ip_cidr6"),
    }
    KEYS = (
        *keys("Type", OnBoot="onbot"),
        *keys("Device", "Hwaddr", "Ipaddr", "Netmask", "Gateway", "Ipaddr6", "PrefixLen6", "Gateway6", "MTU", "Tags"),
    )


class TopNetDev(NetDev):
    """As the top level has it: a copy that has lost what is not exported."""

    __slots__ = ()
    MEMBERS: ClassVar[Mapping[str, Member]] = {**NetDev.MEMBERS, "Primary": lambda raw: False}


class Partition(Struct):
    __slots__ = ()
    GO = "node.Partition"
    MEMBERS: ClassVar[Mapping[str, Member]] = {
        "Id": plain("id"),
        "Number": plain("number"),
        "SizeMiB": plain("size_mib"),
        "StartMiB": plain("start_mib"),
        "TypeGuid": plain("type_guid"),
        "Guid": plain("guid"),
        "WipePartitionEntry": says("wipe_partition_entry"),
        "WipePartitionEntryP": flag("wipe_partition_entry"),
        "ShouldExist": says("should_exist"),
        "ShouldExistP": flag("should_exist"),
        "Resize": says("resize"),
        "ResizeP": flag("resize"),
    }
    KEYS = keys(
        "Number",
        SizeMiB="size_mib",
        StartMiB="start_mib",
        TypeGuid="type_guid",
        Guid="guid",
        WipePartitionEntryP="wipe_partition_entry",
        ShouldExistP="should_exist",
        ResizeP="resize",
    )


class Disk(Struct):
    __slots__ = ()
    GO = "node.Disk"
    MEMBERS: ClassVar[Mapping[str, Member]] = {
        "Id": plain("id"),
        "WipeTable": says("wipe_table"),
        "WipeTableP": flag("wipe_table"),
        "Partitions": named("partitions", Partition),
        "PartitionList": lambda raw: [Partition(each) for each in raw.partition_list],
    }
    KEYS = keys(WipeTableP="wipe_table", Partitions="partitions")


class FileSystem(Struct):
    __slots__ = ()
    GO = "node.FileSystem"
    MEMBERS: ClassVar[Mapping[str, Member]] = {
        "Id": plain("id"),
        "Format": plain("format"),
        "Path": plain("path"),
        "WipeFileSystem": says("wipe_filesystem"),
        "WipeFileSystemP": flag("wipe_filesystem"),
        "Label": plain("label"),
        "Uuid": plain("uuid"),
        "Options": texts("options"),
        "MountOptions": plain("mount_options"),
    }
    KEYS = (
        *keys("Format", "Path", WipeFileSystemP="wipe_filesystem"),
        *keys("Label", "Uuid", "Options", MountOptions="mount_options"),
    )


def without_id(kind: type[Struct]) -> type[Struct]:
    return type(f"Top{kind.__name__}", (kind,), {"__slots__": (), "MEMBERS": {**kind.MEMBERS, "Id": lambda raw: ""}})


TopDisk, TopFileSystem = without_id(Disk), without_id(FileSystem)


def fresh(value: Any) -> Any:
    """Plain data for one run: `set` changes maps in place."""
    if isinstance(value, dict):
        return {str(key): fresh(item) for key, item in value.items()}
    if isinstance(value, list):
        return [fresh(item) for item in value]
    return str(value) if isinstance(value, str) and type(value) is not str else value


class NetDevs(Named):
    to = "*" + NetDev.GO


class Disks(Named):
    to = "*" + Disk.GO


class FileSystems(Named):
    to = "*" + FileSystem.GO


class Shared:
    """The same for many nodes, where no template changes it: resources mostly come from a profile, so they are one."""

    MOST = 4096

    def __init__(self) -> None:
        self._made: dict[int, tuple[Any, Any]] = {}  # by identity, with what keeps it

    def resources(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        return {key: self._one(item) for key, item in raw.items()}

    def _one(self, item: Any) -> Any:
        if not isinstance(item, dict | list):
            return fresh(item)
        known = self._made.get(id(item))
        if known is None:
            if len(self._made) >= self.MOST:
                self._made.clear()
            known = self._made[id(item)] = (item, fresh(item))
        return known[1]


# Fields of a node: its name in Go, the field of ours, and what is made of it.
NODE: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "Discoverable": ("discoverable", Word),
    "AssetKey": ("asset_key", str),
    "Profiles": ("profiles", several),
    "Comment": ("comment", str),
    "ClusterName": ("cluster_name", str),
    "ImageName": ("image_name", str),
    "ContainerName": ("image_name", str),
    "Ipxe": ("ipxe_template", str),
    "RuntimeOverlay": ("runtime_overlay", several),
    "SystemOverlay": ("system_overlay", several),
    "Kernel": ("kernel", Kernel),
    "Ipmi": ("ipmi", Ipmi),
    "Init": ("init", str),
    "Root": ("root", str),
    "NetDevs": ("network_devices", lambda raw: NetDevs((key, NetDev(item)) for key, item in raw.items())),
    "Tags": ("tags", StringMap),
    "PrimaryNetDev": ("primary_network", str),
    "Disks": ("disks", lambda raw: Disks((key, Disk(item)) for key, item in raw.items())),
    "FileSystems": ("filesystems", lambda raw: FileSystems((key, FileSystem(item)) for key, item in raw.items())),
    "Resources": ("resources", fresh),
    "Id": ("id", str),
    "DiskList": ("disks", lambda raw: [Disk(raw[name]) for name in sorted(raw)]),
    "FileSystemList": ("filesystems", lambda raw: [FileSystem(raw[name]) for name in sorted(raw)]),
}
# Those of encoding/json: names in Go, and keys.
NODE_KEYS = tuple(
    (name, field.replace("_", " "))
    for name, (field, _) in NODE.items()
    if name not in ("ContainerName", "Id", "DiskList", "FileSystemList")
)
# The top level has a copy of the node, and names of its own.
TOP: dict[str, tuple[str, Callable[[Any], Any]]] = {
    **{name: pair for name, pair in NODE.items() if name not in ("DiskList", "FileSystemList")},
    "NetDevs": ("network_devices", lambda raw: NetDevs((key, TopNetDev(item)) for key, item in raw.items())),
    "Disks": ("disks", lambda raw: Disks((key, TopDisk(item)) for key, item in raw.items())),
    "FileSystems": ("filesystems", lambda raw: FileSystems((key, TopFileSystem(it)) for key, it in raw.items())),
    "Hostname": ("id", str),
    "Container": ("image_name", str),
}


class Section(Struct):
    """A section of warewulf.conf."""

    __slots__ = ()


def section(name: str, **members: Member) -> type[Section]:
    return type(name, (Section,), {"__slots__": (), "GO": f"config.{name}", "MEMBERS": members})


Export = section("NFSExport", Path=plain("path"), ExportOptions=plain("export_options"))
SECTIONS: dict[str, tuple[str, type[Section]]] = {
    "Dhcp": (
        "dhcp",
        section(
            "DHCPConf",
            Enabled=plain("enabled"),
            Template=plain("template"),
            RangeStart=plain("range_start"),
            RangeEnd=plain("range_end"),
            Range6Start=plain("range6_start"),
            Range6End=plain("range6_end"),
            SystemdName=plain("systemd_name"),
        ),
    ),
    "Nfs": (
        "nfs",
        section(
            "NFSConf",
            Enabled=plain("enabled"),
            ExportsExtended=lambda raw: [Export(each) for each in raw.export_paths],
            SystemdName=plain("systemd_name"),
        ),
    ),
    "Ssh": ("ssh", section("SSHConf", KeyTypes=texts("key_types"))),
    "Warewulf": (
        "warewulf",
        section(
            "WarewulfConf",
            Port=plain("port"),
            TLSPort=plain("tls_port"),
            Secure=plain("secure"),
            SecureFiles=lambda raw: raw.secure if raw.secure_files is None else raw.secure_files,
            TLSEnabled=plain("tls"),
            UpdateInterval=plain("update_interval"),
            AutobuildOverlays=plain("autobuild_overlays"),
            EnableHostOverlay=plain("host_overlay"),
            GrubBoot=plain("grubboot"),
            SystemdName=lambda raw: raw.systemd_name or "warewulfd",
        ),
    ),
    "Tftp": (
        "tftp",
        section(
            "TFTPConf",
            Enabled=plain("enabled"),
            TftpRoot=plain("tftproot"),
            SystemdName=plain("systemd_name"),
            IpxeBinaries=tags("ipxe"),
        ),
    ),
    "Paths": (
        "paths",
        section(
            "BuildConfig",
            **{
                name: plain(name.lower())
                for name in (
                    "Bindir", "Sysconfdir", "Localstatedir", "Cachedir", "Ipxesource", "Srvdir", "Firewallddir",
                    "Systemddir", "Datadir", "WWOverlaydir", "WWChrootdir", "WWProvisiondir", "WWClientdir",
                    "WWFilesdir",
                )
            },
        ),
    ),
}  # fmt: skip
SERVER: dict[str, str] = {
    "BuildHost": "build_host",
    "BuildTime": "build_time",
    "BuildTimeUnix": "build_time_unix",
    "Ipaddr": "ipaddr",
    "IpCIDR": "ip_cidr",
    "Netmask": "netmask",
    "Network": "network",
    "NetworkCIDR": "network_cidr",
    "Ipaddr6": "ipaddr6",
    "PrefixLen6": "prefixlen6",
    "IpCIDR6": "ip_cidr6",
    "Network6": "network6",
    "NetworkCIDR6": "network_cidr6",
    "Ipv6": "ipv6",
}
TEMPLATE: dict[str, str] = {"BuildSource": "build_source", "Overlay": "overlay"}
