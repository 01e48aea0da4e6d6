"""Which numbers of a range are free: found, taken and given back in a few steps, however large or full the range is.

A bit for each number, in words of BITS, and above them one integer with a bit for each word that has a free number.
Both are Python integers, so the lowest free number from some place on is a shift and two operations on each level: less
than a microsecond with 65,536 numbers, all free or all taken.
"""

from __future__ import annotations

from collections.abc import Iterable

#: Of 65,536 numbers the square root, so that both levels cost the same; 16 million cost microseconds more.
BITS = 256

Mask = list[int]


class Pool:
    """Numbers 0..size-1. One is free when it is neither held (`hold`, `let_go`) nor reserved (`reserve`)."""

    def __init__(self, size: int) -> None:
        self.size = size
        whole, rest = divmod(size, BITS)
        self._all: Mask = [(1 << BITS) - 1] * whole + ([(1 << rest) - 1] if rest else [])
        self._held: Mask = [0] * len(self._all)
        self._reserved: Mask = [0] * len(self._all)
        self._free: Mask = list(self._all)
        self._words = (1 << len(self._all)) - 1  # those with a free number

    def mask(self, numbers: Iterable[int]) -> Mask:
        """Made for `reserve` in whatever thread has the time; numbers that are not in the range are left out."""
        words = [0] * len(self._all)
        for number in numbers:
            if 0 <= number < self.size:
                words[number // BITS] |= 1 << number % BITS
        return words

    def reserve(self, mask: Mask) -> None:
        """From now on exactly these are reserved. Costs the words that changed, not the numbers."""
        former, self._reserved = self._reserved, mask
        for word, (old, new) in enumerate(zip(former, mask, strict=True)):
            if old != new:
                self._changed(word)

    def is_reserved(self, number: int) -> bool:
        return self._reserved[number // BITS] >> number % BITS & 1 == 1

    def hold(self, number: int) -> None:
        word, bit = number // BITS, 1 << number % BITS
        self._held[word] |= bit
        free = self._free[word]
        if free & bit:
            self._free[word] = free ^ bit
            if free == bit:
                self._words ^= 1 << word

    def let_go(self, number: int) -> None:
        word = number // BITS
        self._held[word] &= ~(1 << number % BITS)
        self._changed(word)

    def first(self, start: int) -> int | None:
        """The first free number from `start` on, going on at 0 after the last; None when there is none."""
        if not self._words:
            return None
        word, bit = divmod(start, BITS)
        if found := self._free[word] >> bit:
            return start + _lowest(found)
        if later := self._words >> word + 1:
            word += 1 + _lowest(later)
        else:
            word = _lowest(self._words)
        return word * BITS + _lowest(self._free[word])

    def _changed(self, word: int) -> None:
        free = self._all[word] & ~(self._held[word] | self._reserved[word])
        if bool(free) != bool(self._free[word]):
            self._words ^= 1 << word
        self._free[word] = free


def _lowest(bits: int) -> int:
    return (bits & -bits).bit_length() - 1
