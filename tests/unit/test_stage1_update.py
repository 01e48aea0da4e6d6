"""A root on a disk that is updated becomes what the image is, whatever was on it, and fetches what changed alone."""

from __future__ import annotations

import gzip
import os
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from support import trees
from support.stage1 import Server, archive, bare, inside, run, serving
from wwfast.archive import newc
from wwfast.archive.artefact import TAR_GZ, TAR_ZST

KEPT = ".wwfast-kept"
Change = Callable[[Path], None]


class Node:
    """A root on a disk, and the image that comes over it at each boot."""

    def __init__(self, place: Path, form: str = TAR_ZST) -> None:
        self.place, self.form, self.boots = place, form, 0
        self.body, self.tree, self.pieces = archive(place, form)
        self.root = place / "root"
        self.root.mkdir()
        (self.root / ".wwfast-root").write_text("ours\n")
        for number in range(3):
            (self.tree / f"usr/share/dir{number}").mkdir(parents=True)
            (self.tree / f"usr/share/dir{number}/a file").write_text(f"{number}")
            (self.tree / f"usr/link{number}").symlink_to(f"share/dir{number}")
        shutil.copy2(self.tree / "usr/large", self.tree / "usr/other")
        self.image()

    def image(self) -> None:
        """The next one, of the tree as it is."""
        self.boots += 1
        self.body, _, self.pieces = archive(self.place, self.form, self.tree, f"next{self.boots}")

    def boot(self, faults: tuple[str, ...] = (), overlay: Path | None = None, cache: Path | None = None) -> int:
        """Bytes that were fetched; an overlay is laid over it."""
        store = self.place / "store"
        shutil.rmtree(store)
        store.mkdir()
        without = "command() { return 1; }; " if self.form == TAR_GZ else ""
        words = f"{without}RUN=1000000 NEW={self.root} kept={self.root}/{KEPT}; \n"
        words += f"cache={cache or ''} device=x; update_image {self.pieces}\n"
        if overlay is not None:
            names = "\n".join(str(path.relative_to(overlay)) for path in sorted(overlay.rglob("*")))
            (store / "names").write_text(names + "\n")
            words += f"cat {store}/names >> $kept/overlays; cp -aT --remove-destination {overlay} $NEW\n"
        with serving(Server(self.body)) as server:
            server.faults = list(faults)
            done = run(store, server, words + "settle")
        assert done.returncode == 0, done
        ranges = [asked.removeprefix("bytes=").split("-") for asked in server.asked]
        return sum(int(last) - int(first) + 1 for first, last in ranges)

    def stopped(self, always: str = "") -> str:
        """What stops the boot."""
        with serving(Server(self.body)) as server:
            server.always = always
            words = f"RUN=100000 NEW={self.root} kept={self.root}/{KEPT}; update_image {self.pieces}; settle"
            done = run(self.place / "store", server, words)
        assert done.returncode == 9, done
        return server.told[-1]

    def found(self, *but: str) -> dict[bytes, tuple[object, ...]]:
        """What is on the root, without what is ours and other names."""
        ours = tuple(os.fsencode(name) for name in (KEPT, ".wwfast-root", *but))
        return {name: facts for name, facts in trees.read(self.root).items() if not name.startswith(ours)}


def aside(root: Path) -> dict[str, tuple[int, dict[str, bytes]]]:
    """Times of directories and links, and attributes, which trees.read leaves out."""
    names = [path for path in root.rglob("*") if not path.name.startswith(".wwfast") and KEPT not in path.parts]
    return {
        str(path.relative_to(root)): (
            int(path.lstat().st_mtime) if path.is_symlink() or path.is_dir() else 0,
            {
                name: os.getxattr(path, name, follow_symlinks=False)
                for name in os.listxattr(path, follow_symlinks=False)
            },
        )
        for path in names
    }


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_stage1_update_fetches_nothing_of_an_image_that_is_there(node: Node) -> None:
    assert node.boot() == len(node.body)
    assert node.found() == trees.read(node.tree)
    (node.root / "usr/local").mkdir()
    (node.root / "usr/local/file").write_text("made on the node")
    assert node.boot() == 0
    assert node.found("usr/local") == trees.read(node.tree)
    assert (node.root / "usr/local/file").read_text() == "made on the node"
    assert (node.place / "store/reused").read_text() == "13 of 13 MiB\n"


@pytest.mark.parametrize("form", [TAR_ZST, TAR_GZ])
@pytest.mark.parametrize("faults", [(), ("flipped", "cut", "503")], ids=str)
def test_stage1_update_is_whole_whatever_happens_on_the_way(tmp_path: Path, form: str, faults: tuple[str, ...]) -> None:
    node = Node(tmp_path, form)
    node.boot(faults)
    assert node.found() == trees.read(node.tree)
    (node.tree / "usr/file7").write_text("changed")
    node.image()
    node.boot(faults)
    assert node.found() == trees.read(node.tree)


def _content(tree: Path) -> None:
    (tree / "usr/file7").write_text("changed")


def _large_alike(tree: Path) -> None:
    """In its middle, with the time and the size that it had."""
    large = tree / "usr/large"
    facts = large.stat()
    with large.open("r+b") as file:
        file.seek(5 << 20)
        file.write(b"changed")
    os.utime(large, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def _large_other_name(tree: Path) -> None:
    """The names of a large file stand in the first of its pieces alone."""
    (tree / "usr/large").rename(tree / "usr/share/large")
    (tree / "usr/again").unlink()


def _large_once(tree: Path) -> None:
    """One of two with the same content."""
    (tree / "usr/other").unlink()


def _attributes(tree: Path) -> None:
    os.setxattr(tree / "usr/file11", "user.x", b"changed")
    os.setxattr(tree / "usr/share", "user.y", b"2")
    os.setxattr(tree / "usr/file12", "security.capability", struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0))


def _gone(tree: Path) -> None:
    (tree / "usr/file8").unlink()
    shutil.rmtree(tree / "usr/share/dir1")
    (tree / "usr/large").unlink()


def _links(tree: Path) -> None:
    """A directory becomes a link to where its files went, as /bin did; a link becomes a directory."""
    (tree / "usr/share/dir0").rename(tree / "usr/moved")
    (tree / "usr/share/dir0").symlink_to("../moved")
    (tree / "usr/link2").unlink()
    (tree / "usr/link2").mkdir()
    (tree / "usr/link2/a file").write_text("not that behind the link")


def _kinds(tree: Path) -> None:
    shutil.rmtree(tree / "usr/share/dir0")
    (tree / "usr/share/dir0").write_text("a file where a directory was")
    (tree / "usr/file3").unlink()
    (tree / "usr/file3").mkdir()
    (tree / "usr/file3/inside").write_text("a directory where a file was")


def _named(tree: Path) -> None:
    for name in ("-rf", "\\n", " leading and trailing ", "*", b"\xff".decode(errors="surrogateescape")):
        (tree / "usr" / name).write_text("x")


def _access(tree: Path) -> None:
    (tree / "usr/file5").chmod(0o4711)
    (tree / "usr/share").chmod(0o700)
    os.chown(tree / "usr/link1", 7, 8, follow_symlinks=False)


@pytest.mark.root
@pytest.mark.parametrize(
    "change",
    [_content, _large_alike, _large_other_name, _large_once, _attributes, _gone, _links, _kinds, _named, _access],
)
def test_stage1_update_makes_what_an_image_became_and_back(node: Node, change: Change) -> None:
    node.boot()
    before = node.place / "before"
    shutil.copytree(node.tree, before, symlinks=True)
    subprocess.run(["cp", "-aT", node.tree, before], check=True)
    (node.root / "usr/mine").write_text("made on the node")
    change(node.tree)
    node.image()
    assert node.boot() < len(node.body), "some of it was there"
    assert node.found("usr/mine") == trees.read(node.tree)
    (node.root / "usr/mine").rename(node.place / "mine")
    assert node.boot() == 0
    assert aside(node.root) == aside(node.tree), "the file above left its time in a directory"
    (node.place / "mine").rename(node.root / "usr/mine")
    shutil.rmtree(node.tree)
    subprocess.run(["cp", "-aT", before, node.tree], check=True)
    node.image()
    node.boot()
    assert node.found("usr/mine") == trees.read(before)
    assert (node.root / "usr/mine").read_text() == "made on the node"


def test_stage1_update_takes_overlays_off_and_shows_what_was_below(node: Node, tmp_path: Path) -> None:
    overlay = tmp_path / "overlay"
    for name in ("usr/file9", "etc/new/file", "usr/share/dir2/a file"):
        (overlay / name).parent.mkdir(parents=True, exist_ok=True)
        (overlay / name).write_text("of the overlay")
    (overlay / "usr/link1").write_text("over a link")
    node.boot(overlay=overlay)
    assert (node.root / "usr/file9").read_text() == "of the overlay"
    fetched = node.boot()
    assert node.found() == trees.read(node.tree)
    assert 0 < fetched < len(node.body) // 4
    assert node.boot() == 0


def test_stage1_update_that_did_not_end_is_followed_by_all_of_the_image(node: Node) -> None:
    node.boot()
    (node.root / "usr/mine").write_text("made on the node")
    (node.tree / "usr/file7").write_text("changed")
    node.image()
    assert "the server refuses the image" in node.stopped("404")
    assert not (node.root / KEPT / "whole").exists()
    (node.tree / "usr/file8").unlink()
    node.image()
    assert node.boot() == len(node.body)
    assert node.found("usr/mine") == trees.read(node.tree)
    assert (node.root / "usr/mine").exists()


def test_stage1_update_to_another_image_leaves_nothing_of_the_former(node: Node) -> None:
    node.boot()
    (node.root / "usr/mine").write_text("made on the node")
    shutil.rmtree(node.tree)
    (node.tree / "etc").mkdir(parents=True)
    (node.tree / "etc/other").write_text("another image")
    node.image()
    assert len(node.body) - node.boot() < 50, "an archive ends as all do"
    assert node.found("usr") == trees.read(node.tree)
    assert [path.name for path in (node.root / "usr").rglob("*")] == ["mine"]


def test_stage1_update_stops_where_a_directory_of_the_node_is_in_the_way(node: Node) -> None:
    """What it has made is nobody's to delete."""
    node.boot()
    (node.root / "usr/link1").unlink()
    (node.root / "usr/link1").mkdir()
    (node.root / "usr/link1/mine").write_text("made on the node")
    for _ in range(2):
        assert "the image cannot be unpacked on the disk: tar: usr/link1" in node.stopped()
        assert (node.root / "usr/link1/mine").exists()
    shutil.rmtree(node.root / "usr/link1")
    node.boot()
    assert node.found() == trees.read(node.tree)


def test_stage1_update_has_what_lies_below_a_directory_that_the_node_made_a_link(node: Node, tmp_path: Path) -> None:
    node.boot()
    (node.root / "usr/share").rename(tmp_path / "outside")
    (node.root / "usr/share").symlink_to(tmp_path / "outside")
    assert node.boot() == len(node.body)
    assert node.found() == trees.read(node.tree)
    assert (tmp_path / "outside/dir1/a file").exists()


def test_stage1_update_takes_back_what_systemd_moved_for_a_service(node: Node) -> None:
    share = node.root / "usr/share"
    node.boot()
    (share / "private").mkdir(mode=0o700)
    (share / "dir1").rename(share / "private/dir1")
    (share / "dir1").symlink_to("private/dir1")
    (share / "private/dir1/state").write_text("of the service")
    assert node.boot() == 0
    assert (share / "dir1/state").read_text() == "of the service"
    assert node.found("usr/share/dir1/state", "usr/share/private") == trees.read(node.tree)


def test_stage1_update_knows_a_link_of_an_overlay_from_one_of_the_node(node: Node, tmp_path: Path) -> None:
    """cpio replaces an empty directory by a link."""
    (node.tree / "srv").mkdir()
    node.image()
    node.boot()
    overlay = tmp_path / "overlay"
    overlay.mkdir()
    (overlay / "srv").symlink_to("usr/share")
    (node.root / "srv").rmdir()
    node.boot(overlay=overlay)
    (node.root / "srv").rmdir()
    (node.root / "srv").symlink_to("usr/share")
    assert node.boot() == 0
    assert node.found() == trees.read(node.tree)


def test_stage1_update_takes_from_a_cache_what_is_not_on_the_disk(node: Node, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    node.boot(cache=cache)
    (node.tree / "usr/file7").write_text("changed")
    node.image()
    assert 0 < node.boot(cache=cache) < len(node.body)
    (node.root / KEPT / "whole").unlink()
    assert node.boot(cache=cache) == 0
    assert node.found() == trees.read(node.tree)


def test_stage1_update_deletes_nothing_behind_a_link_that_the_node_made(node: Node, tmp_path: Path) -> None:
    node.boot()
    outside = tmp_path / "outside"
    (node.root / "usr/share/dir1").rename(outside)
    (node.root / "usr/share/dir1").symlink_to(outside)
    shutil.rmtree(node.tree / "usr/share/dir1")
    node.image()
    node.boot()
    assert (outside / "a file").read_text() == "1"
    (outside / "a file").unlink()
    assert node.found() == trees.read(node.tree)


def test_stage1_update_without_room_on_the_disk_stops_and_says_so(node: Node, tmp_path: Path) -> None:
    with serving(Server(node.body)) as server:
        words = f"""mount -t tmpfs -o size=4m tmpfs {node.root}
NEW={node.root} kept={node.root}/{KEPT}; update_image {node.pieces}; settle"""
        done = run(tmp_path / "store", server, words, within=["unshare", "-m"])
    assert done.returncode == 9
    assert server.told[0].startswith("BOOT STOPPED: the image cannot be unpacked on the disk: "), server.told


@pytest.mark.root
def test_stage1_update_knows_overlays_by_names_that_lead_through_no_link(tmp_path: Path) -> None:
    root = bare(tmp_path)
    for name in ("chroot", "cpio", "gzip"):
        (root / "bin" / name).symlink_to("busybox")
    (root / "usr/lib/sub").mkdir(parents=True)
    (root / "srv").symlink_to("usr/lib")
    (root / "usr/up").symlink_to("..")
    names = ["init", "srv/sub/a file", "usr/lib/sub/b", "usr/up/top", "usr/lib/a\\nb"]
    entries = [newc.Entry(name.encode(), 0o100644, 0, 0, 0, b"x") for name in names]
    (root / ".wwfast.gz").write_bytes(gzip.compress(newc.archive(entries, segment=1)))
    done = inside(root, "NEW=/ kept=/; laid system; cat /overlays")
    assert done.stdout.splitlines() == ["init", "usr/lib/sub/a file", "usr/lib/sub/b", "top", "usr/lib/a\\nb"], done
