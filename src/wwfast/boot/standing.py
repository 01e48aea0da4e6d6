"""What every node boots with, as it was found on the disk by a thread: to be looked up, never to be changed.

Whoever answers a node has nothing else: `boot.resolve` reads the disk, nothing here can.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from wwfast.errors import NotFoundError, WwfastError
from wwfast.images import names

if TYPE_CHECKING:
    from wwfast.archive.artefact import Artefact
    from wwfast.boot.loader.script import Scripts
    from wwfast.nodes.model import Node

T = TypeVar("T")

PREFIX = "sha256-"
NAME = re.compile(PREFIX + r"([0-9a-f]{64})")


class UnresolvedError(Exception):
    """It was not looked for yet; `reference` is the build that is wanted, where it is about one, and `format` the form
    that it has to be brought into first."""

    def __init__(self, reference: str = "", format: str = "") -> None:
        super().__init__(reference)
        self.reference, self.format = reference, format


class Initramfs(NamedTuple):
    """One of an image's own; `module` and `unread` as in images.kernels.initramfs.Module."""

    artefact: Artefact
    module: str
    unread: str


@dataclass(frozen=True, slots=True)
class ServedImage:
    """One build of an image (an image that is not built has no artefact). `build` is NAME@BUILD, or NAME without a
    build; `least_ram` and `unpacked` (in pages) in bytes, 0 when not known, with `holes` that stage-1 leaves empty.
    `roots` is what stage-1 makes a root of and the lists of its pieces; `stage1` is by the release of a kernel, as is
    `mounts`, the kinds of file system that it can have as a root, and `initramfs`, None where the build did not look
    for them."""

    name: str
    build: str
    arch: str
    boot_format: str
    least_ram: int
    unpacked: int
    artefacts: Mapping[str, Artefact]
    roots: Mapping[str, Artefact] = field(default_factory=dict)
    stage1: Mapping[str, Artefact] = field(default_factory=dict)
    mounts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    programs: Mapping[str, Artefact] = field(default_factory=dict)
    disks: bool = False
    holes: int = 0
    initramfs: Mapping[str, Initramfs] | None = None


@dataclass(frozen=True, slots=True)
class ServedKernel:
    """A kernel and, where it is not the image's own, its modules by format, and its drivers for stage-1 with the kinds
    of file system that it can have as a root."""

    version: str
    artefact: Artefact
    kmods: Mapping[str, Artefact] = field(default_factory=dict)
    drivers: Artefact | None = None
    mounts: Sequence[str] = ()


#: Image as the node names it or NAME@BUILD, `kernel: override`, `kernel: version`; with an override no image.
Key = tuple[str, str, str]


def key(node: Node, begun: str = "") -> Key:
    """What the kernel of a node depends on; `begun` is the build that its boot began with."""
    override = node.kernel.override
    return ("" if override else begun or node.image_name, override, node.kernel.version)


@dataclass(frozen=True, slots=True)
class Blobs:
    """`named`: SHA-256 (hex) by the digest of an artefact; `bodies` by SHA-256."""

    named: Mapping[str, str] = field(default_factory=dict)
    bodies: Mapping[str, Artefact | bytes] = field(default_factory=dict)

    def name(self, artefact: Artefact) -> str:
        """Below /blob/; "" for what has none, or none yet."""
        found = self.named.get(artefact.digest)
        return PREFIX + found if found else ""

    def get(self, name: str) -> Artefact | bytes | None:
        match = NAME.fullmatch(name)
        return self.bodies.get(match[1]) if match is not None else None


@dataclass(frozen=True, slots=True)
class Standing:
    """What was found, or what is wrong with it. `builds` are the ids on the disk by name of the image; `blobs` are
    found out later."""

    scripts: Scripts
    images: Mapping[str, ServedImage | WwfastError] = field(default_factory=dict)
    kernels: Mapping[Key, ServedKernel | WwfastError] = field(default_factory=dict)
    builds: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    blobs: Blobs = Blobs()

    def image(self, node: Node, begun: str) -> ServedImage:
        """Raises WwfastError, and UnresolvedError."""
        reference = begun or node.image_name
        found = self.images.get(reference)
        if found is None:
            self._require(reference)
        return _sound(found, reference)

    def kernel(self, node: Node, begun: str) -> ServedKernel:
        """Raises WwfastError, and UnresolvedError."""
        wanted = key(node, begun)
        if not wanted[0] and not wanted[1]:
            raise NotFoundError(
                f"node {node.id} has neither an image nor a kernel", hint=f"wwfast node set --image NAME {node.id}"
            )
        found = self.kernels.get(wanted)
        if found is None and wanted[0]:
            self._require(wanted[0])
        try:
            return _sound(found, wanted[0])
        except WwfastError as error:
            error.message = error.message.replace(NOBODY, f"node {node.id}")
            raise

    def _require(self, reference: str) -> None:
        """Raises NotFoundError where the disk has no such build."""
        name, build = names.split(reference)
        kept = self.builds.get(name)
        if build is not None and kept is not None and build not in kept:
            raise NotFoundError(f"image {name} has no build {build}", hint=f"builds kept: {', '.join(kept) or 'none'}")


#: Stands for the node in what is wrong with a kernel that several may have.
NOBODY = "node {node}"


def _sound(found: T | WwfastError | None, reference: str) -> T:
    if found is None:
        raise UnresolvedError(reference)
    if isinstance(found, WwfastError):
        raise type(found)(found.message, hint=found.hint)  # a fresh one: each raising lengthens a traceback
    return found
