"""Trees to pack: made from a description, and read back for comparison."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from support.cpio import Inode


def timeless(mode: int) -> bool:
    """Unpackers do not set the times of these back."""
    return stat.S_ISDIR(mode) or stat.S_ISLNK(mode)


def read(root: Path) -> dict[bytes, tuple[Any, ...]]:
    """Everything an archive carries, by name: (mode, uid, gid, mtime, rdev, content, all names of the inode)."""
    base = os.fsencode(root)
    found: dict[bytes, tuple[os.stat_result, bytes]] = {}
    for directory, directories, files in os.walk(base):
        for name in directories + files:
            full = directory + b"/" + name
            facts = os.lstat(full)
            data = b""
            if stat.S_ISLNK(facts.st_mode):
                data = os.readlink(full)  # noqa: PTH115 (Path would tidy the target)
            elif stat.S_ISREG(facts.st_mode):
                data = Path(os.fsdecode(full)).read_bytes()
            found[full[len(base) + 1 :]] = facts, data
    groups: dict[tuple[int, int], list[bytes]] = {}
    for name, (facts, _) in found.items():
        groups.setdefault((facts.st_dev, facts.st_ino), []).append(name)
    return {
        name: (
            facts.st_mode,
            facts.st_uid,
            facts.st_gid,
            None if timeless(facts.st_mode) else int(facts.st_mtime),
            (os.major(facts.st_rdev), os.minor(facts.st_rdev)),
            data,
            tuple(sorted(groups[facts.st_dev, facts.st_ino])) if not stat.S_ISLNK(facts.st_mode) else (),
        )
        for name, (facts, data) in found.items()
        if not stat.S_ISSOCK(facts.st_mode)
    }


def decoded(names: dict[bytes, Inode]) -> dict[bytes, tuple[Any, ...]]:
    """A decoded archive in the form of `read`."""
    groups: dict[int, list[bytes]] = {}
    for name, inode in names.items():
        groups.setdefault(id(inode), []).append(name)
    return {
        name: (
            inode.mode,
            inode.uid,
            inode.gid,
            None if timeless(inode.mode) else inode.mtime,
            inode.rdev,
            inode.data,
            tuple(sorted(groups[id(inode)])) if not stat.S_ISLNK(inode.mode) else (),
        )
        for name, inode in names.items()
    }


def contents(extents: Iterable[tuple[str, int, int]]) -> bytes:
    """The bytes of an artefact."""
    out = []
    for path, offset, length in extents:
        with Path(path).open("rb") as file:
            out.append(os.pread(file.fileno(), length, offset))
    return b"".join(out)
