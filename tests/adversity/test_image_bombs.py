"""Archives of a few bytes made to take a server's time, memory or disk: each ends soon, refused or unpacked."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from wwfast.archive.limits import LIMITS, Limits
from wwfast.archive.stream import opened
from wwfast.errors import WwfastError
from wwfast.images.sources.unpack import Unpacker

# All decompress to what they are given, however little of it is left when the file is cut.
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "xz": lzma.compress,
    "bzip2": bz2.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}
END = bytes(1024)


def header(name: str, kind: bytes = b"0", size: int = 0, link: str = "") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname, info.mode = kind, size, link, 0o755
    info.uid, info.gid = os.geteuid(), os.getegid()
    return info.tobuf(tarfile.GNU_FORMAT)


def block(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def sparse(records: str, stored: bytes = b"", size: int = 512) -> bytes:
    """A member of PAX format whose records say that it is sparse."""
    text = b"".join(f"{len(r) + 4:02} {r}\n".encode() for r in records.split())
    return header("h", b"x", len(text)) + block(text) + header("f", size=size) + stored


ONE = "GNU.sparse.major=1 GNU.sparse.minor=0 GNU.sparse.realsize=99"
# What made readers turn without end: maps that are cut, say more than they hold, or lead backwards.
LOOPS = {
    "map of 1.0 cut before its first line": sparse(ONE),
    "map of 1.0 without a line's end": sparse(ONE, b"7" * 512, 1 << 30),
    "map of 1.0 with fewer numbers than it says": sparse(ONE, block(b"9999\n1\n"), 1 << 30),
    "map of 1.0 with a negative count": sparse(ONE, block(b"-9\n1\n"), 1024),
    "map beyond the size": sparse("GNU.sparse.map=7,9 GNU.sparse.size=5", bytes(512)),
    "map that leads backwards": sparse("GNU.sparse.map=9,1,3,1 GNU.sparse.size=20", bytes(512)),
    "map of pieces of nothing": sparse("GNU.sparse.map=9,0,9,0 GNU.sparse.size=20", bytes(512)),
    "map with half a pair": sparse("GNU.sparse.map=9 GNU.sparse.size=20", bytes(512)),
    "a record of no length": header("h", b"x", 6) + block(b"0 a=b\n") + header("f"),
    "headers that belong to nothing": header("h", b"x", 0) * 40,
    "old sparse map without end": header("f", b"S", 512)[:482] + b"\1" + bytes(29),
    "a hard link to itself": header("f", b"1", link="f") + END,
    "links in a circle": header("a", b"2", link="b") + header("b", b"2", link="a") + header("a/b/c") + END,
    "nothing but zeros": bytes(1 << 20),
    "an end and then more": header("f") + END + header("g") * 2000,
}


def signed(data: bytes) -> bytes:
    """With the checksum of the first header right again."""
    head = bytearray(data[:512])
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + data[512:]


LOOPS["old sparse map without end"] = signed(LOOPS["old sparse map without end"])


def unpack(tmp_path: Path, data: bytes, limits: Limits = LIMITS, *layers: bytes) -> Path:
    root, file = tmp_path / "root", tmp_path / "archive"
    root.mkdir(exist_ok=True)
    with Unpacker(root, limits) as unpacker:
        for each in (data, *layers):
            file.write_bytes(each)
            with opened(file, ratio=limits.ratio) as stream:
                unpacker.apply(stream, layer=True)
        unpacker.finish()
    return root


@pytest.mark.timeout(60)
@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("name", LOOPS)
def test_image_archive_that_turns_readers_in_circles_ends(tmp_path: Path, name: str, packer: str) -> None:
    packed = PACKERS[packer](LOOPS[name])
    cuts = sorted({len(packed), *range(1, min(len(packed), 400), 7)})
    for number, cut in enumerate(cuts):
        try:
            (tmp_path / str(number)).mkdir()
            unpack(tmp_path / str(number), packed[:cut])
        except WwfastError:
            pass


@pytest.mark.timeout(120)
@pytest.mark.parametrize("packer", PACKERS)
def test_image_compressed_data_with_any_byte_changed_ends(tmp_path: Path, packer: str) -> None:
    chance = random.Random(5)
    whole = PACKERS[packer](
        LOOPS["map of 1.0 with fewer numbers than it says"] + header("x", size=9) + block(b"012345678")
    )
    for number in range(300):
        data = bytearray(whole)
        for _ in range(chance.randrange(1, 4)):
            data[chance.randrange(min(len(data), 2000))] = chance.randrange(256)
        try:
            (tmp_path / str(number)).mkdir()
            unpack(tmp_path / str(number), bytes(data))
        except WwfastError:
            pass


@pytest.mark.timeout(60)
@pytest.mark.parametrize("packer", ["gzip", "xz", "bzip2", "zstd"])
def test_image_bomb_ends_when_its_ratio_shows(tmp_path: Path, packer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wwfast.archive.stream.UNTOLD", 1 << 20)
    bomb = PACKERS[packer](header("f", size=40 << 20) + bytes(40 << 20) + END)
    with pytest.raises(WwfastError, match="unpack to"):
        unpack(tmp_path, bomb)
    # However many hide behind each other, as members that are no files: what is read counts, not what is kept.
    label = PACKERS[packer](header("f", b"V", size=9 << 20) + bytes(9 << 20) + END)
    with pytest.raises(WwfastError, match="too large"):
        unpack(tmp_path, label, replace(LIMITS, size=20 << 20, ratio=10**6), label, label)


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory of a tmpfs, for what a disk does at each directory is not what is measured."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as made:
        yield Path(made)


def cpu(work: Callable[[], object]) -> float:
    begun = time.thread_time()
    work()
    return time.thread_time() - begun


@pytest.mark.timeout(120)
@pytest.mark.parametrize("shape", ["directories that become files", "whiteouts", "opaque directories", "deep names"])
def test_image_archive_costs_what_it_holds(memory: Path, shape: str) -> None:
    """Four times as much takes about four times as long: sixteen times would be a square."""

    def layers(count: int) -> Iterator[bytes]:
        names = [f"d{n}" for n in range(count)]
        directories = b"".join(header(f"{name}/e", b"5") for name in names)
        if shape == "directories that become files":
            yield directories + b"".join(map(header, names)) + END
        elif shape == "whiteouts":
            yield directories + END
            yield b"".join(header(f".wh.{name}") for name in names) + END
        elif shape == "opaque directories":
            yield directories + END
            yield b"".join(header(name, b"5") + header(".wh..wh..opq") for name in names) + END
        else:
            yield b"".join(header("/".join(["x"] * 40 + [name])) for name in names) + END

    def once(where: str, count: int) -> float:
        (memory / where).mkdir()
        made = list(layers(count))
        return cpu(lambda: unpack(memory / where, made[0], LIMITS, *made[1:]))

    few = min(once(f"few{n}", 300) for n in range(3))
    many = once("many", 1200)
    assert many < 10 * few


def test_image_header_for_all_entries_is_not_gone_through_for_each(memory: Path) -> None:
    lines = b"".join(b"%d SCHILY.xattr.user.a%06d=b\n" % (31, number) for number in range(50_000))
    many = b"".join(header(f"f{number}") for number in range(2000)) + END

    def once(where: str, data: bytes) -> float:
        (memory / where).mkdir()
        return cpu(lambda: unpack(memory / where, data))

    alone = min(once(f"alone{number}", many) for number in range(3))
    assert once("behind", header("g", b"g", len(lines)) + block(lines) + many) < 3 * alone + 0.3


def test_image_of_a_million_tiny_streams_is_read_once(tmp_path: Path) -> None:
    data = io.BytesIO()
    for piece in (header("f"), END):
        data.write(b"".join(gzip.compress(piece[at : at + 64], mtime=0) for at in range(0, len(piece), 64)))
        data.write(gzip.compress(b"", mtime=0) * 20_000)
    assert cpu(lambda: unpack(tmp_path, data.getvalue())) < 20
    assert (tmp_path / "root/f").exists()
