"""The Debian 12 tree that the demo and the tests boot: made once with mmdebstrap, kept by the hash of its recipe."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from wwfast.system.run import run

PACKAGES = (
    "linux-image-cloud-amd64",
    "systemd-sysv",  # networkd, the network manager, is part of systemd
    "dbus",  # logind fails without it
    "udev",
    "kmod",
    "iproute2",
    "openssh-server",
    "curl",
    "libcap2-bin",
)

# What no node of the laboratory needs: a machine without KVM unpacks about 20 MB of its image in a second.
LEAVE_OUT = (
    *(f"/usr/share/{what}/*" for what in ("bug", "doc", "info", "locale", "man", "zoneinfo")),
    *("/usr/lib/udev/hwdb.d/*", "/usr/lib/*/gconv/*", "/usr/lib/*/perl/*/CORE/*", "/usr/lib/*/perl/*/auto/Encode/*"),
    *(f"/lib/modules/*/kernel/drivers/{what}/*" for what in ("comedi", "infiniband", "md", "target")),
    *(f"/lib/modules/*/kernel/fs/{what}/*" for what in ("btrfs", "ocfs2", "smb", "xfs")),
)

# A node gets its name, its address and its ssh host keys from overlays: the image must not hide that they are missing.
# The key of the laboratory stands outside /root/.ssh, which belongs to the overlays.
CUSTOMIZE = (
    'rm -f "$1"/etc/hostname "$1"/etc/resolv.conf "$1"/etc/ssh/ssh_host_*',
    ': >"$1"/etc/machine-id',
    'chroot "$1" systemctl enable systemd-networkd.service',
    'chroot "$1" systemctl disable -q e2scrub_reap.service e2scrub_all.timer apt-daily.timer apt-daily-upgrade.timer',
    'cp "$LAB_KEY.pub" "$1"/etc/ssh/lab_key.pub',
    'echo "AuthorizedKeysFile .ssh/authorized_keys /etc/ssh/lab_key.pub" >"$1"/etc/ssh/sshd_config.d/lab.conf',
    'rm -f "$1"/etc/apt/apt.conf.d/99mmdebstrap "$1"/etc/dpkg/dpkg.cfg.d/99mmdebstrap',
)


@dataclass(frozen=True, slots=True)
class Tree:
    """A root file system and the private ssh key that opens the machines booted from it."""

    rootfs: Path
    key: Path


def cache() -> Path:
    """WWFAST_CACHE, or .cache of the directory we run in (the checkout)."""
    return Path(os.environ.get("WWFAST_CACHE") or ".cache").absolute()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path`, so that two runs do not make the same thing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def recipe(packages: tuple[str, ...]) -> list[str]:
    """The mmdebstrap command without its target."""
    return [
        "mmdebstrap",
        "--quiet",
        "--variant=minbase",
        f"--include={','.join(packages)}",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in LEAVE_OUT),
        *(f"--customize-hook={command}" for command in CUSTOMIZE),
        "bookworm",
    ]


def tree(extra: tuple[str, ...] = (), *, at: Path | None = None) -> Tree:
    """The tree with PACKAGES and `extra`, from the cache `at` or made there (root; about 40 s and a network).

    Raises WwfastError when mmdebstrap is missing or fails.
    """
    command = recipe(PACKAGES + extra)
    digest = hashlib.sha256("\n".join(command).encode()).hexdigest()[:12]
    home = (at or cache()) / f"debian-12-{digest}"
    made = Tree(home / "rootfs", home / "ssh_key")
    if made.rootfs.is_dir():
        return made
    with locked(home.with_suffix(".lock")):
        if made.rootfs.is_dir():
            return made
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", made.key], package="openssh-client")
        # INITRD=No: the node's initramfs is the image itself, so the kernel package need not make one.
        environment = {**os.environ, "INITRD": "No", "LAB_KEY": str(made.key)}
        partial = home / "partial"
        run([*command, partial], env=environment, timeout=900, package="mmdebstrap")
        partial.rename(made.rootfs)
    return made
