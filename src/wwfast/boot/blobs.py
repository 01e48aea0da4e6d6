"""Names by content: /blob/sha256-HEX is whatever has these bytes, if no node's secret is in it.

Kernels, their modules, stage-1, images in each form, the pieces that stage-1 checks, iPXE binaries. Caches carry them
and nothing else: a name never means other bytes. To name a file it is read, a second for a GB or two, by a thread; what
was read is remembered by the artefact's own digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from wwfast.archive.artefact import PIECES, Artefact
from wwfast.boot import stage1
from wwfast.boot.standing import PREFIX, Blobs, ServedImage, ServedKernel
from wwfast.errors import WwfastError
from wwfast.system import files

if TYPE_CHECKING:
    from wwfast.boot.standing import Standing
    from wwfast.nodes.model import Node


class Cancelled(Exception):
    """Nobody waits for it any more."""


class Names:
    """SHA-256 of artefacts, read once and kept in `file`, which may be deleted. For one thread."""

    def __init__(self, file: Path, ended: Callable[[], bool] = lambda: False) -> None:
        self._file = file
        self._ended = ended
        self._kept: dict[str, str] | None = None

    def of(self, artefact: Artefact) -> str:
        """Raises OSError where a file is not as it was published, and Cancelled."""
        kept = self._load()
        if artefact.digest not in kept:
            kept[artefact.digest] = self._read(artefact)
        return kept[artefact.digest]

    def _read(self, artefact: Artefact) -> str:
        found, length = hashlib.sha256(), 0
        for extent in artefact.extents:
            for data in files.read_part(Path(extent.path), extent.offset, extent.length):
                if self._ended():
                    raise Cancelled
                found.update(data)
                length += len(data)
        if length != artefact.size:
            raise OSError(0, "became shorter while it was read", artefact.name)
        return found.hexdigest()

    def _load(self) -> dict[str, str]:
        if self._kept is None:
            try:
                self._kept = msgspec.json.decode(self._file.read_bytes(), type=dict[str, str])
            except (OSError, msgspec.DecodeError):
                self._kept = {}
        return self._kept

    def keep(self, named: Mapping[str, str]) -> None:
        """Those, and no others. Raises OSError."""
        self._kept = dict(named)
        files.replace(self._file, msgspec.json.encode(self._kept), durable=False)


def gather(standing: Standing, nodes: Iterable[Node], binaries: Iterable[bytes], names: Names) -> Blobs:
    """Everything that nodes boot with and others may carry. What cannot be read has no name. Raises Cancelled."""
    named: dict[str, str] = {}
    bodies: dict[str, Artefact | bytes] = {}
    for artefact in {each.digest: each for each in _artefacts(standing, nodes)}.values():
        try:
            found = names.of(artefact)
        except OSError:
            continue  # whoever is sent it is told
        named[artefact.digest] = found
        bodies[found] = _renamed(artefact, found)
    for whole, pieces in _lists(standing):
        for found, artefact in _pieces(whole, pieces):
            bodies.setdefault(found, artefact)
    bodies |= {hashlib.sha256(data).hexdigest(): data for data in binaries}
    return Blobs(named, bodies)


def _artefacts(standing: Standing, nodes: Iterable[Node]) -> Iterator[Artefact]:
    for image in standing.images.values():
        if isinstance(image, ServedImage):
            for forms in (image.stage1, image.roots, image.artefacts):
                yield from forms.values()
    for kernel in standing.kernels.values():
        if isinstance(kernel, ServedKernel):
            yield kernel.artefact
            yield from kernel.kmods.values()
    apart = {(node.image_name, node.kernel.override): node for node in nodes if node.kernel.override}
    for node in apart.values():
        try:
            yield from stage1.with_kernel(standing.image(node, ""), standing.kernel(node, "")).stage1.values()
        except WwfastError:  # told where the node boots
            continue


def _lists(standing: Standing) -> Iterator[tuple[Artefact, Artefact]]:
    for image in standing.images.values():
        if isinstance(image, ServedImage):
            yield from (
                (whole, image.roots[kind + PIECES])
                for kind, whole in image.roots.items()
                if kind + PIECES in image.roots
            )


def _pieces(whole: Artefact, pieces: Artefact) -> Iterator[tuple[str, Artefact]]:
    """By SHA-256. Of a list that is not as it was published there are none."""
    try:
        lines = [line.split() for line in Path(pieces.extents[0].path).read_text().splitlines()]
        parts = list(whole.parts([int(line[0]) for line in lines]))
    except (OSError, ValueError, IndexError):
        return
    for line, extents in zip(lines, parts, strict=True):
        yield line[1], Artefact(PREFIX + line[1], whole.format, extents, line[1], (whole.format,), whole.mtime)


def _renamed(artefact: Artefact, found: str) -> Artefact:
    return Artefact(PREFIX + found, artefact.format, artefact.extents, found, (artefact.format,), artefact.mtime)
