"""Request heads: refused with a status or read, the same in one piece as in many, and never out of the tree."""

from __future__ import annotations

from wwfast.net.http.head import Head, HeadError, HeadReader

TOKENS = (
    b"GET ", b"HEAD ", b"POST ", b" HTTP/1.1", b" HTTP/1.0", b"\r\n", b"\r\n\r\n", b"http://a/", b"%2e%2e", b"%2f",
    b"/..", b"//", b"?wwid=", b"&stage=", b"Content-Length: ", b"Transfer-Encoding: chunked", b"Connection: close",
    b"Range: bytes=0-", b"#", b"+", b"%00",
)  # fmt: skip
STATUSES = {400, 405, 413, 414, 431}
LIMIT = 1024


def read(pieces: list[bytes]) -> list[Head | int]:
    reader = HeadReader(LIMIT)
    found: list[Head | int] = []
    try:
        for piece in pieces:
            head = reader.take(piece) if piece else reader.next()
            while head is not None:
                found.append(head)
                head = reader.next()
    except HeadError as error:
        found.append(error.status)
    return found


def one(data: bytes) -> None:
    """The first byte is the size of the pieces."""
    step, stream = 1 + (data[0] if data else 0), data[1:]
    whole = read([stream])
    assert read([stream[at : at + step] for at in range(0, len(stream), step)]) == whole
    for found in whole:
        if isinstance(found, int):
            assert found in STATUSES
            continue
        assert found.path.startswith("/")
        assert not {"", ".."} & set(found.path[1:].split("/")[:-1])
        assert found.path.split("/")[-1] != ".."
        assert "\0" not in found.path
