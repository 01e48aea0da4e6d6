"""What a reply holds and the way it goes: parts kept ready for every node, and what of the question comes back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import msgspec

from wwfast.net.dhcp.packet import (
    BROADCAST_FLAG,
    HEADER,
    LEAST,
    REPLY,
    ClientInfo,
    Kind,
    Message,
    Option,
    addresses,
    assemble,
    dotted,
    encode_options,
    encoded,
    number,
    sub_options,
)
from wwfast.net.dhcp.terms import (
    CLIENT_PORT,
    RELAY_SOURCE_PORT,
    SERVER_PORT,
    BootFile,
    DhcpConfig,
    Reply,
    Reservation,
    Way,
)

#: Option 43, PXE: discovery control (6) = 8 "use the boot file of this offer", and the end mark.
PXE_USE_BOOT_FILE = bytes((6, 1, 8, 255))
#: Option 175 of iPXE: no-pxedhcp (176) = 1. Without it iPXE waits 3 s for a ProxyDHCP that will not come.
IPXE_NO_PROXY = bytes((176, 1, 1))
#: Replies kept ready: a few for each node of the largest clusters.
TEMPLATES, STRANGERS = 100_000, 4096
#: In this order (RFC 6842; RFC 4578 2.3; RFC 3011 2; RFC 3046 2.1, at the end).
ECHOED = (Option.CLIENT_ID, Option.CLIENT_UUID, Option.SUBNET, Option.RELAY_AGENT)


class _Template(msgspec.Struct, frozen=True):
    """What replies of one kind to one node have in common: the rest of the header and the encoded options."""

    siaddr: int
    file: bytes
    options: bytes


@dataclass(slots=True)
class Replies:
    """`boot(client, server_ip)` finds the boot file of a client; it must not block."""

    config: DhcpConfig
    boot: Callable[[ClientInfo, str], BootFile | None]
    server: int = field(init=False)
    _templates: dict[tuple[object, ...], _Template] = field(default_factory=dict)
    _strangers: dict[tuple[object, ...], _Template] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.server = number(self.config.server_ip)

    def reply(
        self, message: Message, client: ClientInfo, kind: int, address: int, reservation: Reservation | None
    ) -> tuple[Message, bytes]:
        """The reply, and apart from it its encoded options."""
        boot = self.boot(client, self.config.server_ip) if client.boots else None
        # All that the options depend on; so a change of nodes.conf or of the policy makes a new template by itself.
        key = (kind, reservation, boot, client.is_ipxe, client.is_http, client.is_pxe, message.giaddr, address != 0)
        # Strangers have few in common, but for iPXE one each: its URL has the MAC. They fill a table of their own.
        templates = self._templates if reservation is not None else self._strangers
        template = templates.get(key)
        if template is None:
            if len(templates) >= (TEMPLATES if reservation is not None else STRANGERS):
                templates.clear()
            template = templates[key] = self._template(message, client, kind, address, reservation, boot)
        reply = Message(
            op=REPLY,
            htype=message.htype,
            xid=message.xid,
            flags=message.flags,
            ciaddr=message.ciaddr if kind == Kind.ACK else 0,
            yiaddr=address,
            siaddr=template.siaddr,
            giaddr=message.giaddr,
            chaddr=message.chaddr,
            file=template.file,
        )
        return reply, template.options

    def proxy(self, message: Message, client: ClientInfo, kind: Kind, boot: BootFile) -> tuple[Message, bytes]:
        """As reply(), with a boot file and no address."""
        reply = self._empty(message, kind)
        self._boot_options(reply, client, boot)
        if client.arch == 0 and not client.is_ipxe:
            # BIOS ROMs take the file from the offer when told to. UEFI must not get option 43: seen, many then fail.
            reply.options[Option.VENDOR_SPECIFIC] = PXE_USE_BOOT_FILE
        return reply, encode_options(reply.options)

    def send(self, reply: Message, options: bytes, message: Message, source: tuple[int, int]) -> Reply:
        """Echo what must be (the client's identifier, the relay's information last) and choose the way."""
        asked = message.options
        for code in ECHOED:
            value = asked.get(code)
            if value is not None:
                options += encoded(code, value)
        # Nearly every reply is one that everybody takes.
        short = HEADER.size + len(options) < LEAST and message.kind
        data = assemble(reply, options, LEAST if short else message.room)
        if message.giaddr:
            port = SERVER_PORT
            if Option.RELAY_AGENT in asked:
                relay = sub_options(asked[Option.RELAY_AGENT])
                port = source[1] if RELAY_SOURCE_PORT in relay else SERVER_PORT
            return Reply(data, Way.ROUTED, message.giaddr, port)
        if message.ciaddr:
            return Reply(data, Way.ROUTED, message.ciaddr, CLIENT_PORT)
        if message.flags & BROADCAST_FLAG or not reply.yiaddr:
            return Reply(data, Way.BROADCAST, 0xFFFFFFFF, CLIENT_PORT)
        return Reply(data, Way.LINK, reply.yiaddr, CLIENT_PORT, message.chaddr)

    def reconfigure(self, **changes: object) -> None:
        """Replace fields of the configuration (lease time, router, ...); the server's address stays."""
        self.config = replace(self.config, **changes)  # type: ignore[arg-type]
        self._templates.clear()
        self._strangers.clear()

    def _empty(self, message: Message, kind: int) -> Message:
        """`kind` 0: of BOOTP, which has neither option (RFC 1534 2)."""
        options = {Option.KIND: bytes((kind,)), Option.SERVER_ID: self.server.to_bytes(4, "big")} if kind else {}
        return Message(
            op=REPLY,
            htype=message.htype,
            xid=message.xid,
            flags=message.flags,
            giaddr=message.giaddr,
            chaddr=message.chaddr,
            options=options,
        )

    def _template(
        self,
        message: Message,
        client: ClientInfo,
        kind: int,
        address: int,
        reservation: Reservation | None,
        boot: BootFile | None,
    ) -> _Template:
        config = self.config
        reply = self._empty(message, kind)
        options = reply.options
        if address and kind:
            seconds = config.lease_seconds
            options[Option.LEASE_TIME] = seconds.to_bytes(4, "big")
            options[Option.RENEWAL_TIME] = (seconds // 2).to_bytes(4, "big")
            options[Option.REBINDING_TIME] = (seconds * 7 // 8).to_bytes(4, "big")
        netmask = (reservation.netmask if reservation else "") or config.netmask
        if netmask:
            options[Option.NETMASK] = addresses((netmask,))
        router = (reservation.gateway if reservation else "") or self._router(address, netmask, message.giaddr)
        if router:
            options[Option.ROUTER] = addresses((router,))
        if config.dns:
            options[Option.DNS] = addresses(config.dns)
        if reservation and reservation.hostname:
            options[Option.HOSTNAME] = reservation.hostname.encode()
        if config.domain:
            options[Option.DOMAIN] = config.domain.encode()
        if boot is not None:
            self._boot_options(reply, client, boot)
        if client.is_ipxe:
            options[Option.IPXE] = IPXE_NO_PROXY
        return _Template(reply.siaddr, reply.file, encode_options(options))

    def _router(self, address: int, netmask: str, giaddr: int) -> str:
        """Ours; behind a relay the relay itself, which is on the client's link and knows the way to us."""
        mask = number(netmask)
        if giaddr and address and mask and address & mask != self.server & mask:
            return dotted(giaddr) if giaddr & mask == address & mask else ""
        return self.config.router

    def _boot_options(self, reply: Message, client: ClientInfo, boot: BootFile) -> None:
        reply.siaddr = number(boot.next_server)
        name = boot.filename.encode()
        # Firmware reads one or the other: ROMs the header field, UEFI HTTP boot only the option.
        reply.file = name
        reply.options[Option.BOOT_FILE] = name
        reply.options[Option.TFTP_SERVER] = boot.next_server.encode()
        if client.is_http and not client.is_ipxe:
            reply.options[Option.VENDOR_CLASS] = b"HTTPClient"
        elif client.is_pxe:
            reply.options[Option.VENDOR_CLASS] = b"PXEClient"
