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
from dataclasses import dataclass, field

from wwfast.net.dhcp.leases import LeaseTable
from wwfast.net.dhcp.packet import (
    ETHERNET,
    IEEE802,
    INFINIBAND,
    REQUEST,
    ClientInfo,
    Kind,
    Message,
    Option,
    client_info,
    dotted,
    number,
)
from wwfast.net.dhcp.replies import Replies
from wwfast.net.dhcp.terms import (
    CLIENT_PORT,
    NO_BOOT_FILE,
    PROXY_PORT,
    REFUSED,
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

GROUP = 1  # in the first octet of a hardware address: of many machines (IEEE 802, 8.2)
#: One thing is said of a client at most this often; so many are remembered, and so many other servers.
QUIET_SECONDS = 300.0
SPOKEN, OTHERS = 4096, 64


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
    _replies: Replies = field(init=False)

    def __post_init__(self) -> None:
        self._server = number(self.config.server_ip)
        self._replies = Replies(self.config, self.boot)

    def respond(
        self, message: Message, now: float, *, source: tuple[int, int] = (0, CLIENT_PORT), port: int = SERVER_PORT
    ) -> tuple[Reply | None, Contact | None]:
        """Answer one message that came from `source` (address, port) to our `port`."""
        if message.op != REQUEST:
            self.counts["not_for_us"] += 1
            return None, None
        is_proven = source[1] == CLIENT_PORT or proven(message, source, self.config.relays)
        if not is_proven and port != PROXY_PORT:
            self.counts["unproven"] += 1
            return None, None
        if message.htype not in (ETHERNET, IEEE802) or len(message.chaddr) != 6:
            return None, self._no_ethernet(message, now) if is_proven else None
        if message.chaddr[0] & GROUP or not any(message.chaddr):
            return None, self._no_machine(message, now) if is_proven else None
        client = client_info(message)
        kind = message.kind
        if not kind:
            return self._bootp(message, client, now, source) if port == SERVER_PORT else (None, None)
        named = message.address(Option.SERVER_ID)
        if named and named != self._server and port != PROXY_PORT:
            self._took_another(client, named, now)
            return None, None
        if self.config.proxy or port == PROXY_PORT:
            reply, contact = self._proxy(message, client, now, source, port)
            return reply, contact if is_proven else None
        reservation = self.hosts(client.mac)
        if reservation is None and not client.boots and not self.leases.size:
            self.counts["unknown"] += 1
            return None, None
        if reservation is not None and (why := self._kept_from(reservation, client.mac, now)):
            self.counts["no_address"] += 1
            return None, self._once(client, reservation, "IGNORED", why, now)
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
        if named not in self.config.siblings:
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
            return None, self._no_address(message, client, reservation, now)
        self.counts["offer"] += 1
        reply = self._replies.reply(message, client, Kind.OFFER, address, reservation)
        return self._replies.send(*reply, message, source), self._given(
            client, reservation, "OFFER", address, reply[0], now
        )

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
            has_other = lease is not None and lease.address != wanted and lease.bound and not lease.is_over(now)
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
        reply = self._replies.reply(message, client, Kind.ACK, wanted, reservation)
        return self._replies.send(*reply, message, source), self._given(
            client, reservation, "ACK", wanted, reply[0], now
        )

    def _bootp(
        self, message: Message, client: ClientInfo, now: float, source: tuple[int, int]
    ) -> tuple[Reply | None, Contact | None]:
        """BOOTP knows no leases: a node has its address for good, others get none (RFC 1534)."""
        self.counts["bootp"] += 1
        reservation = None if self.config.proxy else self.hosts(client.mac)
        address = self._fixed(reservation)
        why = "" if address else "it asks by BOOTP, which is answered only for nodes with an address in nodes.conf"
        if reservation is not None and not why:
            why = self._kept_from(reservation, client.mac, now)
        if why:
            return None, self._once(client, reservation, "IGNORED", why, now)
        reply, options = self._replies.reply(message, client, 0, address, reservation)
        reply.siaddr = self._server
        return self._replies.send(reply, options, message, source), self._contact(client, reservation, "BOOTP", address)

    def _no_ethernet(self, message: Message, now: float) -> Contact | None:
        """A machine whose network has no addresses of Ethernet is not served; it must not be left without a word."""
        self.counts["no_ethernet"] += 1
        network = "InfiniBand" if message.htype == INFINIBAND else f"hardware type {message.htype}"
        # What InfiniBand has instead, its clients put at the end of their identifier: the GUID of the port (RFC 4390).
        own = message.chaddr if any(message.chaddr) else message.options.get(Option.CLIENT_ID, b"")[-8:]
        client = ClientInfo(own.hex(":") or "unknown")
        why = f"DHCP over {network} is not served: only Ethernet addresses of 6 octets are"
        return self._once(client, self.hosts(client.mac), "IGNORED", why, now)

    def _no_machine(self, message: Message, now: float) -> Contact | None:
        """What is to be sent to it would go to all of a group, or to nobody."""
        self.counts["no_machine"] += 1
        why = "its hardware address is all zeros, or of a group (multicast, broadcast): no machine has such a one"
        return self._once(ClientInfo(message.mac), self.hosts(message.mac), "IGNORED", why, now)

    def _inform(
        self, message: Message, client: ClientInfo, reservation: Reservation | None, source: tuple[int, int]
    ) -> tuple[Reply | None, Contact | None]:
        self.counts["inform"] += 1
        reply = self._replies.reply(message, client, Kind.ACK, 0, reservation)
        return self._replies.send(*reply, message, source), None

    def _proxy(
        self, message: Message, client: ClientInfo, now: float, source: tuple[int, int], port: int
    ) -> tuple[Reply | None, Contact | None]:
        """Boot file only. On 67 to discoverers, on 4011 to the clients that come back for it."""
        asked = (SERVER_PORT, Kind.DISCOVER), (PROXY_PORT, Kind.REQUEST), (PROXY_PORT, Kind.INFORM)
        if not client.boots or (port, message.kind) not in asked:
            self.counts["not_for_us"] += 1
            return None, None
        boot = self.boot(client, self.config.server_ip)
        if boot is None:
            self.counts["no_boot_file"] += 1
            return None, self._once(client, self.hosts(client.mac), NO_BOOT_FILE, _no_boot_file(client), now)
        kind = Kind.OFFER if port == SERVER_PORT else Kind.ACK
        self.counts["proxy_offer" if kind == Kind.OFFER else "proxy_ack"] += 1
        reply, options = self._replies.proxy(message, client, kind, boot)
        reservation = self.hosts(client.mac)
        contact = self._contact(client, reservation, f"PROXY {kind.name}", message.ciaddr, boot.filename)
        if port == PROXY_PORT:
            reply.ciaddr = message.ciaddr
            sent = self._replies.send(reply, options, message, source)
            # To who asks, whatever it says of itself: OVMF asks from 4011, as any user can.
            return Reply(sent.data, Way.ROUTED, source[0] or message.ciaddr, source[1]), contact
        return self._replies.send(reply, options, message, source), contact

    def _fixed(self, reservation: Reservation | None) -> int:
        return number(reservation.address) if reservation is not None else 0

    def _kept_from(self, reservation: Reservation, mac: str, now: float) -> str:
        """Why a node does not get its address, or "": two machines with one address are worse than one that waits."""
        if reservation.unusable or not reservation.address:
            return reservation.unusable
        guest = self.leases.guest(number(reservation.address), now)
        if guest is None or guest.mac == mac:
            return ""
        ends = f"for another {max(guest.expires - now, 0) / 3600:.1f} h"
        return f"its address {reservation.address} is leased to {guest.mac} {ends}, or until that one gives it back"

    def _pool_serves(self, message: Message) -> bool:
        """The range is of our own network: a relay's clients in another one cannot use it."""
        link = message.link if self.leases.size else 0
        if not link:
            return self.leases.size > 0
        mask = number(self.config.netmask) or 0xFFFFFFFF
        return link & mask == self.leases.first & mask

    def _no_address(
        self, message: Message, client: ClientInfo, reservation: Reservation | None, now: float
    ) -> Contact | None:
        self.counts["no_address"] += 1
        if self.leases.size and not self._pool_serves(message):
            why = f"no address in nodes.conf, and the range is not of its network ({dotted(message.link)})"
        elif self.leases.size:
            why = "the dhcp range is full"
        elif reservation is not None:
            why = "no address in nodes.conf and no dhcp range"
        else:
            why = "not in nodes.conf, and no dhcp range for unknown machines"
        return self._once(client, reservation, "IGNORED", why, now)

    def _given(
        self, client: ClientInfo, reservation: Reservation | None, kind: str, address: int, reply: Message, now: float
    ) -> Contact | None:
        """Firmware that got an address and nothing to boot stops there: that is no boot, and worth a word."""
        if client.boots and not reply.siaddr:
            self.counts["no_boot_file"] += 1
            return self._once(client, reservation, NO_BOOT_FILE, _no_boot_file(client), now, address)
        return self._contact(client, reservation, kind, address)

    def _once(
        self, client: ClientInfo, reservation: Reservation | None, kind: str, why: str, now: float, address: int = 0
    ) -> Contact | None:
        """Said of a client, but not with every packet that it sends; what else is wrong with it is said as well."""
        said = f"{client.mac} {hash(why):x}"
        if now - self._spoken.get(said, 0.0) < QUIET_SECONDS:
            return None
        self._spoken.note(said, now)
        return self._contact(client, reservation, kind, address, why)

    def _contact(
        self, client: ClientInfo, reservation: Reservation | None, kind: str, address: int, detail: str = ""
    ) -> Contact:
        node = reservation.node if reservation else ""
        given = dotted(address) if address else ""
        return Contact(client.mac, node, kind, given, detail, client.boots and kind not in REFUSED)

    def reconfigure(self, **changes: object) -> None:
        """Replace fields of the configuration (lease time, router, ...); the server's address stays."""
        self._replies.reconfigure(**changes)
        self.config = self._replies.config


def _no_boot_file(client: ClientInfo) -> str:
    archs = ", ".join(f"{arch >> 8:02X}:{arch & 0xFF:02X}" for arch in (client.arch or 0, *client.others))
    return f"`tftp: ipxe` has no binary for its architecture {archs}: it gets no boot file"
