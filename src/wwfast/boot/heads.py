"""The heads of a cluster as its nodes know them: which there are, and in which order a node asks them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wwfast.boot.caches import preference
from wwfast.boot.loader.urls import Urls

if TYPE_CHECKING:
    from wwfast.config.settings import Settings


def authorities(settings: Settings) -> list[str]:
    """ADDRESS:PORT of all heads by `heads` of warewulf.conf, this one among them; none where it stands alone."""
    own, port = Urls.of(settings).authority, settings.warewulf.port
    said = [each if ":" in each else f"{each}:{port}" for each in settings.wwfast.heads]
    others = [each for each in dict.fromkeys(said) if each != own]
    return sorted([own, *others]) if others else []


def order(node: str, heads: list[str]) -> list[str]:
    """As this node asks them: each node in an order of its own, so that nodes of one that is gone go to all others."""
    return sorted(heads, key=lambda each: preference(node, each))


def siblings(settings: Settings) -> list[str]:
    """Addresses of the other heads."""
    own = Urls.of(settings).authority
    return [each.partition(":")[0] for each in authorities(settings) if each != own]


def share(settings: Settings, first: int, last: int) -> tuple[int, int]:
    """This head's part of a range that all heads have: so no two of them give away one address."""
    heads = authorities(settings)
    if not heads or not last:
        return first, last
    at, count, size = heads.index(Urls.of(settings).authority), len(heads), last - first + 1
    return first + size * at // count, first + size * (at + 1) // count - 1
