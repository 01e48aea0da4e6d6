"""Container images on disk: OCI layouts and `docker save` directories -> the list of layers to apply.

Sources: OCI image specification (image-layout.md, image-index.md, manifest.md); Docker image specification v1.2 for
`manifest.json` of `docker save`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import msgspec

from wwfast.errors import NotFoundError, WwfastError, cause
from wwfast.system import within

LARGEST = 4 << 20  # bytes of a document, as registries limit them
NESTED = 8  # indexes in indexes; real ones have one
REF_NAME = "org.opencontainers.image.ref.name"  # of Docker and containerd only the tag
FULL_NAME = "io.containerd.image.name"  # theirs with the repository
HOST = {"x86_64": "amd64", "aarch64": "arm64", "ppc64le": "ppc64le", "s390x": "s390x", "riscv64": "riscv64"}


class Platform(msgspec.Struct, frozen=True):
    architecture: str = ""
    os: str = "linux"
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    def suits(self, wanted: Platform) -> bool:
        return (self.os, self.architecture) == (wanted.os, wanted.architecture) and (
            not wanted.variant or not self.variant or self.variant == wanted.variant
        )


class Descriptor(msgspec.Struct, frozen=True):
    digest: str
    size: int
    platform: Platform | None = None
    annotations: dict[str, str] | None = None
    artifact_type: str = msgspec.field(default="", name="artifactType")

    @property
    def names(self) -> tuple[str, ...]:
        """What this is called in its layout, the name to show first."""
        said = self.annotations or {}
        full = [familiar(said[FULL_NAME])] if said.get(FULL_NAME) else []
        return (*full, *([said[REF_NAME]] if said.get(REF_NAME) else []))


def familiar(name: str) -> str:
    """A name as people write it: `docker.io/library/debian:12` is `debian:12`, and without a tag it is the latest."""
    name = name.removeprefix("docker.io/").removeprefix("library/")
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


class Manifest(msgspec.Struct, frozen=True):
    """An index (then `manifests`) or the manifest of one image (then `config` and `layers`)."""

    manifests: list[Descriptor] | None = None
    config: Descriptor | None = None
    layers: list[Descriptor] | None = None


class Saved(msgspec.Struct, frozen=True):
    """One image in the manifest.json of `docker save`."""

    config: str = msgspec.field(name="Config")
    layers: list[str] = msgspec.field(name="Layers")
    tags: list[str] | None = msgspec.field(default=None, name="RepoTags")


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer to apply: its file, and the digest that file must have ("" where the format has none).

    `arriving` opens it while it is being fetched and not yet at `path`.
    """

    path: Path
    digest: str
    size: int
    arriving: Callable[[], IO[bytes]] | None = None


def platform(text: str) -> Platform:
    """`arm64`, `linux/arm64` or `linux/arm64/v8`; this machine's when empty."""
    parts = [part for part in text.split("/") if part]
    if not parts:
        return Platform(HOST.get(os.uname().machine, os.uname().machine))
    if len(parts) == 1:
        parts.insert(0, "linux")
    return Platform(parts[1], parts[0], parts[2] if len(parts) > 2 else "")


def is_layout(directory: Path) -> bool:
    """True for an OCI layout or an unpacked `docker save`, which are never root file systems."""
    return (directory / "oci-layout").is_file() or (
        (directory / "manifest.json").is_file() and within.resolve(directory, "/bin/sh") is None
    )


def layers(directory: Path, reference: str, wanted: str, blobs: Path | None = None) -> list[Layer]:
    """The layers of the image called `reference` ("" for the only one) for a platform ("" for this machine's).

    `blobs`: where its blobs are, if they are shared with other layouts.

    Raises NotFoundError when there is no such image,
    WwfastError when the layout is damaged or hostile.
    """
    try:
        if (directory / "oci-layout").is_file():
            return _layout(directory, reference, wanted, blobs or directory / "blobs")
        return _saved(directory, reference, wanted)
    except (msgspec.DecodeError, OSError, UnicodeDecodeError) as error:
        raise WwfastError(f"{directory.name} is no container image: {cause(error)}") from error


def _layout(directory: Path, reference: str, wanted: str, blobs: Path) -> list[Layer]:
    index = msgspec.json.decode(_document(directory, "index.json"), type=Manifest)
    found = [one for one in index.manifests or [] if not one.artifact_type]  # signatures, bills of materials
    if reference:
        matching = [d for d in found if reference in (*d.names, d.digest) or familiar(reference) in d.names]
        if not matching:
            raise NotFoundError(f"there is no image {reference} in it", hint=_choice(found))
        found = matching
    machine = platform(wanted)
    suited = [d for d in found if d.platform is None or d.platform.suits(machine)]
    # Several entries may be one image, by several names or for several platforms; what is left are several images.
    if len({d.digest for d in suited}) > 1 and (any(d.names for d in suited) or any(not d.platform for d in suited)):
        raise NotFoundError("there are several images in it", hint=_choice(suited))
    manifest = _pick(found, machine, wanted, blobs)
    return [Layer(_blob(blobs, d.digest), d.digest, d.size) for d in manifest.layers or []]


def _choice(found: list[Descriptor]) -> str:
    """The hint that tells what a layout holds."""
    return _choose([(d.names or (d.digest,))[0] for d in found])


def _choose(names: list[str]) -> str:
    if not names:
        return "it holds none"
    return f"it holds: {', '.join(names)}; choose one by docker-archive:FILE:NAME or oci:DIR:NAME"


def _pick(found: list[Descriptor], machine: Platform, wanted: str, blobs: Path, nested: int = 0) -> Manifest:
    """The manifest for a platform, through nested indexes."""
    # A lone entry tells its platform only in its configuration.
    suited = [d for d in found if d.platform is not None and d.platform.suits(machine)]
    suited = suited or ([d for d in found if d.platform is None] if len({d.digest for d in found}) == 1 else [])
    if not suited:
        have = ", ".join(sorted({str(d.platform) for d in found if d.platform}))
        raise NotFoundError(
            f"there is no image for {machine} in it",
            hint=f"it holds: {have}; see --platform" if have else _choice(found),
        )
    if nested > NESTED:
        raise WwfastError(f"the image has more than {NESTED} indexes in each other", hint="copy it again with skopeo")
    manifest = msgspec.json.decode(_verified(blobs, suited[0]), type=Manifest)
    if manifest.manifests is not None:
        return _pick(manifest.manifests, machine, wanted, blobs, nested + 1)
    if wanted and manifest.config is not None:
        is_for = msgspec.json.decode(_verified(blobs, manifest.config), type=Platform)
        if not is_for.suits(machine):
            raise NotFoundError(f"the image is for {is_for}, not for {machine}")
    return manifest


def blob_path(blobs: Path, name: str) -> Path:
    """Where a blob is by its digest; WwfastError for what is none and could lead elsewhere."""
    algorithm, _, digest = name.partition(":")
    if algorithm not in ("sha256", "sha512") or not digest or not all(c in "0123456789abcdef" for c in digest):
        raise WwfastError(f"the image names a blob {name!r}, which is no digest")
    return blobs / algorithm / digest


def _verified(blobs: Path, descriptor: Descriptor) -> bytes:
    import hashlib

    data = _document(blobs, str(blob_path(Path(), descriptor.digest)))
    algorithm, _, digest = descriptor.digest.partition(":")
    if hashlib.new(algorithm, data).hexdigest() != digest:
        raise WwfastError(f"blob {descriptor.digest[:19]}... is damaged", hint="fetch or copy the image again")
    return data


def _saved(directory: Path, reference: str, wanted: str) -> list[Layer]:
    images = msgspec.json.decode(_document(directory, "manifest.json"), type=list[Saved])
    known = [tag for image in images for tag in image.tags or []]
    if reference:
        wants = familiar(reference)
        images = [image for image in images if wants in map(familiar, image.tags or [])]
    if not images:
        raise NotFoundError(f"there is no image {reference or 'at all'} in it", hint=_choose(known))
    if len({(image.config, *image.layers) for image in images}) > 1:
        raise NotFoundError("there are several images in it", hint=_choose(known))
    image = images[0]
    if wanted:
        is_for = msgspec.json.decode(_document(directory, image.config), type=Platform)
        if not is_for.suits(platform(wanted)):
            raise NotFoundError(f"the image is for {is_for}, not for {platform(wanted)}")
    files = [_member(directory, name) for name in image.layers]
    return [Layer(file, "", file.stat().st_size) for file in files]


def _blob(blobs: Path, name: str) -> Path:
    return _member(blobs, str(blob_path(Path(), name)))


def _document(directory: Path, name: str) -> bytes:
    """An index, manifest or configuration; a device or a pipe by that name would never end."""
    file = _member(directory, name)
    if file.stat().st_size > LARGEST:
        raise WwfastError(f"{name} of the image is larger than any manifest: {file.stat().st_size} bytes")
    return file.read_bytes()


def _member(directory: Path, name: str) -> Path:
    """A file of the archive by name; links in it are followed inside it only."""
    file = within.resolve(directory, name)
    if file is None or not file.is_file():
        raise WwfastError(f"the archive has no {name}, which its manifest names")
    return file
