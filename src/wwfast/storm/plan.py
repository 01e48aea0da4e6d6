"""What a storm plays: how many nodes, against which server, fetching what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_network

from wwfast.storm.link import NODES, source
from wwfast.storm.node import PROFILES, Follow, SimNode, Step

PREFIX = "02:77:77"  # locally administered ("ww"): the daemon neither discovers nor keeps these
CHECKED = 0.05  # of the nodes compute the digest of every body

Followed = Callable[[str], Follow]  # by the MAC of a node


def hwaddr(index: int) -> str:
    """The MAC of simulated node `index`."""
    return f"{PREFIX}:{index >> 16 & 255:02x}:{index >> 8 & 255:02x}:{index & 255:02x}"


@dataclass
class Plan:
    """Plain data, so that it travels as JSON.

    `steps` are those of one node, where `{mac}` stands for its MAC. `expect` maps a stage to the sha256 of its body.
    The nodes are those from `first` on, with addresses of `network`.
    """

    address: str
    port: int
    count: int
    steps: Sequence[Step]
    profile: str = "bios"
    jitter: float = 0.0
    own_addresses: bool = True
    first: int = 0
    network: str = str(NODES)
    checked: float = CHECKED
    expect: dict[str, str] = field(default_factory=dict)
    firmware: bool = False  # DHCP and TFTP come first
    stalling: list[int] = field(default_factory=list)
    stall_after: int = 1 << 20
    seed: int = 1

    def nodes(self, followed: Followed) -> tuple[list[SimNode], list[str]]:
        """The nodes and their source addresses."""
        host = f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"
        every = max(1, round(1 / self.checked)) if self.checked else 0
        nodes: list[SimNode] = []
        for index in range(self.count):
            mac = hwaddr(self.first + index)
            steps = [
                step._replace(target=step.target.format(mac=mac), others=[each.format(mac=mac) for each in step.others])
                for step in map(Step._make, self.steps)
            ]
            nodes.append(
                SimNode(
                    f"n{self.first + index:05}",
                    host,
                    steps,
                    PROFILES[self.profile],
                    digests=bool(every) and index % every == 0,
                    expect=self.expect,
                    follow=followed(mac),
                )
            )
        network = ip_network(self.network)
        return nodes, [source(index, network) for index in range(self.count)] if self.own_addresses else []
