"""Fair shares of a bounded number of places among holders that nobody has proven to be good.

While half of the places are free anybody may take one: a whole cluster may come from one address, through a proxy or as
simulated nodes. After that a holder may have no more than its share among all holders and one that is still to come, so
that however many one of them takes, or k of them together, the next one finds room.
"""

from __future__ import annotations

from collections.abc import Hashable


class Shares:
    """`limit` places. Costs one dictionary entry for each holder that has one."""

    __slots__ = ("limit", "refused", "taken", "total")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.total = 0
        self.refused = 0
        self.taken: dict[Hashable, int] = {}

    def take(self, holder: Hashable) -> bool:
        """Whether there is a place for `holder`; it is taken then."""
        mine = self.taken.get(holder, 0)
        if 2 * self.total >= self.limit and (self.total >= self.limit or mine >= self.share):
            self.refused += 1
            return False
        self.taken[holder] = mine + 1
        self.total += 1
        return True

    def give(self, holder: Hashable) -> None:
        """`holder` has one place less."""
        left = self.taken[holder] - 1
        self.total -= 1
        if left:
            self.taken[holder] = left
        else:
            del self.taken[holder]

    @property
    def share(self) -> int:
        """Places of each when all want as many as they can get."""
        return max(1, self.limit // (len(self.taken) + 1))
