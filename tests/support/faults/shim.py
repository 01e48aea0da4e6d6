"""The preloaded library (shim.c): made when needed, armed and read through a file that all its processes map."""

from __future__ import annotations

import errno
import mmap
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).with_name("shim.c")
HEAD = struct.Struct("9I1024s")
SIZE = HEAD.size + (4 << 20)
OPEN, WRITE, TRUNCATE, SYNC, RENAME, LINK, MKDIR, REMOVE = (1 << bit for bit in range(8))
FAIL, SHORT, KILL = 1, 2, 3
MAKING = OPEN | WRITE | TRUNCATE | SYNC | RENAME | LINK | MKDIR
EVERY = MAKING | REMOVE


class Kind(NamedTuple):
    """One way for a disk to fail: what the call does, its errno, which calls may be hit, and which of them are hit from
    then on."""

    name: str
    what: int
    error: int
    ops: int
    sticky: int = 0


ENOSPC = Kind("ENOSPC", FAIL, errno.ENOSPC, MAKING, OPEN | WRITE | TRUNCATE | LINK | MKDIR)
EIO = Kind("EIO", FAIL, errno.EIO, MAKING)
EROFS = Kind("EROFS", FAIL, errno.EROFS, EVERY, EVERY)  # what a file system becomes after an error
CUT = Kind("SHORT", SHORT, 0, WRITE)  # a signal, or the last free block
KILLED = Kind("KILL", KILL, 0, EVERY)  # a write is done by half
KINDS = (ENOSPC, EIO, EROFS, CUT, KILLED)
COUNT = Kind("", FAIL, 0, EVERY)


class Call(NamedTuple):
    """One call that was seen: its kind, its path, and the second one of a rename or link."""

    op: str
    path: str
    other: str
    hit: bool


@dataclass(frozen=True)
class Shim:
    """`environment` is for a program that is to be preloaded; `armed` works on all that have it."""

    library: Path
    state: Path
    memory: mmap.mmap

    @classmethod
    def make(cls, directory: Path) -> Shim:
        """Compile the library, make the file of orders."""
        library, state = directory / "faults.so", directory / "faults.state"
        words = ["gcc", "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", library, SOURCE, "-ldl"]
        subprocess.run(words, check=True)
        with state.open("wb") as file:
            file.truncate(SIZE)
        return cls.attach(library, state)

    @classmethod
    def attach(cls, library: Path, state: Path) -> Shim:
        with state.open("r+b") as file:
            return cls(library, state, mmap.mmap(file.fileno(), SIZE))

    @property
    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self.library), "FAULT_STATE": str(self.state), "PYTHONDONTWRITEBYTECODE": "1"}

    def arm(self, directory: Path, kind: Kind = COUNT, at: int = 0) -> None:
        """Hit the call number `at` (from 1; 0: none, all are recorded) below the directory."""
        name = os.fsencode(directory)
        # Armed last: other processes look at once.
        self.memory[4 : HEAD.size] = HEAD.pack(
            0, at, kind.what, kind.error, kind.sticky, kind.ops, 0, 0, 0, name.ljust(1024, b"\0")
        )[4:]
        self.memory[:4] = struct.pack("I", 1)

    def disarm(self) -> None:
        self.memory[:4] = bytes(4)

    @contextmanager
    def armed(self, directory: Path, kind: Kind = COUNT, at: int = 0) -> Iterator[None]:
        self.arm(directory, kind, at)
        try:
            yield
        finally:
            self.disarm()

    @property
    def count(self) -> int:
        return int(HEAD.unpack_from(self.memory)[6])

    @property
    def fired(self) -> int:
        return int(HEAD.unpack_from(self.memory)[7])

    def calls(self) -> list[Call]:
        """All that was seen since it was armed, in order, those that are not counted as well."""
        used = int(HEAD.unpack_from(self.memory)[8])
        assert used < SIZE - HEAD.size, "more calls than the log holds"
        found = []
        for line in os.fsdecode(self.memory[HEAD.size : HEAD.size + used]).splitlines():
            op, path, other = line.split("\t")
            found.append(Call(op.lstrip("!"), path, other, op.startswith("!")))
        return found


def preloaded(words: list[str], directory: Path) -> Shim:
    """Inside a program to be preloaded: its shim. The first time, the program is run again with it, as `words`."""
    if "FAULT_STATE" not in os.environ:
        os.execve(words[0], words, os.environ | Shim.make(directory).environment)
    return Shim.attach(Path(os.environ["LD_PRELOAD"]), Path(os.environ["FAULT_STATE"]))
