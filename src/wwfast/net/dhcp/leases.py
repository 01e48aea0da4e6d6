"""Addresses from the range: one per MAC, whoever asks with it, found in a few steps, written down behind the reply.

The table in memory is the truth while serving; the journal writes it down. What a crash loses heals itself: a MAC's
place in the range is a hash of the MAC, so it is offered the same address again, and a client that asks for its free
address gets it.

Three classes hold an address. *Bound* ones were requested and stay until they expire. *Offers* were not requested,
and *resting* ones were declined: nobody proved anything with either, so their number is bounded, for one client and
for all, and when the range is full they give way, the oldest first. Whoever REQUESTs an address that is only offered
gets it, so that a flood of DISCOVERs cannot take the offer from a client between its offer and its request.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

import xxhash

from wwfast.net.dhcp.journal import Journal, Row
from wwfast.net.dhcp.pool import Mask, Pool
from wwfast.net.dhcp.terms import LEASE_SECONDS

OFFER_SECONDS = 60.0
#: A declined address is in use by somebody we do not know; it rests this long.
DECLINE_SECONDS = 3600.0
#: Offers at one time: more than nodes of the largest clusters start within OFFER_SECONDS; 20 MB.
OFFERS = 65536
#: Addresses that one client's DECLINEs keep from others, and the share of the range (one in so many) that all do.
DECLINES, DECLINED_SHARE = 4, 8
#: Addresses of nodes among the expired, passed over in one question; the next question goes on from there.
STEPS = 16
#: Of a name that a client sends (RFC 1035: 253).
HOSTNAME = 255
#: By address. Those that hold for the same time end in the order in which they began.
Queue = OrderedDict[int, "Lease"]


@dataclass(slots=True, eq=False)
class Lease:
    """Who holds an address until `expires` (Unix seconds), for `seconds` at most, in the queue of its kind. Only a
    bound one is written; `mac` of a resting one is the client that declined it."""

    mac: str
    address: int
    expires: float
    queue: Queue
    seconds: float = LEASE_SECONDS
    bound: bool = False
    hostname: str = ""

    def is_over(self, now: float) -> bool:
        """One that would last longer than it was given for is of a clock that was ahead then: it begins now, behind all
        others of its queue."""
        if self.expires > now + self.seconds:
            self.expires = now + self.seconds
            self.queue.move_to_end(self.address)
        return self.expires <= now


class LeaseTable:
    """Addresses first..last (integers, inclusive; 0, 0 for no range), without those reserved."""

    def __init__(self, first: int = 0, last: int = 0, *, journal: Journal | None = None) -> None:
        self.first, self.last = first, last
        self.size = max(last - first + 1, 0) if first else 0
        self._journal = journal
        self._pool = Pool(self.size)
        self._by_mac: dict[str, Lease] = {}
        self._by_address: dict[int, Lease] = {}
        self._offers: Queue = OrderedDict()
        self._resting: Queue = OrderedDict()
        self._declined: dict[str, Queue] = {}  # resting ones by client
        self._loaded: Queue = OrderedDict()
        self._released: Queue = OrderedDict()
        self._bound: dict[float, Queue] = {}  # the other bound ones, by seconds of lease
        if journal is not None:
            self._restore(journal.load())

    def __len__(self) -> int:
        return len(self._by_mac)

    @property
    def trouble(self) -> str:
        """Why leases are not written down just now, or ""."""
        return self._journal.trouble if self._journal is not None else ""

    def covers(self, address: int) -> bool:
        return 0 <= address - self.first < self.size

    def get(self, mac: str) -> Lease | None:
        return self._by_mac.get(mac)

    def owner(self, address: int) -> str | None:
        """The MAC that has this address of the range."""
        lease = self._by_address.get(address)
        return lease.mac if lease is not None and lease.queue is not self._resting else None

    def guest(self, address: int, now: float) -> Lease | None:
        """The lease by which somebody has this address at this time; an offer is none."""
        lease = self._by_address.get(address)
        return lease if lease is not None and lease.bound and not lease.is_over(now) else None

    def all(self) -> list[Lease]:
        return [lease for lease in self._by_mac.values() if lease.bound]

    def mask(self, addresses: Iterable[int]) -> Mask:
        """Addresses for `reserve`; for the thread that read them."""
        return self._pool.mask(address - self.first for address in addresses)

    def reserve(self, mask: Mask) -> None:
        """Exactly these addresses are others': never offered, never granted, whoever has them now."""
        self._pool.reserve(mask)

    def offer(self, mac: str, wanted: int, now: float) -> int | None:
        """The address of this MAC: the one it has, else the one it asks for, else one by hash; None when full."""
        lease = self._by_mac.get(mac)
        if lease is not None and not self._is_reserved(lease.address):
            if not lease.bound:
                lease.expires = now + OFFER_SECONDS
                self._offers.move_to_end(lease.address)
            return lease.address
        address = wanted if wanted and self._free(wanted, now) else self._find(mac, now)
        if address is not None:
            self._clear(mac, address)
            if len(self._offers) >= OFFERS:
                self._drop(_oldest(self._offers))
            self._hold(Lease(mac, address, now + OFFER_SECONDS, self._offers, OFFER_SECONDS))
        return address

    def bind(self, mac: str, address: int, now: float, seconds: float, hostname: str = "") -> bool:
        """Make the address this MAC's for `seconds`; False when it cannot be."""
        queue = self._bound.get(seconds)
        if queue is None:
            queue = self._bound[seconds] = OrderedDict()
        lease = self._by_mac.get(mac)
        if lease is not None and lease.address == address:
            if self._is_reserved(address):
                return False
            _move(lease, queue)
        elif self._free(address, now) or self._only_offered(address):
            self._clear(mac, address)
            lease = Lease(mac, address, now, queue)
            self._hold(lease)
        else:
            return False
        lease.expires, lease.seconds = now + seconds, seconds
        lease.bound, lease.hostname = True, hostname[:HOSTNAME]
        self._write(lease)
        return True

    def release(self, mac: str, now: float) -> None:
        """The client gives it back: others may have it, but it stays this MAC's until then."""
        lease = self._by_mac.get(mac)
        if lease is not None and lease.bound:
            _move(lease, self._released)
            lease.expires, lease.seconds = now, 0.0
            self._write(lease)

    def forget(self, mac: str) -> None:
        lease = self._by_mac.get(mac)
        if lease is not None:
            self._drop(lease)
            if lease.bound and self._journal:
                self._journal.delete(mac)

    def decline(self, mac: str, address: int, now: float) -> None:
        """Somebody else uses this address (the client's ARP said so)."""
        lease = self._by_mac.get(mac)
        if lease is None or lease.address != address:
            return
        self.forget(mac)
        own = self._declined.get(mac)
        if own is not None and len(own) >= DECLINES:
            self._drop(_oldest(own))
        if len(self._resting) >= max(self.size // DECLINED_SHARE, 1):
            self._drop(_oldest(self._resting))
        resting = Lease(mac, address, now + DECLINE_SECONDS, self._resting, DECLINE_SECONDS)
        self._hold(resting)
        self._declined.setdefault(mac, OrderedDict())[address] = resting

    def export(self) -> list[Row]:
        """The bound ones, latest expiry first, for the table of another process to adopt."""
        bound = sorted(self.all(), key=lambda lease: -lease.expires)
        return [(lease.mac, lease.address, lease.expires, lease.hostname) for lease in bound]

    def adopt(self, rows: Iterable[Row]) -> None:
        """Forget all and hold these, latest expiry first; they are written down again."""
        for lease in list(self._by_address.values()):
            self._drop(lease)
        self._restore(rows)
        for lease in self.all():
            self._write(lease)

    def _restore(self, rows: Iterable[Row]) -> None:
        """Leases as they were, latest expiry first: of two for one address the later counts."""
        chosen: dict[int, Lease] = {}
        for mac, address, expires, hostname in rows:
            if self.covers(address) and address not in chosen:
                chosen[address] = Lease(mac, address, expires, self._loaded, bound=True, hostname=hostname)
        for lease in reversed(chosen.values()):
            self._hold(lease)

    def _hold(self, lease: Lease) -> None:
        lease.queue[lease.address] = lease
        self._by_address[lease.address] = lease
        self._pool.hold(lease.address - self.first)
        if lease.queue is not self._resting:
            self._by_mac[lease.mac] = lease

    def _drop(self, lease: Lease) -> None:
        del lease.queue[lease.address]
        del self._by_address[lease.address]
        self._pool.let_go(lease.address - self.first)
        if lease.queue is not self._resting:
            del self._by_mac[lease.mac]
            return
        own = self._declined[lease.mac]
        del own[lease.address]
        if not own:
            del self._declined[lease.mac]

    def _clear(self, mac: str, address: int) -> None:
        """Before a new lease: the client holds nothing, and nobody the address."""
        if mac in self._by_mac:
            self.forget(mac)
        former = self._by_address.get(address)
        if former is not None:
            self._give_up(former)

    def _give_up(self, lease: Lease) -> None:
        """Drop it, from the journal as well."""
        if lease.queue is self._resting:
            self._drop(lease)
        else:
            self.forget(lease.mac)

    def _write(self, lease: Lease) -> None:
        if self._journal:
            self._journal.put((lease.mac, lease.address, lease.expires, lease.hostname))

    def _is_reserved(self, address: int) -> bool:
        return self._pool.is_reserved(address - self.first)

    def _free(self, address: int, now: float) -> bool:
        if not self.covers(address) or self._is_reserved(address):
            return False
        lease = self._by_address.get(address)
        return lease is None or lease.is_over(now)

    def _only_offered(self, address: int) -> bool:
        lease = self._by_address.get(address)
        return lease is not None and lease.queue is self._offers and not self._is_reserved(address)

    def _find(self, mac: str, now: float) -> int | None:
        """From the hash of the MAC onwards: an address nobody had, or failing that one whose holder gives way."""
        if not self.size:
            return None
        place = self._pool.first(xxhash.xxh3_64_intdigest(mac.encode()) % self.size)
        if place is not None:
            return self.first + place
        for _ in range(STEPS):
            lease = self._yielding(now)
            if lease is None:
                return None
            if not self._is_reserved(lease.address):
                return lease.address
            self._give_up(lease)
        return None

    def _yielding(self, now: float) -> Lease | None:
        """Whose address others may have: the longest expired, else the oldest offer, else the longest at rest."""
        queues = (self._offers, self._resting, self._loaded, self._released, *self._bound.values())
        expired = [lease for queue in queues if queue and (lease := _first(queue, now)).is_over(now)]
        if expired:
            return min(expired, key=lambda lease: lease.expires)
        unproven = self._offers or self._resting
        return _oldest(unproven) if unproven else None


def _move(lease: Lease, queue: Queue) -> None:
    del lease.queue[lease.address]
    queue[lease.address] = lease
    lease.queue = queue


def _first(queue: Queue, now: float) -> Lease:
    """Which ends first."""
    while (lease := _oldest(queue)).expires > now + lease.seconds:
        lease.is_over(now)
    return lease


def _oldest(queue: Queue) -> Lease:
    return next(iter(queue.values()))
