"""SQLite files that several threads and processes write, on disks that may take seconds for an fsync.

In SQLite's write-ahead mode only one may write at a time, and with `synchronous = FULL` it waits for the disk while all
others wait for it. Here a commit only appends to the log, which a SIGKILL does not take away; whoever needs more calls
`settle`, which waits for the disk and holds nobody up. One commit in LOG_BYTES still waits for the disk: SQLite syncs
the head of a log that begins anew, because without that a power failure could bring back parts of the old one.
Source: sqlite.org/wal.html, sqlite.org/pragma.html#pragma_synchronous.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

#: A log of this size is moved into the database (SQLite's own threshold, which would make a commit wait for it).
LOG_BYTES = 4 << 20


def connect(path: Path, schema: str, patience: float) -> sqlite3.Connection:
    """For any thread, one at a time. `patience`: seconds that others who write are waited for."""
    database = sqlite3.connect(path, timeout=patience, check_same_thread=False, isolation_level=None)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute("PRAGMA wal_autocheckpoint = 0")
        database.execute(schema)
    except BaseException:
        database.close()
        raise
    return database


def cure(error: Exception, path: Path, lost: str) -> str:
    """What helps where a database cannot be read. Only a damaged one is in the way; without it something is `lost`."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF  # the class of an extended code
    if isinstance(error, OSError) or code not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR):
        return f"see whether the disk of {path} is full or read-only, and who holds the file"
    return f"move {path} away; {lost}"


def begin_log(database: sqlite3.Connection) -> None:
    """Write something, whatever it is: the first commit to a log waits for the disk, and nobody else's should."""
    database.execute("PRAGMA user_version = 1")


def rows(database: sqlite3.Connection, statement: str, values: Sequence[object]) -> None:
    """Give a statement its rows as `json_each(?)`: however many, one transaction in one call. Beside busy threads every
    call waits for the interpreter anew (50 to 100 ms for a storm's writer), and inside a transaction others wait, too.
    """
    if values:
        database.execute(statement, (json.dumps(values),))


def settle(path: Path) -> None:
    """Bring every commit so far to the disk, and into the database when the log has grown. Raises OSError,
    sqlite3.Error."""
    try:
        # SQLite locks the database and its index, never the log: closing a descriptor of it frees no lock.
        descriptor = os.open(f"{path}-wal", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # in the database already
    try:
        os.fdatasync(descriptor)
        grown = os.fstat(descriptor).st_size > LOG_BYTES
    finally:
        os.close(descriptor)
    if grown:
        with closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
