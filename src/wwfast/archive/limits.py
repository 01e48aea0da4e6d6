"""How much of an archive is too much."""

from __future__ import annotations

from dataclasses import dataclass

from wwfast.config.settings import Own
from wwfast.errors import WwfastError


@dataclass(frozen=True, slots=True)
class Limits:
    """What no real image meets, and what keeps an archive made to exhaust this server from doing so.

    `size`: bytes read from archives, unpacked; holes of sparse files are not in them. `headers`: bytes of the
    extended headers of one entry. `depth`: directories below each other; real trees have some thirty. `ratio`: of
    unpacked to compressed bytes of one file beyond its first GiB (Debian's tree has 3; gzip can make 1032).
    """

    size: int
    entries: int
    headers: int
    depth: int
    ratio: int

    @classmethod
    def of(cls, own: Own) -> Limits:
        """Those of warewulf.conf."""
        return cls(own.image_size, own.image_entries, own.image_headers, own.image_depth, own.image_ratio)


LIMITS = Limits.of(Own())


def exceeded(what: str, setting: str, limit: int) -> WwfastError:
    """The refusal of what is over a limit, naming the setting of warewulf.conf that holds it."""
    return WwfastError(f"{what} (limit: {limit:,})", hint=f"if that is right, raise `wwfast: {setting}: {limit}`")
