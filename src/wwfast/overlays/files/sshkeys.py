"""The keys that the overlays ssh.host_keys and ssh.authorized_keys bring to the nodes.

All nodes share one set of host keys, so that a node is the same machine after every boot. Keys that exist stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wwfast.errors import WwfastError
from wwfast.paths import Paths
from wwfast.system import files, work
from wwfast.system.folders import naming, new_folder
from wwfast.system.run import run

FORMER = ("dsa",)  # no longer accepted by OpenSSH, but may lie there


def host_key(paths: Paths, kind: str) -> Path:
    return paths.etc / "keys" / f"ssh_host_{kind}_key"


def has_host_keys(paths: Paths, kinds: Sequence[str]) -> bool:
    return any(host_key(paths, kind).exists() for kind in (*kinds, *FORMER))


def make_host_keys(paths: Paths, kinds: Sequence[str]) -> list[Path]:
    """Make the missing host keys; those that were made. Raises WwfastError (no ssh-keygen, an unknown kind)."""
    work.sweep(paths.etc / "keys")
    return [key for kind in kinds if not (key := host_key(paths, kind)).exists() and make(key, kind, "")]


def make_login(paths: Paths, kind: str) -> Path | None:
    """Where root has no authorized_keys, make a key that opens the nodes for root; the file, None if there was one."""
    folder = paths.root / "root/.ssh"
    work.sweep(folder)
    authorized = folder / "authorized_keys"
    if authorized.exists():
        return None
    key = folder / f"id_{kind}"
    if not key.exists():
        make(key, kind, "root@cluster")
    with naming(authorized), work.directory(folder) as room:
        new = room / authorized.name
        new.write_bytes(key.with_name(f"{key.name}.pub").read_bytes())
        new.chmod(0o600)
        files.sync(new)
        new.rename(authorized)
        files.sync(folder)
    return authorized


def make(key: Path, kind: str, comment: str) -> bool:
    """A pair of keys without a passphrase: never half a one in its place."""
    public = key.with_name(f"{key.name}.pub")
    with naming(key), new_folder(key.parent, 0o700), work.directory(key.parent) as room:
        fresh = room / "key"
        try:
            run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", comment, "-f", fresh], package="openssh-client")
        except WwfastError as error:
            hint = error.hint or f"take {kind} out of `ssh: key types` in warewulf.conf if it does not know that"
            raise WwfastError(f"{key}: {error.message}", hint=hint) from error
        files.settle(room)
        fresh.with_name("key.pub").rename(public)
        try:
            fresh.rename(key)  # the last one: it is what tells that there is a pair
        except OSError:
            public.unlink(missing_ok=True)
            raise
        files.sync(key.parent)
    return True
