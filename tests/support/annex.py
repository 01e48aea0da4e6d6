"""A second head on the network of a laboratory: a machine of its own, with a link to the first one's bridge."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from wwfast.boot.heads import order
from wwfast.demo.cluster import Cluster
from wwfast.demo.debian import Tree
from wwfast.demo.netns import Namespace
from wwfast.heads import key
from wwfast.system.run import run


class Annex(Namespace):
    """A namespace without a bridge: eth0 is a port of that of `main`."""

    def __init__(self, main: Namespace, number: int) -> None:
        prefix = main.server.rpartition(".")[0]
        super().__init__(f"{prefix}.{number}/24", label="head")
        self.main, self.number = main, number

    def __enter__(self) -> Annex:
        run(["ip", "netns", "add", self.name])
        try:
            self.ip("link", "set", "lo", "up")
            near = f"h{self.number}"
            self.main.ip("link", "add", near, "type", "veth", "peer", "name", "eth0", "netns", self.name)
            self.main.ip("link", "set", near, "master", "br0", "up")
            self.ip("address", "add", self.address, "dev", "eth0")
            self.ip("link", "set", "eth0", "up")
        except BaseException:
            self.close()
            raise
        return self


class SecondHead(Cluster):
    """Follows `first`, whose warewulf.conf names both."""

    def __init__(self, root: Path, network: Annex, tree: Tree, first: Cluster, **settings: Any) -> None:
        super().__init__(root, network, tree, first.port)
        self.first = first
        self.configure(**settings)
        key.place(self.paths).parent.mkdir(mode=0o700)
        shutil.copy(key.place(first.paths), key.place(self.paths))

    def follow(self) -> None:
        """Serve, once all of the first one is here."""
        self.serve("--follow", f"https://{self.first.network.server}", timeout=300)


def asking(heads: Sequence[Namespace], first: int) -> Iterator[str]:
    """Names of nodes whose machines ask the head of this number before the others."""
    urls = [f"{each.server}:9873" for each in heads]
    return (name for name in map("n{}".format, count()) if order(name, urls)[0] == urls[first])
