"""What GNU tar and bsdtar pack in any of their formats unpacks here to the tree that GNU tar unpacks from it."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from support.oci import facts, small_tree
from wwfast.archive.stream import opened
from wwfast.images.sources.unpack import Unpacker
from wwfast.system.run import run

pytestmark = pytest.mark.root  # owners and device nodes

GNU = ["tar", "--numeric-owner", "--xattrs", "--xattrs-include=*"]
WAYS: dict[str, list[str]] = {
    "v7": [*GNU[:2], "--format=v7"],
    "oldgnu": [*GNU[:2], "--format=oldgnu"],
    "gnu": [*GNU[:2], "--format=gnu"],
    "gnu sparse": [*GNU[:2], "--format=gnu", "-S"],
    "gnu label": [*GNU[:2], "--format=gnu", "-V", "label"],
    "gnu incremental": [*GNU[:2], "--format=gnu", "-g", "/dev/null"],
    "ustar": [*GNU[:2], "--format=ustar"],
    "posix": [*GNU, "--format=posix"],
    "posix label": [*GNU, "--format=posix", "-V", "label"],
    "posix incremental": [*GNU, "--format=posix", "-g", "/dev/null"],
    "posix sparse 0.0": [*GNU, "--format=posix", "-S", "--sparse-version=0.0"],
    "posix sparse 0.1": [*GNU, "--format=posix", "-S", "--sparse-version=0.1"],
    "posix sparse 1.0": [*GNU, "--format=posix", "-S", "--sparse-version=1.0"],
    "posix global": [*GNU, "--format=posix", "--pax-option=globexthdr.name=g,comment=hello,mtime:=123456.5"],
    "bsdtar ustar": ["bsdtar", "--format=ustar"],
    "bsdtar gnutar": ["bsdtar", "--format=gnutar"],
    "bsdtar pax": ["bsdtar", "--format=pax"],
    "bsdtar v7": ["bsdtar", "--format=v7"],
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of everything, names of every length, and files with holes anywhere."""
    root = small_tree(tmp_path_factory.mktemp("source") / "tree")
    chance = random.Random(6)
    for number, length in enumerate((1, 98, 99, 100, 101, 154, 155, 156, 254)):
        directory = root / "names" / ("d" * (length // 2 + 1))
        directory.mkdir(parents=True, exist_ok=True)
        (directory / (chr(97 + number) * length)).write_bytes(os.urandom(chance.randrange(2000)))
        (directory / f"link{number}").symlink_to("t" * length)
        (directory / f"hard{number}").hardlink_to(directory / (chr(97 + number) * length))
    holes = root / "holes" / ("long" * 30)
    holes.mkdir(parents=True)
    for number, pieces in enumerate((0, 1, 2, 4, 5, 26, 300)):
        with (holes / f"{number}{'x' * number * 20}").open("wb") as file:
            for piece in range(pieces):
                file.seek(piece * 16384 + chance.randrange(4) * 4096)
                file.write(os.urandom(chance.randrange(1, 3000)))
            file.truncate(max(file.tell(), 1 << 20))
    os.utime(holes, (5, 5))
    return root


def unpacked(archive: Path, root: Path) -> dict[str, tuple[object, ...]]:
    root.mkdir()
    with opened(archive) as stream, Unpacker(root) as unpacker:
        unpacker.apply(stream)
        unpacker.finish()
    found = facts(root)
    del found["."]
    return found


def by_gnu_tar(archive: Path, root: Path) -> dict[str, tuple[object, ...]]:
    root.mkdir()
    run([*GNU, "--delay-directory-restore", "-xpf", archive, "-C", root], check=False)
    found = facts(root)
    del found["."]
    return found


@pytest.mark.parametrize("way", WAYS)
def test_image_archive_of_every_format_unpacks_as_gnu_tar_does(tree: Path, tmp_path: Path, way: str) -> None:
    archive = tmp_path / "archive"
    # What a format cannot hold is left out; of links and directories ustar would leave halves.
    left = ["--exclude=./holes", "--exclude=hard[0-9]"] if "ustar" in way else []
    run([*WAYS[way], "-cf", archive, *left, "-C", tree, "."], check=False)
    theirs = by_gnu_tar(archive, tmp_path / "theirs")
    assert unpacked(archive, tmp_path / "ours") == theirs
    assert len(theirs) > 30


def test_image_archive_with_absolute_names_unpacks_as_gnu_tar_does(tree: Path, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    run([*GNU, "--format=posix", "-P", "-cf", archive, tree])
    theirs = by_gnu_tar(archive, tmp_path / "theirs")
    ours = unpacked(archive, tmp_path / "ours")
    inside = str(tree).lstrip("/")
    assert {name: fact for name, fact in ours.items() if name.startswith(f"{inside}/")} == {
        name: fact for name, fact in theirs.items() if name.startswith(f"{inside}/")
    }
    assert ours.keys() == theirs.keys()


@pytest.mark.parametrize(
    "packer",
    ["gzip -c", "gzip -9c", "bzip2 -c", "xz -c", "xz -9ec", "zstd -c", "zstd -19c", "zstd --long=27 -c", "pzstd -c"],
)
def test_image_archive_of_every_packer_unpacks_to_the_same(tree: Path, tmp_path: Path, packer: str) -> None:
    plain, packed = tmp_path / "plain", tmp_path / "packed"
    run([*GNU, "--format=posix", "-cf", plain, "-C", tree, "etc", "usr", "names"])
    run(["sh", "-c", f"{packer} <plain >packed"], cwd=tmp_path)
    assert unpacked(packed, tmp_path / "ours") == unpacked(plain, tmp_path / "theirs")
