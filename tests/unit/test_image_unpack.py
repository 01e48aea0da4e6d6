"""The unpacker: every kind of entry, whiteouts, and archives made to break out."""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest
import zstandard

from wwfast.archive.stream import opened
from wwfast.errors import WwfastError
from wwfast.images.sources.unpack import Hostile, Unpacker

Entry = tuple[tarfile.TarInfo, bytes]


def entry(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", **fields: object) -> Entry:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mode, info.mtime = kind, len(data), 0o755 if kind == tarfile.DIRTYPE else 0o644, 1000
    info.uid, info.gid = os.geteuid(), os.getegid()
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def archive(entries: Iterable[Entry], fmt: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=fmt) as tar:
        for info, data in entries:
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def unpack(tmp_path: Path, *layers: bytes, layer: bool = True) -> Path:
    root = tmp_path / "root"
    root.mkdir(exist_ok=True)
    with Unpacker(root) as unpacker:
        for data in layers:
            file = tmp_path / "layer.tar"
            file.write_bytes(data)
            with opened(file) as stream:
                unpacker.apply(stream, layer=layer)
        unpacker.finish()
    return root


def tree(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def test_image_archive_keeps_modes_times_links_and_holes(tmp_path: Path) -> None:
    root = unpack(
        tmp_path,
        archive(
            [
                entry("./", tarfile.DIRTYPE, mtime=77),
                entry("./d", tarfile.DIRTYPE, mode=0o555, mtime=55),
                entry(
                    "./d/f",
                    data=b"hello",
                    mode=0o4711,
                    mtime=1234567890.123456789,
                    pax_headers={"mtime": "9.000000001"},
                ),
                entry("./d/hard", tarfile.LNKTYPE, linkname="./d/f"),
                entry("./d/soft", tarfile.SYMTYPE, linkname="/nowhere/else", mtime=5),
                entry("./pipe", tarfile.FIFOTYPE),
                entry("./" + "n" * 200, data=b"long"),
            ]
        ),
        layer=False,
    )
    file = (root / "d/f").stat()
    assert (stat.S_IMODE(file.st_mode), file.st_mtime_ns, file.st_nlink) == (0o4711, 9_000_000_001, 2)
    assert (root / "d/hard").stat().st_ino == file.st_ino
    assert os.readlink(root / "d/soft") == "/nowhere/else"  # noqa: PTH115
    assert (root / "d/soft").lstat().st_mtime == 5
    assert stat.S_ISFIFO((root / "pipe").stat().st_mode)
    directory = (root / "d").stat()
    assert (stat.S_IMODE(directory.st_mode), directory.st_mtime) == (0o555, 55)
    assert root.stat().st_mtime == 77
    assert (root / ("n" * 200)).read_bytes() == b"long"


def test_image_layers_apply_whiteouts_to_lower_layers_only(tmp_path: Path) -> None:
    lower = [
        entry("a", tarfile.DIRTYPE, mtime=3),
        entry("a/gone", data=b"1"),
        entry("a/kept", data=b"1"),
        entry("o", tarfile.DIRTYPE),
        entry("o/old", data=b"1"),
        entry("o/sub/old", data=b"1"),
        entry("t", tarfile.DIRTYPE),
        entry("t/x", data=b"1"),
    ]
    upper = [
        entry("a/.wh.gone"),
        entry("o/sub/new", data=b"2"),
        entry("o/.wh..wh..opq"),
        entry("o/fresh", data=b"2"),
        entry("t/x/y", data=b"2"),
        entry("new", data=b"2"),
        entry(".wh.new"),
        entry(".wh..wh.plnk", tarfile.DIRTYPE),
    ]
    upper[4] = entry("t", tarfile.SYMTYPE, linkname="a")
    root = unpack(tmp_path, archive(lower), archive(upper))
    assert tree(root) == ["a", "a/kept", "new", "o", "o/fresh", "o/sub", "o/sub/new", "t"]
    assert (root / "t").is_symlink()
    assert (root / "a").stat().st_mtime == 3, "a directory keeps its time when a layer changes what is in it"


def test_image_layer_writes_through_a_link_of_a_lower_layer(tmp_path: Path) -> None:
    lower = [entry("usr/lib", tarfile.DIRTYPE), entry("lib", tarfile.SYMTYPE, linkname="/usr/lib")]
    root = unpack(tmp_path, archive(lower), archive([entry("lib/m/x", data=b"2")]))
    assert (root / "lib").is_symlink()
    assert (root / "usr/lib/m/x").read_bytes() == b"2"


@pytest.mark.parametrize(
    "entries",
    [
        [entry("/../etc/passwd", data=b"x")],
        [entry("../canary/x", data=b"x")],
        [entry("a/../../canary/x", data=b"x")],
        [entry("l", tarfile.SYMTYPE, linkname="../canary"), entry("l/x", data=b"x")],
        [entry("l", tarfile.SYMTYPE, linkname="a/../../canary"), entry("a", tarfile.DIRTYPE), entry("l/x", data=b"x")],
        [entry("h", tarfile.LNKTYPE, linkname="../canary/file")],
        [entry("h", tarfile.LNKTYPE, linkname="/../canary/file")],
        [entry("l", tarfile.SYMTYPE, linkname=".."), entry("h", tarfile.LNKTYPE, linkname="l/canary/file")],
        [entry("a", tarfile.SYMTYPE, linkname="b"), entry("b", tarfile.SYMTYPE, linkname="a"), entry("a/x", data=b"x")],
        [entry(".wh...")],
        [entry(".wh..")],
    ],
    ids=lambda entries: " ".join(f"{info.name}>{info.linkname}" for info, _ in entries),
)
def test_image_archive_that_leads_out_is_refused(tmp_path: Path, entries: list[Entry]) -> None:
    canary = tmp_path / "canary"
    canary.mkdir()
    (canary / "file").write_bytes(b"untouched")
    with pytest.raises(Hostile):
        unpack(tmp_path, archive(entries))
    assert tree(canary) == ["file"]
    assert (canary / "file").stat().st_nlink == 1


def test_image_archive_through_an_absolute_link_stays_inside(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.mkdir()
    root = unpack(tmp_path, archive([entry("l", tarfile.SYMTYPE, linkname=str(canary)), entry("l/x", data=b"x")]))
    assert list(canary.iterdir()) == []
    assert (root / str(canary).lstrip("/") / "x").read_bytes() == b"x"


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lambda d: zstandard.ZstdCompressor().compress(d)])
def test_image_archive_cut_short_is_refused(tmp_path: Path, pack: object) -> None:
    whole = archive([entry(f"f{n}", data=os.urandom(3000)) for n in range(20)])
    packed = pack(whole)  # type: ignore[operator]
    assert len(tree(unpack(tmp_path, packed, layer=False))) == 20
    for cut in (
        0,
        100,
        512,
        1024,
        4096,
        len(packed) // 2,
        len(packed) - 10240 if packed == whole else len(packed) - 20,
    ):
        with pytest.raises(WwfastError):
            unpack(tmp_path, packed[:cut], layer=False)


def test_image_archive_with_a_damaged_header_is_refused(tmp_path: Path) -> None:
    data = bytearray(archive([entry(f"f{n}", data=b"x" * 600) for n in range(20)]))
    data[1536 * 3 + 148] ^= 0xFF
    with pytest.raises(WwfastError, match="damaged"):
        unpack(tmp_path, bytes(data))


def test_image_layer_with_another_digest_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "layer"
    file.write_bytes(gzip.compress(archive([entry("f", data=b"x")])))
    with pytest.raises(WwfastError, match="is damaged"), opened(file, digest="sha256:" + "0" * 64) as stream:
        stream.read(512)


@pytest.mark.root
def test_image_archive_keeps_owners_devices_and_attributes(tmp_path: Path) -> None:
    capability = b"\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
    header = {"SCHILY.xattr.security.capability": capability.decode("utf-8", "surrogateescape")}
    root = unpack(
        tmp_path,
        archive(
            [
                entry("f", data=b"x", uid=12345, gid=54321, pax_headers=header),
                entry("null", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
                entry("l", tarfile.SYMTYPE, linkname="f", uid=7, gid=8),
            ]
        ),
    )
    assert ((root / "f").stat().st_uid, (root / "f").stat().st_gid) == (12345, 54321)
    assert os.getxattr(root / "f", "security.capability") == capability
    assert (root / "null").stat().st_rdev == os.makedev(1, 3)
    assert stat.S_IMODE((root / "null").stat().st_mode) == 0o666
    assert ((root / "l").lstat().st_uid, (root / "l").lstat().st_gid) == (7, 8)
