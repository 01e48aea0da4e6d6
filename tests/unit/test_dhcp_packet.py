"""DHCP messages: parsed right, built right, and nothing malformed gets further."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wwfast.net.dhcp.packet import (
    MIN_SIZE,
    REPLY,
    Malformed,
    Message,
    Option,
    build,
    client_info,
    encoded,
    guid,
    number,
    parse,
    user_classes,
)

MAC = bytes.fromhex("525400000001")
OVMF_GUID = bytes.fromhex("00 67452301 ab89 efcd 0123456789abcdef".replace(" ", ""))


def test_dhcp_round_trip_keeps_every_field() -> None:
    message = Message(
        xid=0x12345678,
        hops=1,
        secs=4,
        flags=0x8000,
        ciaddr=number("10.0.0.2"),
        giaddr=number("10.1.0.1"),
        chaddr=MAC,
        file=b"undionly.kpxe",
        options={53: b"\1", 61: b"\1" + MAC, 43: bytes(range(256)) * 2},
    )
    assert parse(build(message)) == message


def test_dhcp_questions_and_answers_are_told_apart_on_the_wire() -> None:
    """RFC 2131 2: op is 1 of a BOOTREQUEST and 2 of a BOOTREPLY."""
    assert build(Message(chaddr=MAC))[0] == 1
    assert build(Message(op=REPLY, chaddr=MAC))[0] == 2
    assert parse(b"\2" + build(Message(chaddr=MAC))[1:]).op == REPLY


def test_dhcp_option_order_kind_first_and_relay_information_last() -> None:
    data = build(Message(chaddr=MAC, options={82: b"\1\1x", 60: b"PXEClient", 53: b"\2"}))
    assert data[240] == 53
    assert data.rstrip(b"\0").endswith(b"\x52\3\1\1x\xff")
    assert len(data) >= MIN_SIZE


def test_dhcp_overloaded_header_fields_are_options() -> None:
    data = bytearray(build(Message(chaddr=MAC, options={53: b"\1", 52: b"\3"})))
    data[44:47], data[108:114] = bytes((12, 1, 97)), bytes((60, 3)) + b"PXE" + b"\xff"
    message = parse(bytes(data))
    assert (message.options[12], message.options[60]) == (b"a", b"PXE")
    assert (message.sname, message.file) == (b"", b"")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda data: data[:239], "too short"),
        (lambda data: data[:236] + bytes(4) + data[240:], "magic"),
        (lambda data: data[:240] + bytes((12, 200)) + data[242:260], "past the end"),
        (lambda data: b"\7" + data[1:], "operation"),
        (lambda data: data[:2] + b"\xff" + data[3:], "hardware address length"),
    ],
)
def test_dhcp_malformed_packets_are_refused(change, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        parse(change(build(Message(chaddr=MAC, options={53: b"\1"}))))


@given(st.binary(max_size=700), st.integers(0, 600))
def test_dhcp_any_bytes_are_parsed_or_refused(noise: bytes, keep: int) -> None:
    whole = build(Message(chaddr=MAC, options={53: b"\1", 77: noise[:200], 82: noise[:255]}))
    for data in (noise, whole[:240] + noise, whole[:keep] + noise):
        try:
            client_info(parse(data))
        except Malformed:
            pass


def test_dhcp_guid_has_its_first_three_fields_little_endian() -> None:
    assert guid(OVMF_GUID) == "01234567-89ab-cdef-0123-456789abcdef"


@pytest.mark.parametrize("value", [b"\0" + bytes(16), b"\0" + b"\xff" * 16, b"", b"\1" + bytes(range(16)), b"\0" * 5])
def test_dhcp_guid_of_nobody_is_no_identity(value: bytes) -> None:
    assert guid(value) == ""


@pytest.mark.parametrize(
    ("value", "words"),
    [(b"iPXE", ("iPXE",)), (b"\4iPXE", ("iPXE",)), (b"\1a\4iPXE", ("a", "iPXE")), (b"", ())],
)
def test_dhcp_user_class_bare_and_with_lengths(value: bytes, words: tuple[str, ...]) -> None:
    assert user_classes(value) == words


def test_dhcp_client_info_tells_firmware_ipxe_and_system_apart() -> None:
    def of(options: dict[int, bytes]):
        return client_info(Message(chaddr=MAC, options=options))

    ovmf = of({60: b"PXEClient:Arch:00007:UNDI:003000", 93: b"\0\7", Option.CLIENT_UUID: OVMF_GUID})
    assert (ovmf.is_pxe, ovmf.is_ipxe, ovmf.arch, ovmf.mac) == (True, False, 7, "52:54:00:00:00:01")
    ipxe = of({60: b"PXEClient:Arch:00007:UNDI:003010", 77: b"iPXE", 93: b"\0\7"})
    assert (ipxe.is_pxe, ipxe.is_ipxe) == (True, True)
    assert of({175: b"\1\1\1"}).is_ipxe
    http = of({60: b"HTTPClient:Arch:00016:UNDI:003000", 93: b"\0\x10"})
    assert (http.is_http, http.is_pxe, http.boots) == (True, False, True)
    assert not of({60: b"systemd", 12: b"n1"}).boots


@pytest.mark.parametrize("size", [0, 1, 254, 255, 256, 509, 510, 511])
def test_dhcp_an_option_of_any_length_is_in_pieces_that_are_one(size: int) -> None:
    """RFC 3396: a piece has 255 bytes at most, and none is cut where none need be."""
    value = bytes(at % 251 for at in range(size))
    data, pieces = encoded(43, value), list[bytes]()
    while data:
        code, length = data[:2]
        assert code == 43
        pieces.append(data[2 : 2 + length])
        data = data[2 + length :]
    assert (b"".join(pieces), len(pieces)) == (value, max(1, -(-size // 255)))
