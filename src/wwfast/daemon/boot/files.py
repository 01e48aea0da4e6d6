"""GET /files/PATH: files of the site, below `paths: wwfilesdir`, for nodes that are known and say who they are.

With `render` it is a template, for the node that asks: PATH.j2 or PATH.ww, or one of these itself.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wwfast.archive.artefact import RAW, Artefact, Extent
from wwfast.daemon.boot.guard import PRIVILEGED
from wwfast.daemon.boot.identity import is_asset
from wwfast.overlays.files.model import TEMPLATES

if TYPE_CHECKING:
    from wwfast.nodes.model import Node


@dataclass(frozen=True, slots=True)
class SiteFiles:
    """`secure`: only to source ports below 1024."""

    folder: Path
    secure: bool

    def refuses(self, node: Node | None, assetkey: str | None, port: int, render: str | None) -> tuple[int, str] | None:
        """(status, reason), in the order of the real program's checks; None when the node may have what it asks for."""
        if node is None:
            return 401, "files are for nodes of this cluster"
        if self.secure and port >= PRIVILEGED:
            return 403, f"files are for privileged source ports, not {port}"
        if node.asset_key and assetkey is None:
            return 401, "files of a node with an asset key need it"
        if node.asset_key and not is_asset(node.asset_key, assetkey or ""):
            return 403, "wrong asset key"
        return (
            (400, f"render: a node gets its own, not that of {render}") if render not in (None, "", node.id) else None
        )

    def template(self, path: str) -> str | tuple[int, str]:
        """For a thread: the template that a path means, below the folder; (status, reason) where there is none."""
        folder = os.path.realpath(self.folder)

        def there(name: str) -> bool:
            """Links lead out of the folder for files as they are, but not for templates, as in the real program."""
            inside = os.path.realpath(self.folder / name)
            return inside.startswith(f"{folder}/") and Path(inside).is_file()

        path = path.replace("\0", "")
        names = [path] if path.endswith(TEMPLATES) else [path + suffix for suffix in TEMPLATES]
        found = next(filter(there, names), None)
        if found is not None:
            return found
        return (400, "this file is no template") if there(path) else (404, "no such file")

    def find(self, path: str) -> Artefact | None:
        """For a thread: a file as it is now, links followed; None where there is none."""
        if not path or "\0" in path:
            return None
        file = self.folder / path
        try:
            found = file.stat()
        except OSError:
            return None
        if not stat.S_ISREG(found.st_mode):
            return None
        # Not the time of its content alone, which copying may keep.
        stamps = (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size)
        digest = "-".join(f"{each:x}" for each in stamps)
        extents = (Extent(str(file), 0, found.st_size),) if found.st_size else ()
        return Artefact(file.name, RAW, extents, digest, (RAW,), int(found.st_mtime))
