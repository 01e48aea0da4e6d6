"""Ranges and preconditions."""

from __future__ import annotations

import pytest

from wwfast.archive.artefact import Extent
from wwfast.net.http.conditions import byte_range, choose, cut

STAMP = 1_700_000_000
DATE = "Tue, 14 Nov 2023 22:13:20 GMT"
EARLIER = "Tue, 14 Nov 2023 22:13:19 GMT"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("bytes=0-", (206, 0, 100)),
        ("bytes=10-19", (206, 10, 10)),
        ("bytes=90-1000", (206, 90, 10)),
        ("bytes=-5", (206, 95, 5)),
        ("bytes=-500", (206, 0, 100)),
        ("bytes=100-", (416, 0, 0)),
        ("bytes=-0", (416, 0, 0)),
        ("bytes=9-3", (200, 0, 100)),
        ("bytes=0-1,3-4", (200, 0, 100)),
        ("bytes=-", (200, 0, 100)),
        ("octets=0-1", (200, 0, 100)),
        ("bytes=" + "9" * 18 + "-", (416, 0, 0)),
        ("bytes=" + "9" * 19 + "-", (200, 0, 100)),
        ("bytes=0-" + "9" * 30, (200, 0, 100)),
    ],
)
def test_one_range(value: str, expected: tuple[int, int, int]) -> None:
    assert tuple(byte_range(value, 100)) == expected


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"if-none-match": '"d"'}, 304),
        ({"if-none-match": 'W/"d", "x"'}, 304),
        ({"if-none-match": "*"}, 304),
        ({"if-none-match": '"x"'}, 200),
        ({"if-none-match": '"x"', "if-modified-since": DATE}, 200),
        ({"if-modified-since": DATE}, 304),
        ({"if-modified-since": EARLIER}, 200),
        ({"if-modified-since": "yesterday"}, 200),
        ({"if-unmodified-since": EARLIER}, 412),
        ({"if-match": '"x"'}, 412),
        ({"if-match": '"d"'}, 200),
        ({"if-match": 'W/"d"'}, 412),  # RFC 9110 13.1.1: compared strongly
        ({"if-match": '"x", "d"'}, 200),
        ({"if-match": "*"}, 200),
        ({"range": "bytes=1-2", "if-range": 'W/"d"'}, 200),
        ({"range": "bytes=1-2"}, 206),
        ({"range": "bytes=1-2", "if-range": '"d"'}, 206),
        ({"range": "bytes=1-2", "if-range": '"x"'}, 200),
        ({"range": "bytes=1-2", "if-range": DATE}, 206),
        ({"range": "bytes=1-2", "if-range": EARLIER}, 200),
        ({"range": "bytes=1-2", "if-none-match": '"d"'}, 304),
    ],
)
def test_conditions(headers: dict[str, str], status: int) -> None:
    found = choose(headers, 100, '"d"', STAMP)
    assert found.status == status
    assert (found.start, found.length) == {200: (0, 100), 206: (1, 2)}.get(status, (0, 0))


def test_cut_is_slicing() -> None:
    extents = (Extent("a", 100, 10), Extent("b", 0, 5), Extent("a", 7, 20))
    whole = [(e.path, at) for e in extents for at in range(e.offset, e.offset + e.length)]
    for start in range(36):
        for length in range(36 - start):
            parts = cut(extents, start, length)
            flat = [(path, at) for path, offset, size in parts for at in range(offset, offset + size)]
            assert flat == whole[start : start + length]
            assert all(size for _, _, size in parts)
