"""The border between the server and whoever decides which node's turn it is (daemon.traffic.scheduler)."""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple, Protocol


class Patience(Enum):
    """How a client may be kept waiting. See each value for what was measured."""

    RETRIES = auto()  # iPXE: obeys 503 + Retry-After (whole seconds) on the same connection since 2014
    SHORT = auto()  # GRUB, UEFI HTTP: no 503, no redirect; first header bytes within 4 s or the boot is lost
    LONG = auto()  # curl, wget, wwclient: wait for headers without limit


def patience(user_agent: str) -> Patience:
    if user_agent.startswith("iPXE"):
        return Patience.RETRIES
    if user_agent.startswith(("GRUB", "UefiHttpBoot")):
        return Patience.SHORT
    return Patience.LONG


class Verdict(NamedTuple):
    """Go, wait unanswered, or come again in `retry_after` seconds."""

    go: bool
    retry_after: int = 0


GO = Verdict(True)
WAIT = Verdict(False)


class Admission(Protocol):
    """Decides per node (`key`); all times are seconds of one monotonic clock, sizes are bytes."""

    def ask(self, key: str, share: str, size: int, patience: Patience, now: float) -> Verdict:
        """A node asks for an object of `size`."""

    def tick(self, sent: int, now: float) -> list[tuple[str, Verdict]]:
        """Called about 20 times a second with the total sent so far: verdicts for nodes that were told to wait."""

    def progress(self, key: str, sent: int, now: float) -> None:
        """`sent` more bytes of the node's object have left."""

    def finished(self, key: str, last: bool, now: float) -> None:
        """The node's object is complete, or its transfer broke; after the `last` one its turn is over."""

    def left(self, key: str, now: float) -> None:
        """A node that was told to wait closed its connection."""
