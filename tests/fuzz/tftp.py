"""TFTP: a request is Refused or granted no more than it asked; answers of others are read whatever they hold."""

from __future__ import annotations

from wwfast.net.tftp import packet
from wwfast.net.tftp.packet import MAX_WINDOW, Refused

TOKENS = (
    b"\0\1", b"\0\2", b"\0\6", b"octet\0", b"netascii\0", b"blksize\0", b"tsize\0", b"windowsize\0", b"timeout\0",
    b"1468\0", b"0\0", b"65464\0", b"../", b"\\", b"//", b"\xff", "٣\0".encode(),
)  # fmt: skip


def one(data: bytes) -> None:
    packet.parse_oack(data)
    packet.parse_error(data)
    try:
        request = packet.parse_request(data)
    except Refused:
        return
    terms = packet.negotiate(request, 12345)
    assert 8 <= terms.blksize <= 1468
    assert 1 <= terms.windowsize <= MAX_WINDOW
    assert 0 <= terms.timeout <= 255
    assert terms.oack.keys() <= request.options.keys()
    for name, limit in (("blksize", terms.blksize), ("windowsize", terms.windowsize)):
        assert name not in terms.oack or int(terms.oack[name]) == limit <= int(request.options[name])
    assert packet.parse_oack(packet.oack(terms.oack)) == terms.oack
    try:
        name = packet.plain_name(request.name)
    except Refused:
        return
    assert name
    assert not name.startswith("/")
    assert not {"", ".", ".."} & set(name.split("/"))
    if request.mode.isascii() and "�" not in request.name:
        assert packet.parse_request(packet.request(request.name, mode=request.mode)).name == request.name
