"""Who is asking: hardware addresses as nodes write them, and the neighbour table as the last resort."""

from __future__ import annotations

import re
from pathlib import Path

# Ethernet (6 bytes) and InfiniBand (20 bytes, or the 8-byte GUID that iPXE tells).
_MAC = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}(?:(?::[0-9a-f]{2}){2}|(?::[0-9a-f]{2}){14})?")
ARP = Path("/proc/net/arp")


def normal(wwid: str) -> str:
    """`52-54-00-AA-BB-CC` -> `52:54:00:aa:bb:cc`. No check: see `is_mac`."""
    return wwid.strip().replace("-", ":").lower()


def is_mac(wwid: str) -> bool:
    """A hardware address that one machine can own: not zero, not a group address."""
    return bool(_MAC.fullmatch(wwid)) and wwid != "00:00:00:00:00:00" and not int(wwid[:2], 16) & 1


def neighbour(address: str, table: Path = ARP) -> str:
    """The MAC of an IPv4 neighbour, or "" when the kernel does not know it (incomplete entries count as unknown)."""
    try:
        lines = table.read_text().splitlines()[1:]
    except OSError:
        return ""
    for line in lines:
        words = line.split()
        if len(words) >= 4 and words[0] == address and is_mac(words[3].lower()):
            return words[3].lower()
    return ""
