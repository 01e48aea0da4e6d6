"""The structs of nodes and settings under the names and types they have in Warewulf's Go templates: a closed list."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
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
Kind = Callable[[str], Member]
Word.METHODS = {
    "Bool": lru_cache(256)(lambda text: truth(text)),
    "BoolDefaultTrue": lru_cache(256)(lambda text: truth(text, default=True)),
}
# Our names of fields that are not Go's in lower case.
SPELLED = {
    **{name + end: field for end in ("", "P") for name, field in {
        "WipeTable": "wipe_table", "WipePartitionEntry": "wipe_partition_entry", "ShouldExist": "should_exist",
        "Resize": "resize", "WipeFileSystem": "wipe_filesystem",
    }.items()},
    "IpCIDR": "ip_cidr", "IpCIDR6": "ip_cidr6", "SizeMiB": "size_mib", "StartMiB": "start_mib",
    "TypeGuid": "type_guid", "MountOptions": "mount_options", "PartitionList": "partition_list",
    "ExportOptions": "export_options", "ExportsExtended": "export_paths", "KeyTypes": "key_types",
    "RangeStart": "range_start", "RangeEnd": "range_end", "Range6Start": "range6_start", "Range6End": "range6_end",
    "SystemdName": "systemd_name", "TLSPort": "tls_port", "TLSEnabled": "tls", "SecureFiles": "files_secured",
    "UpdateInterval": "update_interval", "AutobuildOverlays": "autobuild_overlays",
    "EnableHostOverlay": "host_overlay", "IpxeBinaries": "ipxe",
}  # fmt: skip
JSON = {"OnBoot": "onbot"}  # and there where encoding/json has another


def members(**kinds: Kind) -> dict[str, Member]:
    """Fields and methods of a struct, in Go's order, by what each is."""
    return {name: kind(SPELLED.get(name, name.lower())) for name, kind in kinds.items()}


def keys(names: Iterable[str], *methods: str) -> tuple[tuple[str, str], ...]:
    """Names of encoding/json for the fields among these."""
    return tuple((name, JSON.get(name) or SPELLED.get(name, name.lower())) for name in names if name not in methods)


def plain(name: str) -> Member:
    """Text, number or yes and no as it is."""
    return attrgetter(name)


def ip(name: str) -> Member:
    return lambda raw: address(getattr(raw, name))


word_of = lru_cache(256)(Word)  # there are few


def word(name: str) -> Member:
    return lambda raw: word_of(getattr(raw, name))


def flag(name: str) -> Member:
    """A yes/no that may be unset, which Go has as a pointer under a name with a P."""
    return lambda raw: FLAGS[getattr(raw, name)]


def says(name: str) -> Member:
    """The method beside it: unset is no."""
    return lambda raw: bool(getattr(raw, name))


def several(raw: Any) -> Strings:
    return Strings(raw) or NoStrings()


def texts(name: str) -> Member:
    return lambda raw: several(getattr(raw, name))


def tags(name: str) -> Member:
    return lambda raw: StringMap(getattr(raw, name))


class Named(StructMap):
    """A map of structs, which `index` gives a nil pointer of where there is no such key."""

    to: str = "*struct"


def named(kind: type[Struct]) -> Kind:
    made = type(f"{kind.__name__}s", (Named,), {"to": "*" + kind.GO})
    return lambda name: lambda raw: made((key, kind(item)) for key, item in getattr(raw, name).items())


def listed(kind: type[Struct]) -> Kind:
    return lambda name: lambda raw: [kind(each) for each in getattr(raw, name)]


class Kernel(Struct):
    __slots__ = ()
    GO = "node.KernelConf"
    MEMBERS: ClassVar[Mapping[str, Member]] = members(Version=plain, Args=texts)
    KEYS = keys(MEMBERS)


class Ipmi(Struct):
    __slots__ = ()
    GO = "node.IpmiConf"
    MEMBERS: ClassVar[Mapping[str, Member]] = members(
        UserName=plain, Password=plain, Ipaddr=ip, Gateway=ip, Netmask=ip, Port=plain, Interface=plain,
        EscapeChar=plain, Write=word, Template=plain, Tags=tags,
    )  # fmt: skip
    KEYS = keys(MEMBERS)


class NetDev(Struct):
    __slots__ = ()
    GO = "node.NetDev"
    MEMBERS: ClassVar[Mapping[str, Member]] = members(
        Type=plain, OnBoot=word, Device=plain, Hwaddr=plain, Ipaddr=ip, Netmask=ip, Gateway=ip, Ipaddr6=ip,
        PrefixLen6=plain, Gateway6=ip, MTU=plain, Tags=tags, Primary=plain, IpCIDR=plain, IpCIDR6=plain,
    )  # fmt: skip
    KEYS = keys(MEMBERS, "Primary", "IpCIDR", "IpCIDR6")


class TopNetDev(NetDev):
    """As the top level has it: a copy that has lost what is not exported."""

    __slots__ = ()
    MEMBERS: ClassVar[Mapping[str, Member]] = {**NetDev.MEMBERS, "Primary": lambda raw: False}


class Partition(Struct):
    __slots__ = ()
    GO = "node.Partition"
    MEMBERS: ClassVar[Mapping[str, Member]] = members(
        Id=plain, Number=plain, SizeMiB=plain, StartMiB=plain, TypeGuid=plain, Guid=plain, WipePartitionEntryP=flag,
        ShouldExistP=flag, ResizeP=flag, WipePartitionEntry=says, ShouldExist=says, Resize=says,
    )  # fmt: skip
    KEYS = keys(MEMBERS, "Id", "WipePartitionEntry", "ShouldExist", "Resize")


class Disk(Struct):
    __slots__ = ()
    GO = "node.Disk"
    MEMBERS: ClassVar[Mapping[str, Member]] = members(
        Id=plain, WipeTableP=flag, Partitions=named(Partition), PartitionList=listed(Partition), WipeTable=says
    )
    KEYS = keys(MEMBERS, "Id", "PartitionList", "WipeTable")


class FileSystem(Struct):
    __slots__ = ()
    GO = "node.FileSystem"
    MEMBERS: ClassVar[Mapping[str, Member]] = members(
        Id=plain, Format=plain, Path=plain, WipeFileSystemP=flag, Label=plain, Uuid=plain, Options=texts,
        MountOptions=plain, WipeFileSystem=says,
    )  # fmt: skip
    KEYS = keys(MEMBERS, "Id", "WipeFileSystem")


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


def section(name: str, **kinds: Kind) -> type[Section]:
    return type(name, (Section,), {"__slots__": (), "GO": f"config.{name}", "MEMBERS": members(**kinds)})


def or_server(name: str) -> Member:
    return lambda raw: getattr(raw, name) or "warewulfd"


PATHS = (
    "Bindir", "Sysconfdir", "Localstatedir", "Cachedir", "Ipxesource", "Srvdir", "Firewallddir", "Systemddir",
    "Datadir", "WWOverlaydir", "WWChrootdir", "WWProvisiondir", "WWClientdir", "WWFilesdir",
)  # fmt: skip
Export = section("NFSExport", Path=plain, ExportOptions=plain)
SECTIONS: dict[str, tuple[str, type[Section]]] = {
    "Dhcp": ("dhcp", section(
        "DHCPConf", Enabled=plain, Template=plain, RangeStart=plain, RangeEnd=plain, Range6Start=plain,
        Range6End=plain, SystemdName=plain,
    )),
    "Nfs": ("nfs", section("NFSConf", Enabled=plain, ExportsExtended=listed(Export), SystemdName=plain)),
    "Ssh": ("ssh", section("SSHConf", KeyTypes=texts)),
    "Warewulf": ("warewulf", section(
        "WarewulfConf", Port=plain, TLSPort=plain, Secure=plain, SecureFiles=plain, TLSEnabled=plain,
        UpdateInterval=plain, AutobuildOverlays=plain, EnableHostOverlay=plain, GrubBoot=plain, SystemdName=or_server,
    )),
    "Tftp": ("tftp", section("TFTPConf", Enabled=plain, TftpRoot=plain, SystemdName=plain, IpxeBinaries=tags)),
    "Paths": ("paths", section("BuildConfig", **dict.fromkeys(PATHS, plain))),
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
