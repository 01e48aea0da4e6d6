"""What the state of a head consists of: files by their content, at one revision. Plain data, no files are looked at."""

from __future__ import annotations

import hashlib
import re
from pathlib import PurePosixPath

import msgspec

from wwfast.errors import WwfastError

FORMAT = 1  # of this, and of what heads say to each other
NODES, IPXE, OVERLAYS = "etc/nodes.conf", "etc/ipxe", "overlays"
SHA256 = re.compile(r"[0-9a-f]{64}")


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """A file: where it is below the mirror, bytes, content, and its time in ns."""

    path: str
    size: int
    sha256: str
    mtime: int


class Manifest(msgspec.Struct, frozen=True):
    """`folders` are there beside those of files; `links` by path, with what they say."""

    format: int
    version: str
    revision: str
    entries: list[Entry]
    links: dict[str, str]
    folders: list[str]

    @property
    def size(self) -> int:
        """Bytes of the different files."""
        return sum({entry.sha256: entry.size for entry in self.entries}.values())


class Said(msgspec.Struct, frozen=True):
    """What is understood of every version."""

    format: int
    version: str = ""


def made(version: str, entries: list[Entry], links: dict[str, str], folders: list[str]) -> Manifest:
    """The revision is that of what is in it."""
    entries = sorted(entries, key=lambda entry: entry.path)
    what = msgspec.json.encode([FORMAT, entries, sorted(links.items()), sorted(folders)])
    return Manifest(FORMAT, version, hashlib.sha256(what).hexdigest()[:16], entries, links, sorted(folders))


def require_format(data: bytes, whose: str) -> None:
    """Raises WwfastError that names the version of the other head."""
    try:
        said = msgspec.json.decode(data, type=Said)
    except msgspec.DecodeError as error:
        raise WwfastError(f"{whose} does not answer as a head does: {error}") from error
    if said.format != FORMAT:
        raise WwfastError(
            f"{whose} runs wwfast {said.version or 'of another version'}, whose heads speak form {said.format}; "
            f"this one speaks form {FORMAT}",
            hint="install the same version on both; what was mirrored before is served meanwhile",
        )


def read(data: bytes, whose: str) -> Manifest:
    """Raises WwfastError where it is of another version, or leads out of its place."""
    require_format(data, whose)
    try:
        found = msgspec.json.decode(data, type=Manifest)
    except msgspec.DecodeError as error:
        raise WwfastError(f"the manifest of {whose} cannot be read: {error}") from error
    for path in (*(entry.path for entry in found.entries), *found.links, *found.folders):
        parts = PurePosixPath(path).parts
        above = {"/".join(parts[:count]) for count in range(1, len(parts))}
        if not parts or path != "/".join(parts) or ".." in parts or "\0" in path or above & found.links.keys():
            raise WwfastError(f"the manifest of {whose} has a path that is none: {path!r}")
    for entry in found.entries:
        if entry.size < 0 or not SHA256.fullmatch(entry.sha256):
            raise WwfastError(f"the manifest of {whose} has no content for {entry.path}")
    return found
