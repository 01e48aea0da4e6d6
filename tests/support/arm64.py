"""An arm64 node's parts: a Debian tree of packages unpacked but never run, and an iPXE as an admin would supply it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from wwfast.demo.debian import LEAVE_OUT, cache, locked
from wwfast.system.run import run

PACKAGES = (
    *("linux-image-cloud-arm64", "base-files", "base-passwd", "bash", "coreutils", "cpio", "curl", "dash", "dbus"),
    *("findutils", "grep", "gzip", "iproute2", "kmod", "libc-bin", "login", "mount", "openssh-server", "passwd"),
    *("procps", "sed", "systemd"),
    *("systemd-sysv", "tar", "udev", "util-linux"),
)
# Debian 12 has iPXE for x86 alone; that of Debian 13 is also one of the newest that nodes may bring.
IPXE_SUITE = "trixie"
# What the packages' scripts would do: they are programs of the other architecture.
CONFIGURE = (
    'for what in passwd group; do cp "$1"/usr/share/base-passwd/$what.master "$1"/etc/$what; done',
    "for user in messagebus:101 sshd:102 systemd-network:103; do id=${user#*:}; name=${user%:*}; "
    'echo "$name:x:$id:$id::/:/usr/sbin/nologin" >>"$1"/etc/passwd; echo "$name:x:$id:" >>"$1"/etc/group; done',
    'sed "s/:.*/:*:19000:0:99999:7:::/" "$1"/etc/passwd >"$1"/etc/shadow; chmod 600 "$1"/etc/shadow',
    'rm -f "$1"/etc/hostname "$1"/etc/resolv.conf; : >"$1"/etc/machine-id',
    'mkdir -p "$1"/etc/ssh/sshd_config.d; printf "UsePAM no\\n" >"$1"/etc/ssh/sshd_config',
    'for kernel in "$1"/lib/modules/*; do depmod -b "$1" "${kernel##*/}"; done',
    'SYSTEMCTL_SKIP_SYSV=1 systemctl -q --root="$1" enable systemd-networkd.service ssh.service',
)


def extracted(
    name: str, suite: str, packages: Sequence[str], words: Sequence[str] = (), finish: Sequence[str] = ()
) -> Path:
    """A directory with the packages of a Debian suite unpacked, from the cache or made there (root and a network).

    `finish` are shell commands with the directory as $1: mmdebstrap runs no hooks where packages are not configured.
    """
    command = ["mmdebstrap", "--quiet", "--variant=extract", f"--include={','.join(packages)}", *words, suite]
    home = cache() / f"{name}-{hashlib.sha256(' '.join([*command, *finish]).encode()).hexdigest()[:12]}"
    with locked(home.with_suffix(".lock")):
        if not home.is_dir():
            partial = home.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            run([*command, partial], timeout=600, package="mmdebstrap")
            for line in finish:
                run(["sh", "-euc", line, "sh", partial])
            partial.rename(home)
    return home


def tree() -> Path:
    words = ["--architectures=arm64", *(f"--dpkgopt=path-exclude={pattern}" for pattern in LEAVE_OUT)]
    return extracted("debian-12-arm64", "bookworm", PACKAGES, words, CONFIGURE)


def ipxe() -> Path:
    """The directory of iPXE binaries: `ipxe-arm64.efi`, and `snponly.efi` and `undionly.kpxe` for x86."""
    return extracted("ipxe", IPXE_SUITE, ("ipxe",)) / "usr/lib/ipxe"
