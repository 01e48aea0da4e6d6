"""Every URL a node may be told, built from warewulf.conf and never from the Host header.

OVMF leaves the port out of Host and GRUB 2.06 does too, so the header can't be trusted for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from wwfast.config.settings import Settings

# iPXE expands ${...} itself; `:uristring` encodes what an asset tag may hold (blanks, &).
IPXE_IDENTITY = "assetkey=${asset:uristring}&uuid=${uuid}"


@dataclass(frozen=True, slots=True)
class Urls:
    """`authority` is host:port of the HTTP listener as nodes reach it."""

    authority: str

    @classmethod
    def of(cls, settings: Settings, *, ipv6: bool = False) -> Urls:
        if ipv6 and settings.ipaddr6:
            return cls(f"[{settings.ipaddr6}]:{settings.warewulf.port}")
        return cls(f"{settings.ipaddr}:{settings.warewulf.port}")

    @property
    def base(self) -> str:
        return f"http://{self.authority}"

    def script(self, mac: str, firmware: str = "") -> str:
        """The script of a node. In which way its image comes rests on `memsize` (MiB, which iPXE leaves empty where it
        was built without, as Debian's is and every one for UEFI) and on the firmware, where that is known."""
        told = f"&firmware={firmware}" if firmware else ""
        return f"{self.base}/ipxe/{quote(mac, safe=':')}?{IPXE_IDENTITY}&memsize=${{memsize}}{told}"

    def binary(self, name: str) -> str:
        """An iPXE binary for UEFI HTTP boot: the name must end in .efi (OVMF checks it or the content type)."""
        return f"{self.base}/efiboot/{name}"
