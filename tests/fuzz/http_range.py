"""Conditions and ranges: the part that is sent lies inside the body, and cut() gives exactly its bytes."""

from __future__ import annotations

from wwfast.archive.artefact import Extent
from wwfast.net.http.conditions import choose, cut

NAMES = ("range", "if-range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since")
TOKENS = (
    b"bytes=", b"0-", b"-1", b"0-0", b"999999999999999999", b'"x"', b'W/"x"', b"*", b", ",
    b"Sun, 06 Nov 1994 08:49:37 GMT", b" \t", b"\n", b"+9999", "٣".encode(),
)  # fmt: skip
ETAG = '"x"'


def one(data: bytes) -> None:
    """Two bytes of size, then a value a line in the order of NAMES; an empty one is not sent."""
    size = int.from_bytes(data[:2], "big") % 2048
    values = data[2:].decode("latin-1").split("\n")
    headers = {name: value for name, value in zip(NAMES, values, strict=False) if value}
    status, start, length = choose(headers, size, ETAG, 784111777)
    assert status in (200, 206, 304, 412, 416)
    assert 0 <= start <= start + length <= size
    assert status != 200 or (start, length) == (0, size)
    assert status != 206 or length > 0
    if "*" in headers.get("if-match", "").split(","):
        assert status != 412
    if headers.get("if-match", "").startswith("W/") and "," not in headers["if-match"]:
        assert status == 412
    at = start
    for _, offset, part in cut([Extent("body", each, 7) for each in range(0, size + 7, 7)], start, length):
        assert offset == at
        assert part > 0
        at += part
    assert at == start + length
