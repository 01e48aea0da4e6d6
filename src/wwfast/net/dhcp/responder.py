"""Who gets which DHCP answer, as one function of (message, time); no sockets.

Two ways to serve. *Authoritative*: addresses from nodes.conf and from the range, with the boot file. *ProxyDHCP*:
another server gives the addresses, we add the boot file for firmware (PXE 2.1, also on port 4011).

Safe beside others, always: never a NAK (what we do not know may be right elsewhere), no answer to a request that
names another server, no answer to an unknown client that is not firmware unless a range is set.

Safe from the users of nodes: only what they cannot have sent (`proven`) is answered on port 67, moves a lease or makes
a Contact. Root of a node can send in the name of any machine of its link, as it can take any machine's MAC.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import msgspec

from wwfast.net.dhcp.leases import LeaseTable
from wwfast.net.dhcp.packet import (
    BROADCAST_FLAG,
    ETHERNET,
    REPLY,
    REQUEST,
    ClientInfo,
    Kind,
    Message,
    Option,
    addresses,
    assemble,
    client_info,
    dotted,
    encode_options,
    number,
    sub_options,
)
from wwfast.net.dhcp.terms import (
    CLIENT_PORT,
    PROXY_PORT,
    REFUSED,
    RELAY_SOURCE_PORT,
    SERVER_PORT,
    BootFile,
    Contact,
    DhcpConfig,
    Reply,
    Reservation,
    Way,
    proven,
)
from wwfast.net.recent import Recent

#: Option 43, PXE: discovery control (6) = 8 "use the boot file of this offer", and the end mark.
PXE_USE_BOOT_FILE = bytes((6, 1, 8, 255))
#: Option 175 of iPXE: no-pxedhcp (176) = 1. Without it iPXE waits 3 s for a ProxyDHCP that will not come.
IPXE_NO_PROXY = bytes((176, 1, 1))
#: An unknown client is spoken of at most this often; so many of them are remembered, and so many other servers.
QUIET_SECONDS = 300.0
SPOKEN, OTHERS = 4096, 64
#: Replies kept ready: a few for each node of the largest clusters.
TEMPLATES, STRANGERS = 100_000, 4096
ECHOED = (Option.CLIENT_UUID, Option.RELAY_AGENT)


class _Template(msgspec.Struct, frozen=True):
    """What replies of one kind to one node have in common: the rest of the header and the encoded options."""

    siaddr: int
    file: bytes
    options: bytes


@dataclass(slots=True)
class Responder:
    """`hosts(mac)` finds a node's reservation, `boot(client, server_ip)` its boot file; both must not block."""

    config: DhcpConfig
    hosts: Callable[[str], Reservation | None]
    boot: Callable[[ClientInfo, str], BootFile | None]
    leases: LeaseTable = field(default_factory=LeaseTable)
    counts: Counter[str] = field(default_factory=Counter)
    #: Other DHCP servers that clients named or that answered: address -> Unix time last seen.
    others: Recent[float] = field(default_factory=lambda: Recent(OTHERS))
    _server: int = field(init=False)
    _spoken: Recent[float] = field(default_factory=lambda: Recent(SPOKEN))
    _templates: dict[tuple[object, ...], _Template] = field(default_factory=dict)
    _strangers: dict[tuple[object, ...], _Template] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._server = number(self.config.server_ip)

    def respond(
        self, message: Message, now: float, *, source: tuple[int, int] = (0, CLIENT_PORT), port: int = SERVER_PORT
    ) -> tuple[Reply | None, Contact | None]:
        """Answer one message that came from `source` (address, port) to our `port`."""
        kind = message.kind
        if message.op != REQUEST or message.htype != ETHERNET or len(message.chaddr) != 6 or not kind:
            self.counts["not_for_us"] += 1
            return None, None
        is_proven = source[1] == CLIENT_PORT or proven(message, source, self.config.relays)
        if not is_proven and port != PROXY_PORT:
            self.counts["unproven"] += 1
            return None, None
        client = client_info(message)
        named = message.address(Option.SERVER_ID)
        if named and named != self._server and port != PROXY_PORT:
            self._took_another(client, named, now)
            return None, None
        if self.config.proxy or port == PROXY_PORT:
            reply, contact = self._proxy(message, client, source, port)
            return reply, contact if is_proven else None
        reservation = self.hosts(client.mac)
        if reservation is None and not client.boots and not self.leases.size:
            self.counts["unknown"] += 1
            return None, None
        if reservation is not None and reservation.unusable:
            return None, self._no_address(client, reservation, now)
        match kind:
            case Kind.DISCOVER:
                return self._discover(message, client, reservation, now, source)
            case Kind.REQUEST:
                return self._request(message, client, reservation, now, source)
            case Kind.INFORM:
                return self._inform(message, client, reservation, source)
            case Kind.RELEASE:
                self._release(message, client, now, source[0])
            case Kind.DECLINE:
                return None, self._decline(message, client, reservation, now, source[0])
            case _:
                self.counts["not_for_us"] += 1
        return None, None

    def _took_another(self, client: ClientInfo, named: int, now: float) -> None:
        """The client took another server's offer. On a network of our own that is worth a word in `doctor`."""
        self.others.note(dotted(named), now)
        self.counts["named_another"] += 1
        lease = self.leases.get(client.mac)
        if lease is not None and not lease.bound:
            self.leases.forget(client.mac)

    def _release(self, message: Message, client: ClientInfo, now: float, source: int) -> None:
        """A lease is given back by whoever uses its address, and no relay is needed for that (RFC 2131 4.4.6)."""
        lease = self.leases.get(client.mac)
        if lease is None or not lease.bound or not lease.address == message.ciaddr == source:
            self.counts["not_theirs"] += 1
            return
        self.counts["release"] += 1
        self.leases.release(client.mac, now)

    def _decline(
        self, message: Message, client: ClientInfo, reservation: Reservation | None, now: float, source: int
    ) -> Contact | None:
        """What a client was given is in use by another; so it has no address yet to say that from (RFC 2131 4.4.4)."""
        declined = message.address(Option.REQUESTED_ADDRESS)
        lease = self.leases.get(client.mac)
        given = lease.address if lease is not None and lease.bound else self._fixed(reservation)
        if not declined or declined != given or (source and not message.giaddr):
            self.counts["not_theirs"] += 1
            return None
        self.counts["decline"] += 1
        self.leases.decline(client.mac, declined, now)
        why = f"{client.requested} is in use by another machine"
        return self._contact(client, reservation, "DECLINE", declined, why)

    def _discover(
        self, message: Message, client: ClientInfo, reservation: Reservation | None, now: float, source: tuple[int, int]
    ) -> tuple[Reply | None, Contact | None]:
        address = self._fixed(reservation)
        if not address and self._pool_serves(message):
            address = self.leases.offer(client.mac, message.address(Option.REQUESTED_ADDRESS), now) or 0
        if not address:
            return None, self._no_address(client, reservation, now)
        self.counts["offer"] += 1
        reply = self._reply(message, client, Kind.OFFER, address, reservation)
        return self._send(*reply, message, source), self._contact(client, reservation, "OFFER", address)

    def _request(
        self, message: Message, client: ClientInfo, reservation: Reservation | None, now: float, source: tuple[int, int]
    ) -> tuple[Reply | None, Contact | None]:
        wanted = message.address(Option.REQUESTED_ADDRESS) or message.ciaddr
        fixed = self._fixed(reservation)
        if fixed:
            granted = wanted == fixed
            if granted and len(self.leases):
                self.leases.forget(client.mac)  # it had an address of the range before it was given one of its own
        else:
            lease = self.leases.get(client.mac)
            # Who has a lease keeps it: it is not to be moved to where somebody else already is.
            has_other = lease is not None and lease.address != wanted and lease.bound and lease.expires > now
            granted = (
                not has_other
                and self._pool_serves(message)
                and self.leases.bind(client.mac, wanted, now, self.config.lease_seconds, client.hostname)
            )
        if not granted:
            # A NAK would end a lease that another server, or we before a crash, may rightly have given.
            self.counts["not_ours"] += 1
            return None, None
        self.counts["ack"] += 1
        reply = self._reply(message, client, Kind.ACK, wanted, reservation)
        return self._send(*reply, message, source), self._contact(client, reservation, "ACK", wanted)

    def _inform(
        self, message: Message, client: ClientInfo, reservation: Reservation | None, source: tuple[int, int]
    ) -> tuple[Reply | None, Contact | None]:
        self.counts["inform"] += 1
        reply = self._reply(message, client, Kind.ACK, 0, reservation)
        return self._send(*reply, message, source), None

    def _proxy(
        self, message: Message, client: ClientInfo, source: tuple[int, int], port: int
    ) -> tuple[Reply | None, Contact | None]:
        """Boot file only. On 67 to discoverers, on 4011 to the clients that come back for it."""
        asked = (SERVER_PORT, Kind.DISCOVER), (PROXY_PORT, Kind.REQUEST), (PROXY_PORT, Kind.INFORM)
        if not client.boots or (port, message.kind) not in asked:
            self.counts["not_for_us"] += 1
            return None, None
        boot = self.boot(client, self.config.server_ip)
        if boot is None:
            self.counts["no_boot_file"] += 1
            return None, None
        kind = Kind.OFFER if port == SERVER_PORT else Kind.ACK
        self.counts["proxy_offer" if kind == Kind.OFFER else "proxy_ack"] += 1
        reply = self._empty(message, kind)
        self._boot_options(reply, client, boot)
        if client.arch == 0 and not client.is_ipxe:
            # BIOS ROMs take the file from the offer when told to. UEFI must not get option 43: seen, many then fail.
            reply.options[Option.VENDOR_SPECIFIC] = PXE_USE_BOOT_FILE
        ready = reply, encode_options(reply.options)
        reservation = self.hosts(client.mac)
        contact = self._contact(client, reservation, f"PROXY {kind.name}", message.ciaddr, boot.filename)
        if port == PROXY_PORT:
            reply.ciaddr = message.ciaddr
            sent = self._send(*ready, message, source)
            # To who asks, whatever it says of itself: OVMF asks from 4011, as any user can.
            return Reply(sent.data, Way.ROUTED, source[0] or message.ciaddr, source[1]), contact
        return self._send(*ready, message, source), contact

    def _fixed(self, reservation: Reservation | None) -> int:
        return number(reservation.address) if reservation is not None else 0

    def _pool_serves(self, message: Message) -> bool:
        """The range is of our own network: a relay's clients in another one cannot use it."""
        if not message.giaddr or not self.leases.size:
            return self.leases.size > 0
        mask = number(self.config.netmask) or 0xFFFFFFFF
        return message.giaddr & mask == self.leases.first & mask

    def _no_address(self, client: ClientInfo, reservation: Reservation | None, now: float) -> Contact | None:
        self.counts["no_address"] += 1
        if now - self._spoken.get(client.mac, 0.0) < QUIET_SECONDS:
            return None
        self._spoken.note(client.mac, now)
        if reservation is not None and reservation.unusable:
            why = "its entry in nodes.conf is unusable, see wwfast doctor"
        elif client.giaddr and self.leases.size:
            why = f"no address in nodes.conf, and the range is not of the relay's network ({client.giaddr})"
        elif self.leases.size:
            why = "the dhcp range is full"
        elif reservation is not None:
            why = "no address in nodes.conf and no dhcp range"
        else:
            why = "not in nodes.conf, and no dhcp range for unknown machines"
        return self._contact(client, reservation, "IGNORED", 0, why)

    def _contact(
        self, client: ClientInfo, reservation: Reservation | None, kind: str, address: int, detail: str = ""
    ) -> Contact:
        node = reservation.node if reservation else ""
        given = dotted(address) if address else ""
        return Contact(client.mac, node, kind, given, detail, client.boots and kind not in REFUSED)

    def _empty(self, message: Message, kind: Kind) -> Message:
        return Message(
            op=REPLY,
            xid=message.xid,
            flags=message.flags,
            giaddr=message.giaddr,
            chaddr=message.chaddr,
            options={Option.KIND: bytes((kind,)), Option.SERVER_ID: self._server.to_bytes(4, "big")},
        )

    def _reply(
        self, message: Message, client: ClientInfo, kind: Kind, address: int, reservation: Reservation | None
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

    def _template(
        self,
        message: Message,
        client: ClientInfo,
        kind: Kind,
        address: int,
        reservation: Reservation | None,
        boot: BootFile | None,
    ) -> _Template:
        config = self.config
        reply = self._empty(message, kind)
        options = reply.options
        if address:
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
        if giaddr and address and mask and address & mask != self._server & mask:
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

    def _send(self, reply: Message, options: bytes, message: Message, source: tuple[int, int]) -> Reply:
        """Echo what must be (the client's identifier, the relay's information last) and choose the way."""
        asked = message.options
        if Option.CLIENT_UUID in asked or Option.RELAY_AGENT in asked:
            options += encode_options({code: asked[code] for code in ECHOED if code in asked})
        data = assemble(reply, options)
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
