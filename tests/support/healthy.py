"""A small site that boots as far as doctor can see, to take something away from."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from wwfast.images import building
from wwfast.paths import Paths

RELEASE = "6.1.0-32-amd64"
CONFIG = (
    "CONFIG_MODULES=y\nCONFIG_RD_ZSTD=y\nCONFIG_RD_GZIP=y\nCONFIG_BLK_DEV_INITRD=y\n"
    "CONFIG_BINFMT_ELF=y\nCONFIG_BINFMT_SCRIPT=y\nCONFIG_DEVTMPFS=y\nCONFIG_PROC_FS=y\n"
)
CONF: dict[str, Any] = {
    "ipaddr": "10.0.0.1",
    "netmask": "255.255.0.0",
    "network": "10.0.0.0",
    "warewulf": {"port": 19873},
    "paths": {"ipxesource": "/ipxe"},
}
PROFILE: dict[str, Any] = {
    "image name": "deb",
    "system overlay": ["wwinit", "wwclient", "hostname"],
    "runtime overlay": ["hosts"],
}


def elf(machine: int = 62) -> bytes:
    """The header of a program: 62 is x86-64, 183 arm64."""
    return b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack("<HH", 2, machine) + bytes(44)


def bzimage() -> bytes:
    """The header of a kernel for x86-64."""
    head = bytearray(0x400)
    head[0x202:0x206], head[0x236] = b"HdrS", 1
    return bytes(head) + b"kernel" * 100


def arm_image() -> bytes:
    return bytes(56) + b"ARM\x64" + bytes(1000)


def put(file: Path, data: bytes | str, mode: int = 0o644) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data if isinstance(data, bytes) else data.encode())
    file.chmod(mode)
    return file


class Healthy:
    """`entries` and `conf` are nodes.conf and warewulf.conf; call write() after a change, build() after one of the
    image's tree."""

    def __init__(self, paths: Paths, nodes: int = 3) -> None:
        self.paths = paths
        self.rootfs = paths.chroots / "deb/rootfs"
        self.conf: dict[str, Any] = json.loads(json.dumps(CONF))
        self.profiles: dict[str, Any] = {"default": json.loads(json.dumps(PROFILE))}
        self.entries: dict[str, Any] = {f"n{at}": node(at) for at in range(1, nodes + 1)}
        for name in ("undionly.kpxe", "ipxe-snponly-x86_64.efi"):
            put(paths.root / "ipxe" / name, "ipxe")
        self.tree()
        self.build()
        self.write()

    def tree(self) -> None:
        for link in ("bin", "sbin", "lib"):
            (self.rootfs / "usr" / link).mkdir(parents=True, exist_ok=True)
            (self.rootfs / link).symlink_to(f"usr/{link}")
        for program in ("bin/sh", "bin/curl", "bin/tar", "sbin/init"):
            put(self.rootfs / "usr" / program, elf(), 0o755)
        put(self.rootfs / f"boot/vmlinuz-{RELEASE}", bzimage())
        put(self.rootfs / f"boot/config-{RELEASE}", CONFIG)
        put(self.rootfs / f"usr/lib/modules/{RELEASE}/kernel/e1000.ko", "module")
        put(self.rootfs / f"usr/lib/modules/{RELEASE}/modules.dep", "kernel/e1000.ko:\n")

    def build(self) -> None:
        building.build(self.paths, "deb")

    def overlay(self, name: str, path: str, text: str, mode: int = 0o644) -> Path:
        return put(self.paths.site_overlays / name / "rootfs" / path, text, mode)

    def write(self) -> None:
        self.paths.conf.write_text(json.dumps(self.conf))
        self.paths.nodes_conf.write_text(json.dumps({"nodeprofiles": self.profiles, "nodes": self.entries}))


def node(at: int) -> dict[str, Any]:
    device = {"hwaddr": f"52:54:00:00:00:{at:02x}", "ipaddr": f"10.0.1.{at}", "netmask": "255.255.0.0"}
    return {"profiles": ["default"], "network devices": {"default": device}}
