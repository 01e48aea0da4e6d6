"""The demo as root: a Debian 12 image, wwfast in a namespace, one machine from power-on to login."""

from __future__ import annotations

import shutil
import time
from contextlib import ExitStack, nullcontext
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from wwfast.boot.stages import Stage
from wwfast.demo import debian
from wwfast.demo.cluster import IMAGE, KERNEL, Cluster
from wwfast.demo.netns import NETNS, Namespace
from wwfast.demo.show import command, short, step, tell, timeline
from wwfast.demo.vm import DEAD, LOGIN, Vm
from wwfast.errors import WwfastError

NODE = "n1"
PATIENCE = 420.0  # seconds for a boot on a machine without KVM that is busy with other things
SETTLE = 60.0  # seconds from the login to the first runtime overlay
LOOK = 0.25  # seconds between two looks at /status


def run(console: Console) -> None:
    """Boot one machine and tell about it. Raises WwfastError when it does not come up or leaves something behind."""
    console.print("wwfast demo: one machine boots in a network of its own; nothing reaches the network of this host\n")
    with step(console, "Debian 12 tree (the first time: about a minute, and a network)"):
        tree = debian.tree()
    with ExitStack() as locks, Namespace(label="demo") as network:
        root = debian.cache() / "demo" / tree.rootfs.parent.name
        locks.enter_context(debian.locked(root.with_suffix(".lock")))
        cluster = Cluster(root, network, tree)
        with step(console, f"image {IMAGE}, kernel {KERNEL} and node {NODE} in {short(cluster.root)}"):
            prepare(cluster)
        try:
            with step(console, f"wwfast server on {network.server} in namespace {network.name}"):
                cluster.serve()
            with cluster.machine(NODE, 1, firmware="uefi") as vm:
                console.print(f"  power on: UEFI, {vm.memory} MiB, console in {short(vm.log)}\n", soft_wrap=True)
                seconds = follow(console, cluster, vm)
                console.print(f"\nlogin {seconds:.0f} s after power-on; inside the machine:")
                vm.wait_ssh()
                for words in ("hostname", "uname -r", "systemctl is-active wwclient"):
                    console.print(f"  $ {words:<29} {vm.ssh(words, check=False).strip()}", markup=False)
            command(console, "wwfast node status", cluster.wwfast("node", "status", check=False).stdout)
        finally:
            cluster.stop()
        left = network.pids()
    if left or (NETNS / network.name).exists():
        raise WwfastError(f"namespace {network.name} was not empty at the end: processes {left}")
    console.print("\nmachine, server and namespace are gone again")


def prepare(cluster: Cluster) -> None:
    """Everything is made anew, as on a new head node; only the Debian tree is kept from one demo to the next."""
    shutil.rmtree(cluster.root, ignore_errors=True)
    cluster.configure()
    cluster.make_keys()
    cluster.populate()
    cluster.wwfast("profile", "set", "default", "--kerneloverride", KERNEL, "--yes")
    cluster.add_node(NODE, 1)


def follow(console: Console, cluster: Cluster, vm: Vm) -> float:
    """Show the boot until the machine asks for a login and has its runtime overlay; seconds to the login."""
    powered = time.time()
    login: float | None = None
    told = 0
    entry: dict[str, Any] = {"stage": ""}
    live = Live(console=console, refresh_per_second=4) if console.is_terminal else nullcontext()
    with live as screen:
        while login is None or entry["stage"] != Stage.RUNTIME:
            time.sleep(LOOK)
            entry = cluster.status(NODE)
            seconds = time.time() - powered
            if login is None and vm.shows(LOGIN):
                login = seconds
            if screen is not None:
                state = f"login after {login:.0f} s, waiting for wwclient" if login else f"{seconds:.0f} s"
                last = Text(f"{state}  {last_line(vm)}", style="dim", no_wrap=True, overflow="ellipsis")
                screen.update(Group(timeline(entry, powered), last))
            else:
                told = tell(console, entry, powered, told)
            if vm.shows(DEAD) or seconds > (PATIENCE if login is None else login + SETTLE):
                vm.wait(LOGIN, timeout=0)  # tells why it did not come
                raise WwfastError(f"{NODE} has a login but is at {entry['stage']}: {entry.get('error', 'no error')}")
    return login


def last_line(vm: Vm) -> str:
    """What the machine wrote last, without the control sequences of a console."""
    last = next((text for text in reversed(vm.console().splitlines()) if text.strip()), "")
    return "".join(char for char in last if char.isprintable())[-100:]
