"""One firmware on a real link: what the DHCP and ProxyDHCP servers there offer it. Needs root (port 68)."""

from __future__ import annotations

import socket
import time

from wwfast.net.dhcp.packet import BROADCAST_FLAG, Kind, Malformed, Message, Option, build, dotted, parse
from wwfast.storm.dhcp import FIRMWARE

MAC = bytes.fromhex("027777fffffe")
XID = 0x77770001


def ask_proxy(interface: str, address: str, profile: str, *, seconds: float = 1.5) -> list[tuple[object, ...]]:
    """Discover as firmware with `address` already its own, then ask each ProxyDHCP server on port 4011.

    Offers as (server, address offered, boot file, "has option 43"), answers as (4011, server, boot file).
    """
    found: list[tuple[object, ...]] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode() + b"\0")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.bind(("", 68))
        options = {Option.KIND: bytes((Kind.DISCOVER,)), 55: bytes((1, 3, 43, 60, 66, 67)), **FIRMWARE[profile]}
        question = Message(xid=XID, flags=BROADCAST_FLAG, chaddr=MAC, options=options)
        sock.sendto(build(question), ("255.255.255.255", 67))
        proxies = []
        for offer in _answers(sock, Kind.OFFER, seconds):
            server = dotted(offer.address(Option.SERVER_ID))
            file = offer.file.decode() or "-"
            found.append((server, dotted(offer.yiaddr), file, Option.VENDOR_SPECIFIC in offer.options))
            if not offer.yiaddr and Option.VENDOR_SPECIFIC not in offer.options:
                proxies.append(server)
        for server in proxies:
            options = {**options, Option.KIND: bytes((Kind.REQUEST,))}
            ciaddr = int.from_bytes(socket.inet_aton(address), "big")
            sock.sendto(build(Message(xid=XID, ciaddr=ciaddr, chaddr=MAC, options=options)), (server, 4011))
            found += [
                (4011, dotted(answer.address(Option.SERVER_ID)), answer.file.decode())
                for answer in _answers(sock, Kind.ACK, seconds / 2)
            ]
    return found


def _answers(sock: socket.socket, kind: Kind, seconds: float) -> list[Message]:
    found = []
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        sock.settimeout(left)
        try:
            message = parse(sock.recv(2048))
        except TimeoutError:
            break
        except Malformed:
            continue
        if message.xid == XID and message.kind == kind:
            found.append(message)
    return found
