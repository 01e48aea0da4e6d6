"""`debian:SUITE`: a first image straight from Debian's packages, by mmdebstrap."""

from __future__ import annotations

import os
from pathlib import Path

from wwfast.errors import WwfastError
from wwfast.images.sources.oci import platform
from wwfast.system.run import LONG, run

# What it takes to boot, get an address, be reached, and fetch overlays.
PACKAGES = ("systemd-sysv", "dbus", "udev", "kmod", "iproute2", "openssh-server", "curl")
KERNEL = {"amd64": "linux-image-amd64", "arm64": "linux-image-arm64"}


def bootstrap(suite: str, tree: Path, wanted: str) -> None:
    """Fill `tree` with a bootable minimal Debian; needs root, mmdebstrap and a mirror."""
    machine = platform(wanted)
    if machine.architecture not in KERNEL:
        raise WwfastError(f"no Debian kernel is known for {machine}", hint="amd64 and arm64 are")
    if not suite.isascii() or not suite.replace("-", "").isalnum():
        raise WwfastError(f"{suite!r} is no Debian suite", hint="for example: debian:bookworm")
    run(
        [
            "mmdebstrap",
            "--quiet",
            "--variant=minbase",
            f"--architectures={machine.architecture}",
            f"--include={','.join((KERNEL[machine.architecture], *PACKAGES))}",
            # A node gets its identity from overlays; the host's own must not be in the image.
            '--customize-hook=rm -f "$1"/etc/hostname "$1"/etc/resolv.conf "$1"/etc/ssh/ssh_host_*',
            '--customize-hook=: >"$1"/etc/machine-id',
            '--customize-hook=chroot "$1" systemctl enable systemd-networkd.service',
            suite,
            tree,
        ],
        # The node's initramfs is the image itself: the kernel package need not make one.
        env={**os.environ, "INITRD": "No"},
        timeout=LONG,
        package="mmdebstrap",
    )
