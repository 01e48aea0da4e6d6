"""DHCP: a packet is refused as Malformed or read, answered or not; what we send is read the same by our own reader."""

from __future__ import annotations

from wwfast.net.dhcp.leases import LeaseTable
from wwfast.net.dhcp.packet import (
    HEADER,
    IP_UDP,
    MIN_SIZE,
    MOST,
    REPLY,
    Malformed,
    Message,
    build,
    encode_options,
    number,
    parse,
)
from wwfast.net.dhcp.responder import Responder
from wwfast.net.dhcp.terms import CLIENT_PORT, PROXY_PORT, SERVER_PORT, BootFile, DhcpConfig, Reservation

SERVER = "10.0.0.1"
NODE = Reservation("n1", "10.0.0.11", "255.255.0.0", "10.0.0.254", "n1")
MAC = "52:54:00:00:00:01"
FIRST, LAST = number("10.0.1.1"), number("10.0.1.20")
TOKENS = (
    b"\x63\x82\x53\x63", b"\x35\x01\x01", b"\x35\x01\x03", b"\x35\x01\x08", b"\x52\x06\x05\x04\x0a\x00\x00\x05",
    b"\x3c\x09PXEClient", b"\x3c\x0aHTTPClient", b"\x4d\x04iPXE", b"\x5d\x02\x00\x07", b"\x34\x01\x03",
    b"\x39\x02\x02\x40", b"\x36\x04\x0a\x00\x00\x01", b"\x32\x04\x0a\x00\x00\x0b", b"\x61\x11\x00", b"\xff", b"\x00",
    b"\x3d\x07\x01",
)  # fmt: skip


def boot(client: object, server_ip: str) -> BootFile:
    return BootFile(server_ip, "http://10.0.0.1:9873/ipxe/${mac:hexhyp}")


def one(data: bytes) -> None:
    """The first byte tells how it comes: of a proxy or not, to which port, from which."""
    how, packet = data[0] if data else 0, data[1:]
    try:
        message = parse(packet)
    except Malformed:
        return
    leases = LeaseTable(FIRST, LAST) if how & 8 else LeaseTable()
    server = Responder(DhcpConfig(SERVER, "255.255.0.0", proxy=bool(how & 1)), {MAC: NODE}.get, boot, leases)
    port = PROXY_PORT if how & 2 else SERVER_PORT
    source = (message.giaddr or message.ciaddr, SERVER_PORT if how & 4 else CLIENT_PORT)
    for now in (1000.0, 1001.0):
        reply, _ = server.respond(message, now, source=source, port=port)
        if reply is None:
            continue
        said = parse(reply.data)
        assert (said.op, said.xid, said.chaddr) == (REPLY, message.xid, message.chaddr)
        assert MIN_SIZE <= len(reply.data) <= max(message.room, MIN_SIZE) <= 1500 - IP_UDP
        given = said.yiaddr
        assert given in (0, number(NODE.address)) or FIRST <= given <= LAST
        assert not given or message.mac == MAC or leases.size
    if HEADER.size + len(encode_options(message.options)) < MOST and len(message.file) < 128:  # else not all of it fits
        read = parse(build(message))
        assert read.options == message.options or _overloads(message)
        assert (read.xid, read.chaddr, read.giaddr) == (message.xid, message.chaddr, message.giaddr)


def _overloads(message: Message) -> bool:
    """Option 52 of a message of ours would be read as one; 0 and 255 are none."""
    return bool({0, 52, 255} & message.options.keys())
