"""A rack: a machine of its own on the network of a laboratory, with an unmodified nginx as its cache."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.patience import until
from wwfast.demo.cluster import Cluster
from wwfast.demo.netns import Namespace
from wwfast.system.run import run

PORT = 9880


class Rack:
    """`number` of a rack, whose cache has address .<2 + number>."""

    def __init__(self, network: Namespace, number: int) -> None:
        self.network = network
        self.name = f"{network.name}-r{number}"
        self.address = f"{network.server.rpartition('.')[0]}.{2 + number}"
        self.url = f"http://{self.address}:{PORT}"
        self.nginx: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Rack:
        run(["ip", "netns", "add", self.name])
        near, far = f"r{self.address.rpartition('.')[2]}", "eth0"
        self.network.ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", self.name)
        self.network.ip("link", "set", near, "master", "br0", "up")
        self.ip("address", "add", f"{self.address}/24", "dev", far)
        self.ip("link", "set", far, "up")
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        run(["ip", "netns", "delete", self.name])

    def ip(self, *words: str) -> None:
        run(["ip", "-netns", self.name, *words])

    def start(self, site: Cluster, place: Path) -> None:
        """nginx with what `wwfast cache nginx` writes; it keeps what it has below `place`."""
        (place / "kept").mkdir(parents=True, exist_ok=True)
        site.wwfast("cache", "nginx", self.url, "--into", place, "--directory", place / "kept")
        words = ["nginx", "-c", place / "nginx.conf", "-p", place, "-g", "daemon off; user root;"]
        log = place / "nginx.log"
        with log.open("ab") as out:
            self.nginx = subprocess.Popen(["ip", "netns", "exec", self.name, *words], stderr=out)
        until((place / "nginx.pid").exists, 20, log.read_text)

    def stop(self, how: int = signal.SIGTERM) -> None:
        """End nginx, and its workers with it."""
        if self.nginx is not None:
            for pid in run(["ip", "netns", "pids", self.name]).stdout.split():
                try:
                    os.kill(int(pid), how)
                except ProcessLookupError:
                    pass
            self.nginx.wait()
            self.nginx = None


@contextmanager
def racks(network: Namespace, count: int) -> Iterator[list[Rack]]:
    made: list[Rack] = []
    try:
        for number in range(1, count + 1):
            made.append(Rack(network, number).__enter__())
        yield made
    finally:
        for each in made:
            each.__exit__()
