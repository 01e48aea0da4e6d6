"""A DHCP server that keeps nothing and looks nothing up: what perfdhcp reaches with it is perfdhcp's own limit.

Argument: the first address it gives; a client's address follows from its MAC. Prints "ready".
"""

from __future__ import annotations

import select
import socket
import sys

from wwfast._ext.dhcp import BATCH, Receiver, read_options, send
from wwfast.net.dhcp.packet import HEADER, Kind, number
from wwfast.net.listen import grow_receive_buffer

CLIENTS = 150_000


def reflected(data: bytes, first: int, options: bytes) -> tuple[bytes, int, int]:
    """The reply to a DISCOVER or REQUEST that came through a relay: (data, address, port)."""
    asked: dict[int, bytes] = {}
    read_options(data, HEADER.size, asked)
    kind = Kind.OFFER if asked[53] == bytes((Kind.DISCOVER,)) else Kind.ACK
    address = asked.get(50) or (first + int.from_bytes(data[31:34], "big") % CLIENTS).to_bytes(4, "big")
    reply = b"\2" + data[1:16] + address + data[20 : HEADER.size] + bytes((53, 1, kind)) + options
    return reply, int.from_bytes(data[24:28], "big"), 67


def main(server: str, first: str) -> None:
    options = b"\x36\4" + number(server).to_bytes(4, "big") + b"\x33\4\0\0\x0e\x10" + b"\xff"
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        grow_receive_buffer(sock)
        sock.bind(("", 67))
        receiver = Receiver(sock.fileno())
        print("ready", flush=True)
        while True:
            select.select([sock], [], [])
            packets = [b""] * BATCH
            while len(packets) == BATCH:
                try:
                    packets = [data for data, _, _ in receiver.receive()]
                except BlockingIOError:
                    break
                send(sock.fileno(), [reflected(data, number(first), options) for data in packets])


if __name__ == "__main__":
    main(*sys.argv[1:])
