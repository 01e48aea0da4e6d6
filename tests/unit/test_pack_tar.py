"""The form of an image that stage-1 unpacks: GNU tar gets out of it what went in, and an update leaves most of it."""

from __future__ import annotations

import hashlib
import os
import struct
import subprocess
from pathlib import Path

import pytest

from support import trees
from wwfast.archive import pax
from wwfast.archive.artefact import TAR_GZ, TAR_ZST
from wwfast.errors import WwfastError
from wwfast.images import archives
from wwfast.pack import engine, tar
from wwfast.pack.build import build, damaged, load
from wwfast.pack.manifest import Manifest

MIB = 1 << 20
TAR = ("tar", "-xp", "--numeric-owner", "--delay-directory-restore", "--xattrs", "--xattrs-include=*")


def acl(user: int, named: int) -> bytes:
    """A POSIX ACL as the kernel keeps it: `user` for the owner, `named` for user 1000, nothing for others."""
    entries = (
        (1, user, 0xFFFFFFFF),
        (2, named, 1000),
        (4, 0, 0xFFFFFFFF),
        (0x10, 7, 0xFFFFFFFF),
        (0x20, 0, 0xFFFFFFFF),
    )
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "rootfs"
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/sh").write_bytes(os.urandom(5000))
    (root / "usr/bin/sh").chmod(0o4755)
    (root / "a").hardlink_to(root / "usr/bin/sh")
    (root / "bin").symlink_to("usr/bin")
    (root / "far").symlink_to("x/" * 90)
    (root / "empty").touch()
    os.mkfifo(root / "fifo")
    deep = root / ("d" * 60) / "ünï" / ("e" * 80)
    deep.mkdir(parents=True)
    (deep / "file").write_bytes(b"deep")
    (deep / "again").hardlink_to(deep / "file")
    (root / os.fsdecode(b"not-utf8-\xff")).write_bytes(b"bytes")
    for number in range(300):
        (root / f"usr/file{number}").write_bytes(number.to_bytes(2, "big") * number * 97)
        os.utime(root / f"usr/file{number}", (1_000_000 + number, 1_000_000 + number))
    (root / "usr/large").write_bytes(os.urandom(9 * MIB + 17))
    return root


def built(tree: Path, number: int = 0, fmt: str = TAR_ZST, **options: object) -> tuple[Path, Manifest]:
    dest = tree.parent / f"images/{number}"
    made = build(tree, dest, name="test", formats=("zst",), archive=fmt, frames=tree.parent / "frames", **options)  # type: ignore[arg-type]
    return dest, made


def unpacked(dest: Path, fmt: str, place: Path) -> Path:
    artefact = load(dest, fmt)
    assert artefact is not None
    packed = b""
    for path, offset, length in artefact.extents:
        packed += Path(path).read_bytes()[offset : offset + length]
    program = "zstd" if fmt == TAR_ZST else "gzip"
    archive = subprocess.run([program, "-dc"], input=packed, stdout=subprocess.PIPE, check=True).stdout
    place.mkdir()
    done = subprocess.run([*TAR, "-C", place], input=archive, env={**os.environ, "LC_ALL": "C"}, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    return place


@pytest.mark.parametrize("fmt", [TAR_ZST, TAR_GZ])
def test_pack_archive_unpacks_to_the_tree(tree: Path, tmp_path: Path, fmt: str) -> None:
    dest, made = built(tree, fmt=fmt)
    assert trees.read(unpacked(dest, fmt, tmp_path / "out")) == trees.read(tree)
    assert damaged(dest, made) is None
    assert len(made.formats[fmt].pieces) > len(made.segments), "a large file has several frames"


@pytest.mark.root
def test_pack_archive_keeps_every_attribute(tree: Path, tmp_path: Path) -> None:
    wanted = {
        "usr/bin/sh": {"security.capability": struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)},
        "usr/large": {
            "user.of us": b"a=b\nc\0d",
            "user.a=b%3Dc%": b"=",
            "security.selinux": b"system_u:object_r:etc_t:s0\0",
        },
        "usr/file1": {"system.posix_acl_access": acl(6, 4)},
        "usr": {"system.posix_acl_default": acl(7, 5), "user.x": b""},
        "bin": {"trusted.of.a.link": b"1"},
    }
    for path, attributes in wanted.items():
        for name, value in attributes.items():
            os.setxattr(tree / path, name, value, follow_symlinks=False)
    device = tree / "console"
    os.mknod(device, 0o020600, os.makedev(5, 1))
    os.chown(tree / "usr/file2", 3_000_000, 4_000_000)
    dest, _ = built(tree)
    out = unpacked(dest, TAR_ZST, tmp_path / "out")
    assert trees.read(out) == trees.read(tree)
    got = {}
    for path in [out, *out.rglob("*")]:
        if names := os.listxattr(path, follow_symlinks=False):
            got[str(path.relative_to(out))] = {name: os.getxattr(path, name, follow_symlinks=False) for name in names}
    assert got == {**wanted, "a": wanted["usr/bin/sh"]}, "and no file has an ACL because its directory has a default"
    os.setxattr(tree / "usr/file3", "user.new", b"1")
    again = unpacked(built(tree, 1)[0], TAR_ZST, tmp_path / "again")
    assert os.getxattr(again / "usr/file3", "user.new") == b"1"


def test_pack_archive_keeps_holes(tree: Path, tmp_path: Path) -> None:
    for name, pieces, size in (
        ("front", (40,), 40 * MIB + 9),
        ("end", (0,), 50 * MIB),
        ("all", (), 60 * MIB),
        ("two", (8, 30), 64 * MIB),
    ):
        with (tree / name).open("wb") as file:
            for at in pieces:
                file.seek(at * MIB)
                file.write(b"content\0")
            file.truncate(size)
    dest, made = built(tree)
    assert made.formats[TAR_ZST].bytes < 10 * MIB
    out = unpacked(dest, TAR_ZST, tmp_path / "out")
    assert trees.read(out) == trees.read(tree)
    for name in ("front", "end", "all", "two"):
        assert (out / name).stat().st_blocks <= (tree / name).stat().st_blocks + 8


def test_pack_archive_has_files_that_newc_cannot_have(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "NEWC_MOST", 9 * MIB)
    with pytest.raises(WwfastError, match="usr/large is larger"):
        built(tree, fmt="")
    dest, made = built(tree, 1)
    assert list(made.formats) == [TAR_ZST]
    assert made.warnings[0].startswith("it boots in two stages only: ")
    assert trees.read(unpacked(dest, TAR_ZST, tmp_path / "out")) == trees.read(tree)


def test_pack_archive_header_of_a_file_over_4_and_over_8_gib(tmp_path: Path) -> None:
    """GNU tar lists what it would unpack."""
    for size in (5 << 30, 9 << 30):
        member = pax.Member(b"huge", pax.FILE, 0o644, 0, 0, 0, size)
        listed = tmp_path / "listed.tar"
        with listed.open("wb") as out:
            out.write(pax.head(member))
            out.seek(size, os.SEEK_CUR)
            out.write(pax.padding(size) + pax.END)
        said = subprocess.run(["tar", "-tvf", listed], capture_output=True, text=True, check=True).stdout
        assert said.split()[2] == str(size)


@pytest.mark.root
def test_pack_archive_of_a_file_over_4_gib_is_unpacked_with_its_hole(tmp_path: Path) -> None:
    with trees.huge(tmp_path / "rootfs"):
        dest, made = built(tmp_path / "rootfs")
    assert list(made.formats) == [TAR_ZST], "no initramfs can have it"
    assert made.formats[TAR_ZST].bytes < MIB
    trees.assert_huge(unpacked(dest, TAR_ZST, tmp_path / "out") / "huge", MIB)


def test_pack_archive_frames_stay_where_files_did(tree: Path) -> None:
    """Of 40 MiB in many segments one file changes, one is added and one grows in front of a large one."""
    for number in range(400):
        (tree / f"usr/more{number}").write_bytes(os.urandom(100_000))
    _, before = built(tree)
    (tree / "usr/more7").write_bytes(os.urandom(120_000))
    (tree / "usr/added").write_bytes(os.urandom(1000))
    _, after = built(tree, 1)
    had = {piece.sha256 for piece in before.formats[TAR_ZST].pieces}
    new = sum(piece.length for piece in after.formats[TAR_ZST].pieces if piece.sha256 not in had)
    assert 0 < new < 0.35 * after.formats[TAR_ZST].bytes
    dest, same = built(tree, 2, full=True)
    assert same.formats[TAR_ZST].sha256 == after.formats[TAR_ZST].sha256, "the cache makes no difference"
    assert damaged(dest, same) is None


def test_pack_archive_list_has_the_digest_of_every_piece(tree: Path) -> None:
    dest, made = built(tree)
    artefact = load(dest, TAR_ZST)
    assert artefact is not None
    info = archives.listed(dest, made)
    assert info is not None
    text = (dest / "tmpfs.pieces").read_bytes()
    assert (info.form, info.pieces) == (TAR_ZST, hashlib.sha256(text).hexdigest())
    assert sorted(archives.artefacts(dest, artefact, info)) == ["tmpfs", "tmpfs.pieces"]
    assert archives.damage(dest, info) is None
    body = b"".join(Path(path).read_bytes()[at : at + length] for path, at, length in artefact.extents)
    for line in text.decode().splitlines():
        length, sha256, *_ = line.split()
        assert hashlib.sha256(body[: int(length)]).hexdigest() == sha256
        body = body[int(length) :]
    assert body == b""
    assert made.formats[TAR_ZST].bytes == artefact.size
    (dest / "tmpfs.pieces").chmod(0o600)
    (dest / "tmpfs.pieces").write_bytes(text[:-9])
    assert "is damaged" in str(archives.damage(dest, info))


def test_pack_archive_of_a_tree_that_changes_names_the_file(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = tar._open

    def late(root: Path, path: bytes, identity: tuple[int, ...]) -> int:
        if path == b"usr/large":
            os.utime(tree / "usr/large", (1, 1))
        return real(root, path, identity)

    monkeypatch.setattr(tar, "_open", late)
    monkeypatch.setattr("wwfast.pack.build.ATTEMPTS", 1)
    with pytest.raises(WwfastError, match="usr/large changed while it was packed"):
        built(tree)
