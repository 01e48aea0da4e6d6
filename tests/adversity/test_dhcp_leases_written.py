"""What was acknowledged is on record: through SIGKILL under load, full disks, locks and files that go away."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from support.patience import until
from wwfast.net.dhcp.journal import Journal
from wwfast.net.dhcp.packet import dotted

KILLS = 6
#: Acknowledged longer ago than this, a lease survives a SIGKILL.
SAFE_SECONDS = 0.5
#: From a change to the database, with room for a busy machine; the journal itself takes 0.1 s.
SOON_SECONDS = 2.0

# 4,000 clients ask for 4,096 addresses, in another order each time and as fast as it goes; each acknowledged address is
# told with its time, in batches as the server sends them. Beside it boot phases are closed without a pause, in the same
# file. argv: database, its seed.
SERVER = """
import os, random, sys, threading, time
from pathlib import Path
from wwfast._ext.dhcp import BATCH
from wwfast.daemon.state.database import PhaseStore
from wwfast.net.dhcp.journal import Journal
from wwfast.net.dhcp.leases import LeaseTable
from wwfast.net.dhcp.packet import Message, build, parse
from wwfast.net.dhcp.responder import DhcpConfig, Responder

path, chance = Path(sys.argv[1]), random.Random(sys.argv[2])
sys.setswitchinterval(0.0003)
phases = PhaseStore(path)
phases.load()
journal = Journal(path)
first = 10 << 24 | 1 << 16
table = LeaseTable(first, first + 4095, journal=journal)
journal.start()
phases.start()
server = Responder(DhcpConfig("10.0.0.1", "255.0.0.0"), lambda mac: None, lambda client, ip: None, table)

def close_phases():
    while True:
        phases.put("52:54:00:00:00:01", time.time())
        assert phases.delete("52:54:00:00:00:02").result()

threading.Thread(target=close_phases, daemon=True).start()

def ask(kind, chaddr, wanted=0):
    options = {53: bytes((kind,)), 60: b"PXEClient"}
    if wanted:
        options[50] = wanted.to_bytes(4, "big")
    question = Message(chaddr=chaddr, options=options)
    reply = server.respond(parse(build(question)), time.time())[0]
    return parse(reply.data) if reply else None

batch = []
clients = [bytes((2, 0)) + who.to_bytes(4, "big") for who in range(4000)]
while True:
    chance.shuffle(clients)
    for chaddr in clients:
        offer = ask(1, chaddr)
        answer = ask(3, chaddr, offer.yiaddr)
        batch.append(f"{time.time()} {chaddr.hex(':')} {answer.yiaddr}\\n")
        if len(batch) == BATCH:
            os.write(1, "".join(batch).encode())
            batch.clear()
"""

# Preloaded: fsync and fdatasync of everybody, SQLite as well, take SLOW_SYNC more microseconds.
SLOW_SYNC = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>
static int slowly(const char *name, int fd) {
    usleep(atoi(getenv("SLOW_SYNC")));
    return ((int (*)(int))dlsym(RTLD_NEXT, name))(fd);
}
int fsync(int fd) { return slowly("fsync", fd); }
int fdatasync(int fd) { return slowly("fdatasync", fd); }
"""


@pytest.fixture
def slow_disk(tmp_path: Path, request: pytest.FixtureRequest) -> dict[str, str]:
    """The environment of a process for which an fsync takes `request.param` seconds longer."""
    if not request.param:
        return dict(os.environ)
    library = tmp_path / "slow.so"
    words = ["gcc", "-shared", "-fPIC", "-O1", "-x", "c", "-", "-o", library, "-ldl"]
    subprocess.run(words, input=SLOW_SYNC, text=True, check=True)
    return os.environ | {"LD_PRELOAD": str(library), "SLOW_SYNC": str(int(request.param * 1e6))}


def saved(path: Path) -> dict[str, str]:
    with closing(sqlite3.connect(path)) as database:
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'lease'").fetchall():
            return {}
        return dict(database.execute("SELECT mac, address FROM lease"))


@pytest.mark.parametrize(
    "slow_disk", [0.0, 0.05, 1.0], indirect=True, ids=["disk", "busy disk", "disk that takes 1 s for an fsync"]
)
def test_dhcp_no_acknowledged_lease_is_lost_when_the_server_is_killed_under_load(
    tmp_path: Path, slow_disk: dict[str, str]
) -> None:
    database = tmp_path / "db"
    known: dict[str, str] = {}
    acknowledged = tmp_path / "acknowledged"
    for turn in range(KILLS):
        with acknowledged.open("w") as told:
            words = [sys.executable, "-c", SERVER, database, str(turn)]
            server = subprocess.Popen(words, stdout=told, env=slow_disk)
            until(lambda: acknowledged.stat().st_size > 0, 30.0)
            time.sleep(SAFE_SECONDS * (1.2 + 2.8 * turn / KILLS))  # in the middle of its work
            killed = time.time()
            server.kill()
            assert server.wait(10) == -signal.SIGKILL
        whole = acknowledged.read_text().rpartition("\n")[0]  # it was killed amid a line
        lines = [line.split() for line in whole.splitlines()]
        moved = [mac for _, mac, address in lines if known.get(mac, address) != address]
        assert not moved, f"{len(moved)} of {len(lines)} came back to another address"
        safe = {mac: dotted(int(address)) for at, mac, address in lines if float(at) < killed - SAFE_SECONDS}
        kept = saved(database)
        lost = [mac for mac, address in safe.items() if kept.get(mac) != address]
        assert safe
        assert not lost, f"{len(lost)} of {len(safe)} were lost in turn {turn}"
        known.update({mac: address for _, mac, address in lines if mac in safe})


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    (tmp_path / "disk").mkdir()
    made = Journal(tmp_path / "disk/db")
    made.load()
    made.start()
    yield made
    made.close()


def rows(count: int, prefix: str = "mac") -> list[tuple[str, int, float, str]]:
    return [(f"{prefix}{at}", at + 1, 2e9, "x" * 200) for at in range(count)]


def test_dhcp_leases_are_written_at_once_while_more_of_them_come(journal: Journal) -> None:
    for turn in range(15):
        began = time.monotonic()
        journal.put((f"turn{turn}", turn + 1, 2e9, ""))
        number = 0
        while f"turn{turn}" not in saved(journal.path):
            journal.put((f"load{number % 1000}", 5000 + number % 1000, 2e9, ""))
            number += 1
            assert time.monotonic() - began < SOON_SECONDS
    assert journal.trouble == ""


def test_dhcp_leases_are_brought_to_the_disk_behind_their_commit(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power failure later takes none away; no more is to be seen of that without cutting the power."""
    synced: list[str] = []
    real = os.fdatasync

    def fdatasync(fd: int) -> None:
        real(fd)
        synced.append(str(Path(f"/proc/self/fd/{fd}").readlink()))

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    for turn in range(3):
        before = len(synced)
        for row in rows(3, f"turn{turn}-"):
            journal.put(row)
        until(lambda before=before: len(synced) > before, SOON_SECONDS)
    assert set(synced) == {f"{journal.path}-wal"}


def full(disk: Path) -> Callable[[], None]:
    """Fill the file system; what is returned makes room again."""
    with (disk / "rubbish").open("wb") as rubbish:
        try:
            while True:
                rubbish.write(b"x" * 65536)
                rubbish.flush()
        except OSError:
            pass
    return (disk / "rubbish").unlink


def locked(disk: Path) -> Callable[[], None]:
    other = sqlite3.connect(disk / "db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    return other.close


def hidden(disk: Path) -> Callable[[], None]:
    """The folder is not there: an unmounted disk."""
    away = disk.with_name("away")
    disk.rename(away)

    def back() -> None:
        away.rename(disk)

    return back


@pytest.mark.parametrize("hurt", [pytest.param(full, marks=pytest.mark.root), locked, hidden])
def test_dhcp_leases_that_cannot_be_written_are_kept_and_written_later(
    tmp_path: Path, hurt: Callable[[Path], Callable[[], None]]
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if hurt is full:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], check=True)
    try:
        journal = Journal(disk / "db")
        journal.load()
        journal.start()
        journal.put(("before", 1, 2e9, ""))
        until(lambda: "before" in saved(journal.path), SOON_SECONDS)
        mend = hurt(disk)
        for row in rows(3000):
            journal.put(row)
        until(lambda: journal.trouble != "", 10.0, why=lambda: "it is not told")
        mend()
        until(lambda: len(saved(journal.path)) == 3001, 15.0)
        until(lambda: journal.trouble == "", SOON_SECONDS, why=lambda: "it is not told after it was written")
        began = time.monotonic()
        journal.put(("after", 2, 2e9, ""))
        until(lambda: "after" in saved(journal.path), SOON_SECONDS, lambda: "a pause after a write that succeeded")
        assert time.monotonic() - began < SOON_SECONDS
        journal.close()
    finally:
        if hurt is full:
            subprocess.run(["umount", disk], check=True)


def test_dhcp_a_database_that_was_moved_away_is_written_anew_and_whole(journal: Journal) -> None:
    for row in rows(100):
        journal.put(row)
    until(lambda: len(saved(journal.path)) == 100, SOON_SECONDS)
    for file in list(journal.path.parent.iterdir()):
        file.rename(file.with_name(f"old-{file.name}"))
    journal.put(("after", 200, 2e9, ""))
    until(lambda: journal.path.exists() and len(saved(journal.path)) == 101, SOON_SECONDS)
    assert journal.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("end", [Journal.close, Journal.abandon])
def test_dhcp_journal_that_had_nothing_to_write_ends_with_its_threads(
    tmp_path: Path, end: Callable[[Journal], None]
) -> None:
    before = set(threading.enumerate())
    journal = Journal(tmp_path / "db")
    journal.load()
    journal.start()
    assert len(set(threading.enumerate()) - before) == 2
    threading.Thread(target=end, args=[journal], daemon=True).start()
    until(lambda: set(threading.enumerate()) <= before, 20.0)


def test_dhcp_leases_written_last_are_there_after_the_end(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "db")
    journal.load()
    journal.start()
    for row in rows(50):
        journal.put(row)
    journal.delete("mac3")
    journal.close()
    assert saved(tmp_path / "db").keys() == {mac for mac, *_ in rows(50)} - {"mac3"}
