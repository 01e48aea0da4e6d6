"""Transfers whose peer has not proven that it is there: a request is one datagram, and its address may be made up.

Their number is bounded. The oldest one makes room: who is there has acknowledged long before, and whoever was only
slow asks again. An address that holds more than its share makes room for itself.
"""

from __future__ import annotations


class Unproven:
    """At most `limit` transfers, by the number of each and the address it is for."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._addresses: dict[int, str] = {}  # oldest first, as all dictionaries here
        self._numbers: dict[str, dict[int, None]] = {}

    def __len__(self) -> int:
        return len(self._addresses)

    def __contains__(self, number: int) -> bool:
        return number in self._addresses

    def add(self, number: int, address: str) -> int | None:
        """Take one in: the number of the one that makes room, None when there is enough."""
        victim = None
        if len(self._addresses) >= self._limit:
            mine = self._numbers.get(address, {})
            share = max(1, self._limit // (len(self._numbers) + 1))
            victim = next(iter(mine if len(mine) >= share else self._addresses))
            self.remove(victim)
        self._addresses[number] = address
        self._numbers.setdefault(address, {})[number] = None
        return victim

    def remove(self, number: int) -> bool:
        """It has proven itself or ended; False when it was not in here."""
        address = self._addresses.pop(number, None)
        if address is None:
            return False
        numbers = self._numbers[address]
        del numbers[number]
        if not numbers:
            del self._numbers[address]
        return True
