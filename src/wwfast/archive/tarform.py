"""Reading a newc archive of ours, and its tar form for nodes that are up (GNU tar and busybox unpack it)."""

from __future__ import annotations

import io
import stat
import tarfile
from collections.abc import Iterator

from wwfast.archive import newc
from wwfast.archive.newc import Entry

END = b"\0" * 1024


def entries(raw: bytes) -> Iterator[Entry]:
    """The entries of `raw`, newc without hard links.

    The symbolic link that stands before each file (see plan.archive) is left out.
    """
    link: Entry | None = None
    for entry in newc.entries(raw):
        if link is not None and link.name != entry.name:
            yield link
        link = entry if stat.S_ISLNK(entry.mode) else None
        if link is None:
            yield entry
    if link is not None:
        yield link


def from_newc(raw: bytes) -> bytes:
    """The entries of `raw` as tar, without the blocks that end an archive."""
    out = io.BytesIO()
    for entry in entries(raw):
        info = tarfile.TarInfo(entry.name.decode("utf-8", "surrogateescape"))
        info.mode, info.uid, info.gid, info.mtime = stat.S_IMODE(entry.mode), entry.uid, entry.gid, entry.mtime
        data = b""
        if stat.S_ISDIR(entry.mode):
            info.type = tarfile.DIRTYPE
        elif stat.S_ISLNK(entry.mode):
            info.type = tarfile.SYMTYPE
            info.linkname = entry.data.decode("utf-8", "surrogateescape")
        else:
            info.size, data = len(entry.data), entry.data
        out.write(info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"))
        out.write(data)
        out.write(b"\0" * (-len(data) % tarfile.BLOCKSIZE))
    return out.getvalue()
