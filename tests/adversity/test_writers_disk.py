"""Writers on a disk that fails at each of their calls in turn: what was there stays whole, nothing is left over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from support.daemon import NODES, overlay, tiny_image
from support.faultydisk import BROKEN, FULL, FaultyDisk
from wwfast.errors import WwfastError
from wwfast.images import building, manage, store
from wwfast.images.inside import mountpoints
from wwfast.nodes.edit.store import Draft, Store
from wwfast.overlays.files import edit, model, sshkeys
from wwfast.paths import Paths

MOST = 60  # calls of one writer that are made to fail, one in each run


class Writer(NamedTuple):
    """`write` again and again; `read` tells what others see of it."""

    write: Callable[[Paths], object]
    read: Callable[[Paths], object]


def changed_image(paths: Paths) -> None:
    extra = paths.chroots / "tiny/rootfs/etc/extra"
    extra.write_text(extra.read_text() + "x")
    building.build(paths, "tiny")


def served_image(paths: Paths) -> object:
    image = store.ImageStore(paths).get("tiny")
    artefact = image.artefact(image.boot_format)
    assert artefact is not None
    parts = []
    for extent in artefact.extents:
        data = Path(extent.path).read_bytes()[extent.offset : extent.offset + extent.length]
        assert len(data) == extent.length
        parts.append(data)
    return b"".join(parts), image.build is not None and sorted(image.build.path.rglob("*"))


def changed_node(paths: Paths) -> None:
    def comment(draft: Draft) -> None:
        tree: Any = draft.get("nodes", "n1")
        draft.put("nodes", "n1", tree | {"comment": f"{tree.get('comment', '')}x"})

    Store(paths).change(comment, why="test")


def nodes(paths: Paths) -> object:
    return paths.nodes_conf.read_bytes(), len(Store(paths).versions())


def changed_overlay(paths: Paths) -> None:
    found = model.find(paths, "motd")
    target = found.rootfs / "etc/motd.j2"
    edit.replace(found, target, target.read_bytes() + b"x")


def overlays(paths: Paths) -> object:
    return {
        str(path): path.read_bytes() if path.is_file() else b""
        for path in sorted(paths.site_overlays.rglob("*"))
        if not path.is_symlink()
    }


def cloned_overlay(paths: Paths) -> None:
    for name in ("hostname", "hosts", "wwclient"):
        if not (paths.site_overlays / name).exists():
            with edit.changing(paths, name):
                pass


def renamed_image(paths: Paths) -> None:
    old, new = ("tiny", "other") if (paths.chroots / "tiny").exists() else ("other", "tiny")
    manage.rename(paths, old, new)
    manage.renamed(paths, new)


def images(paths: Paths) -> object:
    return sorted(path.name for path in paths.chroots.iterdir() if path.name[0] != ".")


def keys(paths: Paths) -> None:
    sshkeys.make_host_keys(paths, ["ed25519"])
    sshkeys.make_login(paths, "ed25519")


def keys_there(paths: Paths) -> object:
    login = paths.root / "root/.ssh"
    found = [paths.etc / "keys/ssh_host_ed25519_key", login / "id_ed25519", login / "authorized_keys"]
    assert all(file.read_bytes() for file in found if file.exists()), "one that is empty is never made again"
    return [file.exists() for file in found]


def noted_place(paths: Paths) -> None:
    mountpoints.note(paths.chroots / "tiny/rootfs", mountpoints.Place("/mnt"))


def noted(paths: Paths) -> object:
    file = paths.chroots / "tiny" / mountpoints.LIST
    return file.read_bytes() if file.exists() else b"[]"


WRITERS = {
    "image build": Writer(changed_image, served_image),
    "node set": Writer(changed_node, nodes),
    "overlay edit": Writer(changed_overlay, overlays),
    "overlay copied to the site": Writer(cloned_overlay, overlays),
    "image rename": Writer(renamed_image, images),
    "configure ssh": Writer(keys, keys_there),
    "mount points of exec": Writer(noted_place, noted),
}


@pytest.fixture
def site(paths: Paths) -> Paths:
    (tiny_image(paths) / "etc/extra").write_text("x")
    building.build(paths, "tiny")
    overlay(paths)
    paths.nodes_conf.write_text(NODES)
    return paths


def names(paths: Paths) -> set[str]:
    """Everything on the disk but locks, frames kept for the next build, and directories."""
    kept = (paths.run, paths.frames)
    found = (path for path in paths.root.rglob("*") if path.is_file() and not any(map(path.is_relative_to, kept)))
    return {str(path) for path in found if "lock" not in path.name} | {str(path) for path in paths.frames.glob("*.new")}


@pytest.mark.parametrize("code", [FULL, BROKEN])
@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS)
def test_writers_leave_what_was_there_and_nothing_else_wherever_the_disk_fails(
    site: Paths, monkeypatch: pytest.MonkeyPatch, writer: Writer, code: int
) -> None:
    disk = FaultyDisk(site.root, monkeypatch)
    failed = 0
    for point in range(MOST):
        was, files = writer.read(site), names(site)
        disk.fail(code, skip=point)
        try:
            writer.write(site)
            said = False
        except (WwfastError, OSError):
            said = True
        struck = disk.struck
        disk.heal()
        is_now = writer.read(site)
        if said and is_now == was:
            assert names(site) <= files, (point, names(site) - files)
        failed += said
        if not struck:
            assert not said
            break
    assert failed, "nothing of this writer was made to fail"
    writer.write(site)
    assert writer.read(site) is not None
