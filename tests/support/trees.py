"""Trees to pack: made from a description, and read back for comparison."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.cpio import Inode

HUGE, BEHIND, WORDS = 5 << 30, (9 << 30) // 2, b"behind 4 GiB"


@contextmanager
def huge(root: Path) -> Iterator[None]:
    """`root`/huge is of 5 GiB, WORDS in a hole, in a tmpfs, where a hole is read quickly."""
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", root], check=True)
    try:
        with (root / "huge").open("wb") as file:
            file.seek(BEHIND)
            file.write(WORDS)
            file.truncate(HUGE)
        yield
    finally:
        subprocess.run(["umount", root], check=True)


def assert_huge(file: Path, most: int) -> None:
    """As huge() made it, in `most` bytes at most."""
    facts = file.stat()
    assert (facts.st_size, facts.st_blocks * 512 < most) == (HUGE, True)
    with file.open("rb") as opened:
        said = (opened.read(9), opened.seek(BEHIND - 4), opened.read(len(WORDS) + 8))
    assert said == (bytes(9), BEHIND - 4, bytes(4) + WORDS + bytes(4))


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
