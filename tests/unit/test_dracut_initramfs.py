"""Which initramfs of an image is that of a kernel, and which of Warewulf's modules is in it."""

from __future__ import annotations

import bz2
import gzip
import lzma
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from support.initramfs import LOAD, PARSE, archive, initramfs, scripts
from wwfast.archive import newc
from wwfast.archive.initramfs import members
from wwfast.archive.stream import DamagedError
from wwfast.images.kernels import detect
from wwfast.images.kernels.initramfs import BOOTS, carried, examine, find, in_tree, told

EL9 = "5.14.0-570.12.1.el9_8.0.1.x86_64"


def plant(root: Path, *names: str) -> None:
    (root / "boot").mkdir(exist_ok=True)
    for name in names:
        (root / "boot" / name).write_bytes(b"data")


def chosen(root: Path) -> str | None:
    """The name of the initramfs of the tree's one kernel."""
    [kernel] = detect.kernels(root)
    found = find(root, kernel)
    return found.path.rpartition("/")[2] if found else None


@pytest.mark.parametrize(
    ("kernel", "there", "right"),
    [
        (f"vmlinuz-{EL9}", ["initramfs-5.14.0-570.12.1.el9_8.0.1.x86_64.img"], 0),
        ("vmlinuz-6.1.0-18-amd64", ["initrd.img-6.1.0-18-rt-amd64", "initrd.img-6.1.0-18-amd64"], 1),
        ("vmlinuz-6.4.0-150600.21-default", ["initrd-6.4.0-150600.21-default", "initrd-6.4.0-150600.21-rt"], 0),
        ("vmlinuz-6.6.9", ["initramfs-6.6.90.img", "initramfs-6.6.9-rt.img", "initramfs-6.6.9"], 2),
        (f"vmlinuz-{EL9}", [f"initrd-{EL9}", f"initramfs-{EL9}.img"], 1),  # Warewulf looks for initramfs- first
        (f"vmlinuz-{EL9}", ["initramfs-5.14.0-570.12.1.img"], 0),  # shorter, and the kernel's version
        (f"vmlinuz-{EL9}", ["initramfs-5.14.0-570.img", "initramfs-5.14.0.img"], None),
        (f"vmlinuz-{EL9}", ["initramfs-5.14.0-570.12.1.el9_8.0.2.x86_64.img"], None),  # of another kernel
        (f"vmlinuz-{EL9}", [f"initramfs-{EL9}+debug.img"], None),
        (f"vmlinuz-{EL9}", [f"initramfs-{EL9}kdump.img", "initramfs-0-rescue-0123456789ab.img"], None),
        (f"vmlinuz-{EL9}", [f"initramfs-{EL9}.img.old", f"initramfs-{EL9}.img~"], None),
        ("vmlinuz-linux", ["initramfs-linux-fallback.img", "initramfs-linux.img"], 1),
        ("vmlinuz-6.1.0-18-amd64", [], None),
    ],
)
def test_dracut_initramfs_of_a_kernel_is_the_one_of_its_release(
    tmp_path: Path, kernel: str, there: list[str], right: int | None
) -> None:
    """Warewulf takes the last version in a name: that of `el9_8.0.1` is 8.0.1, and no kernel has it."""
    plant(tmp_path, kernel, *there)
    assert chosen(tmp_path) == (None if right is None else there[right])


@pytest.mark.parametrize("target", ["../../../../../../etc/passwd", "/etc/passwd", "initramfs-loop", "/dev/zero"])
def test_dracut_initramfs_by_a_link_is_looked_for_in_the_image_alone(tmp_path: Path, target: str) -> None:
    plant(tmp_path, "vmlinuz-6.6.9")
    link = tmp_path / "boot/initramfs-6.6.9.img"
    link.symlink_to(target)
    (tmp_path / "boot/initramfs-loop").symlink_to("initramfs-loop")
    assert chosen(tmp_path) is None
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("of the image")
    found = find(tmp_path, detect.kernels(tmp_path)[0])
    assert (found and found.file) == (tmp_path / "etc/passwd" if "passwd" in target else None)


def test_dracut_initramfs_that_is_no_file_or_far_too_large_is_none(tmp_path: Path) -> None:
    plant(tmp_path, "vmlinuz-6.6.9", "initrd-6.6.9")
    (tmp_path / "boot/initramfs-6.6.9").mkdir()
    with (tmp_path / "boot/initrd-6.6.9").open("r+b") as file:
        file.truncate((2 << 30) + 1)
    assert chosen(tmp_path) is None
    (tmp_path / "boot/initrd-6.6.9").write_bytes(b"")
    assert chosen(tmp_path) is None


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "zstd": lambda data: zstandard.ZstdCompressor().compress(data),
    "bzip2": bz2.compress,
    "plain": bytes,
}


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("version", ["", *PARSE])
def test_dracut_module_is_found_in_an_initramfs_and_its_version(tmp_path: Path, packer: str, version: str) -> None:
    file = tmp_path / "initramfs"
    file.write_bytes(initramfs(version, PACKERS[packer]))
    module = examine(file)
    assert module == (version, "", [])
    assert (module.since in BOOTS) == (version >= "4.6.2")
    assert (told(version) == "none") == (version == "")


def test_dracut_module_is_found_wherever_dracut_puts_its_hooks(tmp_path: Path) -> None:
    """dracut 104 and later keep them below /var."""
    file = tmp_path / "initramfs"
    moved = {name.replace("usr/lib/", "var/lib/"): data for name, data in scripts("4.7.0").items()}
    file.write_bytes(gzip.compress(archive(moved)))
    assert examine(file).since == "4.7.0"


def test_dracut_initramfs_is_walked_to_its_last_file(tmp_path: Path) -> None:
    file = tmp_path / "initramfs"
    file.write_bytes(initramfs("4.6.2"))
    walked = {member.name: source.read(member.size) for member, source in members(file) if member.mode & 0o100000}
    assert walked["kernel/x86/microcode/GenuineIntel.bin"] == b"microcode" * 100
    assert {name: walked[name] for name in scripts("4.6.2")} == scripts("4.6.2")
    assert "TRAILER!!!" not in walked


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\x02\x21\x4c\x18" + bytes(range(100)), "compressed by lz4"),
        (b"no archive at all" * 10, "holds no newc archive"),
        (gzip.compress(b"no archive at all" * 10), "holds no newc archive"),
        (initramfs("4.6.2")[:-40], "damaged or cut short"),
        (b"070701" + b"z" * 104, "damaged or cut short"),
        (b"070701" + b"f" * 104, "damaged or cut short"),
        (b"070701" + b"0" * 8 + b"-0000001" + b"0" * 88 + b"/", "whose fields are no numbers"),
        (gzip.compress(b"") * 20_000, "pieces that hold nothing"),
        (zstandard.ZstdCompressor().compress(bytes(1 << 20)) + b"rest", "damaged or cut short"),
    ],
)
def test_dracut_initramfs_that_cannot_be_read_is_said_to_be_so(tmp_path: Path, data: bytes, says: str) -> None:
    file = tmp_path / "initramfs"
    file.write_bytes(data)
    module = examine(file)
    assert module.since == ""
    assert says in module.unread
    assert not examine(tmp_path / "gone").since


def test_dracut_initramfs_of_zeros_takes_no_time(tmp_path: Path) -> None:
    file = tmp_path / "initramfs"
    with file.open("wb") as made:
        made.truncate(64 << 20)
    assert examine(file) == ("", "", [])


def test_dracut_initramfs_tells_which_programs_are_in_it(tmp_path: Path) -> None:
    """Wherever a program may lie, links to one among them; not what stands below, or what is none."""
    inside = ["bin/a", "sbin/b", "usr/bin/c", "usr/sbin/d", "usr/local/bin/e", "usr/bin/below/f", "usr/lib/g"]
    entries = [newc.Entry(name.encode(), stat.S_IFREG | 0o755, 0, 0, 0, b"x") for name in inside]
    entries.append(newc.Entry(b"usr/sbin/h", stat.S_IFLNK | 0o777, 0, 0, 0, b"busybox"))
    entries.append(newc.Entry(b"usr/sbin/i", stat.S_IFREG | 0o644, 0, 0, 0, b"x"))
    file = tmp_path / "initramfs"
    file.write_bytes(gzip.compress(newc.archive(entries)))
    assert examine(file).programs == ["a", "b", "c", "d", "e", "h"]


def test_dracut_module_of_an_initramfs_that_is_damaged_behind_it_is_known(tmp_path: Path) -> None:
    """The kernel may make as much of it; which programs there are nobody knows."""
    file = tmp_path / "initramfs"
    file.write_bytes(initramfs("4.7.0", bytes) + b"garbage" * 40)
    assert examine(file) == ("4.7.0", "", None)


def test_dracut_initramfs_with_a_wrong_archive_inside_is_damaged(tmp_path: Path) -> None:
    file = tmp_path / "initramfs"
    file.write_bytes(archive({"a": b"1"})[:-124] + b"garbage" * 40)
    with pytest.raises(DamagedError):
        list(members(file))


@pytest.mark.parametrize("place", ["usr/lib/dracut/modules.d/90wwinit", "usr/lib/dracut/modules.d/50wwinit"])
def test_dracut_module_in_the_tree_of_an_image_tells_its_version(tmp_path: Path, place: str) -> None:
    assert not carried(tmp_path)
    assert in_tree(tmp_path).since == ""
    (tmp_path / place).mkdir(parents=True)
    (tmp_path / place / "parse-wwinit.sh").write_text(PARSE["4.6.0"])
    (tmp_path / place / "load-wwinit.sh").write_text(LOAD["4.6.0"])
    assert carried(tmp_path)
    assert in_tree(tmp_path).since == "4.6.0"
