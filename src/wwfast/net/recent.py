"""What strangers make us remember: a bounded number of keys, of which the one longest untouched gives way."""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeVar

T = TypeVar("T")


class Recent(OrderedDict[str, T]):
    """At most `most` entries, in the order of their last `note`. Keys are ours to keep short: MACs, addresses."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def note(self, key: str, value: T) -> None:
        """Remember it as the newest."""
        self[key] = value
        self.move_to_end(key)
        if len(self) > self._most:
            self.popitem(last=False)
