"""Building from trees on disk: what is in the image, what is left out, what is said about it."""

from __future__ import annotations

import gzip
import json
import os
import socket
import stat
import struct
from pathlib import Path

import pytest
import zstandard

from support import cpio, trees
from wwfast.archive.artefact import FORMATS
from wwfast.errors import UsageError, WwfastError
from wwfast.pack import engine, excludes, manifest, xattrs
from wwfast.pack.build import build, load
from wwfast.pack.verify import verify


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small tree with hard links across directories, a symbolic link and a fifo."""
    root = tmp_path / "rootfs"
    (root / "usr/bin").mkdir(parents=True)
    (root / "etc/warewulf").mkdir(parents=True)
    (root / "usr/bin/sh").write_bytes(b"#!" + os.urandom(5000))
    (root / "usr/bin/sh").chmod(0o4755)
    (root / "etc/same").hardlink_to(root / "usr/bin/sh")
    (root / "bin").symlink_to("usr/bin")
    (root / "etc/empty").touch()
    os.mkfifo(root / "etc/fifo")
    for number in range(50):
        (root / f"etc/file{number}").write_bytes(b"x" * number * 97)
        os.utime(root / f"etc/file{number}", (1_000_000 + number, 1_000_000 + number))
    return root


class Builds:
    """Builds of one tree with a cache of their own."""

    def __init__(self, base: Path, tree: Path) -> None:
        self.base, self.tree, self.count = base, tree, 0

    def __call__(self, formats: tuple[str, ...] = ("raw",), **options: object) -> Path:
        self.count += 1
        dest = self.base / f"images/{self.count}"
        build(self.tree, dest, name="test", formats=formats, frames=self.base / "frames", **options)  # type: ignore[arg-type]
        return dest

    def raw(self, **options: object) -> bytes:
        return contents(self(**options), "raw")


def contents(dest: Path, fmt: str) -> bytes:
    artefact = load(dest, fmt)
    assert artefact is not None
    return trees.contents(artefact.extents)


@pytest.fixture
def builds(tmp_path: Path, tree: Path) -> Builds:
    return Builds(tmp_path, tree)


def test_pack_build_equals_the_tree(builds: Builds, tree: Path) -> None:
    assert trees.decoded(cpio.decode(builds.raw())) == trees.read(tree)


def test_pack_build_formats_carry_the_same_bytes(builds: Builds) -> None:
    dest = builds(FORMATS)
    raw = contents(dest, "raw")
    with zstandard.ZstdDecompressor().stream_reader(contents(dest, "zst"), read_across_frames=True) as stream:
        assert stream.read() == raw
    packed = contents(dest, "gz")
    assert gzip.decompress(packed) == raw
    assert len(raw) % 4 == len(packed) % 4 == 0
    listed = manifest.read(dest)
    assert listed.raw == len(raw)
    assert listed.formats["gz"].bytes == len(packed)
    assert listed.entries == len(trees.read(builds.tree))
    assert load(dest, "gz").formats == ("gz", "raw", "zst")  # type: ignore[union-attr]


def test_pack_build_of_a_format_that_was_not_asked_for_is_not_there(builds: Builds) -> None:
    assert load(builds(("zst",)), "gz") is None
    with pytest.raises(UsageError, match="lzma"):
        builds(("lzma",))


def test_pack_rebuild_reuses_all_and_makes_the_same_artefact(builds: Builds, tree: Path) -> None:
    first, second = builds(FORMATS), builds(FORMATS)
    assert manifest.read(second).packed == 0
    for fmt in FORMATS:
        assert load(first, fmt).digest == load(second, fmt).digest  # type: ignore[union-attr]
    (tree / "etc/file7").write_bytes(b"changed")
    third = builds(FORMATS)
    assert 0 < manifest.read(third).packed <= 2
    assert cpio.decode(contents(third, "raw"))[b"etc/file7"].data == b"changed"
    full = builds(FORMATS, full=True)
    assert manifest.read(full).reused == 0
    for fmt in FORMATS:
        assert contents(third, fmt) == contents(full, fmt)


@pytest.mark.parametrize("formats", [("raw",), ("gz",), FORMATS], ids="+".join)
def test_pack_large_files_are_streamed_and_found_again(
    builds: Builds, tree: Path, monkeypatch: pytest.MonkeyPatch, formats: tuple[str, ...]
) -> None:
    monkeypatch.setattr(engine, "STREAM_FROM", engine.LARGE_FROM)
    for number in range(4):
        (tree / f"etc/large{number}").write_bytes(os.urandom(64) * (engine.LARGE_FROM // 64) + b"\1" * number)
    first = builds(formats)
    assert verify(first, tree) == []
    for fmt in formats:
        raw = contents(first, fmt)
        raw = gzip.decompress(raw) if fmt == "gz" else raw
        if fmt != "zst":
            assert trees.decoded(cpio.decode(raw)) == trees.read(tree)
    again = builds(formats, check=True)
    assert manifest.read(again).packed == 0
    (tree / "etc/large2").write_bytes(os.urandom(64) * (engine.LARGE_FROM // 64) + b"\2" * 2)  # of the same length
    changed = builds(formats)
    assert manifest.read(changed).packed == 1
    assert verify(changed, tree) == []
    full = builds(formats, full=True)
    assert [contents(changed, fmt) for fmt in formats] == [contents(full, fmt) for fmt in formats]


def test_pack_rebuild_trusts_times_and_check_does_not(builds: Builds, tree: Path) -> None:
    victim = tree / "etc/file9"
    facts = victim.stat()
    builds()
    os.utime(victim, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert cpio.decode(builds.raw(check=True))[b"etc/file9"].data == victim.read_bytes()


def test_pack_a_file_written_within_one_clock_tick_is_read_again(builds: Builds, tree: Path) -> None:
    """The digest of a file that had just been written is not remembered: its next change may leave no trace."""
    builds()
    (tree / "etc/file3").write_bytes(b"y" * 3 * 97)
    assert cpio.decode(builds.raw())[b"etc/file3"].data == b"y" * 3 * 97


def test_pack_added_and_removed_files_leave_other_segments_alone(builds: Builds, tree: Path) -> None:
    def keys(dest: Path) -> set[str]:
        return {segment.key for segment in manifest.read(dest).segments}

    before = keys(builds(segment=4096.0))
    (tree / "etc/file20").unlink()
    (tree / "etc/another").write_bytes(b"new")
    after = keys(builds(segment=4096.0))
    assert len(before) > 15
    assert len(after - before) <= 4, "segment 0 (the directory's time), the two neighbourhoods, one cut that went"


def test_pack_excludes_follow_the_grammar(builds: Builds, tree: Path) -> None:
    (tree / "boot").mkdir()
    (tree / "boot/vmlinuz").write_bytes(b"k")
    (tree / "var/log/deep").mkdir(parents=True)
    (tree / "var/log/deep/x.log").write_bytes(b"l")
    (tree / "x.log").write_bytes(b"l")
    (tree / "!a").write_bytes(b"l")
    (tree / "ba").write_bytes(b"l")
    (tree / "etc/warewulf/excludes").write_text("/boot/*\n\n*.log\nvar/*/deep/\n# no comment\nbroken[\n[!b]a\n")
    names = set(cpio.decode(builds.raw(excludes=["etc/fifo"])))
    assert b"boot" in names
    assert b"boot/vmlinuz" not in names
    assert b"x.log" not in names
    assert b"var/log" in names
    assert b"var/log/deep" not in names
    assert b"etc/fifo" not in names
    assert b"!a" not in names, "[!b] is the two characters ! and b, not a negation"
    assert b"ba" not in names


@pytest.mark.parametrize("pattern", ["[", "a[", "[]", "[^", "x\\", "[a\\"])
def test_pack_malformed_excludes_match_nothing(pattern: str) -> None:
    assert excludes.compile([pattern]) == ([], [pattern])


def test_pack_excludes_file_behind_a_link_is_not_read(builds: Builds, tree: Path, tmp_path: Path) -> None:
    (tmp_path / "host").write_text("etc\n")
    (tree / "etc/warewulf/excludes").symlink_to(tmp_path / "host")
    assert b"etc/empty" in cpio.decode(builds.raw())


def test_pack_skip_dirs_have_no_entry_but_their_files_do(builds: Builds) -> None:
    raw = builds.raw(skip_dirs=frozenset({"usr/bin"}))
    assert b"usr/bin/sh\0" in raw
    with pytest.raises(cpio.Malformed, match="before its directory"):
        cpio.decode(raw)


def test_pack_sockets_and_odd_times_are_counted(builds: Builds, tree: Path) -> None:
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tree / "etc/socket"))
    os.utime(tree / "etc/file1", (-5, -5))
    os.utime(tree / "etc/file2", (5_000_000_000, 5_000_000_000))
    dest = builds()
    names = cpio.decode(contents(dest, "raw"))
    assert b"etc/socket" not in names
    assert names[b"etc/file1"].mtime == 0
    assert names[b"etc/file2"].mtime == 0xFFFFFFFF
    warnings = manifest.read(dest).warnings
    assert "1 sockets are not in the image" in warnings
    assert any(warning.startswith("2 files have a time") for warning in warnings)


def test_pack_source_date_epoch_clamps_times(builds: Builds, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000010")
    times = {name: inode.mtime for name, inode in cpio.decode(builds.raw()).items()}
    assert times[b"etc/file5"] == 1_000_005
    assert max(times.values()) == 1_000_010
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "\u00b2")
    with pytest.raises(WwfastError, match="SOURCE_DATE_EPOCH"):
        builds()


def test_pack_a_file_over_the_limit_of_the_format_is_an_error_that_names_it(builds: Builds, tree: Path) -> None:
    os.truncate(tree / "etc/file1", 0x1_0000_0000)
    with pytest.raises(WwfastError, match="etc/file1 is larger than 4 GiB"):
        builds()


def test_pack_a_file_named_like_the_end_of_an_archive_is_an_error(builds: Builds, tree: Path) -> None:
    (tree / "etc/TRAILER!!!").touch()
    assert b"etc/TRAILER!!!" in cpio.decode(builds.raw()), "harmless below a directory"
    (tree / "TRAILER!!!").touch()
    with pytest.raises(WwfastError, match="TRAILER!!! has the name that ends an archive"):
        builds()


def test_pack_times_of_symbolic_links_are_kept(builds: Builds, tree: Path) -> None:
    os.utime(tree / "bin", (77, 77), follow_symlinks=False)
    assert cpio.decode(builds.raw())[b"bin"].mtime == 77


def test_pack_hard_links_are_whole_within_one_segment_with_the_content_on_the_last(builds: Builds) -> None:
    raw = builds.raw(segment=512.0)
    fields = {}
    for name in (b"etc/same", b"usr/bin/sh"):
        at = raw.index(name + b"\0") - 110
        fields[name] = [int(raw[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
    first, last = fields[b"etc/same"], fields[b"usr/bin/sh"]
    assert (first[0], first[7], first[8], first[4]) == (last[0], last[7], last[8], 2)
    assert (first[6], last[6]) == (0, 5002)


def test_pack_single_links_of_excluded_names_do_not_count(builds: Builds) -> None:
    raw = builds.raw(excludes=["etc/same"])
    at = raw.index(b"usr/bin/sh\0") - 110
    assert int(raw[at + 6 + 32 : at + 14 + 32], 16) == 1


def test_pack_capability_text_is_what_setcap_takes() -> None:
    def value(magic: int, permitted: int, inheritable: int) -> bytes:
        parts = permitted & 0xFFFFFFFF, inheritable & 0xFFFFFFFF, permitted >> 32, inheritable >> 32
        return struct.pack("<5I", magic, *parts)

    assert xattrs.capability_text(value(0x02000001, 1 << 13, 0)) == "cap_net_raw=ep"
    assert xattrs.capability_text(value(0x02000000, 1 << 39 | 1 << 12, 1 << 12)) == "cap_net_admin=ip cap_bpf=p"
    assert xattrs.capability_text(value(0x03000001, 1, 0) + b"\0" * 4) == "cap_chown=ep"
    with pytest.raises(ValueError):
        xattrs.capability_text(value(0x05000000, 1, 0))


@pytest.mark.root
def test_pack_capabilities_and_attributes_travel_inside_the_image(builds: Builds, tree: Path) -> None:
    os.setxattr(tree / "usr/bin/sh", "security.capability", struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0))
    os.setxattr(tree / "usr", "trusted.note", b"a b")
    dest = builds()
    names = cpio.decode(contents(dest, "raw"))
    assert names[b"warewulf/capabilities"].data == b"cap_net_raw=ep /usr/bin/sh\n", "one name of an inode is enough"
    assert b"# file: usr\ntrusted.note=0x612062\n" in names[b"warewulf/xattrs"].data
    assert "no setcap" in " ".join(manifest.read(dest).warnings)
    (tree / "usr/sbin").mkdir()
    (tree / "usr/sbin/setcap").touch()
    again = builds()
    assert manifest.read(again).warnings == []
    assert cpio.decode(contents(again, "raw"))[b"warewulf/capabilities"].data == names[b"warewulf/capabilities"].data


def test_pack_least_ram_counts_the_unpacked_tree_and_the_archive(builds: Builds) -> None:
    listed = manifest.read(builds(("zst",)))
    assert listed.least_ram == listed.unpacked + listed.formats["zst"].bytes + manifest.RESERVE
    assert listed.unpacked >= sum(-(-n * 97 // 4096) * 4096 for n in range(50)) + 8192


def test_pack_verify_finds_damage_and_changes_of_the_tree(builds: Builds, tree: Path) -> None:
    dest = builds(("zst", "gz"))
    assert verify(dest, tree) == []
    (tree / "etc/file30").write_bytes(b"other")
    assert any("the tree changed after the build" in line for line in verify(dest, tree))
    assert verify(dest) == []
    pack = next(dest.glob("*.pack"))
    with pack.open("r+b") as file:
        file.seek(pack.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))
    assert any("is damaged" in line for line in verify(dest))
    with pytest.raises(WwfastError, match="is damaged"):
        load(dest, "zst")


def test_pack_load_says_what_is_missing(tmp_path: Path, builds: Builds) -> None:
    with pytest.raises(WwfastError, match="holds no built image"):
        load(tmp_path, "zst")
    dest = builds(("zst",))
    (dest / "manifest.json").write_text("{")
    with pytest.raises(WwfastError, match="is damaged"):
        load(dest, "zst")


def test_pack_manifest_is_plain_json(builds: Builds) -> None:
    listed = json.loads((builds() / "manifest.json").read_text())
    assert {"entries", "raw", "least_ram", "formats", "segments", "tool", "warnings"} <= set(listed)


def test_pack_build_refuses_a_directory_that_exists(builds: Builds, tree: Path) -> None:
    dest = builds()
    with pytest.raises(WwfastError, match="exists already"):
        build(tree, dest, name="test", formats=["raw"], frames=builds.base / "frames")


def test_pack_published_files_are_nobodys_to_read_or_write(builds: Builds) -> None:
    for pack in builds().glob("*.pack"):
        assert stat.S_IMODE(pack.stat().st_mode) == 0o400
    assert stat.S_IMODE((builds.base / "frames").stat().st_mode) == 0o700


def test_pack_progress_reaches_the_end(builds: Builds) -> None:
    seen: list[tuple[int, int]] = []
    builds(progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] > 0
    assert seen == sorted(seen)


def test_pack_excludes_that_match_nothing_are_named_with_the_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tree = tmp_path / "rootfs"
    for name in ("usr/src/linux/file", "usr/share/doc/x", "etc/warewulf/excludes", "boot/vmlinuz"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("x")
    rules = [
        "# what nodes do not need",
        "boot",
        "./usr/src",
        "usr/src # sources",
        "usr/share/{doc,man}",
        "nowhere/[!a]",
    ]
    (tree / "etc/warewulf/excludes").write_text("\n".join(rules) + "\n")
    made = build(tree, tmp_path / "i/1", name="x", formats=["zst"], frames=tmp_path / "frames", excludes=["not/there"])
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [line.split("'")[1] for line in said] == rules[2:]
    for line, reason in zip(said, ("leave out the ./", "a line of its own", "one rule for each", ""), strict=True):
        assert "of x matches nothing" in line
        assert reason in line
    assert "boot" in made.excludes
