"""What is not configuration and must survive a restart of the daemon: which nodes are in the middle of a boot.

One SQLite file (0600). Leases live in the same file, in the tables of `net.dhcp.leases`. A thread of its own writes,
never a reply's: what was opened within OPEN_SECONDS, what was closed at once, since an answer waits for that. Those
that come while it writes go into its next transaction, so a storm of them costs few.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from concurrent.futures import Future
from pathlib import Path

from wwfast.errors import WwfastError, cause
from wwfast.system import wal
from wwfast.system.folders import folder

log = logging.getLogger(__name__)

#: What a crash loses: so many seconds of opened phases. Those nodes are refused their system overlay and boot again.
OPEN_SECONDS = 0.2
#: After a failed write, until the next try that nobody waits for.
AGAIN_SECONDS = 5.0
#: How long another writer (leases, a backup) may hold the file.
BUSY_SECONDS = 1.0
SCHEMA = "CREATE TABLE IF NOT EXISTS booting (mac TEXT PRIMARY KEY, at REAL NOT NULL)"
DELETE = "DELETE FROM booting WHERE mac IN (SELECT value FROM json_each(?))"
INSERT = """
INSERT OR REPLACE INTO booting SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?)
"""


class PhaseStore:
    """MAC -> Unix seconds of its last stage, for `daemon.boot.guard`. `error`: why the last write failed, or ""."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.error = ""
        self._changed: dict[str, float | None] = {}
        self._waiting: list[Future[bool]] = []
        self._closing = False
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._database: sqlite3.Connection | None = None

    def load(self) -> list[tuple[str, float]]:
        """Raises WwfastError when the file is no database."""
        try:
            folder(self._path.parent)
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
            database = wal.connect(self._path, SCHEMA, BUSY_SECONDS)
            try:
                return database.execute("SELECT mac, at FROM booting").fetchall()
            finally:
                database.close()
        except (OSError, sqlite3.Error) as error:
            raise WwfastError(
                f"cannot read who boots from {self._path}: {cause(error, self._path)}",
                hint=wal.cure(error, self._path, "nodes that boot right now must boot once more"),
            ) from error

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="phases", daemon=True)
        self._thread.start()

    def put(self, mac: str, at: float) -> None:
        with self._wake:
            if not self._changed:
                self._wake.notify()
            self._changed[mac] = at

    def delete(self, mac: str) -> Future[bool]:
        """Done when it is on disk (True), or cannot be for now (False; it is kept and tried again)."""
        done: Future[bool] = Future()
        with self._wake:
            if self._closing:
                done.set_result(False)
                return done
            self._changed[mac] = None
            self._waiting.append(done)
            self._wake.notify()
        return done

    def flush(self) -> None:
        """Wait until all that came before is on disk, or could not be written."""
        done: Future[bool] = Future()
        with self._wake:
            if self._closing or self._thread is None:
                return
            self._waiting.append(done)
            self._wake.notify()
        done.result()

    def abandon(self) -> None:
        """Another process opens phases from now on: what was not written by now must not undo what that one closed."""
        with self._wake:
            self._changed = {mac: None for mac, at in self._changed.items() if at is None}

    def close(self) -> None:
        """Write what is left and end the thread: after this nothing is written. Safe to repeat."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        pause = OPEN_SECONDS
        while True:
            with self._wake:
                while not (self._waiting or self._closing):
                    if not self._wake.wait(pause if self._changed else None) and self._changed:
                        break
                changed, self._changed = self._changed, {}
                waiting, self._waiting = self._waiting, []
                closing = self._closing
            written = self._write(changed)
            for done in waiting:
                done.set_result(written)
            pause = OPEN_SECONDS if written else AGAIN_SECONDS
            if closing:
                break
        if self._database is not None:
            self._database.close()
            self._database = None

    def _write(self, changed: dict[str, float | None]) -> bool:
        """What closed, then what opened; what cannot be written is kept, unless it has changed again."""
        gone = [mac for mac, at in changed.items() if at is None]
        new = [(mac, at) for mac, at in changed.items() if at is not None]
        try:
            if changed:
                if self._database is None:
                    self._database = wal.connect(self._path, SCHEMA, BUSY_SECONDS)
                wal.rows(self._database, DELETE, gone)
                wal.rows(self._database, INSERT, new)
                wal.settle(self._path)  # not inside the transaction: leases are written to the same file
        except Exception as error:  # whatever it is: this thread must not end, and what changed stays
            if self.error != str(error):
                log.error("cannot write who boots to %s: %s (it is kept and tried again)", self._path, error)
            self.error = str(error) or type(error).__name__
            if self._database is not None:
                self._database.close()
                self._database = None
            with self._wake:
                self._changed = {**changed, **self._changed}
            return False
        self.error = ""
        return True


def require_writable(path: Path) -> None:
    """Raises WwfastError when the database is not whole, or nothing can be written: a server that is to take over from
    one that works must not find that out afterwards."""
    try:
        database = sqlite3.connect(path, timeout=10)
        try:
            if (found := database.execute("PRAGMA quick_check(1)").fetchone()) != ("ok",):
                raise sqlite3.DatabaseError(str(found[0]))
            with database:
                database.execute("BEGIN IMMEDIATE")
                database.execute("PRAGMA user_version = 1")  # to the disk and back, whatever it was
        finally:
            database.close()
    except (OSError, sqlite3.Error) as error:
        raise WwfastError(
            f"the database {path} cannot be used: {cause(error, path)}",
            hint=f"see whether its disk is full or read-only; a damaged file can be moved away: {path}",
        ) from error
