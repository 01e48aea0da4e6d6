"""Reading tar archives: every form of header, limits, compressions in small pieces, and files that are none."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import stat
import struct
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from wwfast.archive.limits import LIMITS, Limits
from wwfast.archive.stream import opened
from wwfast.errors import WwfastError
from wwfast.images.sources.unpack import Unpacker

SKIPPABLE = b"\x50\x2a\x4d\x18\x04\0\0\0abcd"


def raw(name: str, kind: bytes = b"0", data: bytes = b"", size: int | None = None, **fields: object) -> bytes:
    """A header of GNU format and its data, whatever its kind is."""
    info = tarfile.TarInfo(name)
    info.type, info.mtime, info.uid, info.gid = kind, 1000, os.geteuid(), os.getegid()
    info.size = len(data) if size is None else size
    for key, value in fields.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512)


def pax(name: str, records: dict[str, str], data: bytes = b"", kind: bytes = b"x") -> bytes:
    text = b""
    for key, value in records.items():
        line = f" {key}={value}\n".encode()
        length = len(line) + 1
        while len(str(length)) + len(line) != length:
            length += 1
        text += str(length).encode() + line
    return raw("PaxHeaders/x", kind, text) + raw(name, data=data)


def unpack(tmp_path: Path, data: bytes, limits: Limits = LIMITS, *, layer: bool = False) -> Path:
    root, file = tmp_path / "root", tmp_path / "archive"
    root.mkdir(exist_ok=True)
    file.write_bytes(data)
    with opened(file, ratio=limits.ratio) as stream, Unpacker(root, limits) as unpacker:
        unpacker.apply(stream, layer=layer)
        unpacker.finish()
    return root


def tree(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


END = bytes(1024)


@pytest.mark.parametrize(
    ("name", "link"),
    [
        ("/usr/bin/t", "/usr/bin/t"),
        ("//usr//bin/./t", "usr/bin/t"),
        ("usr/lib/../bin/t", "./usr/bin/../bin/t"),
        ("/usr/../usr/bin/t", "/usr/bin/../../usr/bin/t"),
    ],
)
def test_image_names_are_seen_from_the_root_however_they_are_written(tmp_path: Path, name: str, link: str) -> None:
    root = unpack(tmp_path, raw("/", b"5") + raw(name, data=b"t") + raw("/usr/alias", b"1", linkname=link) + END)
    assert (root / "usr/bin/t").read_bytes() == b"t"
    assert (root / "usr/alias").stat().st_ino == (root / "usr/bin/t").stat().st_ino
    assert not (root / "usr/lib").exists()


def test_image_hard_link_to_nothing_is_refused_by_its_name(tmp_path: Path) -> None:
    for to in ("/shadow", "a"):
        with pytest.raises(WwfastError, match=f"hard link 'a' to '{to}', which is not in the image"):
            unpack(tmp_path, raw("a", b"1", linkname=to) + END)
    assert tree(unpack(tmp_path, raw("a") + raw("a", b"1", linkname="a") + END)) == ["a"]


def test_image_labels_and_dumpdirs_are_no_files(tmp_path: Path) -> None:
    data = raw("label", b"V") + raw("d", b"D", b"Yf\0\0") + raw("d/f", data=b"x") + raw("old", b"7", b"y") + END
    root = unpack(tmp_path, data)
    assert tree(root) == ["d", "d/f", "old"]
    assert (root / "d").is_dir()


def test_image_volume_of_several_is_refused_as_such(tmp_path: Path) -> None:
    with pytest.raises(WwfastError, match="one volume of several"):
        unpack(tmp_path, raw("f", b"M", b"rest") + END)


def test_image_times_in_a_gnu_header_are_no_part_of_the_name(tmp_path: Path) -> None:
    """`tar -g` writes access and change time where POSIX has the prefix of the name."""
    header = bytearray(raw("etc/f", data=b"")[:512])
    header[345:369] = b"15302442066\x0015302442066\0"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    assert tree(unpack(tmp_path, bytes(header) + END)) == ["etc", "etc/f"]


@pytest.mark.parametrize("version", ["0.0", "0.1", "1.0"])
def test_image_sparse_name_counts_before_the_path(tmp_path: Path, version: str) -> None:
    pieces, size = [(512, 3), (4096, 2)], 8192
    records = {"path": "v/GNUSparseFile.77/x", "GNU.sparse.name": "v/" + "long" * 50}
    data = b"abcde"
    if version == "0.0":
        lines = b"".join(
            pax("", {f"GNU.sparse.{key}": str(value)})[512:].split(b"\0")[0]
            for offset, length in pieces
            for key, value in (("offset", offset), ("numbytes", length))
        )
        text = pax("", records | {"GNU.sparse.size": str(size)})[512:].split(b"\0")[0] + lines
        archive = raw("h", b"x", text) + raw("v/short", data=data)
    elif version == "0.1":
        numbers = ",".join(f"{offset},{length}" for offset, length in pieces)
        archive = pax("v/short", records | {"GNU.sparse.size": str(size), "GNU.sparse.map": numbers}, data)
    else:
        written = "2\n" + "".join(f"{offset}\n{length}\n" for offset, length in pieces)
        major = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(size)}
        archive = pax("v/short", records | major, written.encode().ljust(512, b"\0") + data)
    root = unpack(tmp_path, archive + END)
    assert tree(root) == ["v", "v/" + "long" * 50]
    expected = bytearray(size)
    expected[512:515], expected[4096:4098] = b"abc", b"de"
    assert (root / "v" / ("long" * 50)).read_bytes() == expected


def test_image_holes_cost_nothing(tmp_path: Path) -> None:
    """As /var/log/lastlog, which is 1.2 TB where a user has the highest id; more than that no file system here has."""
    size = 1 << 40
    records = {"GNU.sparse.map": f"0,1,{size - 1},1", "GNU.sparse.size": str(size), "GNU.sparse.name": "lastlog"}
    file = unpack(tmp_path, pax("x", records, b"ab") + END) / "lastlog"
    assert file.stat().st_size == size
    assert file.stat().st_blocks < 1000
    records["GNU.sparse.size"] = "9" * 30
    with pytest.raises(WwfastError, match="lastlog"):
        unpack(tmp_path, pax("x", records, b"ab") + END)


def test_image_file_longer_than_a_file_can_be_here_is_unpacked_or_named(tmp_path: Path) -> None:
    size = 1 << 60
    records = {"GNU.sparse.map": "0,2", "GNU.sparse.size": str(size)}
    try:
        root = unpack(tmp_path, pax("x", records, b"ab") + END)
    except WwfastError as error:
        told = error.message
    else:
        told = ""
        assert (root / "x").stat().st_size == size
    assert told in ("", "cannot unpack 'x': File too large", "cannot unpack 'x': Invalid argument")


@pytest.mark.parametrize(
    ("limits", "setting", "archive"),
    [
        ({"size": 4096}, "image size", [raw("f", data=bytes(5000))]),
        ({}, "image size", [raw("f", size=1 << 50)]),
        ({"entries": 3}, "image entries", [raw(f"f{n}") for n in range(4)]),
        ({"headers": 9000}, "image headers", [pax("f", {"comment": "x" * 9000})]),
        ({"headers": 9000}, "image headers", [raw("././@LongLink", b"L", bytes(5000)) * 2, raw("f")]),
        ({}, "image headers", [raw("././@LongLink", b"L", size=1 << 40)]),
        ({}, "image headers", [raw("x", b"g", size=1 << 33)]),
        ({"depth": 20}, "image depth", [raw("d/" * 22 + "f")]),
    ],
)
def test_image_over_a_limit_is_refused_with_the_name_of_the_setting(
    tmp_path: Path, limits: dict[str, int], setting: str, archive: list[bytes]
) -> None:
    with pytest.raises(WwfastError) as caught:
        unpack(tmp_path, b"".join(archive) + END, replace(LIMITS, **limits))
    assert f"wwfast: {setting}" in str(caught.value.hint)


def test_image_that_unpacks_to_more_than_its_size_can_hold_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wwfast.archive.stream.UNTOLD", 1 << 20)
    bomb = zstandard.ZstdCompressor().compress(raw("f", data=bytes(4 << 20)) + END)
    with pytest.raises(WwfastError) as caught:
        unpack(tmp_path, bomb)
    assert "wwfast: image ratio" in str(caught.value.hint)
    assert (unpack(tmp_path, raw("f", data=bytes(4 << 20)) + END) / "f").stat().st_size == 4 << 20


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "pzstd": lambda data: SKIPPABLE + zstandard.ZstdCompressor().compress(data),
}


class Slow(io.RawIOBase):
    """A pipe of a slow writer: a byte at first, then a few at a time."""

    def __init__(self, data: bytes, sizes: Iterable[int]) -> None:
        self._data, self._sizes = io.BytesIO(data), iter(sizes)

    def read(self, size: int = -1) -> bytes:
        return self._data.read(min(size, next(self._sizes, size)))


@pytest.mark.parametrize("first", [1, 2, 3, 5, 7, 100])
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_image_compression_is_told_from_a_first_read_of_a_few_bytes(
    tmp_path: Path, compression: str, first: int
) -> None:
    data = COMPRESSIONS[compression](raw("f", data=os.urandom(3000)) + END)
    (tmp_path / "root").mkdir()
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    with (
        opened(tmp_path / "absent", digest=digest, raw=Slow(data, [first] * 900)) as stream,  # type: ignore[arg-type]
        Unpacker(tmp_path / "root") as unpacker,
    ):
        unpacker.apply(stream)
    assert (tmp_path / "root/f").stat().st_size == 3000


@pytest.mark.parametrize("compression", [name for name in COMPRESSIONS if name != "plain"])
def test_image_of_several_compressed_streams_is_one_archive(tmp_path: Path, compression: str) -> None:
    data = raw("f", data=os.urandom(3000)) + END
    packed = b"".join(COMPRESSIONS[compression](data[at : at + 1000]) for at in range(0, len(data), 1000))
    assert tree(unpack(tmp_path, packed)) == ["f"]
    with pytest.raises(WwfastError, match="damaged or cut short"):
        unpack(tmp_path, packed[:-9])


@pytest.mark.parametrize("compression", ["gzip", "xz", "bzip2"])
@pytest.mark.parametrize("more", [b"x", b"\0\0 and more", b"-----BEGIN PGP SIGNATURE-----"])
def test_image_with_something_behind_its_compressed_data_is_not_said_to_be_short(
    tmp_path: Path, compression: str, more: bytes
) -> None:
    packed = COMPRESSIONS[compression](raw("f", data=b"x") + END)
    assert tree(unpack(tmp_path, packed + bytes(9))) == ["f"], "padding"
    with pytest.raises(WwfastError, match="something else follows its compressed data"):
        unpack(tmp_path, packed + more)


def test_image_of_a_zstd_window_beyond_the_limit_is_not_called_damaged(tmp_path: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=28, enable_ldm=True)
    made = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    packed = made.compress(raw("f", data=b"x") + END) + made.flush()
    with pytest.raises(WwfastError, match="window of more than 128 MiB") as caught:
        unpack(tmp_path, packed)
    assert "--long=27" in str(caught.value.hint)


def at(offset: int, sign: bytes) -> bytes:
    return (bytes(offset) + sign).ljust(offset + 2000, b"\1")


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (at(0, b"\x04\x22\x4d\x18"), "lz4"),
        (at(0, b"LZIP\1"), "lzip"),
        (at(0, b"#!/usr/bin/env run-singularity\n\0SIF_MAGIC\0"), "SIF"),
        (at(32, b"SIF_MAGIC\0"), "SIF"),
        (at(0, b"hsqs"), "squashfs"),
        (at(0, b"QFI\xfb"), "qcow2"),
        (at(0, b"070701"), "cpio"),
        (at(0, b"070707"), "cpio"),
        (at(0, b"PK\x03\x04"), "zip"),
        (at(1080, b"\x53\xef"), "ext4"),
        (at(32769, b"CD001"), "ISO 9660"),
        (b"<!DOCTYPE html><title>404</title>", "web page"),
        (b"QFI\xfb", "qcow2"),
        (b"", "no tar archive"),
        (b"hello", "no tar archive"),
    ],
)
@pytest.mark.parametrize("compression", ["plain", "gzip", "zstd"])
def test_image_that_is_no_tar_archive_is_refused_as_what_it_is(
    tmp_path: Path, head: bytes, what: str, compression: str
) -> None:
    with pytest.raises(WwfastError, match=what) as caught:
        unpack(tmp_path, COMPRESSIONS[compression](head))
    assert caught.value.hint


def test_image_layer_takes_what_aufs_kept_for_hard_links(tmp_path: Path) -> None:
    layer = [
        raw(".wh..wh.plnk", b"5"),
        raw(".wh..wh.plnk/12.34", data=b"shared"),
        raw(".wh..wh.orph", b"5"),
        raw(".wh..wh.orph/x", data=b"x"),
        raw(".wh..wh.aufs", data=b""),
        raw("a", b"1", linkname=".wh..wh.plnk/12.34"),
        raw("d/b", b"1", linkname="/.wh..wh.plnk/12.34"),
    ]
    root = unpack(tmp_path, b"".join(layer) + END, layer=True)
    assert tree(root) == ["a", "d", "d/b"]
    assert ((root / "a").read_bytes(), (root / "a").stat().st_nlink) == (b"shared", 2)


def test_image_numbers_in_base_256_and_before_1970(tmp_path: Path) -> None:
    header = bytearray(raw("f", data=b"xyz")[:512])
    header[124:136] = struct.pack(">BxxxQ", 0x80, 3)
    header[136:148] = b"\xff" * 12
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    file = unpack(tmp_path, bytes(header) + b"xyz".ljust(512, b"\0") + END) / "f"
    assert (file.read_bytes(), file.stat().st_mtime) == (b"xyz", 0)


def test_image_global_header_counts_until_the_next_says_otherwise(tmp_path: Path) -> None:
    every = raw("g", b"g", b"11 mtime=5\n")
    root = unpack(tmp_path, every + raw("a") + pax("b", {"mtime": "6.5"}) + raw("c", mode=0o4755) + END)
    assert [(root / name).stat().st_mtime for name in "abc"] == [5, 6.5, 5]
    assert stat.S_IMODE((root / "c").stat().st_mode) == 0o4755


@pytest.mark.parametrize("key", ["mtime", "uid", "gid", "size"])
@pytest.mark.parametrize("kind", [b"x", b"g"])
def test_image_number_longer_than_any_is_told_as_damage(tmp_path: Path, key: str, kind: bytes) -> None:
    with pytest.raises(WwfastError, match="damaged"):
        unpack(tmp_path, pax("f", {key: "9" * 5000}, kind=kind) + END)


def test_image_hard_link_in_the_place_of_what_its_target_is_below_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WwfastError, match="hard link 'a' to what is below it"):
        unpack(tmp_path, raw("a", b"5") + raw("a/f") + raw("a", b"1", linkname="a/f") + END)
    assert (tmp_path / "root/a/f").exists()


def test_image_whiteout_of_what_its_own_layer_replaced_hides_nothing(tmp_path: Path) -> None:
    layer = raw("b", b"5") + raw("b/f") + raw("b") + raw("b", b"5") + raw("b/.wh.f") + raw("b/g") + END
    assert tree(unpack(tmp_path, layer, layer=True)) == ["b", "b/g"]
