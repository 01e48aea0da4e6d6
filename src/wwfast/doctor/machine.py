"""Whether this machine has the addresses of warewulf.conf, and is large enough: disk, neighbours, buffers, files."""

from __future__ import annotations

import os
import re
import resource
import shutil
from collections.abc import Iterator
from ipaddress import IPv6Address
from pathlib import Path

from wwfast.config import checks
from wwfast.doctor.finding import ERROR, WARNING, Finding, Scene
from wwfast.net.dhcp.network import NONE

GIB = 1 << 30
LOCAL = re.compile(r"\|-- (\S+)\n(?:\s+/\d+ .*\n)*?\s+/32 host LOCAL")  # in a table of routes of the kernel
# A node's boot burst is some dozens of datagrams of DHCP and TFTP; 8 KiB each must fit in the socket's buffer.
RMEM_PER_NODE = 8192
RMEM_ENOUGH = 64 << 20
# Sockets per node while it boots (one HTTP connection, one TFTP transfer), and what the server needs itself.
FILES_PER_NODE, FILES_OWN = 2, 512


def address(scene: Scene) -> Iterator[Finding]:
    """Nothing listens on an address that no interface has. A site below --root may be another machine's."""
    settings, conf = scene.settings, scene.paths.conf
    if scene.paths.root != Path("/"):
        return
    local = LOCAL.findall((scene.proc / "net/fib_trie").read_text())
    served = settings.tftp.enabled or settings.dhcp.enabled  # HTTP listens on all there are
    if served and not checks.host4(settings.ipaddr) and settings.ipaddr not in (*NONE, *local):
        why = f"ipaddr of {conf}, {settings.ipaddr}, is no address of this machine: the server will not start"
        yield Finding(ERROR, "ipaddr", why, "see the addresses: ip -br address; set ipaddr right")
    table = scene.proc / "net/if_inet6"
    if settings.ipaddr6 and table.exists():
        mine = {line.split()[0] for line in table.read_text().splitlines()}
        if IPv6Address(settings.ipaddr6).packed.hex() not in mine:
            why = f"ipaddr6 of {conf}, {settings.ipaddr6}, is no address of this machine: nobody is served by it"
            yield Finding(WARNING, "ipaddr", why, "see the addresses: ip -br address; set ipaddr6 right")


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
