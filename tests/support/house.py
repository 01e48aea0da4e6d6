"""A full house: clients that download the image of their node for ever, together at no more than one rate.

    python house.py HOST PORT BYTES_PER_SECOND MAC...

The rate is that of the house, not of each: more of them in service bring the server no more. Runs until killed.
"""

from __future__ import annotations

import selectors
import socket
import sys
import time

PIECE = 16 << 10


def guest(host: str, port: int, mac: str) -> socket.socket:
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, PIECE)
    one.connect((host, port))
    # The script, as iPXE would, then requests enough for the longest test; the server takes one after the other.
    end = f" HTTP/1.1\r\nHost: {host}\r\n\r\n"
    one.sendall(f"GET /ipxe/{mac}{end}".encode() + f"GET /image/{mac}?compress=zst{end}".encode() * 20)
    return one


def main(host: str, port: str, rate: str, *macs: str) -> None:
    readable = selectors.DefaultSelector()
    for mac in macs:
        readable.register(guest(host, int(port), mac), selectors.EVENT_READ)
    print("full", flush=True)
    due = time.monotonic()
    while True:
        for key, _ in readable.select():
            one = key.fileobj
            assert isinstance(one, socket.socket)
            due = max(due, time.monotonic() - 0.1) + len(one.recv(PIECE)) / int(rate)
        time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    main(*sys.argv[1:])
