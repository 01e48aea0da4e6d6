"""Whether this machine is large enough: disk, neighbour table, buffers, open files."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

from wwfast.doctor.finding import WARNING, Finding, Scene

GIB = 1 << 30
# A node's boot burst is some dozens of datagrams of DHCP and TFTP; 8 KiB each must fit in the socket's buffer.
RMEM_PER_NODE = 8192
RMEM_ENOUGH = 64 << 20
# Sockets per node while it boots (one HTTP connection, one TFTP transfer), and what the server needs itself.
FILES_PER_NODE, FILES_OWN = 2, 512


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
