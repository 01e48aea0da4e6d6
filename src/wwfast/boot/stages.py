"""The stages of a boot, by the names used in routes and in /status."""

from __future__ import annotations

from enum import StrEnum


class Stage(StrEnum):
    DHCP = "dhcp"
    TFTP = "tftp"
    IPXE = "ipxe"
    GRUB = "grub"
    EFIBOOT = "efiboot"
    KERNEL = "kernel"
    INITRAMFS = "initramfs"
    STAGE1 = "stage1"
    IMAGE = "image"
    KMODS = "kmods"
    SYSTEM = "system"
    RUNTIME = "runtime"
    BLOB = "blob"  # no stage of a node: what caches fetch

    @property
    def label(self) -> str:
        """What the table of `wwfast node status` prints."""
        return {
            "system": "SYSTEM OVERLAY",
            "runtime": "RUNTIME OVERLAY",
            "kmods": "KMODS OVERLAY",
            "efiboot": "EFI",
            "stage1": "STAGE-1",
        }.get(self.value, self.value.upper())
