"""What the readers of an image demand, rule by rule, on an image with many segments.

Linux: init/initramfs.c, lib/decompress*.c; iPXE: src/image/gzip.c; Documentation/driver-api/early-userspace.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from support import trees
from wwfast.archive import frames
from wwfast.archive.artefact import FORMATS
from wwfast.pack import manifest
from wwfast.pack.build import build, load

HEADER = 110


def entries(raw: bytes) -> Iterator[tuple[bytes, list[int]]]:
    """(name, the 13 header fields) of every entry; fails unless the bytes end exactly where an entry ends."""
    at = 0
    while at < len(raw):
        assert raw[at : at + 6] == b"070701"
        fields = [int(raw[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        yield raw[at + HEADER : at + HEADER + fields[11] - 1], fields
        at += (HEADER + fields[11] + 3) // 4 * 4
        at += (fields[6] + 3) // 4 * 4
    assert at == len(raw)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("rules")
    tree = base / "rootfs"
    for number in range(13):
        (tree / f"usr/d{number}").mkdir(parents=True)
    for number in range(400):
        path = tree / f"usr/d{number % 13}/file{number}"
        path.write_bytes(os.urandom(number) + b"x" * number * 20)
        if number % 10 == 0:
            (tree / f"usr/d{(number + 5) % 13}/link{number}").hardlink_to(path)
    (tree / "lib").symlink_to("usr/d1")
    (tree / "large").write_bytes(b"z" * (5 << 20))
    build(tree, base / "i/1", name="rules", formats=FORMATS, frames=base / "frames", segment=50_000.0)
    return base / "i/1"


def bytes_of(image: Path, fmt: str) -> bytes:
    artefact = load(image, fmt)
    assert artefact is not None
    return trees.contents(artefact.extents)


def zst_frames(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(the frame's first bytes, its content) one after the other."""
    while data:
        stream = zstandard.ZstdDecompressor().decompressobj()
        raw = stream.decompress(data)
        assert stream.eof
        yield data[:18], raw
        data = stream.unused_data


def test_pack_rule_every_frame_ends_on_an_entry_and_needs_no_other(image: Path) -> None:
    """Linux: "junk at the end of compressed archive" when a member ends inside a file or its padding."""
    frames = list(zst_frames(bytes_of(image, "zst")))
    assert len(frames) == len(manifest.read(image).segments) > 10
    for _, raw in frames:
        assert list(entries(raw))


def test_pack_rule_frames_are_plain_with_a_small_window_and_no_skippable_one(image: Path) -> None:
    """Linux knows no skippable frames, no dictionaries and no window over 2^27; zero padding breaks zstd(1)."""
    for head, raw in zst_frames(bytes_of(image, "zst")):
        assert head[:4] == b"\x28\xb5\x2f\xfd"
        facts = zstandard.get_frame_parameters(head)
        assert (facts.dict_id, facts.has_checksum, facts.content_size) == (0, True, len(raw))
        assert facts.window_size <= 1 << 27


def test_pack_rule_one_trailer_at_the_very_end(image: Path) -> None:
    """A TRAILER ends the scope of hard links, and GNU cpio stops at the first."""
    raw = bytes_of(image, "raw")
    names = [name for name, _ in entries(raw)]
    assert names.count(b"TRAILER!!!") == 1
    assert names[-1] == b"TRAILER!!!"


def test_pack_rule_links_share_a_key_that_no_other_inode_has(image: Path) -> None:
    """Linux joins all entries with nlink >= 2 and the same (major, minor, ino): others must not meet there."""
    keys: dict[tuple[int, int, int], list[bytes]] = {}
    counts = {}
    for name, fields in entries(bytes_of(image, "raw")):
        if fields[4] > 1 and fields[1] & 0o170000 == 0o100000:
            keys.setdefault((fields[7], fields[8], fields[0]), []).append(name)
            counts[name] = fields[4]
    assert len(keys) == 40
    for names in keys.values():
        assert len(names) == 2
        assert {counts[name] for name in names} == {2}
        assert len({name.rpartition(b"/")[2][4:] for name in names}) == 1


def test_pack_rule_segments_have_device_numbers_of_their_own(image: Path) -> None:
    minors = [{fields[8] for _, fields in entries(raw)} for _, raw in zst_frames(bytes_of(image, "zst"))]
    assert all(len(minor) == 1 for minor in minors[:-1])
    assert len(set.union(*minors[:-1])) == len(minors) - 1


def test_pack_rule_parents_come_before_what_is_below_them(image: Path) -> None:
    """Linux drops a file without its directory, and says nothing."""
    seen = {b""}
    for name, _ in entries(bytes_of(image, "raw")):
        assert name.rpartition(b"/")[0] in seen
        seen.add(name)


def test_pack_rule_gz_is_one_member_with_nothing_in_its_head_but_a_name(image: Path) -> None:
    """iPXE unpacks the first member only and takes its size from the last four bytes; Linux skips FNAME alone."""
    data = bytes_of(image, "gz")
    stream = zlib.decompressobj(31)
    raw = stream.decompress(data)
    assert stream.eof
    assert stream.unused_data == b""
    assert data[3] == 0x08
    assert int.from_bytes(data[-4:], "little") == len(raw) % (1 << 32)
    assert raw == bytes_of(image, "raw")


def test_pack_rule_gz_pieces_refer_to_nothing_before_them(image: Path) -> None:
    """Or a piece from the cache could not follow another piece than the one it was made after."""
    listed = manifest.read(image)
    for segment, piece in zip(listed.segments, listed.formats["gz"].pieces[1:-1], strict=True):
        with (image / piece.file).open("rb") as file:
            data = os.pread(file.fileno(), piece.length, piece.offset)
        assert len(zlib.decompressobj(-15).decompress(data)) == segment.raw


@pytest.mark.parametrize("fmt", ["raw", "gz"])
def test_pack_rule_lengths_are_whole_words(image: Path, fmt: str) -> None:
    """An EFI stub puts files behind one another without padding; a raw archive must start on a multiple of 4."""
    assert len(bytes_of(image, fmt)) % 4 == 0


@pytest.mark.parametrize("size", [0, 1, 100_000, 1 << 20])
@pytest.mark.parametrize("dense", [False, True])
def test_pack_gz_piece_of_anything_comes_back(size: int, dense: bool) -> None:
    """What is compressed already is found by samples and goes to the faster library; text never does."""
    raw = os.urandom(size) if dense else (b"the image of a node %d " * (size // 20 + 1))[:size]
    assert frames.dense(raw) is (dense and size > 2 * frames.SAMPLES * frames.SAMPLE)
    made = frames.piece(raw)
    assert zlib.decompressobj(-15).decompress(made.data) == raw
    assert len(made.data) <= size * 1.001 + 64
    assert (made.crc, made.length) == (zlib.crc32(raw), size)
