"""Who is asking: hardware addresses as nodes write them, and the neighbour table as the last resort."""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Callable
from pathlib import Path

from wwfast.config.checks import asset_tag

# Ethernet (6 bytes) and InfiniBand (20 bytes, or the 8-byte GUID that iPXE tells).
_MAC = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}(?:(?::[0-9a-f]{2}){2}|(?::[0-9a-f]{2}){14})?")
ARP = Path("/proc/net/arp")


def normal(wwid: str) -> str:
    """`52-54-00-AA-BB-CC` -> `52:54:00:aa:bb:cc`. No check: see `is_mac`."""
    return wwid.strip().replace("-", ":").lower()


def is_mac(wwid: str) -> bool:
    """A hardware address that one machine can own: not zero, not a group address."""
    return bool(_MAC.fullmatch(wwid)) and wwid != "00:00:00:00:00:00" and not int(wwid[:2], 16) & 1


def is_asset(wanted: str, told: str) -> bool:
    """Whether it is the same asset tag; in as long for a wrong one as for the right one."""
    return hmac.compare_digest(asset_tag(wanted).encode(), asset_tag(told).encode())


class Neighbours:
    """The kernel's table of IPv4 neighbours, for a thread: with ten thousand of them reading it takes 10 ms. It is read
    at most once a second, and for an address that was not in it five times."""

    def __init__(self, table: Path = ARP, clock: Callable[[], float] = time.monotonic) -> None:
        self._table = table
        self._clock = clock
        self._text = ""
        self._read = float("-inf")

    def __call__(self, address: str) -> str:
        """The MAC, or "" when the kernel does not know it (incomplete entries count as unknown)."""
        age = self._clock() - self._read
        if age < 1.0 and (found := self._look_up(address)):
            return found
        if age >= 0.2:
            self._read = self._clock()
            try:
                self._text = self._table.read_text()
            except OSError:
                self._text = ""
        return self._look_up(address)

    def _look_up(self, address: str) -> str:
        begin = self._text.find(f"\n{address} ") + 1
        words = self._text[begin : self._text.find("\n", begin)].split() if begin else []
        mac = words[3].lower() if len(words) >= 4 else ""
        return mac if is_mac(mac) else ""
