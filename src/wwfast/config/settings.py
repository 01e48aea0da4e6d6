"""warewulf.conf: every key declared once, with its default; addresses derived as Warewulf derives them.

Attributes are the YAML keys with `_` for blanks. wwfast's own settings stand under the key `wwfast`. Unknown keys are
kept in the file and reported as warnings; wrong values are errors with file, line and key.
"""

# No `from __future__ import annotations`: msgspec reads the annotations of these classes when they are made.

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import field

from wwfast.config import checks, former, yaml
from wwfast.config.schema import Cleaner, Doc, Kind, fields, shape
from wwfast.errors import ConfigError
from wwfast.paths import Paths
from wwfast.system import settled

log = logging.getLogger(__name__)


def spaced(name: str) -> str:
    return name.replace("_", " ")


class Section(msgspec.Struct, frozen=True, rename=spaced):
    """A section: an absent key keeps its default, so does an absent or empty section."""


# What settings lack that Warewulf has.
NO_DHCP6 = "DHCP is IPv4 only"
NO_API = "there is no API"


class Warewulf(Section, frozen=True):
    port: Annotated[int, Doc("Port of the HTTP server.", check=checks.port)] = 9873
    tls_port: Annotated[int, Doc("Port of the HTTPS server.", check=checks.port)] = 9874
    secure: Annotated[bool, Doc("Give runtime overlays only to source ports below 1024.")] = True
    secure_files: Annotated[bool | None, Doc("The same for /files/; unset: as `secure`.")] = None
    tls: Annotated[
        bool,
        Doc("Serve HTTPS; runtime overlays then only over it.", lacks="TLS is not served: no start"),
    ] = False
    update_interval: Annotated[
        int, Doc("Seconds between two fetches of the runtime overlay by a node; 0: 300.", check=checks.seconds)
    ] = 60
    autobuild_overlays: Annotated[bool, Doc("Build overlays when they are asked for.")] = True
    host_overlay: Annotated[
        bool, Doc("Whether `configure` writes the files of the host overlay on this server (/etc/hosts always).")
    ] = True
    grubboot: Annotated[
        bool,
        Doc("Boot by shim and GRUB instead of iPXE.", lacks="nodes get iPXE, which Secure Boot refuses"),
    ] = False
    systemd_name: Annotated[str, Doc("Unit that `configure warewulfd` starts; unset: wwfast.")] = ""

    @property
    def files_secured(self) -> bool:
        return self.secure if self.secure_files is None else self.secure_files


class Api(Section, frozen=True):
    enabled: Annotated[bool, Doc("Serve the API below /api/.", lacks=NO_API)] = False
    tls: Annotated[bool, Doc("Refuse the API over plain HTTP.", lacks=NO_API)] = False
    allowed_subnets: Annotated[list[str], Doc("Networks that may use the API.", check=checks.cidr, lacks=NO_API)] = (
        field(default_factory=lambda: ["127.0.0.0/8", "::1/128"])
    )


class Dhcp(Section, frozen=True):
    enabled: Annotated[bool, Doc("Serve DHCP.")] = True
    template: Annotated[
        str,
        Doc(
            "Informational: nodes get the addresses of nodes.conf, as with `static`.",
            lacks="nodes get the addresses of nodes.conf whatever it says",
        ),
    ] = "default"
    range_start: Annotated[str, Doc("First address of the pool.", check=checks.ip4)] = ""
    range_end: Annotated[str, Doc("Last address of the pool.", check=checks.ip4)] = ""
    range6_start: Annotated[str, Doc("First IPv6 address of the pool.", check=checks.ip6, lacks=NO_DHCP6)] = ""
    range6_end: Annotated[str, Doc("Last IPv6 address of the pool.", check=checks.ip6, lacks=NO_DHCP6)] = ""
    systemd_name: Annotated[str, Doc("Unit of an external DHCP server, for `configure dhcp`.")] = "dhcpd"


# DHCP option 93 (architecture) -> iPXE binary, relative to `paths: ipxesource`.
IPXE = {
    "00:00": "undionly.kpxe",
    "00:07": "ipxe-snponly-x86_64.efi",
    "00:09": "ipxe-snponly-x86_64.efi",
    "00:0B": "arm64-efi/snponly.efi",
}


class Tftp(Section, frozen=True):
    enabled: Annotated[bool, Doc("Serve TFTP.")] = True
    tftproot: Annotated[
        str,
        Doc(
            "Directory of an external TFTP server.",
            check=checks.absolute,
            lacks="nothing is copied there",
        ),
    ] = ""
    systemd_name: Annotated[
        str, Doc("Unit of an external TFTP server.", lacks="nothing starts it: TFTP is in the server")
    ] = "tftp"
    ipxe: Annotated[
        dict[str, str],
        Doc("iPXE binary by client architecture (DHCP option 93).", names=checks.architecture, check=checks.line),
    ] = field(default_factory=IPXE.copy)


class Export(Section, frozen=True):
    path: Annotated[str, Doc("Directory to export.", check=checks.absolute)] = ""
    export_options: Annotated[str, Doc("Options of the export.")] = "rw,sync,no_subtree_check"


class Nfs(Section, frozen=True):
    enabled: Annotated[bool, Doc("Export directories by NFS.")] = True
    export_paths: Annotated[list[Export], Doc("What to export.")] = []
    systemd_name: Annotated[str, Doc("Unit of the NFS server, for `configure nfs`.")] = "nfsd"


class Ssh(Section, frozen=True):
    key_types: Annotated[list[str], Doc("Types of the host keys to make.", check=checks.key_type)] = field(
        default_factory=lambda: ["ed25519", "ecdsa", "rsa"]
    )


class Mount(Section, frozen=True):
    source: Annotated[str, Doc("Path on this server.", check=checks.absolute)] = ""
    dest: Annotated[str, Doc("Path in the image.", check=checks.absolute)] = ""
    readonly: Annotated[bool, Doc("Mount read-only.")] = False
    options: Annotated[
        str, Doc("Options of the mount.", lacks="there is `readonly` and `copy`, and no other option")
    ] = ""
    copy: Annotated[bool, Doc("Copy instead of mounting.")] = False


def place(help: str, lacks: str = "") -> Doc:
    return Doc(help, check=checks.absolute, lacks=lacks)


def unread(help: str) -> Doc:
    return place(help, "nothing is read or written there")


class Locations(Section, frozen=True):
    bindir: Annotated[str, unread("Informational.")] = "/usr/bin"
    sysconfdir: Annotated[str, place("Holds warewulf/nodes.conf.")] = "/etc"
    localstatedir: Annotated[str, unread("Informational.")] = "/var/lib"
    cachedir: Annotated[str, place("Holds wwfast's caches.")] = "/var/cache"
    ipxesource: Annotated[str, place("iPXE binaries; unset: searched where distributions put them.")] = ""
    srvdir: Annotated[str, unread("Informational.")] = "/var/lib"
    firewallddir: Annotated[str, unread("Informational.")] = "/usr/lib/firewalld/services"
    systemddir: Annotated[str, unread("Informational.")] = "/usr/lib/systemd/system"
    datadir: Annotated[str, unread("Informational.")] = "/usr/share"
    wwoverlaydir: Annotated[str, place("Site overlays of an existing Warewulf (read only).")] = (
        "/var/lib/warewulf/overlays"
    )
    wwchrootdir: Annotated[str, place("Images of an existing Warewulf (read only).")] = "/var/lib/warewulf/chroots"
    wwprovisiondir: Annotated[str, unread("Never touched.")] = "/var/lib/warewulf/provision"
    wwclientdir: Annotated[str, unread("Directory of the client on nodes.")] = "/warewulf"
    wwfilesdir: Annotated[str, place("What /files/ serves.")] = "/var/lib/warewulf/files"


class Client(Section, frozen=True):
    port: Annotated[int, Doc("Fixed source port of wwclient; 0: a range below 1024.", check=checks.port_or_none)] = 0


class Cache(Section, frozen=True):
    url: Annotated[str, Doc("http://ADDRESS:PORT, as nodes reach it.", check=checks.cache_url)] = ""
    networks: Annotated[list[str], Doc("Networks of the nodes that it is near to.", check=checks.cidr)] = []
    tags: Annotated[dict[str, str], Doc("Tags of the nodes that it is near to.", check=checks.line)] = {}
    rate: Annotated[
        int, Doc("Mbit/s of its link to the nodes: so many fetch at once as fill it; 0: all.", check=checks.megabits)
    ] = 0


class Own(Section, frozen=True):
    """wwfast's own settings; Warewulf ignores them."""

    history: Annotated[
        int, Doc("How many former versions of nodes.conf `wwfast undo` can go back.", check=checks.versions)
    ] = 32
    include: Annotated[
        list[str], Doc("Files of this server, by full path, that templates may include.", check=checks.absolute)
    ] = []
    ignore_go_templates: Annotated[
        bool, Doc("Use wwfast's overlay where the site's copy of it has Go templates (.ww).")
    ] = False
    overlays_aside: Annotated[
        list[str],
        Doc(
            "Overlays of an existing Warewulf that are not looked at: wwfast's own of that name serve.",
            check=checks.name,
        ),
    ] = []
    template_seconds: Annotated[
        int, Doc("CPU seconds that the templates of one node may take.", check=checks.positive)
    ] = 10
    template_memory: Annotated[
        int, Doc("MiB of memory that the templates of one node may take.", check=checks.positive)
    ] = 512
    template_output: Annotated[int, Doc("MiB that one template may write for one node.", check=checks.positive)] = 64
    download_order: Annotated[
        str,
        Doc("`wave`: nodes are served a few at a time, in order; `fair`: all at once.", check=checks.download_order),
    ] = "wave"
    proxy_dhcp: Annotated[
        bool, Doc("Another server gives the addresses: add only the boot files (ProxyDHCP, ports 67 and 4011).")
    ] = False
    dhcp_relays: Annotated[
        list[str],
        Doc(
            "Addresses of DHCP relays that send from ports of their own and say so (RFC 8357); "
            "those that send from port 67 need no mention.",
            check=checks.ip4,
        ),
    ] = []
    boot_phase: Annotated[
        int,
        Doc(
            "Minutes after the last stage of a boot until the node's system overlay is closed by itself; its first "
            "runtime overlay closes it at once.",
            check=checks.positive,
        ),
    ] = 30
    kernel_modules: Annotated[
        str,
        Doc(
            "`booted`: images are built with the modules of their default kernel and those that nodes ask for; "
            "`all`: with those of every kernel.",
            check=checks.kernel_modules,
        ),
    ] = "booted"
    stage1_infiniband: Annotated[bool, Doc("Drivers of InfiniBand in stage-1 as well, beside all of ethernet.")] = False
    image_size: Annotated[
        int, Doc("Bytes an import may unpack, holes of files not counted.", check=checks.positive)
    ] = 512 << 30
    image_entries: Annotated[int, Doc("Entries an import may unpack.", check=checks.positive)] = 5_000_000
    image_headers: Annotated[
        int, Doc("Bytes of names and attributes one entry of an archive may have.", check=checks.positive)
    ] = 16 << 20
    image_depth: Annotated[int, Doc("Directories below each other an import may unpack.", check=checks.positive)] = 500
    image_ratio: Annotated[
        int,
        Doc("Bytes one byte of a compressed archive may unpack to, beyond the first GiB.", check=checks.positive),
    ] = 200
    client_rate: Annotated[int, Doc("Bytes a second to one node at most; 0: no limit. Some network cards hang.")] = 0
    caches: Annotated[
        list[Cache],
        Doc("Caches in the racks (`wwfast cache nginx`), from which nodes fetch kernels, stage-1 and images."),
    ] = []
    heads: Annotated[
        list[str],
        Doc(
            "Addresses of all heads, this one and those that follow it (ADDRESS or ADDRESS:PORT), the same in the "
            "warewulf.conf of each: nodes know them all, and the range of DHCP is divided among them.",
            check=checks.head,
        ),
    ] = []
    follow_port: Annotated[
        int, Doc("Port on which a head answers those that follow it, if it has a key for that.", check=checks.port)
    ] = 9875
    connections: Annotated[int, Doc("HTTP connections open at once at most.", check=checks.positive)] = 50_000


RESOLV = Mount(source="/etc/resolv.conf", dest="/etc/resolv.conf", readonly=True)


class Conf(Section, frozen=True):
    """What warewulf.conf says, and what follows from it: plain data, so templates may see it."""

    comment: Annotated[str, Doc("Free text.", check=checks.note)] = ""
    ipaddr: Annotated[str, Doc("Address of this server on the cluster network.", check=checks.address)] = ""
    netmask: Annotated[str, Doc("Netmask of the cluster network.", check=checks.mask)] = ""
    network: Annotated[str, Doc("Address of the cluster network.", check=checks.ip4)] = ""
    fqdn: Annotated[
        str, Doc("Name of this server in its certificate.", check=checks.hostname, lacks="TLS is not served")
    ] = ""
    ipaddr6: Annotated[str, Doc("IPv6 address of this server.", check=checks.cidr6)] = ""
    prefixlen6: Annotated[str, Doc("IPv6 prefix length.", check=checks.prefix6)] = ""
    warewulf: Annotated[Warewulf, Doc("The HTTP server.")] = Warewulf()
    api: Annotated[Api, Doc("The API.")] = Api()
    dhcp: Annotated[Dhcp, Doc("DHCP.")] = Dhcp()
    tftp: Annotated[Tftp, Doc("TFTP.")] = Tftp()
    nfs: Annotated[Nfs, Doc("NFS.")] = Nfs()
    ssh: Annotated[Ssh, Doc("SSH host keys.")] = Ssh()
    image_mounts: Annotated[list[Mount], Doc("What `image exec` and `image shell` mount into an image.")] = field(
        default_factory=lambda: [RESOLV]
    )
    paths: Annotated[Locations, Doc("Where files are.")] = Locations()
    wwclient: Annotated[Client, Doc("The client on nodes.")] = Client()
    wwfast: Annotated[Own, Doc("wwfast's own settings.")] = Own()

    @property
    def own_dhcp(self) -> bool:
        """Whether it is our DHCP that gives nodes their addresses."""
        return self.dhcp.enabled and not self.wwfast.proxy_dhcp

    @property
    def network_cidr(self) -> str:
        return cidr(self.network, self.netmask)

    @property
    def ip_cidr(self) -> str:
        return cidr(self.ipaddr, self.netmask)

    @property
    def ip_cidr6(self) -> str:
        return f"{self.ipaddr6}/{self.prefixlen6}" if self.ipv6 else ""

    @property
    def network6(self) -> str:
        return self.network_cidr6.partition("/")[0]

    @property
    def network_cidr6(self) -> str:
        from ipaddress import IPv6Network

        return str(IPv6Network(self.ip_cidr6, strict=False)) if self.ipv6 else ""

    @property
    def ipv6(self) -> bool:
        return bool(self.ipaddr6 and self.prefixlen6)


class Settings(Conf, frozen=True):
    """With what the program knows beside it: where its files are, what the file itself says and what is odd in it."""

    locations: Paths = Paths.at()
    written: frozenset[str] = frozenset()
    warnings: tuple[str, ...] = ()

    def is_written(self, key: str) -> bool:
        """Whether the file itself says `key` (`ipaddr`, `dhcp.range start`), and not a default or a derivation."""
        return key in self.written

    @property
    def conf(self) -> Conf:
        return Conf(**{name: getattr(self, name) for name in Conf.__struct_fields__})


def cidr(address: str, netmask: str) -> str:
    bits = checks.MASKS.get(netmask)
    return f"{address}/{bits}" if address and bits is not None else ""


def lacking(now: msgspec.Struct, before: msgspec.Struct | None = None, above: str = "") -> Iterator[tuple[str, str]]:
    """Settings that a file changes and that do not have their whole effect: (`warewulf: tls`, what it lacks)."""
    kind = type(now)
    for key, spec in fields(kind).items():
        mine, default = getattr(now, spec.attr), getattr(before or kind(), spec.attr)
        if spec.kind is Kind.STRUCT:
            yield from lacking(mine, default, f"{above}{key}: ")
        elif spec.kind is Kind.ITEMS:
            yield from dict.fromkeys(found for item in mine for found in lacking(item, None, f"{above}{key}: "))
        elif spec.doc.lacks and mine != default:
            yield above + key, spec.doc.lacks


def load(paths: Paths) -> Settings:
    """Read `paths.conf`; an absent file is all defaults. Raises ConfigError naming file, line and key."""
    try:
        data = settled.read(paths.conf)
    except FileNotFoundError:
        data = b""
    except OSError as error:
        raise ConfigError(f"{paths.conf}: {error.strerror}") from error
    return parse(data, paths)


def parse(data: bytes, paths: Paths) -> Settings:
    """Settings from the text of warewulf.conf; `paths` names it in messages and is the base of `locations`."""
    name = str(paths.conf)
    tree = yaml.load(data, name)
    if tree is not None and not isinstance(tree, dict):
        raise ConfigError(f"{name}: must be a map of keys, not {shape(tree)}")
    cleaner = Cleaner()
    clean = cleaner.struct(tree or {}, fields(Settings), ())
    positions = yaml.Positions(data)
    said = [
        (issue, f"{name}:{positions.line(issue.path)}: {issue}{former.hint(issue.path)}") for issue in cleaner.issues
    ]
    wrong = [text for issue, text in said if issue.fatal or not issue.message.startswith("unknown key")]
    if wrong:
        raise ConfigError("\n".join(wrong), hint=f"correct {name}; `wwfast genconfig man` lists every key")
    warnings = tuple(text for _, text in said)
    for text in warnings:
        log.warning("%s", text)
    values = derive(dict(clean))
    if not values.get("tftp", {}).get("ipxe", True):
        values["tftp"] = {key: value for key, value in values["tftp"].items() if key != "ipxe"}
    settings: Settings = msgspec.convert(values, Settings)
    if not all(cache.url for cache in settings.wwfast.caches):
        raise ConfigError(f"{name}: wwfast.caches: a cache has no url", hint="url: http://ADDRESS:PORT")
    return msgspec.structs.replace(
        settings,
        locations=locate(settings, paths),
        written=frozenset(written(tree or {})),
        warnings=warnings,
    )


def written(tree: Any, above: str = "") -> list[str]:
    found: list[str] = []
    for key, value in tree.items():
        if value is not None and value != "":
            found.append(above + key)
            if isinstance(value, dict):
                found += written(value, f"{above}{key}.")
    return found


def derive(values: dict[str, Any]) -> dict[str, Any]:
    """What the addresses imply: `ipaddr` in CIDR form gives netmask and network, a netmask gives the network."""
    bare, _, bits = values.get("ipaddr", "").partition("/")
    if bare:
        values["ipaddr"] = bare
        netmask = next(mask for mask, length in checks.MASKS.items() if length == int(bits)) if bits else ""
        values["netmask"] = values.get("netmask") or netmask
        mask = netmask or values["netmask"]
        if mask in checks.MASKS and not values.get("network"):
            pairs = zip(bare.split("."), mask.split("."), strict=True)
            values["network"] = ".".join(str(int(a) & int(b)) for a, b in pairs)
    bare, _, bits = values.get("ipaddr6", "").partition("/")
    if bare:
        from ipaddress import IPv6Address  # here: 2 ms that few sites need

        values["ipaddr6"] = str(IPv6Address(bare))
        values["prefixlen6"] = bits or values.get("prefixlen6", "")
    return values


def locate(settings: Settings, paths: Paths) -> Paths:
    """Paths after the `paths:` section; what is not written there stays where `paths` has it."""
    default, said = Locations(), settings.paths

    def below(path: str) -> Path:
        absolute = Path(path)
        return absolute if absolute.is_relative_to(paths.root) else paths.root / absolute.relative_to("/")

    places = {
        "etc": (said.sysconfdir, default.sysconfdir, "warewulf"),
        "cache": (said.cachedir, default.cachedir, "wwfast"),
        "warewulf_overlays": (said.wwoverlaydir, default.wwoverlaydir, ""),
        "warewulf_chroots": (said.wwchrootdir, default.wwchrootdir, ""),
        "warewulf_files": (said.wwfilesdir, default.wwfilesdir, ""),
        "ipxe_source": (said.ipxesource, default.ipxesource, ""),
    }
    # Empty is as good as not written, as for every key.
    changes = {name: below(path) / rest for name, (path, usual, rest) in places.items() if path not in ("", usual)}
    moved = paths.with_(**changes) if changes else paths
    aside = tuple(settings.wwfast.overlays_aside)
    return replace(moved, overlays_aside=aside) if aside != moved.overlays_aside else moved
