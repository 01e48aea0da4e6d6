"""Which rack caches a node fetches from, nearest first, and what its script and its stage-1 are told of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING

import xxhash

if TYPE_CHECKING:
    from wwfast.config.settings import Cache
    from wwfast.nodes.model import Node

#: Of those there are: a kernel's command line has room for 2048 letters, and behind them there is the server.
TOLD = 3
#: ms without a byte, for iPXE; stage-1 has the same in seconds. A hundred caches that each fetch a slice (8 MiB) over
#: 1 Gbit/s of ours have it after 7 s.
SILENCE = 20_000


class Caches:
    """`caches` of warewulf.conf, parsed once."""

    def __init__(self, caches: Sequence[Cache]) -> None:
        self._all = [(cache, [ip_network(each, strict=False) for each in cache.networks]) for cache in caches]

    def __bool__(self) -> bool:
        return bool(self._all)

    def of(self, node: Node, peer: str = "") -> list[str]:
        """URLs for a node that asks from `peer`: those for its tags and networks, the narrowest network first; those
        for everybody; others. Equal ones in an order of its own: a rack whose cache is down goes to many."""
        if not self._all:
            return []
        addresses = [ip_address(each) for each in _addresses(node, peer)]

        def rank(cache: Cache, networks: Sequence[IPv4Network | IPv6Network]) -> tuple[int, int, int]:
            bits = max((net.prefixlen for net in networks for at in addresses if at in net), default=-1)
            tagged = all(node.tags.get(name) == value for name, value in cache.tags.items())
            near = tagged and (bits >= 0 or not networks)
            named = bool(cache.tags or networks)
            own = preference(node.id, cache.url)
            return 0 if near and named else 1 if near else 2, -len(cache.tags) * 200 - bits, own

        ordered = sorted((rank(cache, networks), cache.url) for cache, networks in self._all)
        return [url for _, url in ordered[:TOLD]]


def preference(node: str, name: str) -> int:
    """Of equal servers a node asks the one first for which this is least. Not CRC-32: of three, one had half of all."""
    return xxhash.xxh3_64_intdigest(f"{node} {name}".encode())


def _addresses(node: Node, peer: str) -> Iterator[str]:
    for device in node.network_devices.values():
        yield from (each.partition("/")[0] for each in (device.ipaddr, device.ipaddr6) if each)
    if peer:
        yield peer.removeprefix("::ffff:")
