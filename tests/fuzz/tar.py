"""Archives and layers: unpacked or refused in words; nothing beside the tree changes, and no more is written than
came in (but for holes)."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from wwfast.archive.stream import opened
from wwfast.errors import WwfastError
from wwfast.images.sources.unpack import Unpacker

COUNT = 3000
TOKENS = (
    b"ustar\x0000", b"ustar  \0", b"../", b"/", b".wh.", b".wh..wh..opq", b"a/b", b"0000644\0", b"77777777777\0",
    b"\x80\0\0\0\0\0\0\0", b"\xff" * 8, b"x", b"g", b"L", b"K", b"S", b"0", b"1", b"2", b"5", bytes(512),
    b"30 mtime=1.5\n", b"GNU.sparse.major=1", b"SCHILY.xattr.user.a=b",
)  # fmt: skip
ROOM = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None
BLOCK = 512


def one(data: bytes) -> None:
    """The first byte tells whether it is a layer; the sums of headers are put right, so that what is in them counts."""
    as_layer, archive = bool(data and data[0] & 1), summed(data[1:])
    with tempfile.TemporaryDirectory(dir=ROOM) as name:
        around = Path(name)
        root = around / "root"
        root.mkdir()
        (around / "canary").write_text("untouched")
        (around / "archive").write_bytes(archive)
        try:
            with opened(around / "archive") as stream, Unpacker(root) as unpacker:
                unpacker.apply(stream, layer=as_layer)
                unpacker.finish()
        except WwfastError:
            pass
        assert sorted(entry.name for entry in around.iterdir()) == ["archive", "canary", "root"]
        assert (around / "canary").read_text() == "untouched"
        written = sum(
            os.lstat(os.path.join(at, file)).st_blocks  # noqa: PTH118
            for at, _, files in os.walk(root)
            for file in files
        )
        assert written * BLOCK <= 64 * len(archive) + (1 << 20)


def summed(data: bytes) -> bytes:
    """The checksum of each block that says `ustar`."""
    out = bytearray(data)
    for at in range(0, len(out) - BLOCK + 1, BLOCK):
        if out[at + 257 : at + 262] == b"ustar":
            out[at + 148 : at + 156] = b" " * 8
            out[at + 148 : at + 156] = b"%06o\0 " % sum(out[at : at + BLOCK])
    return bytes(out)
