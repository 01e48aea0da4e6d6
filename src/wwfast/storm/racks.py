"""Racks in namespaces: each a router that is a cache, too, and nodes behind a link of a given rate; one to the head.

    heads ---- a link each ---- core ---- rack's cache and router ---- rack's link ---- nodes of the rack

Needs root. Nothing leaves these namespaces.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from ipaddress import IPv4Network
from pathlib import Path
from types import TracebackType
from typing import Any

from wwfast.errors import WwfastError
from wwfast.storm.link import close, known, sending, shaped
from wwfast.system.run import Argv, Done, Process, run, start, stop

HEADS = IPv4Network("10.210.0.0/16")  # a /30 for each head: its address and the core's
UPLINKS = IPv4Network("10.212.0.0/16")  # a /30 for each rack: the core's address and its cache's
NODES = IPv4Network("10.213.0.0/16").network_address  # a /24 for each rack
CACHE_PORT = 9880
MOST = 250  # nodes of a rack
_serial = itertools.count()


class Rack:
    """`cache` is the address of its cache, `network` that of its nodes."""

    def __init__(self, number: int, tag: str) -> None:
        self.number = number
        self.router, self.nodes = f"wwrack-c{number}-{tag}", f"wwrack-n{number}-{tag}"
        self.core, self.cache = (str(UPLINKS[4 * number + at]) for at in (1, 2))
        self.network = IPv4Network((int(NODES) + 256 * number, 24))

    @property
    def url(self) -> str:
        return f"http://{self.cache}:{CACHE_PORT}"

    def play(self, argv: Argv, **options: Any) -> Process:
        """Start a command among its nodes."""
        return start(["ip", "netns", "exec", self.nodes, *argv], **options)


class Place:
    """Where a head is: a namespace with one link, s0."""

    def __init__(self, number: int, tag: str) -> None:
        self.number = number
        self.name = f"wwrack-s{number}-{tag}"
        self.address, self.core = (str(HEADS[4 * number + at]) for at in (1, 2))

    def serve(self, argv: Argv, **options: Any) -> Process:
        """Start a command there."""
        return start(["ip", "netns", "exec", self.name, *argv], **options)

    def run(self, argv: Argv, **options: Any) -> Done:
        """Run a command there to its end."""
        return run(["ip", "netns", "exec", self.name, *argv], **options)


class Fabric:
    """A context manager: namespaces of `heads`, a core, `count` racks. Rates in bits a second, towards the nodes."""

    def __init__(self, count: int, head_rate: float | None, rack_rate: float | None, heads: int = 1) -> None:
        tag = f"{os.getpid()}-{next(_serial)}"
        self.heads = [Place(number, tag) for number in range(heads)]
        self.core = f"wwrack-x{tag}"
        self.racks = [Rack(number, tag) for number in range(count)]
        self._rates = head_rate, rack_rate
        self._caches = ExitStack()

    def __enter__(self) -> Fabric:
        try:
            self._make()
        except BaseException:
            self.close()
            raise
        return self

    def _make(self) -> None:
        for name in self._names:
            run(["ip", "netns", "add", name], package="iproute2")
            run(["ip", "-netns", name, "link", "set", "lo", "up"])
        routers = [rack.router for rack in self.racks]
        for name in (self.core, *routers):
            run(["ip", "netns", "exec", name, "sysctl", "-qw", "net.ipv4.ip_forward=1"], package="procps")
        for name in (*(head.name for head in self.heads), *routers):
            sending(name)
        head_rate, rack_rate = self._rates
        for head in self.heads:
            _join((head.name, "s0", f"{head.address}/30"), (self.core, f"s{head.number}", f"{head.core}/30"))
            run(["ip", "-netns", head.name, "route", "add", "default", "via", head.core])
            shaped(head.name, "s0", head_rate)
        for rack in self.racks:
            up, inner = f"r{rack.number}", str(rack.network[254])
            _join((self.core, up, f"{rack.core}/30"), (rack.router, "uplink", f"{rack.cache}/30"))
            _join((rack.router, "downlink", f"{inner}/32"), (rack.nodes, "n0", None))
            run(["ip", "-netns", self.core, "route", "add", str(rack.network), "via", rack.cache])
            run(["ip", "-netns", rack.router, "route", "add", "default", "via", rack.core])
            # Behind one neighbour, as all of them count for the table of this machine's kernel (gc_thresh3, 1,024).
            gateway = str(rack.network[253])
            to_nodes = ["route", "add", str(rack.network), "dev", "downlink", "via", gateway, "onlink"]
            run(["ip", "-netns", rack.router, *to_nodes])
            known(rack.router, "downlink", gateway, rack.nodes, "n0")
            known(rack.nodes, "n0", inner, rack.router, "downlink")
            run(["ip", "-netns", rack.nodes, "route", "add", "local", str(rack.network), "dev", "lo"])
            run(["ip", "-netns", rack.nodes, "route", "add", f"{inner}/32", "dev", "n0"])
            run(["ip", "-netns", rack.nodes, "route", "add", "default", "via", inner, "dev", "n0", "onlink"])
            shaped(rack.router, "downlink", rack_rate)

    @property
    def _names(self) -> list[str]:
        heads = (head.name for head in self.heads)
        return [*heads, self.core, *(each for rack in self.racks for each in (rack.router, rack.nodes))]

    def sent(self) -> int:
        """Bytes that the links of heads have carried towards the racks."""
        return sum(int(head.run(["cat", "/sys/class/net/s0/statistics/tx_bytes"]).stdout) for head in self.heads)

    def silence(self, number: int) -> None:
        """Nothing of a head goes on, and nothing comes to it: neither answers nor errors, as behind a cut link."""
        head = self.heads[number]
        run(["ip", "-netns", self.core, "rule", "add", "from", head.address, "blackhole"])
        run(["ip", "-netns", self.core, "rule", "add", "to", head.address, "blackhole"])

    def cache(self, rack: Rack, place: Path, conf: str) -> None:
        """nginx as the cache of a rack; what it has lies below `place`."""
        (place / "kept").mkdir(parents=True)
        file = place / "nginx.conf"
        file.write_text(conf)
        words = ["nginx", "-c", str(file), "-p", str(place), "-g", "daemon off; user root;"]
        with (place / "nginx.log").open("wb") as log:
            process = start(["ip", "netns", "exec", rack.router, *words], stderr=log, package="nginx")
        self._caches.callback(stop, process)
        listening: list[str | Path] = ["ip", "netns", "exec", rack.router, "ss", "-Hltn", f"sport = :{CACHE_PORT}"]
        deadline = time.monotonic() + 20
        while not run(listening).stdout.strip():
            if process.poll() is not None or time.monotonic() > deadline:
                raise WwfastError(f"the cache of rack {rack.number} did not start: {(place / 'nginx.log').read_text()}")
            time.sleep(0.02)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._caches.close()
        close(*self._names)


def _join(one: tuple[str, str, str | None], other: tuple[str, str, str | None]) -> None:
    """A veth pair: (namespace, device, address/bits) at both ends."""
    (space, device, _), (far, end, _) = one, other
    run(["ip", "-netns", space, "link", "add", device, "type", "veth", "peer", "name", end, "netns", far])
    for name, link, address in (one, other):
        if address is not None:
            run(["ip", "-netns", name, "address", "add", address, "dev", link])
        run(["ip", "-netns", name, "link", "set", link, "up"])


def shares(count: int, racks: Sequence[Rack]) -> list[int]:
    """How many of `count` nodes each rack has. Raises WwfastError where they do not fit."""
    even, more = divmod(count, len(racks))
    found = [even + (number < more) for number in range(len(racks))]
    if found[0] > MOST:
        raise WwfastError(f"{count} nodes are more than {len(racks)} racks of {MOST} have", hint="--racks MORE")
    return found
