"""newc of our own cache: ValueError, or contents that fit in it; what is packed is read back the same."""

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
        found = newc.contents(data)
    except ValueError:
        return
    assert sum(map(len, found.values())) <= len(data)
    entries = [
        newc.Entry(name.encode("utf-8", "surrogateescape"), 0o100644, 0, 0, 0, content)
        for name, content in found.items()
    ]
    try:
        again = newc.archive(entries)
    except WwfastError:
        return
    assert newc.contents(again) == {**found, "TRAILER!!!": b""}
