"""newc of our own cache: ValueError, or entries that fit in it; what is packed is read back the same."""

from __future__ import annotations

from wwfast.archive import newc
from wwfast.errors import WwfastError

TOKENS = (
    b"070701",
    b"00000000",
    b"FFFFFFFF",
    b"0000000B",
    b"00000001",
    b"000081A4",
    b"TRAILER!!!\0",
    b"a\0",
    b"\0" * 4,
    b"etc/x\0",
)


def one(data: bytes) -> None:
    try:
        found = newc.entries(data)
    except ValueError:
        return
    assert sum(len(entry.name) + len(entry.data) for entry in found) <= len(data)
    try:
        again = newc.archive(found)
    except WwfastError:
        return
    assert newc.entries(again) == found
