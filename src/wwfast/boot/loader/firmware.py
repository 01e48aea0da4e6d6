"""From what a client says in DHCP to the boot file it gets: the only place that decides this.

The inputs are options 93 (client architecture), 60 (vendor class) and 77 (user class); RFC 4578, RFC 3004.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol
from urllib.parse import quote

from wwfast.boot.loader.urls import Urls
from wwfast.boot.ways import BIOS, UEFI

# UEFI HTTP boot has architecture numbers of its own (IANA "Processor Architecture Types"); the iPXE binary is
# the one of the matching TFTP number. OVMF 2022.11 sends 16 and 19.
HTTP_ARCHITECTURES = {15: 6, 16: 7, 18: 10, 19: 11}
# iPXE 1.21 asks for a script of its own beside the binary before it uses DHCP, and does well without one.
OPTIONAL_FILES = frozenset({"autoexec.ipxe"})


class Client(Protocol):
    """What DHCP knows of the one that asks: `arch` is option 93 (0 BIOS, 7 and 9 x86-64 UEFI, 11 arm64 UEFI,
    16 and 19 UEFI HTTP; None when not sent), `others` what it runs as well (RFC 4578 2.1: a list)."""

    @property
    def arch(self) -> int | None: ...
    @property
    def others(self) -> tuple[int, ...]: ...
    @property
    def is_ipxe(self) -> bool: ...
    @property
    def is_http(self) -> bool: ...
    @property
    def is_pxe(self) -> bool: ...


def arch_key(arch: int) -> str:
    """The key of an architecture in `tftp: ipxe`: 7 -> "00:07"."""
    return f"{arch >> 8:02X}:{arch & 0xFF:02X}"


def boot_file(client: Client, mac: str, urls: Urls, binaries: Mapping[str, str]) -> str | None:
    """The TFTP name or URL for one client; None when it boots nothing that we have.

    `binaries` maps architecture keys to TFTP names of the iPXE binaries that were found.
    """
    if client.is_ipxe:
        # iPXE says arch 7 and PXEClient even where UEFI fetched it by HTTP, so this comes first: no loop.
        known = "" if client.arch is None else UEFI if client.arch else BIOS
        return urls.script(mac, known)
    if not client.is_http and not client.is_pxe:
        return None
    wanted = (client.arch or 0, *client.others)  # a BIOS ROM may leave option 93 out
    if client.is_http:
        wanted = tuple(HTTP_ARCHITECTURES.get(arch, arch) for arch in wanted)
    name = next(filter(None, (binaries.get(arch_key(arch)) for arch in wanted)), None)
    # OVMF rejects a TFTP name by HTTP and wants the whole URL in option 67.
    return urls.binary(quote(name)) if name and client.is_http else name
