"""Two network namespaces and a link of a given rate between them: the head node's side and the nodes' side."""

from __future__ import annotations

import itertools
import os
import signal
import time
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

from wwfast.system.run import Argv, Done, Process, run, start

SERVER = "10.210.0.1"
GATEWAY = "10.210.0.2"  # stands for the nodes' side in the server's routes
NODES = IPv4Network("10.211.0.0/16")
RELAY = "10.211.255.254"  # through which the nodes ask for their addresses
#: Of whoever sends. What the distribution chose may pace each segment by a timer (bbr): any server sent half as much
#: then. And without such a word a slow connection is sent segments in pairs, which costs a machine that has to play
#: thousands more than all else. Where there is no way to go cubic does what reno does (RFC 9438, 4.3).
SENDING = ("net.ipv4.tcp_congestion_control=reno", "net.ipv4.tcp_min_tso_segs=22")
_serial = itertools.count()


def source(index: int, network: IPv4Network | IPv6Network = NODES) -> str:
    """The address of node `index`, from 0."""
    return str(network[index + 1])


def sources(count: int) -> list[str]:
    """The addresses of so many."""
    return [source(index) for index in range(count)]


class Link:
    """A context manager. `rate` is bits per second towards the nodes (tbf), or None for an unshaped link.

    Needs root. Inside is nothing but this link: no traffic can leave it.
    """

    def __init__(self, rate: float | None = None) -> None:
        tag = f"{os.getpid()}-{next(_serial)}"
        self.server, self.nodes = f"wwstorm-s{tag}", f"wwstorm-n{tag}"
        self.rate = rate

    def __enter__(self) -> Link:
        try:
            for name in (self.server, self.nodes):
                run(["ip", "netns", "add", name], package="iproute2")
                run(["ip", "-netns", name, "link", "set", "lo", "up"])
            run(["ip", "-netns", self.server, "link", "add", "s0", "type", "veth", "peer", "name", "n0"])
            run(["ip", "-netns", self.server, "link", "set", "n0", "netns", self.nodes])
            run(["ip", "-netns", self.server, "address", "add", f"{SERVER}/24", "dev", "s0"])
            run(["ip", "-netns", self.server, "link", "set", "s0", "up"])
            run(["ip", "-netns", self.nodes, "link", "set", "n0", "up"])
            # Every address of NODES is the simulator's own; the server sees them behind one neighbour.
            run(["ip", "-netns", self.nodes, "route", "add", "local", str(NODES), "dev", "lo"])
            run(["ip", "-netns", self.nodes, "route", "add", f"{SERVER}/32", "dev", "n0"])
            run(["ip", "-netns", self.server, "route", "add", str(NODES), "dev", "s0", "via", GATEWAY, "onlink"])
            known(self.server, "s0", GATEWAY, self.nodes, "n0")
            known(self.nodes, "n0", SERVER, self.server, "s0")
            shaped(self.server, "s0", self.rate)
            sending(self.server)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def serve(self, argv: Argv, **options: Any) -> Process:
        """Start a command on the head node's side."""
        return start(["ip", "netns", "exec", self.server, *argv], **options)

    def play(self, argv: Argv, **options: Any) -> Process:
        """Start a command on the nodes' side."""
        return start(["ip", "netns", "exec", self.nodes, *argv], **options)

    def run(self, argv: Argv, **options: Any) -> Done:
        """Run a command on the head node's side to its end."""
        return run(["ip", "netns", "exec", self.server, *argv], **options)

    def close(self) -> None:
        """End what still runs inside, remove both namespaces."""
        close(self.server, self.nodes)


def known(namespace: str, device: str, address: str, far: str, end: str) -> None:
    """Have a device know which neighbour an address is: the device `end` of the namespace `far`."""
    out = run(["ip", "-netns", far, "-brief", "link", "show", end]).stdout.decode()
    run(["ip", "-netns", namespace, "neighbour", "replace", address, "lladdr", out.split()[2], "dev", device])


def sending(namespace: str) -> None:
    """Have all that is sent from there be sent by SENDING, whatever this machine chose."""
    run(["ip", "netns", "exec", namespace, "sysctl", "-qw", *SENDING], package="procps")


def shaped(namespace: str, device: str, rate: float | None) -> None:
    """Let a device send so many bits a second, or what it can."""
    if rate:
        # The burst must hold one 64 KiB segment of TSO; the limit is 20 ms of queue.
        shape = ["rate", f"{rate:.0f}bit", "burst", "256kb", "latency", "20ms"]
        run(["tc", "-netns", namespace, "qdisc", "add", "dev", device, "root", "tbf", *shape])


def close(*namespaces: str) -> None:
    """End what runs in them, and remove them."""
    for name in namespaces:
        if not Path("/run/netns", name).exists():
            continue
        deadline = time.monotonic() + 10
        while (pids := run(["ip", "netns", "pids", name]).stdout.split()) and time.monotonic() < deadline:
            for pid in pids:
                try:
                    os.kill(int(pid), signal.SIGKILL)
                except ProcessLookupError:
                    pass
            time.sleep(0.05)
        run(["ip", "netns", "delete", name])
