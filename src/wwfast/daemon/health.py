"""What keeps nodes from booting, found before they try: `wwfast doctor` and the start of the server.

Every check returns findings; a finding says what is wrong and the command that mends it.
"""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from wwfast import run
from wwfast.boot import binaries
from wwfast.config.settings import lacking
from wwfast.daemon.addresses import require_range
from wwfast.errors import ConfigError, WwfastError
from wwfast.images import inside
from wwfast.images.kernels import KernelStore, for_node
from wwfast.images.store import ImageStore
from wwfast.overlays.sshkeys import has_host_keys

if TYPE_CHECKING:
    from wwfast.config.settings import Settings
    from wwfast.nodes.model import Node
    from wwfast.nodes.registry import Snapshot
    from wwfast.paths import Paths

ERROR, WARNING = "error", "warning"
GIB = 1 << 30
PROC = Path("/proc")

# A node's boot burst is some dozens of datagrams of DHCP and TFTP; 8 KiB each must fit in the socket's buffer.
RMEM_PER_NODE = 8192
RMEM_ENOUGH = 64 << 20
# Sockets per node while it boots (one HTTP connection, one TFTP transfer), and what the server needs itself.
FILES_PER_NODE, FILES_OWN = 2, 512


@dataclass(frozen=True, slots=True)
class Finding:
    level: str  # ERROR or WARNING
    check: str
    message: str
    fix: str


@dataclass(frozen=True, slots=True)
class Scene:
    """What the checks look at."""

    paths: Paths
    settings: Settings
    snapshot: Snapshot
    proc: Path = PROC
    running: Mapping[str, object] = field(default_factory=dict)  # /status of the server, where one runs


def examine(scene: Scene) -> list[Finding]:
    """All findings, errors first. A check that itself fails becomes a finding."""
    found: list[Finding] = []
    for check in CHECKS:
        try:
            found += check(scene)
        except (OSError, WwfastError) as error:
            found.append(Finding(WARNING, check.__name__, f"could not be checked: {error}", "run it as root"))
    return sorted(found, key=lambda finding: finding.level != ERROR)


def ports(scene: Scene) -> Iterator[Finding]:
    """Ports that another program holds, and which."""
    settings = scene.settings
    wanted = [("tcp", settings.warewulf.port, "HTTP")]
    if settings.tftp.enabled:
        wanted.append(("udp", 69, "TFTP"))
    if settings.dhcp.enabled:
        wanted += [("udp", 67, "DHCP"), ("udp", 4011, "ProxyDHCP")]
    for protocol, port, service in wanted:
        holder = port_holder(protocol, port, scene.proc)
        if holder is not None and not holder.startswith("wwfast"):
            unit = UNITS.get(holder.split("[")[0], holder.split("[")[0])
            yield Finding(
                ERROR,
                "ports",
                f"port {port}/{protocol} ({service}) is in use by {holder}",
                f"systemctl disable --now {unit}"
                + ("  (or set `dhcp: enabled: false` and keep it)" if service.endswith("DHCP") else ""),
            )


UNITS = {
    "dhcpd": "isc-dhcp-server",
    "in.tftpd": "tftpd-hpa",
    "wwctl": "warewulfd",
    "kea-dhcp4": "kea-dhcp4-server",
    "systemd": "tftp.socket",
}


def port_holder(protocol: str, port: int, proc: Path = PROC) -> str | None:
    """`name[pid]` of the process with a socket bound to the port, `?` when it can't be told, None when free."""
    inodes: set[str] = set()
    for table in (protocol, f"{protocol}6"):
        try:
            lines = (proc / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            words = line.split()
            listening = protocol == "udp" or words[3] == "0A"
            if listening and int(words[1].rsplit(":", 1)[1], 16) == port:
                inodes.add(f"socket:[{words[9]}]")
    if not inodes:
        return None
    for pid in (entry for entry in proc.iterdir() if entry.name.isdigit()):
        try:
            for fd in (pid / "fd").iterdir():
                if str(fd.readlink()) in inodes:
                    name = (pid / "comm").read_text().strip()
                    command = (pid / "cmdline").read_bytes().split(b"\0")
                    if any(b"wwfast" in word for word in command[:3]):
                        name = "wwfast"
                    return f"{name}[{pid.name}]"
        except OSError:
            continue
    return "?"


def firewall(scene: Scene) -> Iterator[Finding]:
    """firewalld, ufw, or an nftables input chain that drops by default."""
    port = scene.settings.warewulf.port
    services = f"{port}/tcp, 67/udp, 69/udp, 4011/udp"
    if shutil.which("firewall-cmd") and run.run(["firewall-cmd", "--state"], check=False).returncode == 0:
        ports_open = run.run(["firewall-cmd", "--list-ports"], check=False).stdout.decode().split()
        if f"{port}/tcp" not in ports_open:
            yield Finding(
                WARNING,
                "firewall",
                f"firewalld is on and {services} are not all open",
                f"firewall-cmd --permanent --add-port={port}/tcp --add-service=dhcp --add-service=tftp "
                "--add-port=4011/udp && firewall-cmd --reload",
            )
        return
    if shutil.which("ufw") and b"Status: active" in run.run(["ufw", "status"], check=False).stdout:
        yield Finding(
            WARNING, "firewall", f"ufw is on; nodes need {services}", f"ufw allow {port}/tcp; ufw allow 67,69,4011/udp"
        )
        return
    if shutil.which("nft"):
        rules = run.run(["nft", "list", "ruleset"], check=False).stdout.decode(errors="replace")
        if (
            any("hook input" in line and "policy drop" in line for line in rules.splitlines())
            and str(port) not in rules
        ):
            yield Finding(
                WARNING,
                "firewall",
                f"an nftables input chain drops by default and port {port} is not named in it",
                f"nft add rule inet filter input tcp dport {port} accept; "
                "nft add rule inet filter input udp dport '{67, 69, 4011}' accept",
            )


def ipxe(scene: Scene) -> Iterator[Finding]:
    """The iPXE binaries of `tftp: ipxe`; only x86-64 ones are an error, a cluster may have no arm64 node."""
    if not scene.settings.tftp.enabled:
        return
    found, missing = binaries.find_all(scene.settings.tftp.ipxe, scene.paths.ipxe_source)
    for arch, complaint in missing.items():
        needed = not found or arch in ("00:00", "00:07")
        yield Finding(ERROR if needed else WARNING, "ipxe", complaint, binaries.hint(arch))


def disk(scene: Scene) -> Iterator[Finding]:
    """Room for images and frames: less than 2 GiB is too little for one image."""
    for folder in {scene.paths.state, scene.paths.cache}:
        existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
        free = shutil.disk_usage(existing).free
        if free < 2 * GIB:
            yield Finding(
                WARNING,
                "disk",
                f"{folder}: only {free / GIB:.1f} GiB free",
                "wwfast clean, or move it to a larger disk",
            )


def kernel_limits(scene: Scene) -> Iterator[Finding]:
    """Neighbour table, socket buffers and open files against the number of nodes."""
    nodes = len(scene.snapshot.nodes)
    sysctl = scene.proc / "sys/net"
    threshold = _number(sysctl / "ipv4/neigh/default/gc_thresh3")
    if threshold is not None and nodes * 2 > threshold:
        yield Finding(
            WARNING,
            "neighbours",
            f"gc_thresh3 is {threshold} and there are {nodes} nodes: the neighbour table will overflow",
            f"sysctl -w net.ipv4.neigh.default.gc_thresh3={max(4096, nodes * 4)}",
        )
    rmem = _number(sysctl / "core/rmem_max")
    want = min(max(nodes * RMEM_PER_NODE, 1 << 20), RMEM_ENOUGH)
    if rmem is not None and rmem < want and os.geteuid() != 0:
        yield Finding(
            WARNING,
            "buffers",
            f"rmem_max is {rmem} and {nodes} nodes asking at once want {want}",
            f"sysctl -w net.core.rmem_max={want}",
        )
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if files != resource.RLIM_INFINITY and files < nodes * FILES_PER_NODE + FILES_OWN:
        yield Finding(
            WARNING,
            "files",
            f"at most {files} open files and {nodes} nodes need {nodes * FILES_PER_NODE + FILES_OWN}",
            "start it by its systemd unit (LimitNOFILE=524288), or ulimit -n",
        )


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def images(scene: Scene) -> Iterator[Finding]:
    """Images in use: present, built, and with what wwclient needs (curl and tar)."""
    store = ImageStore(scene.paths)
    used = {node.image_name for node in scene.snapshot.nodes.values() if node.image_name}
    for name in sorted(used):
        try:
            image = store.get(name)
        except WwfastError as error:
            fix = f"wwfast image import SOURCE {name}" if "@" not in name else error.hint or "wwfast image list"
            yield Finding(ERROR, "images", error.message, fix)
            continue
        if image.artefact(image.boot_format) is None:
            yield Finding(ERROR, "images", f"image {name} is not built", f"wwfast image build {name}")
        for tool in ("curl", "tar"):
            if not any(inside.is_file(image.rootfs, f"/{folder}/{tool}") for folder in ("usr/bin", "bin")):
                yield Finding(
                    WARNING,
                    "images",
                    f"image {name} has no {tool}: its nodes get no runtime overlay",
                    f"wwfast image exec {name} -- apt-get install -y {tool}  (or dnf, zypper)",
                )


def kernels(scene: Scene) -> Iterator[Finding]:
    """The kernel of every node: there, and with its modules. Nodes that agree on image and kernel are one finding."""
    images, own = ImageStore(scene.paths), KernelStore(scene.paths)
    known = set(images.names())
    alike: dict[tuple[str, str, str], list[Node]] = {}
    for node in scene.snapshot.nodes.values():
        if node.kernel.override or node.image_name.partition("@")[0] in known:
            alike.setdefault((node.image_name, node.kernel.override, node.kernel.version), []).append(node)
    for nodes in alike.values():
        try:
            for_node(nodes[0], images, own)
        except WwfastError as error:
            more = f" (and {len(nodes) - 1} more nodes)" if len(nodes) > 1 else ""
            yield Finding(ERROR, "kernels", f"{error.message}{more}", error.hint or "wwfast image kernels")


def keys(scene: Scene) -> Iterator[Finding]:
    """The host keys that the nodes' overlay brings: an image from a container has none of its own."""
    if has_host_keys(scene.paths, scene.settings.ssh.key_types):
        return
    nodes = [
        node.id
        for node in scene.snapshot.nodes.values()
        if "ssh.host_keys" in (*node.system_overlay, *node.runtime_overlay)
    ]
    if nodes:
        message = f"no SSH host keys for the nodes in {scene.paths.etc / 'keys'}: sshd does not start on them"
        yield Finding(WARNING, "keys", message, "wwfast configure ssh")


def unserved(scene: Scene) -> Iterator[Finding]:
    """What warewulf.conf asks for and does not get: that must not be found out when it is needed."""
    for key, lack in lacking(scene.settings):
        yield Finding(WARNING, "settings", f"{scene.paths.conf} sets {key}, but {lack}", "take it out, or go without")


def service(scene: Scene) -> Iterator[Finding]:
    """What does not work in the server that runs: it goes on as well as it can, and tells."""
    troubles = scene.running.get("troubles")
    for name, trouble in troubles.items() if isinstance(troubles, dict) else ():
        message = f"the running server: {name} fails ({trouble['count']} times): {trouble['error']}"
        yield Finding(ERROR, "service", message, "journalctl -u wwfast")
    if error := scene.running.get("registry error"):
        message = f"the running server goes on with the last good nodes.conf: {error}"
        yield Finding(ERROR, "service", message, "wwfast node edit")


def registry(scene: Scene) -> Iterator[Finding]:
    for problem in scene.snapshot.problems:
        level = ERROR if problem.fatal else WARNING
        yield Finding(level, "nodes.conf", f"{problem.kind} {problem.id}: {problem.message}", "wwfast node edit")


def dhcp(scene: Scene) -> Iterator[Finding]:
    """DHCP starts only where the admin wrote the network down."""
    settings = scene.settings
    missing = [key for key in ("ipaddr", "network") if not settings.is_written(key)]
    if settings.dhcp.enabled and missing:
        yield Finding(
            WARNING,
            "dhcp",
            f"{scene.paths.conf} does not name {' and '.join(missing)}: DHCP will not start",
            "write them down, or set `dhcp: enabled: false` if another server gives the addresses",
        )
    if settings.dhcp.enabled:
        try:
            require_range(settings, scene.paths)
        except ConfigError as error:
            yield Finding(ERROR, "dhcp", f"{error.message}: the server will not start", error.hint or "")


Check = Callable[[Scene], Iterable[Finding]]
CHECKS: tuple[Check, ...] = (
    service,
    ports,
    dhcp,
    ipxe,
    firewall,
    disk,
    kernel_limits,
    images,
    kernels,
    keys,
    registry,
    unserved,
)
