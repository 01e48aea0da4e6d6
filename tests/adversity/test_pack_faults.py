"""What goes wrong while an image is built: the tree moves, the disk fills, the process dies, the cache rots."""

from __future__ import annotations

import gc
import itertools
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import cpio, trees
from support.patience import until
from wwfast.errors import WwfastError
from wwfast.pack import engine, manifest
from wwfast.pack.build import build, load
from wwfast.pack.cache import FrameCache, PackWriter, collect
from wwfast.pack.verify import verify
from wwfast.system.run import run


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "rootfs"
    for number in range(120):
        path = root / f"d{number % 9}/file{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.Random(number).randbytes(400 * number))
        os.utime(path, (number, number))
    return root


def make(base: Path, tree: Path, name: str, **options: object) -> Path:
    dest = base / "images" / name
    build(tree, dest, name="t", formats=["raw"], frames=base / "frames", segment=20_000.0, **options)  # type: ignore[arg-type]
    return dest


def contents(dest: Path) -> bytes:
    artefact = load(dest, "raw")
    assert artefact is not None
    return trees.contents(artefact.extents)


def leftovers(base: Path) -> list[Path]:
    return [*base.glob("images/.*.unfinished"), *base.glob("frames/*.new")]


def in_child(work: Callable[[], object]) -> int:
    """Run `work` in a forked child and return its pid; the child ends with status 0, or 1 after an exception."""
    gc.collect()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        work()
        status = 0
    except BaseException as error:
        status = 3 if isinstance(error, KeyboardInterrupt) else 1
    finally:
        os._exit(status)


@pytest.mark.parametrize("change", ["grow", "shrink", "rewrite", "vanish", "replace"])
def test_pack_a_file_that_changes_after_the_walk_is_named(tmp_path: Path, tree: Path, change: str) -> None:
    victim = tree / "d3/file30"
    before = victim.read_bytes()
    walked = engine.scan(tree)
    if change == "grow":
        victim.write_bytes(before + b"x")
    elif change == "shrink":
        victim.write_bytes(before[:-1])
    elif change == "rewrite":
        victim.write_bytes(before[::-1])
    elif change == "vanish":
        victim.unlink()
    else:
        (tree / "other").write_bytes(before)
        (tree / "other").replace(victim)
    writer = PackWriter(tmp_path)
    packer = engine.Engine(tree, walked, FrameCache(tmp_path), writer, formats=["raw"], level=3)
    with pytest.raises(engine.ChangedError, match="d3/file30 changed while it was packed"):
        packer.run()
    writer.abandon()
    assert list(tmp_path.glob("*.new")) == []


def test_pack_a_streamed_file_that_shrinks_is_named(tmp_path: Path, tree: Path) -> None:
    victim = tree / "large"
    victim.write_bytes(b"\0" * (engine.STREAM_FROM + 5))
    for fmt in ("zst", "gz", "raw"):
        walked = engine.scan(tree)
        os.truncate(victim, victim.stat().st_size - 1)
        writer = PackWriter(tmp_path)
        with pytest.raises(engine.ChangedError, match="large changed while it was packed"):
            engine.Engine(tree, walked, FrameCache(tmp_path), writer, formats=[fmt], level=1).run()
        writer.abandon()


def test_pack_a_tree_that_never_holds_still_is_an_error_and_publishes_nothing(tmp_path: Path, tree: Path) -> None:
    first = make(tmp_path, tree, "1")
    was = contents(first)
    ending = threading.Event()

    def scribble() -> None:
        for number in itertools.count():
            (tree / "d1/file1").write_bytes(b"%d" % number)
            if ending.is_set():
                return

    writer = threading.Thread(target=scribble)
    writer.start()
    try:
        for number in range(3):  # a lucky moment may let a build through; then it must be whole
            try:
                made = make(tmp_path, tree, f"try{number}")
            except WwfastError as error:
                assert "d1" in error.message  # noqa: PT017 (either outcome is right)
                assert error.hint is not None  # noqa: PT017
            else:
                data = cpio.decode(contents(made))[b"d1/file1"].data
                assert data.isdigit() or not data, "a moment of the file, between truncation and writing at worst"
    finally:
        ending.set()
        writer.join()
    assert contents(first) == was
    assert leftovers(tmp_path) == []


def test_pack_directories_that_come_and_go_never_give_a_broken_image(tmp_path: Path, tree: Path) -> None:
    ending = threading.Event()

    def churn() -> None:
        while not ending.is_set():
            (tree / "new/below").mkdir(parents=True, exist_ok=True)
            (tree / "new/below/file").write_bytes(b"x")
            (tree / "new/below/file").unlink()
            (tree / "new/below").rmdir()
            (tree / "new").rmdir()

    churner = threading.Thread(target=churn)
    churner.start()
    try:
        for number in range(5):
            try:
                cpio.decode(contents(make(tmp_path, tree, str(number))))
            except WwfastError as error:
                assert "changed while it was packed" in error.message  # noqa: PT017
    finally:
        ending.set()
        churner.join()


@pytest.mark.root
def test_pack_an_unreadable_file_is_named(tree: Path, tmp_path: Path) -> None:
    for path in [tmp_path, *tmp_path.parents]:
        if path == Path("/tmp"):
            break
        path.chmod(0o755)
    os.chown(tmp_path, 65534, 65534)
    for path in [tree, *tree.rglob("*")]:
        os.chown(path, 65534, 65534)
    os.chown(tree / "d2/file2", 0, 0)
    (tree / "d2/file2").chmod(0o600)
    os.seteuid(65534)
    try:
        with pytest.raises(WwfastError, match=r"cannot read .*d2/file2: Permission denied"):
            make(tmp_path, tree, "1")
        (tree / "d5").chmod(0)
        with pytest.raises(WwfastError, match=r"cannot read .*d5: Permission denied"):
            make(tmp_path, tree, "1")
    finally:
        os.seteuid(0)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", place])
    try:
        yield place
    finally:
        run(["umount", "-l", place])


@pytest.mark.root
def test_pack_a_full_disk_is_said_and_the_image_that_is_served_stays(small_disk: Path, tree: Path) -> None:
    first = make(small_disk, tree, "1")
    was = contents(first)
    (tree / "big").write_bytes(os.urandom(5 << 20))
    with pytest.raises(WwfastError, match="No space left on device"):
        make(small_disk, tree, "2")
    assert leftovers(small_disk) == []
    assert not (small_disk / "images/2").exists()
    assert contents(first) == was
    (tree / "big").unlink()
    assert contents(make(small_disk, tree, "2")) == was


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_pack_killed_at_any_moment_leaves_whole_images_or_none(tmp_path: Path, tree: Path) -> None:
    """Fifty times: builds one after another, each of a changed tree, until the process is killed."""
    chance = random.Random(7)
    make(tmp_path, tree, "start")

    def keep_building(turn: int) -> None:
        for number in range(1000):
            (tree / f"d1/changing{number % 3}").write_bytes(random.Random(number).randbytes(50_000))
            make(tmp_path, tree, f"{turn}-{number}")

    published = 0
    for turn in range(50):
        pid = in_child(lambda turn=turn: keep_building(turn))  # type: ignore[misc]
        if turn % 10 == 9:  # on a machine that is slow the others are killed amid their first
            until((tmp_path / f"images/{turn}-0").exists)
        time.sleep(chance.uniform(0.001, 0.15))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        for dest in (tmp_path / "images").glob(f"{turn}-*"):
            assert verify(dest) == []
            published += 1
    assert published >= 5
    final = make(tmp_path, tree, "final")
    assert contents(final) == contents(make(tmp_path, tree, "full", full=True))
    assert leftovers(tmp_path) == [path for path in leftovers(tmp_path) if path.suffix == ".new"]
    collect(tmp_path / "frames")
    assert leftovers(tmp_path) == []
    assert verify(final, tree, segment=20_000.0) == []


def test_pack_interrupted_from_the_keyboard_leaves_nothing_behind(tmp_path: Path, tree: Path) -> None:
    (tree / "big").write_bytes(os.urandom(30 << 20))
    chance = random.Random(3)
    for _ in range(8):
        pid = in_child(lambda: make(tmp_path, tree, "1", level=19))
        time.sleep(chance.uniform(0.05, 0.2))
        os.kill(pid, signal.SIGINT)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) in (0, 3)
        if (tmp_path / "images/1").exists():
            break
        assert leftovers(tmp_path) == []


@pytest.mark.parametrize("damage", ["flip", "truncate", "index", "gone"])
def test_pack_a_damaged_cache_is_found_by_digest_and_made_again(tmp_path: Path, tree: Path, damage: str) -> None:
    was = contents(make(tmp_path, tree, "1"))
    (pack,) = (tmp_path / "frames").glob("*.pack")
    index = pack.with_suffix(".idx")
    if damage == "flip":
        with pack.open("r+b") as file:
            file.seek(1000)
            byte = file.read(1)
            file.seek(1000)
            file.write(bytes([byte[0] ^ 0x40]))
    elif damage == "truncate":
        os.truncate(pack, pack.stat().st_size // 2)
    elif damage == "index":
        index.write_bytes(index.read_bytes()[:-50] + b"x" * 50)
    else:
        pack.unlink()
    again = make(tmp_path, tree, "2")
    assert contents(again) == was
    assert manifest.read(again).packed > 0
    if damage in ("flip", "truncate"):
        with pytest.raises(WwfastError, match="is damaged"):
            load(tmp_path / "images/1", "raw")


def test_pack_two_builds_of_one_image_take_turns(tmp_path: Path, tree: Path) -> None:
    pids = [in_child(lambda name=name: make(tmp_path, tree, name)) for name in ("a", "b", "c")]  # type: ignore[misc]
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0, 0, 0]
    assert contents(tmp_path / "images/a") == contents(tmp_path / "images/b") == contents(tmp_path / "images/c")
    assert sum(manifest.read(tmp_path / "images" / name).packed == 0 for name in "abc") == 2


def test_pack_images_outlive_the_cache_and_share_it(tmp_path: Path, tree: Path) -> None:
    first = make(tmp_path, tree, "1")
    was = contents(first)
    for path in (tmp_path / "frames").iterdir():
        path.unlink()
    assert contents(first) == was
    assert verify(first, tree, segment=20_000.0) == []
    assert contents(make(tmp_path, tree, "2")) == was


def test_pack_clean_removes_what_no_image_refers_to(tmp_path: Path, tree: Path) -> None:
    first = make(tmp_path, tree, "1")
    frames = tmp_path / "frames"
    (tree / "d1/file1").write_bytes(b"other")
    second = make(tmp_path, tree, "2")
    assert len(list(frames.glob("*.pack"))) == 2
    for path in second.iterdir():
        path.unlink()
    second.rmdir()
    (frames / "dead.new").write_bytes(b"x" * 1000)
    assert collect(frames, dry_run=True).bytes > 1000
    assert collect(frames).files >= 3
    assert len(list(frames.glob("*.pack"))) == len(list(frames.glob("*.idx"))) == 1
    assert verify(first) == []
    assert manifest.read(make(tmp_path, tree, "3")).reused > 0
    assert collect(frames, keep=1 << 40).files == 0


def test_pack_small_updates_do_not_hold_on_to_every_pack_there_was(tmp_path: Path, tree: Path) -> None:
    packs = set()
    for number in range(25):
        (tree / "d1/file1").write_bytes(b"%d" % number * 5000)
        dest = make(tmp_path, tree, str(number))
        packs = {extent.path for extent in load(dest, "raw").extents}  # type: ignore[union-attr]
        assert len(packs) <= 17
    assert cpio.decode(contents(dest))[b"d1/file1"].data == b"24" * 5000
