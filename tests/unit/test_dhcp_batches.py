"""The native side of DHCP: batches of packets, link-level frames, and options read as the slow way reads them."""

from __future__ import annotations

import errno
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wwfast._ext.dhcp import BATCH, Receiver, frame, read_options, send

LOOPBACK = 0x7F000001


def read_slowly(data: bytes) -> dict[int, bytes] | None:
    """The options of `data` by RFC 2132 and 3396; None when one runs past the end."""
    found: dict[int, bytes] = {}
    while data and data[0] != 255:
        if data[0] == 0:
            data = data[1:]
            continue
        if len(data) < 2 or len(data) < 2 + data[1]:
            return None
        found[data[0]] = found.get(data[0], b"") + data[2 : 2 + data[1]]
        data = data[2 + data[1] :]
    return found


@given(st.lists(st.tuples(st.integers(1, 254), st.binary(max_size=40)), max_size=12), st.binary(max_size=30))
def test_dhcp_options_are_read_as_the_standard_says(options: list[tuple[int, bytes]], noise: bytes) -> None:
    data = b"".join(bytes((code, len(value))) + value + b"\0" for code, value in options) + noise
    got: dict[int, bytes] = {}
    torn = read_options(b"head" + data, 4, got)
    expected = read_slowly(data)
    assert (torn >= 0) == (expected is None)
    if expected is not None:
        assert got == expected


def checksum(data: bytes) -> int:
    """RFC 1071, by words; 0 over data that carries its own right checksum."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@given(st.binary(max_size=1400), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_dhcp_frame_has_right_headers_and_checksums(data: bytes, source: int, target: int) -> None:
    made = frame(source, 67, target, 68, data)
    head, udp = made[:20], made[20:]
    assert (head[0], head[9], struct.unpack("!H", head[2:4])[0]) == (0x45, 17, len(made))
    assert head[12:] == source.to_bytes(4, "big") + target.to_bytes(4, "big")
    assert struct.unpack("!3H", udp[:6]) == (67, 68, len(data) + 8)
    assert udp[8:] == data
    pseudo = head[12:] + struct.pack("!2H", 17, len(udp))
    assert checksum(head) == 0
    assert checksum(pseudo + udp + b"\0" * (len(udp) % 2)) == 0
    assert udp[6:8] != b"\0\0", "zero means that there is no checksum"


def test_dhcp_batches_arrive_whole_and_in_order_with_their_sender() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as here, socket.socket(type=socket.SOCK_DGRAM) as there:
        for sock in (here, there):
            sock.bind(("127.0.0.1", 0))
        receiver = Receiver(there.fileno())
        with pytest.raises(BlockingIOError):
            receiver.receive()
        packets = [bytes((number,)) * (number + 1) for number in range(BATCH + 7)]
        port = there.getsockname()[1]
        assert send(here.fileno(), [(data, LOOPBACK, port) for data in packets]) == 0
        got = receiver.receive()
        assert len(got) == BATCH
        got += receiver.receive()
        assert got == [(data, LOOPBACK, here.getsockname()[1]) for data in packets]
        assert receiver.dropped == 0


def test_dhcp_one_packet_that_cannot_be_sent_does_not_hold_up_the_others() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as here, socket.socket(type=socket.SOCK_DGRAM) as there:
        there.bind(("127.0.0.1", 0))
        port = there.getsockname()[1]
        with pytest.raises(OSError) as refused:  # a broadcast without permission
            here.sendto(b"", ("255.255.255.255", port))
        assert refused.value.errno in (errno.EACCES, errno.ENETUNREACH)
        packets = [(b"first", LOOPBACK, port), (b"lost", 0xFFFFFFFF, port), (b"last", LOOPBACK, port)]
        assert send(here.fileno(), packets) == 1
        assert [data for data, _, _ in Receiver(there.fileno()).receive()] == [b"first", b"last"]


def test_dhcp_receiver_counts_what_the_kernel_could_not_keep() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as here, socket.socket(type=socket.SOCK_DGRAM) as there:
        there.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        there.setsockopt(socket.SOL_SOCKET, 40, 1)  # SO_RXQ_OVFL
        there.bind(("127.0.0.1", 0))
        receiver, port = Receiver(there.fileno()), there.getsockname()[1]
        packets = [(bytes(1000), LOOPBACK, port)] * 20
        send(here.fileno(), packets)
        kept = len(receiver.receive())
        assert kept < len(packets)
        send(here.fileno(), packets[:1])
        receiver.receive()
        assert receiver.dropped == len(packets) - kept
