"""Images of a registry: skopeo speaks the protocol (tokens, proxies, certificates, policies), we keep its layers.

Layers land in a cache shared by all imports; those complete when a fetch fails are there for the next try. A layer cut
short is fetched again from its beginning: skopeo cannot ask a registry for a part. The cache is bounded, the least
recently used go first.
"""

from __future__ import annotations

import base64
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from wwfast.images import oci, work
from wwfast.images.fetch import Fetch
from wwfast.images.options import Options
from wwfast.paths import Paths

CACHE = 10 << 30  # bytes of layers kept
POLICY = Path("/etc/containers/policy.json")


@contextmanager
def fetched(paths: Paths, reference: str, options: Options) -> Iterator[list[oci.Layer]]:
    """The layers of `docker://...` on disk, for as long as the block lasts."""
    cache = paths.cache / "layers"
    blobs = cache / "blobs"
    (blobs / "sha256").mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        with work.directory(cache) as room:
            command = _command(reference, room, options)
            with Fetch(command, reference, room, blobs, options) as fetch:
                yield fetch.layers
        fcntl.flock(lock, fcntl.LOCK_UN)
        with suppress(BlockingIOError):  # another import is at it and will trim
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            trim(blobs, CACHE)


def trim(blobs: Path, limit: int) -> int:
    """Remove the least recently used blobs until `limit` bytes are left; return what is left."""
    held = [(file.stat(), file) for file in blobs.glob("*/*")]
    total = sum(status.st_size for status, _ in held)
    for status, file in sorted(held, key=lambda pair: pair[0].st_mtime_ns):
        if total <= limit:
            break
        file.unlink()
        total -= status.st_size
    return total


def _command(reference: str, room: Path, options: Options) -> list[str | Path]:
    machine = oci.platform(options.platform)
    words: list[str | Path] = ["skopeo"]
    if not POLICY.exists():
        words.append("--insecure-policy")
    words += ["--override-os", machine.os, "--override-arch", machine.architecture]
    if machine.variant:
        words += ["--override-variant", machine.variant]
    words.append("experimental-image-proxy")
    if options.plain_http:
        words.append("--tls-verify=false")
    if options.username:
        words += ["--authfile", _authfile(reference, room, options)]
    return words


def _authfile(reference: str, room: Path, options: Options) -> Path:
    """Credentials travel in a file of ours (0600), never on a command line that everybody can read."""
    host = reference.removeprefix("docker://").partition("/")[0]
    if "." not in host and ":" not in host and host != "localhost":
        host = "docker.io"
    token = base64.b64encode(f"{options.username}:{options.password}".encode()).decode()
    file = room / "auth.json"
    file.touch(mode=0o600)
    file.write_bytes(msgspec.json.encode({"auths": {host: {"auth": token}}}))
    return file
