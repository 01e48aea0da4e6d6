"""Archives in memory and their compressed forms, read by GNU cpio, gzip and zstd."""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path

import pytest
import zstandard

from wwfast.archive import frames, newc
from wwfast.archive.newc import Entry
from wwfast.errors import WwfastError
from wwfast.system.run import run

SAMPLE = [
    Entry(b"etc", 0o040755, 0, 0, 1),
    Entry(b"etc/host\xffname\n", 0o100644, 7, 4_000_000_000, 0xFFFFFFFF, b"node1\n"),
    Entry(b"etc/link", 0o120777, 0, 0, 5, b"hostname"),
    Entry(b"null", 0o020666, 0, 0, 5, b"", (1, 3)),
]


def test_pack_newc_header_is_what_the_format_says() -> None:
    raw = newc.archive([Entry(b"f", 0o100644, 1, 2, 3, b"hello")], segment=9, trailer=False)
    fields = [int(raw[6 + 8 * i : 14 + 8 * i], 16) for i in range(13)]
    assert raw[:6] == b"070701"
    assert fields == [1, 0o100644, 1, 2, 1, 3, 5, 0, 9, 0, 0, 2, 0]
    assert raw[110:] == b"f\0" + b"hello\0\0\0"


def test_pack_newc_is_read_by_gnu_cpio(tmp_path: Path) -> None:
    listing = run(["cpio", "-it", "--quiet"], input=newc.archive(SAMPLE), package="cpio").stdout
    assert listing.splitlines()[0] == b"etc"
    regular = [entry for entry in SAMPLE if entry.mode & 0o170000 != 0o020000]
    run(["cpio", "-id", "--quiet"], input=newc.archive(regular), cwd=tmp_path)
    assert (tmp_path / os.fsdecode(SAMPLE[1].name)).read_bytes() == b"node1\n"
    assert (tmp_path / "etc/link").readlink() == Path("hostname")


def test_pack_newc_is_read_back_as_it_was_packed() -> None:
    raw = newc.archive(SAMPLE, trailer=False)
    assert newc.entries(raw) == newc.entries(newc.archive(SAMPLE)) == SAMPLE
    for end in range(1, len(raw)):
        assert SAMPLE[: len(cut := whole(raw[:end]))] == cut
    with pytest.raises(ValueError, match="no number"):
        newc.entries(raw.replace(b"000041ED", b"000041eD"))


def whole(raw: bytes) -> list[Entry]:
    """The entries of what may be cut off; none then."""
    try:
        return newc.entries(raw)
    except ValueError:
        return []


def test_pack_newc_only_the_last_part_has_a_trailer() -> None:
    first = newc.archive(SAMPLE[:1], trailer=False)
    assert b"TRAILER!!!" not in first
    assert (first + newc.archive(SAMPLE[1:], segment=1)).count(b"TRAILER!!!") == 1
    assert newc.archive([]) == newc.TRAILER


@pytest.mark.parametrize(
    "entry",
    [
        Entry(b"", 0o100644, 0, 0, 0),
        Entry(b"/etc/passwd", 0o100644, 0, 0, 0),
        Entry(b"a\0b", 0o100644, 0, 0, 0),
        Entry(b"TRAILER!!!", 0o100644, 0, 0, 0),
        Entry(b"n" * 4096, 0o100644, 0, 0, 0),
        Entry(b"l", 0o120777, 0, 0, 0, b""),
        Entry(b"l", 0o120777, 0, 0, 0, b"t" * 4096),
        Entry(b"f", 0o100644, -1, 0, 0),
        Entry(b"f", 0o100644, 0, 0, 1 << 32),
    ],
    ids=["empty", "absolute", "nul", "trailer", "long-name", "no-target", "long-target", "negative-uid", "year-2106"],
)
def test_pack_newc_refuses_what_a_node_would_drop(entry: Entry) -> None:
    with pytest.raises(WwfastError, match="cannot be archived"):
        newc.archive([entry])


@pytest.mark.parametrize("size", range(40))
@pytest.mark.parametrize("level", [1, 3])
def test_pack_gz_is_one_member_with_true_crc_and_size_and_a_length_of_whole_words(size: int, level: int) -> None:
    parts = [os.urandom(size), b"x" * 1000 * size, b""]
    whole = frames.member([frames.piece(part, level) for part in parts])
    raw = b"".join(parts)
    stream = zlib.decompressobj(31)
    assert stream.decompress(whole) == raw  # zlib checks the CRC and the size
    assert stream.eof
    assert not stream.unused_data
    assert len(whole) % 4 == 0
    assert whole[3] == 8, "Linux skips a file name in the header and nothing else"
    assert int.from_bytes(whole[-4:], "little") == len(raw)


@pytest.mark.parametrize("level", [1, 3, 9, 19])
def test_pack_zst_frame_says_its_size_carries_a_checksum_and_a_small_window(level: int) -> None:
    raw = newc.archive(SAMPLE) * 3000
    frame = frames.compress(raw, "zst", level)
    facts = zstandard.get_frame_parameters(frame)
    assert facts.content_size == len(raw)
    assert facts.has_checksum
    assert facts.dict_id == 0
    assert facts.window_size <= 1 << 27
    assert zstandard.ZstdDecompressor().decompress(frame) == raw


def test_pack_compress_is_the_whole_artefact() -> None:
    raw = newc.archive(SAMPLE)
    assert frames.compress(raw, "raw") == raw
    assert gzip.decompress(frames.compress(raw, "gz")) == raw
    assert zstandard.decompress(frames.compress(raw, "zst")) == raw
