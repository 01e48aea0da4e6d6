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

from wwfast.errors import NotFoundError, WwfastError
from wwfast.images import inside

LARGEST = 4 << 20  # bytes of a document, as registries limit them
REF_NAME = "org.opencontainers.image.ref.name"
INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
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
    media_type: str = msgspec.field(default="", name="mediaType")
    platform: Platform | None = None
    annotations: dict[str, str] | None = None


class Manifest(msgspec.Struct, frozen=True):
    """An index (then `manifests`) or the manifest of one image (then `config` and `layers`)."""

    media_type: str = msgspec.field(default="", name="mediaType")
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
        (directory / "manifest.json").is_file() and inside.resolve(directory, "/bin/sh") is None
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
        raise WwfastError(f"{directory.name} is no container image: {error}") from error


def _layout(directory: Path, reference: str, wanted: str, blobs: Path) -> list[Layer]:
    index = msgspec.json.decode(_document(directory, "index.json"), type=Manifest)
    found = index.manifests or []
    if reference:
        named = [d for d in found if reference in ((d.annotations or {}).get(REF_NAME), d.digest)]
        if not named:
            known = [name for d in found if (name := (d.annotations or {}).get(REF_NAME))]
            raise NotFoundError(f"there is no image {reference} in it", hint=f"it holds: {', '.join(known) or 'one'}")
        found = named
    manifest = _pick(found, platform(wanted), wanted, blobs)
    return [Layer(_blob(blobs, d.digest), d.digest, d.size) for d in manifest.layers or []]


def _pick(found: list[Descriptor], machine: Platform, wanted: str, blobs: Path) -> Manifest:
    """The manifest for a platform, through nested indexes."""
    suited = [d for d in found if d.platform is not None and d.platform.suits(machine)]
    # A lone entry tells its platform only in its configuration; several without platforms cannot be told apart.
    if not suited and len(found) == 1 and found[0].platform is None:
        suited = found
    if not suited:
        have = ", ".join(sorted({str(d.platform) for d in found if d.platform})) or "several images"
        raise NotFoundError(f"there is no image for {machine} in it", hint=f"it holds: {have}; see --platform")
    manifest = msgspec.json.decode(_verified(blobs, suited[0]), type=Manifest)
    if manifest.manifests is not None:
        return _pick(manifest.manifests, machine, wanted, blobs)
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
    if reference:
        images = [image for image in images if reference in (image.tags or [])]
    if len(images) != 1:
        tags = ", ".join(tag for image in images for tag in image.tags or []) or "none by that name"
        raise NotFoundError(f"{len(images)} images in the archive match", hint=f"name one after the path: {tags}")
    (image,) = images
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
    file = inside.resolve(directory, name)
    if file is None or not file.is_file():
        raise WwfastError(f"the archive has no {name}, which its manifest names")
    return file
