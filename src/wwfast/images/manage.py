"""Whole images as things: copy, rename, delete."""

from __future__ import annotations

from collections.abc import Collection

from wwfast.errors import WwfastError
from wwfast.images import work
from wwfast.images.store import ImageStore
from wwfast.paths import Paths


def delete(paths: Paths, name: str, used_by: Collection[str] = ()) -> None:
    """Remove an image and its builds; refused while somebody (`used_by`) names it.

    An image that was never built goes like any other. Transfers under way end well.
    """
    image = ImageStore(paths).get(name)
    if not image.own:
        raise WwfastError(f"image {name} belongs to {image.rootfs.parent}, which is only read", hint="remove it there")
    if used_by:
        raise WwfastError(
            f"image {name} is used by {', '.join(sorted(used_by)[:8])}",
            hint="give them another with: wwfast node set --image NAME NODES",
        )
    with work.locked(paths.run / "images", name, "image delete"), work.directory(paths.chroots) as room:
        (paths.chroots / name).rename(room / name)
        if (paths.images / name).exists():
            work.remove(paths.images / name)
