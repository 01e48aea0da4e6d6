"""What is not configuration and must survive a restart of the daemon: which nodes are in the middle of a boot.

One SQLite file (0600), written in batches by the caller's thread, never in a reply path. Leases live in the same
file, in the tables of `net.dhcp.leases`.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path


class PhaseStore:
    """MAC -> Unix seconds of the boot DHCP, for `daemon.guard`."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        self._path = path
        self._saved: dict[str, float] = {}

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=10)
        connection.execute("CREATE TABLE IF NOT EXISTS booting (mac TEXT PRIMARY KEY, at REAL NOT NULL)")
        return connection

    def load(self) -> list[tuple[str, float]]:
        connection = self._connect()
        try:
            self._saved = dict(connection.execute("SELECT mac, at FROM booting").fetchall())
        finally:
            connection.close()
        return list(self._saved.items())

    def save(self, phases: Sequence[tuple[str, float]]) -> None:
        """Bring the table to `phases`; only what changed is written."""
        now = dict(phases)
        gone = [(mac,) for mac in self._saved.keys() - now.keys()]
        new = [(mac, at) for mac, at in now.items() if self._saved.get(mac) != at]
        if not gone and not new:
            return
        connection = self._connect()
        try:
            with connection:
                connection.executemany("DELETE FROM booting WHERE mac = ?", gone)
                connection.executemany("INSERT OR REPLACE INTO booting VALUES (?, ?)", new)
        finally:
            connection.close()
        self._saved = now
