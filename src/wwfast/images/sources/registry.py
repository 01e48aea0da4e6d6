"""Images of a registry: skopeo speaks the protocol (tokens, proxies, certificates, signatures), we keep its layers.

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

from wwfast.errors import WwfastError, cause
from wwfast.images.sources import oci
from wwfast.images.sources.fetch import Fetch, hint
from wwfast.images.sources.options import Options
from wwfast.images.sources.proxy import told
from wwfast.paths import Paths
from wwfast.system import locks, work
from wwfast.system.folders import folder
from wwfast.system.run import LONG, run

CACHE = 10 << 30  # bytes of layers kept
POLICIES = ("~/.config/containers/policy.json", "/etc/containers/policy.json")  # containers-policy.json(5)


class Rule(msgspec.Struct, frozen=True):
    type: str


class Policy(msgspec.Struct, frozen=True):
    """containers-policy.json(5): rules by default, and by transport and scope."""

    default: list[Rule]
    transports: dict[str, dict[str, list[Rule]]] = {}


@contextmanager
def fetched(paths: Paths, reference: str, options: Options) -> Iterator[list[oci.Layer]]:
    """The layers of `docker://...` on disk, for as long as the block lasts."""
    cache = paths.cache / "layers"
    blobs = cache / "blobs"
    folder(blobs / "sha256")
    with locks.opened(cache / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        with work.directory(cache) as room:
            if _policy_asks(reference):
                yield _copied(reference, room, blobs, options)
            else:
                proxy = [*_skopeo(options), "experimental-image-proxy", *_access("", reference, room, options)]
                with Fetch(proxy, reference, room, blobs, options) as fetch:
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


def _policy() -> Path | None:
    return next((file for policy in POLICIES if (file := Path(policy).expanduser()).exists()), None)


def _policy_asks(reference: str) -> bool:
    """Whether the policy may ask more of this image than to exist; it is skopeo that reads it to the letter."""
    file = _policy()
    if file is None:
        return False
    try:
        policy = msgspec.json.decode(file.read_bytes(), type=Policy)
    except (OSError, msgspec.DecodeError) as error:
        raise WwfastError(
            f"{file} cannot be read: {cause(error, file)}", hint="see: man containers-policy.json"
        ) from error
    rules = list(policy.default)
    for scope, its in policy.transports.get("docker", {}).items():
        if scope == "" or scope.startswith("*.") or scope.partition("/")[0] == _host(reference):
            rules += its
    return any(rule.type != "insecureAcceptAnything" for rule in rules)


def _copied(reference: str, room: Path, blobs: Path, options: Options) -> list[oci.Layer]:
    options.progress("fetching", 0, 0)
    layout = room / "layout"
    words = [*_skopeo(options), "copy", "--quiet", "--remove-signatures", *_access("src-", reference, room, options)]
    done = run(
        [*words, "--dest-shared-blob-dir", blobs, reference, f"oci:{layout}:image"],
        check=False,
        timeout=LONG,
        package="skopeo",
    )
    if done.returncode:
        said = told(done.stderr)
        raise WwfastError(f"cannot fetch {reference}: {said}", hint=hint(said))
    return oci.layers(layout, "image", options.platform, blobs)


def _skopeo(options: Options) -> list[str | Path]:
    machine = oci.platform(options.platform)
    words: list[str | Path] = ["skopeo"]
    if _policy() is None:
        words.append("--insecure-policy")
    words += ["--override-os", machine.os, "--override-arch", machine.architecture]
    if machine.variant:
        words += ["--override-variant", machine.variant]
    return words


def _access(side: str, reference: str, room: Path, options: Options) -> list[str | Path]:
    """How to reach the registry: TLS and credentials, of the `src-` side or of the only one."""
    words: list[str | Path] = [f"--{side}tls-verify=false"] if options.plain_http else []
    if options.username:
        words += [f"--{side}authfile", _authfile(reference, room, options)]
    return words


def _host(reference: str) -> str:
    host = reference.removeprefix("docker://").partition("/")[0]
    return host if "." in host or ":" in host or host == "localhost" else "docker.io"


def _authfile(reference: str, room: Path, options: Options) -> Path:
    """Credentials travel in a file of ours (0600), never on a command line that everybody can read."""
    token = base64.b64encode(f"{options.username}:{options.password}".encode()).decode()
    file = room / "auth.json"
    file.touch(mode=0o600)
    file.write_bytes(msgspec.json.encode({"auths": {_host(reference): {"auth": token}}}))
    return file
