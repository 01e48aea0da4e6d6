"""A built image unpacks with the tools of others to the tree it was made from: names, modes, owners, links, devices."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from support import trees
from wwfast.errors import WwfastError
from wwfast.pack.build import build, load
from wwfast.system.run import run

pytestmark = pytest.mark.root  # owners and device nodes

SPECIAL = (0o4755, 0o2755, 0o1777, 0o400, 0o000)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of everything: modes, owners, links, devices, odd names and times, and files of many segments."""
    root = tmp_path_factory.mktemp("tree")
    for directory in ("usr/bin", "usr/lib", "dev", "etc/deep/er/still", "var/tmp", "many"):
        (root / directory).mkdir(parents=True)
    (root / "var/tmp").chmod(0o1777)
    for index, mode in enumerate(SPECIAL):
        file = root / f"usr/bin/tool{index}"
        file.write_bytes(os.urandom(1000 * index + index))
        os.chown(file, 1000 + index, 2000 + index)
        file.chmod(mode)
    (root / "etc/deep/er/still/link").hardlink_to(root / "usr/bin/tool1")
    (root / "etc/empty").touch()
    (root / "etc/empty2").hardlink_to(root / "etc/empty")
    (root / "lib").symlink_to("usr/lib")
    (root / "etc/dangling").symlink_to("../nowhere/with a space")
    os.lchown(root / "etc/dangling", 7, 8)
    os.mknod(root / "dev/null", stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(root / "dev/vda1", stat.S_IFBLK, os.makedev(254, 65))
    os.mkfifo(root / "dev/initctl")
    for name, mode in (("null", 0o666), ("vda1", 0o660), ("initctl", 0o600)):
        (root / "dev" / name).chmod(mode)
    (root / "etc/blank and \u00fcml\u00e4ut").write_text("x")
    (root / f"etc/{'long' * 60}").write_text("y")
    (root / "usr/lib/large").write_bytes(os.urandom(5 << 20))
    for number in range(400):
        file = root / f"many/{number:03}"
        file.write_bytes(b"%d\n" % number * number)
        os.utime(file, (1_000_000_000 + number, 1_000_000_000 + number))
    return root


@pytest.fixture(scope="module")
def unpacked(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, list[str | Path]], Path]:
    """Build the image as FORMAT into a file, run a command on it in a new directory, and give that directory."""
    base = tmp_path_factory.mktemp("image")
    dest = base / "built"
    build(tree, dest, name="image", formats=("raw", "zst", "gz"), frames=base / "frames")

    def unpack(fmt: str, command: list[str | Path]) -> Path:
        artefact = load(dest, fmt)
        assert artefact is not None
        file = base / f"image.{fmt}"
        if not file.exists():
            file.write_bytes(trees.contents((e.path, e.offset, e.length) for e in artefact.extents))
        where = tmp_path_factory.mktemp("unpacked")
        run([str(word).replace("IMAGE", str(file)) for word in command], cwd=where)
        return where

    return unpack


@pytest.mark.parametrize(
    ("fmt", "command"),
    [
        ("raw", ["sh", "-c", "cpio --quiet -idm <IMAGE"]),
        ("zst", ["sh", "-c", "zstd -dc IMAGE | cpio --quiet -idm"]),
        ("gz", ["sh", "-c", "gzip -dc IMAGE | cpio --quiet -idm"]),
        ("raw", ["bsdtar", "-xpf", "IMAGE"]),
        ("zst", ["bsdtar", "-xpf", "IMAGE"]),
        ("gz", ["bsdtar", "-xpf", "IMAGE"]),
        ("zst", ["unmkinitramfs", "IMAGE", "."]),
        ("gz", ["unmkinitramfs", "IMAGE", "."]),
    ],
    ids=["cpio-raw", "cpio-zst", "cpio-gz", "bsdtar-raw", "bsdtar-zst", "bsdtar-gz", "unmkinitramfs-zst", "unmk-gz"],
)
def test_pack_image_unpacks_to_the_same_tree(
    fmt: str,
    command: list[str | Path],
    tree: Path,
    unpacked: Callable[[str, list[str | Path]], Path],
) -> None:
    ours, theirs = trees.read(tree), trees.read(unpacked(fmt, command))
    if command[0] != "bsdtar":
        for found in (ours, theirs):
            for name in (b"lib", b"etc/dangling"):  # GNU cpio keeps no times of symbolic links
                found[name] = (*found[name][:3], None, *found[name][4:])
    assert theirs == ours


def test_pack_image_is_listed_by_lsinitramfs(tree: Path, unpacked: Callable[[str, list[str | Path]], Path]) -> None:
    where = unpacked("zst", ["sh", "-c", "lsinitramfs IMAGE >listing; lsinitramfs -l IMAGE >long"])
    names = {os.fsencode(name) for name in (where / "listing").read_text().splitlines()} - {b"."}
    assert names == set(trees.read(tree))
    device = next(line for line in (where / "long").read_text().splitlines() if line.endswith(" dev/vda1"))
    assert device.split()[:6] == ["brw-rw----", "1", "root", "root", "254,", "65"]


def test_pack_image_that_is_cut_is_refused_by_every_tool(
    unpacked: Callable[[str, list[str | Path]], Path],
) -> None:
    """The comparison above means something only if a damaged image does not pass it."""
    for tool in ("bsdtar -xpf half", "zstd -dc half >/dev/null"):
        with pytest.raises(WwfastError):
            unpacked("zst", ["sh", "-c", f"head -c 3000000 IMAGE >half && {tool}"])
