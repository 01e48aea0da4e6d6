"""Addresses from the range: one per MAC, whoever asks with it, kept in SQLite behind the reply path.

A reply never waits for the disk: the table in memory is the truth while serving, a thread writes what changed in
one transaction every FLUSH_SECONDS. What a crash loses heals itself: a MAC's place in the range is a hash of the
MAC, so it is offered the same address again, and a client that asks for its free address gets it.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import xxhash

from wwfast.errors import WwfastError
from wwfast.net.dhcp.packet import dotted, number

log = logging.getLogger(__name__)

FLUSH_SECONDS = 0.2
#: Leases in one statement. SQLite lets go of the interpreter in each, and in a storm gets it back only after 5 ms.
ROWS = 500
OFFER_SECONDS = 60.0
#: A declined address is in use by somebody we do not know; it rests this long.
DECLINE_SECONDS = 3600.0
SCHEMA = """
CREATE TABLE IF NOT EXISTS lease (
    mac TEXT PRIMARY KEY, address TEXT NOT NULL, expires REAL NOT NULL, hostname TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID
"""


@dataclass(slots=True)
class Lease:
    """`expires` in Unix seconds; an offer that was not yet requested is `bound` False and never written."""

    mac: str
    address: int
    expires: float
    bound: bool = False
    hostname: str = ""


class LeaseTable:
    """Addresses first..last (integers, inclusive; 0, 0 for no range), without those `reserved` says are taken."""

    def __init__(
        self,
        first: int = 0,
        last: int = 0,
        *,
        reserved: Callable[[int], bool] = lambda address: False,
        journal: Journal | None = None,
    ) -> None:
        self.first, self.last = first, last
        self._reserved = reserved
        self._journal = journal
        self._by_mac: dict[str, Lease] = {}
        self._by_address: dict[int, Lease] = {}
        for mac, address, expires, hostname in journal.load() if journal else ():
            if self.covers(address) and address not in self._by_address:
                self._put(Lease(mac, address, expires, True, hostname))

    @property
    def size(self) -> int:
        return self.last - self.first + 1 if self.first else 0

    def __len__(self) -> int:
        return len(self._by_mac)

    def covers(self, address: int) -> bool:
        return self.first != 0 and self.first <= address <= self.last

    def get(self, mac: str) -> Lease | None:
        return self._by_mac.get(mac)

    def owner(self, address: int) -> str | None:
        """The MAC that has this address of the range."""
        lease = self._by_address.get(address)
        return lease.mac if lease is not None else None

    def all(self) -> list[Lease]:
        return [lease for lease in self._by_mac.values() if lease.bound]

    def offer(self, mac: str, wanted: int, now: float) -> int | None:
        """The address of this MAC: the one it has, else the one it asks for, else one by hash; None when full."""
        lease = self._by_mac.get(mac)
        if lease is not None and not self._reserved(lease.address):
            if not lease.bound:
                lease.expires = now + OFFER_SECONDS
            return lease.address
        address = wanted if self._free(wanted, now) else self._find(mac, now)
        if address is not None:
            self.forget(mac)
            self._take(address)
            self._put(Lease(mac, address, now + OFFER_SECONDS))
        return address

    def bind(self, mac: str, address: int, now: float, seconds: float, hostname: str = "") -> bool:
        """Make the address this MAC's for `seconds`; False when it cannot be."""
        lease = self._by_mac.get(mac)
        if lease is None or lease.address != address:
            if not self._free(address, now):
                return False
            self.forget(mac)
            self._take(address)
            lease = Lease(mac, address, now)
            self._put(lease)
        elif self._reserved(address):
            return False
        lease.expires, lease.bound, lease.hostname = now + seconds, True, hostname
        if self._journal:
            self._journal.put(lease)
        return True

    def release(self, mac: str, now: float) -> None:
        """The client gives it back: others may have it, but it stays this MAC's until then."""
        lease = self._by_mac.get(mac)
        if lease is not None and lease.bound:
            lease.expires = now
            if self._journal:
                self._journal.put(lease)

    def forget(self, mac: str) -> None:
        lease = self._by_mac.pop(mac, None)
        if lease is not None:
            del self._by_address[lease.address]
            if lease.bound and self._journal:
                self._journal.delete(mac)

    def decline(self, mac: str, address: int, now: float) -> None:
        """Somebody else uses this address (the client's ARP said so)."""
        lease = self._by_mac.get(mac)
        if lease is not None and lease.address == address:
            self.forget(mac)
            self._put(Lease(f"declined-{dotted(address)}", address, now + DECLINE_SECONDS))

    def _put(self, lease: Lease) -> None:
        self._by_mac[lease.mac] = lease
        self._by_address[lease.address] = lease

    def _take(self, address: int) -> None:
        former = self._by_address.get(address)
        if former is not None:
            self.forget(former.mac)

    def _free(self, address: int, now: float) -> bool:
        if not self.covers(address):
            return False
        lease = self._by_address.get(address)
        return (lease is None or lease.expires <= now) and not self._reserved(address)

    def _find(self, mac: str, now: float) -> int | None:
        """From the hash of the MAC onwards: an address nobody had, or failing that the longest expired."""
        size = self.size
        start = xxhash.xxh3_64_intdigest(mac.encode()) % size if size else 0
        for step in range(size):
            address = self.first + (start + step) % size
            if address not in self._by_address and not self._reserved(address):
                return address
            if len(self._by_address) >= size:
                break
        expired = [lease for lease in self._by_address.values() if lease.expires <= now]
        expired = [lease for lease in expired if not self._reserved(lease.address)]
        return min(expired, key=lambda lease: lease.expires).address if expired else None


class Journal:
    """The leases' table in the database: read once, then written by a thread of its own, in batches."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.errors = 0
        self._changed: dict[str, Lease | None] = {}
        self._wake = threading.Event()
        self._closing = False
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def load(self) -> list[tuple[str, int, float, str]]:
        """(mac, address, expires, hostname), latest expiry first. Raises WwfastError when the file is no database."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch(mode=0o600)
            with self._connect() as database:
                database.execute(SCHEMA)
                rows = database.execute("SELECT mac, address, expires, hostname FROM lease ORDER BY expires DESC")
                found = [(mac, number(address), expires, hostname) for mac, address, expires, hostname in rows]
            database.close()
        except (OSError, sqlite3.Error, ValueError) as error:
            raise WwfastError(
                f"cannot read the leases in {self.path}: {error}",
                hint=f"move {self.path} away; nodes get their addresses back when they ask",
            ) from error
        return found

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)
        self._thread.start()

    def put(self, lease: Lease) -> None:
        with self._lock:
            self._changed[lease.mac] = lease
        self._wake.set()

    def delete(self, mac: str) -> None:
        with self._lock:
            self._changed[mac] = None
        self._wake.set()

    def close(self) -> None:
        """Write what is left and end the thread."""
        self._closing = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        else:
            self.flush()

    def flush(self) -> None:
        """Write every change so far in one transaction; changes that cannot be written are kept."""
        with self._lock:
            changed, self._changed = self._changed, {}
        if not changed:
            return
        gone = [(mac,) for mac, lease in changed.items() if lease is None]
        kept = [
            (lease.mac, dotted(lease.address), lease.expires, lease.hostname)
            for lease in changed.values()
            if lease is not None
        ]
        try:
            database = self._connect()
            try:
                with database:
                    database.executemany("DELETE FROM lease WHERE mac = ?", gone)
                    for at in range(0, len(kept), ROWS):
                        rows = kept[at : at + ROWS]
                        places = ",".join(["(?,?,?,?)"] * len(rows))
                        values = [value for row in rows for value in row]
                        database.execute(f"INSERT OR REPLACE INTO lease VALUES {places}", values)
            finally:
                database.close()
        except sqlite3.Error as error:
            self.errors += 1
            log.error("cannot write %d leases to %s: %s (they are kept and tried again)", len(kept), self.path, error)
            with self._lock:
                self._changed = {**changed, **self._changed}

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.path, timeout=10)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        return database

    def _run(self) -> None:
        pause = threading.Event()
        while not self._closing:
            self._wake.wait()
            self._wake.clear()
            # Waiting a moment turns a storm's thousands of changes into a few transactions.
            if not self._closing:
                pause.wait(FLUSH_SECONDS)
            self.flush()
            if self._changed and not self._closing:
                pause.wait(5.0)
                self._wake.set()
        self.flush()
