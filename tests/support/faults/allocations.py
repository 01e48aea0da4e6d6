"""A program to be preloaded (allocations.c): every allocation of each use of an extension fails once.

    python -m support.faults.allocations DIRECTORY

A use may raise MemoryError (or an OSError that says so), or do without the memory: then its result is the right one. In
either case it holds nothing afterwards, and the next use is right. Prints a line for each use: its name and how many
allocations failed in it.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import select
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from wwfast._ext import yamlevents
from wwfast._ext.pump import Pump
from wwfast._ext.tftp import Engine
from wwfast._ext.tftpload import Crowd
from wwfast._ext.transfers import Transfers
from wwfast._ext.tree import Tree

SOURCE = Path(__file__).with_name("allocations.c")


def pack(directory: Path) -> object:
    """A tree's segments, and those of a second walk that knows the digests of the first."""
    known, bytes_of = b"", []
    for _ in range(2):
        tree = Tree(directory, [b"left"])
        tree.walk()
        tree.arrange(frozenset(), -1, 20_000.0, 1 << 20, ())
        tree.recall(known)
        keys = tree.keys(0, tree.segments_count)
        for number in range(tree.segments_count):
            buffer = bytearray(tree.size(number))
            tree.fill(number, buffer)
            bytes_of.append(bytes(buffer))
        known = tree.remember(1 << 63)
    return bytes_of, keys


def tftp(_: Path) -> object:
    """Transfers that end well, are given up by their peer, and are still under way."""
    transfers = Transfers()
    begun: list[int] = []
    packets: list[object] = []
    told: list[object] = []
    try:
        for port in (69, 70, 71):
            begun.append(transfers.start(0, 1, port, b"x" * 700, 512, 2, 0, b"\0\6tsize\x00700\0", 0.0))
    finally:  # memory that runs out is the matter of those that begin
        for kind in (b"\0\4\0\0", b"\0\4\0\1", b"\0\4\0\2"):
            transfers.feed(0, 1, 69, kind, 0.1)
            packets += transfers.take()
        transfers.feed(0, 1, 70, b"\0\5\0\0enough", 0.2)
        packets += transfers.take()
        told += transfers.drain()
        ends = [what for number, what, *_ in told if number in begun[:2]]
        assert ends == [[], ["begun", "done"], ["begun", "done", "failed"]][min(len(begun), 2)]
    return packets, told


def engine(_: Path) -> object:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        Engine([sock.fileno()]).close()
        Crowd(0x7F000001, 1, b"x", b"x", count=4)


def http(directory: Path) -> object:
    """A head and two pieces of a file through the pump."""
    ours, theirs = socket.socketpair()
    pump = Pump(1)
    with ours, theirs, (directory / "b").open("rb") as file:
        ours.setblocking(False)
        try:
            pump.send(ours.fileno(), b"head", b"body", [(file.fileno(), 0, 10), (file.fileno(), 4, 10)], None)
            select.select([pump.fileno()], [], [])
            (sent,) = pump.reports()
            return sent.error, sent.sent, theirs.recv(100)
        finally:
            pump.close()


def yaml(_: Path) -> object:
    text = b"a: &x {b: [1, 'two', \"three\\n\"]}\nc: *x\n" + b"".join(
        b"k%d:\n  - v: |\n      text\n" % n for n in range(9)
    )
    return yamlevents.load(text), yamlevents.compose(text)


USES: tuple[Callable[[Path], object], ...] = (pack, tftp, engine, http, yaml)


def tree(at: Path) -> None:
    for name in ("a", "b", "d/e", "d/f/g", "left/h"):
        (at / name).parent.mkdir(parents=True, exist_ok=True)
        (at / name).write_bytes(name.encode() * 1000)
    (at / "link").symlink_to("a")
    os.link(at / "a", at / "same")


def main(directory: Path) -> None:
    tree(directory)
    shim = ctypes.CDLL(os.environ["LD_PRELOAD"])
    for use in USES:
        expected = use(directory)
        shim.allocations_arm(0)
        assert use(directory) == expected
        gc.collect()
        every, held = shim.allocations_count(), shim.allocations_held()
        assert held == 0, f"{use.__name__} goes on holding {held}"
        for nth in range(1, every + 1):
            shim.allocations_arm(nth)
            try:
                result = use(directory)
            except MemoryError:
                pass
            except OSError as error:
                if error.errno != errno.ENOMEM:
                    raise
            else:
                assert result == expected, f"{use.__name__} {nth}: another result"
            gc.collect()
            held = shim.allocations_held()
            shim.allocations_disarm()
            assert held == 0, f"{use.__name__} {nth} goes on holding {held}"
            assert use(directory) == expected, f"{use.__name__} after {nth}: another result"
        sys.stdout.write(f"{use.__name__} {every}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
