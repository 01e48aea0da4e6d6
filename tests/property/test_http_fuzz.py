"""Any bytes are understood or refused with a status, and how they are cut into pieces changes nothing."""

from __future__ import annotations

import itertools

from hypothesis import example, given
from hypothesis import strategies as st

from wwfast.net.http.conditions import byte_range, choose
from wwfast.net.http.head import Head, HeadError, HeadReader, split_target

PARTS = [b"GET ", b"HEAD ", b"/", b"//", b"..", b"%2e", b"?wwid=", b"&", b" HTTP/1.1", b"\r\n", b"\r\n\r\n", b":", b" "]
PARTS += [b"Host: a", b"Range: bytes=0-", b"Content-Length: 1", b"Connection: close", b"\0", b"\xff", b"a", b"\n"]
STREAMS = st.lists(st.one_of(st.sampled_from(PARTS), st.binary(max_size=6)), max_size=40).map(b"".join)


def read(pieces: list[bytes]) -> list[Head | int]:
    reader = HeadReader(512)
    found: list[Head | int] = []
    for piece in pieces:
        try:
            head = reader.take(piece) if piece else reader.next()
            while head is not None:
                found.append(head)
                head = reader.next()
        except HeadError as error:
            return [*found, error.status]
    return found


@given(STREAMS, st.lists(st.integers(0, 400), max_size=8))
def test_http_head_is_the_same_in_any_pieces(stream: bytes, cuts: list[int]) -> None:
    marks = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    pieces = [stream[start:end] for start, end in itertools.pairwise(marks)]
    whole = read([stream])
    assert read(pieces) == whole
    for found in whole:
        if isinstance(found, Head):
            assert found.path.startswith("/")
            assert "/../" not in f"{found.path}/"
        else:
            assert found in (400, 405, 413, 414, 431)


@given(st.one_of(st.binary(max_size=60), STREAMS))
@example("/Ā".encode())
@example(b"/..%2f..")
def test_http_target_never_leaves_the_tree(target: bytes) -> None:
    """A target is bytes, which a head is read into as Latin-1, letter by letter."""
    try:
        path, _ = split_target(target.decode("latin-1"))
    except HeadError:
        return
    assert path.startswith("/")
    assert "//" not in path
    assert ".." not in path.split("/")
    assert "\0" not in path


@given(st.text(max_size=30), st.integers(0, 1000))
def test_http_range_is_inside_the_body(value: str, size: int) -> None:
    status, start, length = byte_range(f"bytes={value}", size)
    assert status in (200, 206, 416)
    assert 0 <= start <= start + length <= size
    assert choose({"range": value, "if-range": value, "if-none-match": value}, size, '"x"', 5).status in (200, 304)
