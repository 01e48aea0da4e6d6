"""Random trees: what GNU cpio, bsdtar and the plain reader unpack is the tree; the bytes depend on nothing else."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from isal import igzip

from support import cpio, trees
from wwfast.archive.artefact import FORMATS
from wwfast.pack import engine
from wwfast.pack.build import build, load
from wwfast.system.run import run

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(600)]
CALM = {"deadline": None, "derandomize": True, "suppress_health_check": [HealthCheck.too_slow]}

Description = list[tuple[str, list[bytes], int, int, int, int]]
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # the disk's fsync is not what is tested here
REFUSED = (b".", b"..", b"TRAILER!!!")
NAME = st.binary(min_size=1, max_size=12).filter(lambda name: not set(name) & {0, 0x2F} and name not in REFUSED)
NAMES = st.one_of(NAME, st.sampled_from([b"a\nb", b"-", b"\xff\xfe", b"n" * 255, b" ", b"*"]))
OWNER = st.sampled_from([0, 1, 1000, 65534, 4_000_000_000])
MODE = st.sampled_from([0o644, 0o600, 0o000, 0o4755, 0o2755, 0o1777, 0o755])
SIZES = st.sampled_from([0, 1, 2, 3, 4, 5, 4095, 4096, 70_000])


@st.composite
def descriptions(draw: st.DrawFn) -> Description:
    """A list of (kind, path from the root, size or index, mode, owner, mtime)."""
    count = draw(st.integers(0, 25))
    return [
        (
            draw(st.sampled_from(["file", "file", "sparse", "link", "link", "symlink", "dir", "fifo", "device"])),
            draw(st.lists(NAMES, min_size=1, max_size=4)),
            draw(SIZES),
            draw(MODE),
            draw(OWNER),
            draw(st.integers(0, 0xFFFFFFFF)),
        )
        for _ in range(count)
    ]


def make(base: Path, description: Description) -> None:
    """Make what can be made; a name that is taken, or below a file, is passed over."""
    root = os.fsencode(base)
    files: list[bytes] = []
    for number, (kind, parts, size, mode, owner, mtime) in enumerate(description):
        path = root + b"/" + b"/".join(parts)
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120 (bytes)
            if kind in ("file", "sparse"):
                with open(path, "xb") as file:  # noqa: PTH123
                    if kind == "file":
                        file.write((number.to_bytes(2, "big") * size)[:size])
                    else:
                        file.truncate(size * 100)
                files.append(path)
            elif kind == "link" and files:
                os.link(files[size % len(files)], path)
                continue
            elif kind == "symlink":
                os.symlink(parts[-1] * 3, path)  # noqa: PTH211
            elif kind == "fifo":
                os.mkfifo(path)
            elif kind == "device":
                os.mknod(path, stat.S_IFCHR, os.makedev(mode, size))
            else:
                os.mkdir(path)  # noqa: PTH102
        except OSError:  # taken, below a file, or too long by way of a symbolic link
            continue
        os.chown(path, owner, owner, follow_symlinks=False)
        if kind != "symlink":
            os.chmod(path, mode)  # noqa: PTH101
        os.utime(path, (mtime, mtime), follow_symlinks=False)


def unpacked(raw: bytes, argv: list[str], package: str) -> dict[bytes, tuple[object, ...]]:
    with tempfile.TemporaryDirectory(dir=MEMORY) as place:
        run(argv, input=raw, cwd=Path(place), package=package)
        return trees.read(Path(place))


@settings(max_examples=40, **CALM)
@given(descriptions())
def test_pack_random_trees_come_out_as_they_went_in(
    description: Description,
) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as place:
        tree = Path(place) / "rootfs"
        tree.mkdir()
        make(tree, description)
        build(tree, Path(place) / "i/1", name="t", formats=FORMATS, frames=Path(place) / "frames", segment=20_000.0)
        data = {}
        for fmt in FORMATS:
            artefact = load(Path(place) / "i/1", fmt)
            assert artefact is not None
            data[fmt] = trees.contents(artefact.extents)
        raw = data["raw"]
        expected = trees.read(tree)
        assert igzip.decompress(data["gz"]) == raw
        with zstandard.ZstdDecompressor().stream_reader(data["zst"], read_across_frames=True) as stream:
            assert stream.read() == raw
        assert trees.decoded(cpio.decode(raw)) == expected
        assert unpacked(raw, ["cpio", "-idm", "--quiet"], "cpio") == expected
        assert unpacked(raw, ["bsdtar", "-xpPf", "-"], "libarchive-tools") == expected


@settings(max_examples=20, **CALM)
@given(descriptions(), st.integers(0, 24), st.binary(max_size=5000))
def test_pack_an_incremental_image_is_the_full_one(description: Description, victim: int, content: bytes) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as place:
        base = Path(place)
        tree = base / "rootfs"
        tree.mkdir()
        make(tree, description)

        def built(name: str, frames: str, **options: bool) -> list[bytes]:
            build(tree, base / "i" / name, name="t", formats=FORMATS, frames=base / frames, segment=9000.0, **options)
            return [trees.contents(load(base / "i" / name, fmt).extents) for fmt in FORMATS]  # type: ignore[union-attr]

        built("1", "frames")
        files = sorted(path for path, facts in trees.read(tree).items() if stat.S_ISREG(facts[0]))
        if files:
            (tree / os.fsdecode(files[victim % len(files)])).write_bytes(content)
        (tree / "added").write_bytes(content)
        assert built("2", "frames") == built("3", "other") == built("4", "frames", full=True)


def test_pack_bytes_depend_on_neither_cores_nor_the_order_of_directories(tmp_path: Path) -> None:
    """The same files made in another order, packed by one thread and by four."""
    first, second = tmp_path / "a", tmp_path / "b"
    for base, numbers in ((first, range(300)), (second, reversed(range(300)))):
        for number in numbers:
            path = base / f"d{number % 7}" / f"file{number}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(f"{number}".encode() * number * 50)
            os.utime(path, (number, number))
        (base / "large").write_bytes(bytes(range(256)) * (engine.STREAM_FROM // 256 + 77))
        os.utime(base / "large", (1, 1))
        for directory in [base, *base.glob("d*")]:
            os.utime(directory, (5, 5))
    out = []
    cores = engine.cores
    for number, (tree, count) in enumerate(((first, 1), (second, 4))):
        engine.cores = lambda count=count: count
        try:
            build(tree, tmp_path / f"i/{number}", name="t", formats=FORMATS, frames=tmp_path / f"frames{number}")
        finally:
            engine.cores = cores
        out.append([trees.contents(load(tmp_path / f"i/{number}", fmt).extents) for fmt in FORMATS])  # type: ignore[union-attr]
    assert out[0] == out[1]
    shutil.rmtree(tmp_path / "i")
