"""The demo without root: the same server and the same chain on a loopback port, booted by simulated nodes."""

from __future__ import annotations

import json
import random
import shutil
import socket
import sys
import time
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from wwfast.boot.stages import Stage
from wwfast.demo import debian
from wwfast.demo.cluster import KERNEL, Cluster
from wwfast.demo.netns import Loopback
from wwfast.demo.show import command, short, step, timeline
from wwfast.errors import WwfastError
from wwfast.storm.plan import Plan, hwaddr
from wwfast.storm.play import SCRIPT

IMAGE = "simulated"
NODES = 8
EVERY = (Stage.KERNEL, Stage.IMAGE, Stage.KMODS, Stage.SYSTEM, Stage.RUNTIME)
RELEASE = "6.1.0-1-demo"
IMAGE_BYTES = 64 << 20
KERNEL_BYTES = 8 << 20
MODULE_BYTES = 8 << 20


def run(console: Console) -> None:
    """Boot NODES simulated nodes and tell about it. Raises WwfastError when one of them does not get everything."""
    console.print("wwfast demo: not root, so no machine can be booted (sudo make demo boots one);")
    console.print(f"instead {NODES} simulated nodes go the same way over real sockets on a loopback port\n")
    network = Loopback()
    root = debian.cache() / "demo/simulated"
    shutil.rmtree(root, ignore_errors=True)
    tree = debian.Tree(root / "tree", Path())
    cluster = Cluster(root, network, tree, free_port())
    with step(console, f"image {IMAGE}, kernel {KERNEL} and {NODES} nodes in {short(root)}"):
        make_tree(tree.rootfs)
        prepare(cluster)
    try:
        with step(console, f"wwfast server on {network.server}:{cluster.port}"):
            cluster.serve()
        powered = time.time()
        seconds = boot(cluster)
        console.print(f"\n{NODES} nodes up {seconds:.1f} s after power-on; the boot of the first one:\n")
        console.print(timeline(cluster.status("s1"), powered))
        command(console, "wwfast node status", cluster.wwfast("node", "status", check=False).stdout)
    finally:
        cluster.stop()
    console.print("\nthe server is gone again")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((Loopback.server, 0))
        port: int = probe.getsockname()[1]
    return port


def make_tree(tree: Path) -> None:
    """A stand-in for an image: a kernel, modules, and files that compress about as well as a system does."""
    noise = random.Random(1)
    for name, size in {
        f"boot/vmlinuz-{RELEASE}": KERNEL_BYTES,
        f"lib/modules/{RELEASE}/kernel/demo.ko": MODULE_BYTES,
        **{f"usr/lib/file{number:03}": IMAGE_BYTES // 64 for number in range(64)},
    }.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(noise.randbytes(size // 2) + bytes(size - size // 2))
    (tree / f"boot/config-{RELEASE}").write_text("CONFIG_RD_ZSTD=y\nCONFIG_RD_GZIP=y\n")
    for name in ("bin/sh", "sbin/init", "usr/bin/curl", "usr/bin/tar"):
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
        path.chmod(0o755)


def prepare(cluster: Cluster) -> None:
    # Ports below 1024 and DHCP need root; everything else is as on a real network.
    cluster.configure(
        warewulf={"port": cluster.port, "secure": False}, dhcp={"enabled": False}, tftp={"enabled": False}
    )
    cluster.populate(IMAGE)
    cluster.wwfast("profile", "set", "default", "--kerneloverride", KERNEL, "--yes")
    for index in range(NODES):
        address = f"10.77.0.{11 + index}"
        cluster.wwfast("node", "add", f"s{index + 1}", "--hwaddr", hwaddr(index), "--ipaddr", address, "--yes")


def boot(cluster: Cluster) -> float:
    """Play the nodes in a process of their own; the seconds until the last one is up."""
    plan = Plan(Loopback.server, cluster.port, NODES, [SCRIPT], own_addresses=False, checked=1.0)
    argv = [sys.executable, "-m", "wwfast.storm"]
    begin = time.monotonic()
    done = cluster.network.run(argv, input=json.dumps(asdict(plan)).encode(), timeout=120)
    records = json.loads(done.stdout.splitlines()[-1])["records"]
    for record in records:
        lacking = [stage.label for stage in EVERY if stage not in record["done"]]
        if record["failure"] or lacking:
            why = record["failure"] or f"it never got {', '.join(lacking)}"
            raise WwfastError(f"{record['name']} did not come up: {why}")
    return time.monotonic() - begin
