"""Trees and archives that lead image commands astray: links to the server, depth without end, halves left by others."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from support.oci import small_tree
from wwfast.errors import WwfastError
from wwfast.images import building, manage
from wwfast.images.inside import mountpoints, users
from wwfast.images.sources.importing import import_image
from wwfast.images.sources.options import Options
from wwfast.images.store import ImageStore
from wwfast.paths import Paths
from wwfast.system import work

PLAIN = Options()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return small_tree(tmp_path / "tree")


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file of the server that nothing may change."""
    file = tmp_path / "victim"
    file.write_text("precious")
    return file


def tar(file: Path, *members: tuple[str, bytes, str]) -> Path:
    """An archive of (name, type, link target) with empty files."""
    with tarfile.open(file, "w") as archive:
        for name, kind, target in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            archive.addfile(member, io.BytesIO())
    return file


def test_image_update_from_a_directory_never_writes_through_links(paths: Paths, tree: Path, victim: Path) -> None:
    (tree / "etc/resolv.conf").symlink_to(victim)
    (tree / "opt").symlink_to("srv")
    image = import_image(paths, str(tree), "deb", PLAIN)
    update = small_tree(victim.parent / "update")
    (update / "etc/resolv.conf").write_text("new")
    (update / "opt/lab").mkdir(parents=True)
    (update / "opt/lab/file").write_text("through the link, as a node sees it")
    import_image(paths, str(update), "deb", PLAIN, update=True)
    assert victim.read_text() == "precious"
    assert (image.rootfs / "etc/resolv.conf").read_text() == "new"
    assert not (image.rootfs / "etc/resolv.conf").is_symlink()
    assert (image.rootfs / "opt/lab/file").is_file()


def test_image_import_of_a_linked_directory_is_a_copy(paths: Paths, tree: Path) -> None:
    (tree.parent / "current").symlink_to(tree)
    image = import_image(paths, str(tree.parent / "current"), "deb", PLAIN)
    assert not image.rootfs.is_symlink()
    (image.rootfs / "etc/motd").write_text("of the image")
    assert not (tree / "etc/motd").exists()


@pytest.mark.root
def test_image_syncuser_never_writes_through_a_link(paths: Paths, tree: Path, victim: Path) -> None:
    """W-16: the name that the new table has until it is whole may be a link of the image."""
    for kind in ("passwd", "group"):
        (tree / f"etc/.{kind}.new").symlink_to(victim)
    import_image(paths, str(tree), "deb", PLAIN)
    (paths.root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nmunge:x:990:990::/:/bin/false\n")
    (paths.root / "etc/group").write_text("root:x:0:\nmunge:x:990:\n")
    users.sync(paths, "deb")
    assert victim.read_text() == "precious"
    made = ImageStore(paths).get("deb").rootfs / "etc/passwd"
    assert not made.is_symlink()
    assert "munge" in made.read_text()


def test_image_archive_deeper_than_can_be_walked_is_refused(paths: Paths, tree: Path) -> None:
    for kind in (tarfile.DIRTYPE, tarfile.REGTYPE):
        with pytest.raises(WwfastError, match="too deep"):
            import_image(paths, str(tar(tree.parent / "deep.tar", ("a/" * 1500 + "x", kind, ""))), "deep", PLAIN)
    assert ImageStore(paths).names() == []
    assert not list(paths.chroots.iterdir())


def test_image_tree_of_any_depth_can_be_removed(paths: Paths, tree: Path) -> None:
    """A directory as the source may be deeper than an archive may; shutil.rmtree gives up at a thousand."""
    at = os.open(tree, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=at)
        below = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    import_image(paths, str(tree), "deep", PLAIN)
    manage.delete(paths, "deep")
    assert not list(paths.chroots.iterdir())
    work.remove(tree)  # pytest's own cleaning would give up too


@pytest.mark.parametrize("name", ["oci-layout", "index.json"])
def test_image_archive_with_a_pipe_or_a_link_for_a_document_is_refused(paths: Paths, victim: Path, name: str) -> None:
    other = ({"oci-layout", "index.json"} - {name}).pop()
    for number, bad in enumerate([(name, tarfile.FIFOTYPE, ""), (name, tarfile.SYMTYPE, str(victim))]):
        file = tar(victim.parent / f"{number}.tar", bad, (other, tarfile.REGTYPE, ""))
        with pytest.raises(WwfastError):
            import_image(paths, str(file), "bad", PLAIN)
    assert ImageStore(paths).names() == []


def test_image_archive_with_a_manifest_without_end_is_refused(paths: Paths, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    layout.mkdir()
    (layout / "oci-layout").write_text("{}")
    with (layout / "index.json").open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(WwfastError, match="larger than any manifest"):
        import_image(paths, f"oci:{layout}", "bad", PLAIN)


def test_image_of_an_existing_warewulf_is_not_shadowed_without_a_word(paths: Paths, tree: Path) -> None:
    theirs = paths.warewulf_chroots / "ww1/rootfs"
    shutil.copytree(tree, theirs, symlinks=True)
    (theirs / "etc/theirs").write_text("theirs")
    with pytest.raises(WwfastError, match="there is an image ww1 already"):
        import_image(paths, str(tree), "ww1", PLAIN)
    image = import_image(paths, str(tree), "ww1", PLAIN, update=True)
    assert image.own
    assert (image.rootfs / "etc/theirs").read_text() == "theirs"


def test_image_never_gets_the_builds_of_a_former_one_by_its_name(paths: Paths, tree: Path) -> None:
    for name in ("gone", "deb"):
        import_image(paths, str(tree), name, PLAIN)
        building.build(paths, name)
    for _ in range(2):
        shutil.rmtree(paths.chroots / "gone")
        assert (paths.images / "gone").is_dir()
        manage.rename(paths, "deb", "gone")
        manage.renamed(paths, "gone")
        assert len(ImageStore(paths).builds("gone")) == 1
        manage.copy(paths, "gone", "deb")
        assert ImageStore(paths).get("deb").build is None
        building.build(paths, "deb")
    shutil.rmtree(paths.chroots / "gone")
    assert import_image(paths, str(tree), "gone", PLAIN).build is None


def test_image_copy_leaves_behind_what_a_killed_exec_left(paths: Paths, tree: Path) -> None:
    image = import_image(paths, str(tree), "deb", PLAIN)
    (image.rootfs / "mnt").mkdir()
    (image.rootfs / "etc/secret").write_text("of the server")
    for name, copy in (("mnt", ""), ("etc/secret", mountpoints.fingerprint(image.rootfs / "etc/secret"))):
        mountpoints.note(image.rootfs, mountpoints.Place(name, copy))
    copy = manage.copy(paths, "deb", "new")
    for rootfs in (image.rootfs, copy.rootfs):
        assert not (rootfs / "mnt").exists()
        assert not (rootfs / "etc/secret").exists()


def test_image_half_a_build_is_not_gone_back_to(paths: Paths, tree: Path) -> None:
    import_image(paths, str(tree), "deb", PLAIN)
    first, _ = building.build(paths, "deb")
    second, _ = building.build(paths, "deb", building.How(force=True))
    shutil.rmtree(first.path / "image")
    for build in (None, first.id):
        with pytest.raises(WwfastError):
            building.rollback(paths, "deb", build)
    current = ImageStore(paths).get("deb").build
    assert current is not None
    assert current.id == second.id


def test_image_formats_asked_for_come_beside_the_one_that_boots(paths: Paths, tree: Path) -> None:
    import_image(paths, str(tree), "deb", PLAIN)
    made, _ = building.build(paths, "deb", building.How(formats=("raw",)))
    image = ImageStore(paths).get("deb")
    assert {"raw", image.boot_format} == set(made.info.sizes)
    assert json.loads((made.path / "info.json").read_text())["sizes"]["raw"] > 0
