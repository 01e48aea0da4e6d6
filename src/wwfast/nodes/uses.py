"""Which images nodes and profiles use, each in all of its builds or in the one it is pinned to (`NAME@BUILD`)."""

from __future__ import annotations

from functools import lru_cache

from wwfast.nodes.model import Node
from wwfast.nodes.registry import Snapshot


@lru_cache(maxsize=1)
def of_images(snapshot: Snapshot) -> dict[str, list[str]]:
    """Which nodes name which image (`NAME` or `NAME@BUILD`), resolved."""
    found: dict[str, list[str]] = {}
    for node in snapshot.nodes.values():
        if node.image_name:
            found.setdefault(node.image_name, []).append(node.id)
    return found


def users(snapshot: Snapshot, name: str) -> list[str]:
    """Nodes that use an image, in any of its builds."""
    return [node for named, nodes in of_images(snapshot).items() if base(named) == name for node in nodes]


def having(snapshot: Snapshot, name: str) -> list[Node]:
    """As `users`, whole."""
    return [node for node in snapshot.nodes.values() if base(node.image_name) == name]


def owners(snapshot: Snapshot, name: str) -> list[str]:
    """Nodes and profiles that name an image: while there are any it may not be deleted."""
    named = [f"profile {key}" for key, profile in snapshot.profiles.items() if base(profile.image_name) == name]
    return named + users(snapshot, name)


def pinned(snapshot: Snapshot) -> set[str]:
    """Images and builds that are kept: those of nodes, and of profiles that may have no nodes yet."""
    return {*of_images(snapshot), *(each.image_name for each in snapshot.profiles.values())}


def booted_kernels(snapshot: Snapshot, name: str) -> set[str]:
    """The kernel versions that nodes with this image ask for, or profiles for nodes to come."""
    profiles = {profile.kernel.version for profile in snapshot.profiles.values() if profile.kernel.version}
    return profiles | {node.kernel.version for node in having(snapshot, name) if not node.kernel.override}


def base(image: str) -> str:
    """The name of an image without the build it is pinned to."""
    return image.partition("@")[0]
