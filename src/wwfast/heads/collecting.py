"""The state of this head as a manifest, and where the bytes of it are. For threads: everything here may wait."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from wwfast import __version__
from wwfast.boot.standing import ServedImage
from wwfast.errors import NotFoundError
from wwfast.heads import manifest
from wwfast.heads.manifest import Entry, Manifest
from wwfast.images import names
from wwfast.images.store import CURRENT
from wwfast.overlays.templates.ipxe import GO_SUFFIX, SUFFIX
from wwfast.system import files

if TYPE_CHECKING:
    from wwfast.boot.standing import Standing
    from wwfast.nodes.registry import Snapshot
    from wwfast.paths import Paths

Stamp = tuple[int, int, int, int]


@dataclass(frozen=True)
class Edition:
    """A manifest as text, and its bodies by SHA-256: in memory, or a file with what stat said of it."""

    manifest: Manifest
    text: bytes
    bodies: Mapping[str, bytes | tuple[Path, Stamp]]

    def read(self, sha256: str, start: int) -> tuple[int, Generator[bytes, None, None]]:
        """Bytes that are left from `start` on, and these. Raises NotFoundError, OSError."""
        body = self.bodies.get(sha256)
        if body is None:
            raise NotFoundError(f"no file of this head has the content {sha256}")
        if isinstance(body, bytes):
            return max(0, len(body) - start), (piece for piece in (body[start:],))
        path, stamp = body
        if _stamp(path) != stamp:
            raise NotFoundError(f"{path} is not what it was any more")
        left = max(0, stamp[2] - start)
        return left, (piece for piece in files.read_part(path, start, left))


class Collector:
    """Makes editions; files are read once for their digests while they stay the same. For one thread at a time."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._known: dict[Stamp, str] = {}

    def collect(self, snapshot: Snapshot, standing: Standing, given: Mapping[tuple[str, str], object]) -> Edition:
        """Of what nodes boot with now: nodes.conf as it was read last, `given` (overlays), builds, kernels, scripts.
        Raises OSError where something goes while it is looked at."""
        said = {manifest.NODES: snapshot.source.data, manifest.OVERLAYS: msgspec.msgpack.encode(list(given.items()))}
        entries: list[Entry] = []
        bodies: dict[str, bytes | tuple[Path, Stamp]] = {}
        for path, data in said.items():
            entries.append(Entry(path, len(data), hashlib.sha256(data).hexdigest(), 0))
            bodies[entries[-1].sha256] = data
        links: dict[str, str] = {}
        folders: list[str] = [manifest.IPXE]
        known: dict[Stamp, str] = {}
        for name, place in self._files(standing, links, folders):
            stamp = _stamp(place)
            known[stamp] = found = self._known.get(stamp) or known.get(stamp) or _sha256(place)
            entries.append(Entry(name, stamp[2], found, stamp[3]))
            bodies[found] = (place, stamp)
        self._known = known
        made = manifest.made(__version__, entries, links, folders)
        return Edition(made, msgspec.json.encode(made), bodies)

    def _files(self, standing: Standing, links: dict[str, str], folders: list[str]) -> Iterator[tuple[str, Path]]:
        """Where each is to be, and where it is."""
        for path in sorted(self._paths.ipxe_templates.glob("*")):
            if path.name.endswith((SUFFIX, GO_SUFFIX)) and not path.name.startswith("."):
                yield f"{manifest.IPXE}/{path.name}", path
        seen: set[str] = set()
        for reference, image in standing.images.items():
            name = names.split(reference)[0]
            folders.append(f"chroots/{name}/rootfs")
            build = names.split(image.build)[1] if isinstance(image, ServedImage) else None
            if build is None:
                continue
            if reference == name:
                links[f"images/{name}/{CURRENT}"] = build
            if f"{name}@{build}" not in seen:
                seen.add(f"{name}@{build}")
                yield from _tree(self._paths.images / name / build, f"images/{name}/{build}", links, folders)
        for override in {override for _, override, _ in standing.kernels if override}:
            if (self._paths.kernels / override).is_dir():
                yield from _tree(self._paths.kernels / override, f"kernels/{override}", links, folders)


def _tree(place: Path, name: str, links: dict[str, str], folders: list[str]) -> Iterator[tuple[str, Path]]:
    folders.append(name)
    for entry in sorted(os.scandir(place), key=lambda entry: entry.name):
        path = f"{name}/{entry.name}"
        if entry.is_symlink():
            links[path] = str(Path(entry.path).readlink())
        elif entry.is_dir():
            yield from _tree(Path(entry.path), path, links, folders)
        elif entry.is_file():
            yield path, Path(entry.path)


def _stamp(path: Path) -> Stamp:
    """Without its ctime, which a new link changes: packs are linked into each build (pack.cache)."""
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _sha256(path: Path) -> str:
    with path.open("rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
