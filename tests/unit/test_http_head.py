"""Request heads: what is understood, what is refused, and that arrival in pieces changes nothing."""

from __future__ import annotations

import time

import pytest

from wwfast.net.http.conditions import choose
from wwfast.net.http.head import Head, HeadError, HeadReader, parse, split_target

IPXE = (
    b"GET /ipxe/52:54:00:00:00:01?assetkey=a%20b&uuid=x HTTP/1.1\r\n"
    b"Connection: keep-alive\r\nUser-Agent: iPXE/1.21.1\r\nHost: 10.78.0.1:9873\r\n\r\n"
)
UEFI = b"HEAD /efiboot//grubx64.efi HTTP/1.1\r\nHost: 10.78.0.1\r\nAccept: */*\r\nUser-Agent: UefiHttpBoot/1.0\r\n\r\n"


def read(pieces: list[bytes], limit: int = 16384) -> list[Head]:
    reader = HeadReader(limit)
    heads: list[Head] = []
    for piece in pieces:
        head = reader.take(piece)
        while head is not None:
            heads.append(head)
            head = reader.next()
    assert len(reader) == 0
    return heads


def test_two_requests_split_at_every_byte_are_the_same_two_requests() -> None:
    stream = IPXE + b"\r\n" + UEFI
    whole = read([stream])
    assert [head.path for head in whole] == ["/ipxe/52:54:00:00:00:01", "/efiboot/grubx64.efi"]
    for at in range(1, len(stream)):
        assert read([stream[:at], stream[at:]]) == whole
    assert read([stream[at : at + 1] for at in range(len(stream))]) == whole


def test_query_keeps_first_values_and_decodes() -> None:
    (head,) = read([IPXE])
    assert head.query == {"assetkey": "a b", "uuid": "x"}
    assert split_target("/provision?wwid=52:54:00:00:00:01&wwid=other&stage=image")[1] == {
        "wwid": "52:54:00:00:00:01",
        "stage": "image",
    }


def test_keep_alive_follows_version_and_connection() -> None:
    assert parse(b"GET / HTTP/1.1").keep_alive
    assert not parse(b"GET / HTTP/1.0").keep_alive
    assert parse(b"GET / HTTP/1.0\r\nConnection: Keep-Alive").keep_alive
    assert not parse(b"GET / HTTP/1.1\r\nConnection: close").keep_alive


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/2.0", 400),
        (b"GET  / HTTP/1.1", 400),
        (b"GET /\nHost: a HTTP/1.1", 400),
        (b"GET / HTTP/1.1\r\nHost : a", 400),
        (b"GET / HTTP/1.1\r\n folded", 400),
        (b"GET / HTTP/1.1\r\nA: b\nC: d", 400),
        (b"GET / HTTP/1.1\r\nA: b\0", 400),
        (b"GET * HTTP/1.1", 400),
        (b"GET /a/../b HTTP/1.1", 400),
        (b"GET /a/%2e%2e/b HTTP/1.1", 400),
        (b"GET /a/..%2fb HTTP/1.1", 400),
        (b"GET /a/.. HTTP/1.1", 400),
        (b"GET /%00 HTTP/1.1", 400),
        (b"GET http://h/../../etc/passwd HTTP/1.1", 400),
        (b"PUT / HTTP/1.1", 405),
        (b"POST / HTTP/1.1\r\nContent-Length: 5", 413),
        (b"DELETE /node HTTP/1.1\r\nContent-Length: 5", 405),
        (b"GET / HTTP/1.1\r\nContent-Length: 5", 413),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked", 413),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1", 414),
        (b"GET / HTTP/1.1" + b"\r\nA: b" * 65, 431),
    ],
)
def test_what_is_refused(head: bytes, status: int) -> None:
    with pytest.raises(HeadError) as caught:
        parse(head)
    assert caught.value.status == status


def test_absolute_targets_and_double_slashes_are_cleaned() -> None:
    assert split_target("http://10.0.0.1:9873//image//x?a=1") == ("/image/x", {"a": "1"})
    assert split_target("/a..b/...")[0] == "/a..b/..."


def test_a_head_of_exactly_the_limit_is_read_and_a_longer_one_refused() -> None:
    """In one piece or in two; the empty line does not count."""
    head = IPXE.replace(b"/ipxe/", b"/long/")  # one that was read before is known, whatever the limit
    for pieces in ([head], [head[:9], head[9:]]):
        with pytest.raises(HeadError) as caught:
            read(pieces, len(head) - 5)
        assert caught.value.status == 431
        assert len(read(pieces, len(head) - 4)) == 1


def test_a_head_that_never_ends_is_refused_at_the_limit() -> None:
    reader = HeadReader(1024)
    reader.feed(b"GET / HTTP/1.1\r\nA: ")
    assert reader.next() is None
    reader.feed(b"x" * 1024)
    with pytest.raises(HeadError) as caught:
        reader.next()
    assert caught.value.status == 431


LONG = 15_000  # of one letter: a head may be 16 KiB
PLACES = [
    b"%b / HTTP/1.1",
    b"GET /%b HTTP/1.1",
    b"GET /x?a=%b HTTP/1.1",
    b"GET / HTTP/1.1\r\n%b: a",
    *(b"GET / HTTP/1.1\r\n%b: %%b" % name for name in (b"A", b"Range", b"If-Match", b"If-None-Match")),
    *(b"GET / HTTP/1.1\r\n%b: %%b" % name for name in (b"If-Modified-Since", b"If-Unmodified-Since", b"If-Range")),
    b"GET / HTTP/1.1\r\nRange: bytes=%b-\r\nIf-Range: %b",
]


@pytest.mark.parametrize(
    "letter", [b" ", b"\t", b"a", b"0", b":", b",", b"/", b"%", b"&", b"=", b"+", b'"', b"-", b"(", b"a "]
)
def test_http_head_costs_no_more_than_its_bytes(letter: bytes) -> None:
    """Wherever one letter comes again and again, and whatever stands behind it: the loop reads heads, for all."""
    run = letter * (LONG // len(letter))
    for place in PLACES:
        for end in (b"", b"\0", b"a", b"\xff", b"\r"):
            filled = place.replace(b"%b", run + end)
            begun = time.thread_time()
            try:
                choose(parse(filled[:16384]).headers, 1000, '"x"', 5)
            except HeadError:
                pass
            assert time.thread_time() - begun < 0.1, (place, end)
