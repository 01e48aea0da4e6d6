"""The leases' table in the database, behind the reply path: read once, then written by threads of its own.

Two promises, kept apart. *A killed process forgets nothing older than FLUSH_SECONDS and one transaction*: the writer
commits to SQLite's write-ahead log without waiting for the disk (`system.wal`), and what the kernel has, a SIGKILL
does not take away. *A machine that loses power forgets nothing older than that and one fsync*: after each
commit another thread brings the log to the disk and, when the log has grown, into the database. A disk that takes
seconds for an fsync delays only the second promise.

What cannot be written is kept and tried again, less often each time; a database that was moved away is written anew.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from contextlib import closing, suppress
from pathlib import Path

from wwfast.errors import WwfastError, cause
from wwfast.net.dhcp.packet import dotted, number
from wwfast.system import wal
from wwfast.system.folders import folder

log = logging.getLogger(__name__)

#: Waiting a moment turns a storm's thousands of changes into a few transactions.
FLUSH_SECONDS = 0.1
#: After failed writes: doubled from the first to the last.
BACKOFF_SECONDS, MOST_BACKOFF_SECONDS = 0.2, 5.0
#: For others who write to the same file.
LOCK_SECONDS = 1.0
SCHEMA = """
CREATE TABLE IF NOT EXISTS lease (
    mac TEXT PRIMARY KEY, address TEXT NOT NULL, expires REAL NOT NULL, hostname TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID
"""
DELETE = "DELETE FROM lease WHERE mac IN (SELECT value FROM json_each(?))"
INSERT = """
INSERT OR REPLACE INTO lease SELECT
    json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'), json_extract(value, '$[3]')
FROM json_each(?)
"""

#: (mac, address as a number, expires in Unix seconds, hostname)
Row = tuple[str, int, float, str]


def guests(path: Path) -> dict[str, str]:
    """Who has which address by a lease that runs: dotted, MAC. For commands: nothing is made or written, and where
    there are no leases to read nobody has any."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=1.0)) as database:
            return dict(database.execute("SELECT address, mac FROM lease WHERE expires > ?", (time.time(),)))
    except sqlite3.Error:
        return {}


class Journal:
    """`put` and `delete` from the event loop, never a wait. `trouble`: why leases are not written just now, or ""."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.trouble = ""
        self._changed: dict[str, Row | None] = {}  # by the loop, under the lock
        self._unwritten: dict[str, Row | None] = {}  # by the writer
        self._written: dict[str, Row] = {}  # what the database holds
        self._database: sqlite3.Connection | None = None
        self._inode = 0
        self._lock = threading.Lock()
        self._flushing = threading.Lock()
        self._wake = threading.Event()
        self._committed = threading.Event()
        self._closing = threading.Event()
        self._abandoned = False
        self._threads: list[threading.Thread] = []

    def load(self) -> list[Row]:
        """All leases, latest expiry first. Raises WwfastError when the file is no database."""
        try:
            folder(self.path.parent)
            self._disconnect()
            self._connect()
            assert self._database is not None
            rows = self._database.execute("SELECT mac, address, expires, hostname FROM lease ORDER BY expires DESC")
            found = [(mac, number(address), expires, hostname) for mac, address, expires, hostname in rows]
        except (OSError, sqlite3.Error, ValueError) as error:
            self._disconnect()
            raise WwfastError(
                f"cannot read the leases in {self.path}: {cause(error, self.path)}",
                hint=wal.cure(error, self.path, "nodes get their addresses back when they ask"),
            ) from error
        with suppress(sqlite3.Error):  # a full disk is told when there is something to write
            wal.begin_log(self._database)
        self._written = {row[0]: row for row in found}
        return found

    def start(self) -> None:
        for name, work in (("leases", self._write), ("leases-disk", self._settle)):
            thread = threading.Thread(target=work, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def put(self, row: Row) -> None:
        with self._lock:
            self._changed[row[0]] = row
        self._wake.set()

    def delete(self, mac: str) -> None:
        with self._lock:
            self._changed[mac] = None
        self._wake.set()

    def close(self) -> None:
        """Write what is left, bring it to the disk, end the threads."""
        self._closing.set()
        self._wake.set()
        self._committed.set()
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        self.flush()
        self._disconnect()

    def abandon(self) -> None:
        """Another process writes from now on: end the threads, and write nothing any more."""
        self._abandoned = True
        self._closing.set()
        self._wake.set()
        self._committed.set()

    def flush(self) -> bool:
        """Write every change so far: what is gone, then what is there. False when that failed: the changes are kept."""
        if self._abandoned:
            return True
        with self._flushing:
            with self._lock:
                changed, self._changed = self._changed, {}
            self._unwritten.update(changed)
            if not self._unwritten:
                return True
            try:
                _save(self._connected(), self._unwritten)
            except Exception as error:  # whatever it is: this thread must not end, and the rows stay
                self._disconnect()
                self._tell(str(error) or type(error).__name__)
                return False
            self._tell("")
            for mac, row in self._unwritten.items():
                if row is not None:
                    self._written[mac] = row
                else:
                    self._written.pop(mac, None)
            self._unwritten.clear()
        self._committed.set()
        return True

    def _tell(self, trouble: str) -> None:
        """Log what begins and what ends, not every attempt."""
        if trouble and trouble != self.trouble:
            log.error("leases are not written to %s: %s (they are kept, and tried again)", self.path, trouble)
        elif self.trouble and not trouble:
            log.warning("leases are written to %s again", self.path)
        self.trouble = trouble

    def _connected(self) -> sqlite3.Connection:
        """To the file that has our name now; one that was put there since gets all leases."""
        if self._database is not None and _inode(self.path) != self._inode:
            self._disconnect()
            self._unwritten = {**self._written, **self._unwritten}
        if self._database is None:
            self._connect()
            assert self._database is not None
        return self._database

    def _connect(self) -> None:
        self.path.touch(mode=0o600)
        self._database = wal.connect(self.path, SCHEMA, LOCK_SECONDS)
        self._inode = _inode(self.path)

    def _disconnect(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            database.close()

    def _write(self) -> None:
        """The writer: every change is in the log FLUSH_SECONDS and one transaction after it was made."""
        backoff = BACKOFF_SECONDS
        while not self._closing.is_set():
            self._wake.wait()
            self._closing.wait(FLUSH_SECONDS)
            self._wake.clear()
            if self.flush():
                backoff = BACKOFF_SECONDS
            else:
                self._wake.set()
                self._closing.wait(backoff)
                backoff = min(2 * backoff, MOST_BACKOFF_SECONDS)

    def _settle(self) -> None:
        """The other thread: waits for the disk, so that the writer need not."""
        while not self._closing.is_set():
            self._committed.wait()
            self._committed.clear()
            began = time.monotonic()
            try:
                wal.settle(self.path)
            except Exception as error:  # this thread must not end
                log.error("cannot bring the leases in %s to the disk: %s", self.path, error)
            self._closing.wait(max(0.0, FLUSH_SECONDS - (time.monotonic() - began)))


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0


def _save(database: sqlite3.Connection, changed: dict[str, Row | None]) -> None:
    kept = [row for row in changed.values() if row is not None]
    wal.rows(database, DELETE, [mac for mac, row in changed.items() if row is None])
    wal.rows(database, INSERT, [(mac, dotted(address), expires, name) for mac, address, expires, name in kept])
