"""What overlays ask of images: where the tree is, which paths are links, the default kernel."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from wwfast.errors import WwfastError
from wwfast.paths import Paths

if TYPE_CHECKING:
    from wwfast.images.store import Image, ImageStore


class Images:
    """Images by name. Only `need` insists: what a template reads of an image that is not there is empty."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    @cached_property
    def _store(self) -> ImageStore:
        from wwfast.images.store import ImageStore  # only where a node names an image

        return ImageStore(self._paths)

    def need(self, name: str) -> Image | None:
        """The image a node boots, the same object as long as it is unchanged; None for no name.

        Raises WwfastError when it is not there: without it nobody knows which paths are links in it.
        """
        return self._store.get(name) if name else None

    def get(self, name: str) -> Image | None:
        """As `need`, but None when it is not there."""
        try:
            return self.need(name)
        except WwfastError:
            return None

    def rootfs(self, name: str) -> Path | None:
        image = self.get(name)
        return image.rootfs if image is not None else None

    def kernel_version(self, name: str) -> str:
        image = self.get(name)
        kernel = image.default_kernel() if image is not None else None
        return kernel.version if kernel is not None else ""
