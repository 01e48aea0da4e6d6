"""What an import may be told beside its source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from wwfast.archive.limits import LIMITS, Limits

Progress = Callable[[str, int, int], None]


def quiet(what: str, done: int, total: int) -> None:
    """The progress of nobody: of `what`, `done` of `total` bytes (0: unknown) are read."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to reach a registry, which platform to take, how to tell about progress, what is too much."""

    platform: str = ""
    username: str = ""
    password: str = ""
    plain_http: bool = False
    stall: float = 60.0  # seconds without a byte after which a registry counts as dead
    progress: Progress = quiet
    limits: Limits = LIMITS
