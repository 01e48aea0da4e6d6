"""Images of an existing Warewulf: used as they are, and ours when told to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from compat.conftest import Run
from support.daemon import tiny_image
from wwfast.errors import WwfastError
from wwfast.images import building, manage
from wwfast.images.inside import users
from wwfast.images.store import ImageStore
from wwfast.paths import Paths

HINT = "wwfast image adopt rocky"


@pytest.fixture
def theirs(paths: Paths) -> Path:
    """An image in chroots/ of Warewulf, with a hard link, that was built and is served."""
    tree = tiny_image(paths, "rocky")
    (tree / "bin").symlink_to("usr/bin")
    (tree / "etc/one").write_text("one")
    (tree / "etc/two").hardlink_to(tree / "etc/one")
    paths.warewulf_chroots.mkdir(parents=True)
    (paths.chroots / "rocky").rename(paths.warewulf_chroots / "rocky")
    building.build(paths, "rocky")
    return paths.warewulf_chroots / "rocky"


@pytest.mark.parametrize("move", [False, True])
@pytest.mark.parametrize("named", ["rocky", "--all"])
def test_compat_image_adopt_gives_an_image_to_us_as_it_is(
    run: Run, paths: Paths, theirs: Path, move: bool, named: str
) -> None:
    (theirs / "readonly").touch()
    served = ImageStore(paths).get("rocky").artefact("zst")
    run(f"image adopt {named}{' --move' * move}")
    image = ImageStore(paths).get("rocky")
    assert image.own
    assert image.rootfs == paths.chroots / "rocky/rootfs"
    assert (image.rootfs.parent / "readonly").exists()
    assert (image.rootfs / "etc/one").stat().st_ino == (image.rootfs / "etc/two").stat().st_ino
    assert (theirs / "rootfs").exists() is not move
    assert image.artefact("zst") == served, "nodes go on booting what they boot"
    assert not building.build(paths, "rocky")[1], "nothing changed"
    run("image adopt rocky", status=1)
    run("image adopt --all")
    (image.rootfs.parent / "readonly").unlink()
    assert not ImageStore(paths).get("rocky").readonly


def test_compat_image_of_warewulf_says_how_it_becomes_ours(paths: Paths, theirs: Path) -> None:
    for refused in (
        lambda: manage.delete(paths, "rocky"),
        lambda: manage.rename(paths, "rocky", "new"),
        lambda: users.sync(paths, "rocky"),
    ):
        with pytest.raises(WwfastError) as caught:
            refused()
        assert HINT in (caught.value.hint or "")
    assert (theirs / "rootfs/etc/one").read_text() == "one"


@pytest.mark.root
@pytest.mark.parametrize("verb", ["exec rocky -- /usr/bin/false", "shell rocky"])
def test_compat_image_exec_in_one_of_warewulf_says_it_before(
    paths: Paths, theirs: Path, verb: str, capfd: pytest.CaptureFixture[str]
) -> None:
    from wwfast.cli.main import main

    with pytest.raises(SystemExit):
        main(["--root", str(paths.root), "image", *verb.split()])
    assert HINT in capfd.readouterr().err
    assert os.listdir(theirs) == ["rootfs"]  # noqa: PTH208


def test_compat_image_that_was_adopted_goes_back_while_nodes_name_it(run: Run, paths: Paths, theirs: Path) -> None:
    paths.nodes_conf.write_text("nodes: {n1: {image name: rocky}}\n")
    served = ImageStore(paths).get("rocky").artefact("zst")
    run("image adopt rocky")
    run("image delete rocky --yes")
    image = ImageStore(paths).get("rocky")
    assert not image.own
    assert image.rootfs == theirs / "rootfs"
    assert image.artefact("zst") == served, "nodes go on booting what they boot"
    run("image delete rocky --yes", status=1)
    run("image adopt rocky --move")
    run("image delete rocky --yes", status=1)
    assert ImageStore(paths).get("rocky").own, "Warewulf has it no more, so it is used"
