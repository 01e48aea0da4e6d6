"""Hostlists: refused in words, or names within the bounds that compress() writes back the same."""

from __future__ import annotations

from unittest import mock

from wwfast.errors import UsageError
from wwfast.nodes import hostlist

TOKENS = (b"[", b"]", b"-", b",", b"[1-3]", b"[01-10]", b"n", b"0", b"9" * 18, b"[0-", b"000", "٣".encode(), b" ")
MANY = 2000  # in place of a million: the same code, and millions of runs


def one(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    with mock.patch.object(hostlist, "LARGEST", MANY):
        try:
            names = hostlist.expand([text])
        except UsageError:
            return
        assert len(names) <= 2 * MANY
        assert all(len(name) <= 4 * len(text) + 64 for name in names)
        short = hostlist.compress(names)
        if not set("".join(names)) & set("[],") and all(name.isascii() for name in names):
            assert set(hostlist.expand([short])) == set(names)
