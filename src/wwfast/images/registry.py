"""Fetching from a registry: skopeo speaks the protocol (tokens, proxies, certificates, policies), we keep its layers.

Layers land in a cache shared by all imports; those complete when a fetch fails are there for the next try. The cache is
bounded, the least recently used go first.
"""

from __future__ import annotations

import base64
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from wwfast.errors import WwfastError
from wwfast.images import oci, work
from wwfast.images.options import Options
from wwfast.paths import Paths
from wwfast.run import start

CACHE = 10 << 30  # bytes of layers kept
POLICY = Path("/etc/containers/policy.json")
LOOK = 0.2  # seconds between two looks at a fetch under way


@contextmanager
def fetched(paths: Paths, reference: str, options: Options) -> Iterator[list[oci.Layer]]:
    """The layers of `docker://...` on disk, for as long as the block lasts."""
    cache = paths.cache / "layers"
    blobs = cache / "blobs"
    (blobs / "sha256").mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        with work.directory(cache) as room:
            _copy(reference, room, blobs, options)
            found = oci.layers(room / "layout", "", options.platform, blobs=blobs)
            for layer in found:
                os.utime(layer.path)
            yield found
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


def _copy(reference: str, room: Path, blobs: Path, options: Options) -> None:
    machine = oci.platform(options.platform)
    words: list[str | Path] = ["skopeo"]
    if not POLICY.exists():
        words.append("--insecure-policy")
    words += ["--override-os", machine.os, "--override-arch", machine.architecture]
    if machine.variant:
        words += ["--override-variant", machine.variant]
    words += ["copy", "--quiet", "--retry-times", "2", "--dest-shared-blob-dir", blobs]
    if options.plain_http:
        words.append("--src-tls-verify=false")
    if options.username:
        words += ["--authfile", _authfile(reference, room, options)]
    words += [reference, f"oci:{room / 'layout'}:image"]
    said = room / "stderr"
    with said.open("wb") as stderr:
        process = start(words, stdout=stderr, stderr=stderr, tied=True, package="skopeo")
        try:
            stalled = _watch(process.poll, room, blobs, options)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
    if stalled:
        raise WwfastError(
            f"{reference}: the registry sent nothing for {options.stall:g} s",
            hint="try again: layers that were complete are kept",
        )
    if process.returncode != 0:
        raise WwfastError(f"cannot fetch {reference}: {_reason(said)}", hint=_hint(said, options))


def _watch(poll: object, room: Path, blobs: Path, options: Options) -> bool:
    """Wait for the end of the fetch; True when nothing arrived for `options.stall` seconds."""
    assert callable(poll)
    before = _bytes(blobs)
    seen, since = -1, time.monotonic()
    while poll() is None:
        now = _bytes(blobs) - before + _bytes(room)
        if now != seen:
            seen, since = now, time.monotonic()
            options.progress("fetching", max(now, 0), 0)
        elif time.monotonic() - since > options.stall:
            return True
        time.sleep(LOOK)
    return False


def _bytes(place: Path) -> int:
    total = 0
    for base, _, files in os.walk(place):
        for name in files:
            with suppress(FileNotFoundError):
                total += os.lstat(Path(base, name)).st_size
    return total


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


def _reason(said: Path) -> str:
    """The last thing skopeo said, without its time stamp and level."""
    lines = said.read_text(errors="replace").strip().splitlines()
    last = next((line for line in reversed(lines) if line.strip()), "skopeo failed")
    _, mark, text = last.partition('msg="')
    return (text.rstrip('"') if mark else last).replace('\\"', '"')


def _hint(said: Path, options: Options) -> str:
    text = said.read_text(errors="replace").lower()
    if "unauthorized" in text or "authentication required" in text:
        return "give --username and --password-stdin, or log in with: skopeo login"
    if "server gave http response" in text or "certificate" in text:
        return "for a registry without TLS use --nohttps"
    if "manifest unknown" in text or "not found" in text:
        return "check the name and the tag; see: skopeo list-tags docker://NAME"
    if "no image found" in text:
        return "see --platform"
    return "try again: layers that were complete are kept"
