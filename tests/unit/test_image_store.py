"""Images as the server sees them: builds published whole, kept, pinned, rolled back; kernels beside them."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from support.oci import small_tree
from wwfast.errors import NotFoundError, UsageError, WwfastError
from wwfast.images import building, manage
from wwfast.images.kernels import store
from wwfast.images.kernels.modules import gather
from wwfast.images.kernels.store import KernelStore, for_node
from wwfast.images.sources.importing import default_name, import_image
from wwfast.images.sources.options import Options
from wwfast.images.store import Image, ImageStore
from wwfast.nodes.model import Kernel, Node
from wwfast.paths import Paths
from wwfast.system import locks, work

PLAIN = Options()


@pytest.fixture
def image(paths: Paths, tmp_path: Path) -> Image:
    return import_image(paths, str(small_tree(tmp_path / "source")), "deb", PLAIN)


def rebuild(paths: Paths, image: Image, text: str, **how: object) -> str:
    (image.rootfs / "etc/motd").write_text(text)
    made, changed = building.build(paths, "deb", building.How(**how))  # type: ignore[arg-type]
    assert changed
    return made.id


def node(image: str = "", version: str = "", override: str = "") -> Node:
    return Node(id="n1", image_name=image, kernel=Kernel(version=version, override=override))


def test_image_is_built_in_the_format_its_kernel_unpacks(paths: Paths, image: Image) -> None:
    assert image.boot_format == "zst"
    assert image.artefact("zst") is None
    assert image.min_ram == 0
    made, changed = building.build(paths, "deb")
    assert changed
    built = ImageStore(paths).get("deb")
    artefact = built.artefact("zst")
    assert artefact is not None
    assert artefact.name == "deb.img.zst"
    assert built.artefact("gz") is None
    assert built.min_ram > artefact.size
    assert built.arch == "amd64"
    (image.rootfs / "boot/config-6.1.0-9-test").write_text("# CONFIG_RD_ZSTD is not set\n")
    building.build(paths, "deb")
    again = ImageStore(paths).get("deb")
    assert again.boot_format == "gz"
    assert again.artefact("gz") is not None
    assert made.artefact("zst") == artefact, "a build never changes"


def test_image_without_a_change_keeps_its_build(paths: Paths, image: Image) -> None:
    first, _ = building.build(paths, "deb")
    assert building.build(paths, "deb") == (first, False)
    forced, changed = building.build(paths, "deb", building.How(force=True))
    assert changed
    assert forced.id > first.id
    more, changed = building.build(paths, "deb", building.How(formats=("zst", "gz")))
    assert changed, "a format that was not there is made"
    assert more.artefact("gz") is not None


def test_image_build_keeps_predecessors_but_only_some_and_all_in_use(paths: Paths, image: Image) -> None:
    ids = [rebuild(paths, image, str(n)) for n in range(3)]
    pinned = f"deb@{ids[0]}"
    ids += [rebuild(paths, image, str(n), in_use=[pinned, "other@x"]) for n in range(3, 9)]
    store = ImageStore(paths)
    assert [build.id for build in store.builds("deb")] == [ids[0], *ids[-1 - building.KEEP :]]
    assert store.get("deb").artefact("zst") != store.get(pinned).artefact("zst")
    assert store.get(pinned).reference == pinned


def test_image_rollback_serves_the_build_before_with_its_kernels(paths: Paths, image: Image) -> None:
    first = rebuild(paths, image, "one")
    os.rename(image.rootfs / "boot/vmlinuz-6.1.0-9-test", image.rootfs / "boot/vmlinuz-6.1.0-10-test")  # noqa: PTH104
    second = rebuild(paths, image, "two")
    store = ImageStore(paths)
    assert [k.version for k in store.get("deb").kernels()] == ["6.1.0-10"]
    assert building.rollback(paths, "deb").id == first
    rolled = store.get("deb")
    assert rolled.build is not None
    assert rolled.build.id == first
    assert [k.version for k in rolled.kernels()] == ["6.1.0-9"]
    assert rolled.kernels()[0].file.read_bytes()
    assert building.rollback(paths, "deb", second).id == second
    with pytest.raises(NotFoundError):
        building.rollback(paths, "deb", "nonsense")


def test_image_names_that_could_lead_elsewhere_are_refused(paths: Paths, image: Image) -> None:
    store = ImageStore(paths)
    for name in ("..", ".", ".work-x", "a/b", "", "a b", "../deb"):
        with pytest.raises(WwfastError):
            store.get(name)
    with pytest.raises(NotFoundError, match="no build"):
        store.get("deb@../../etc")
    with pytest.raises(NotFoundError) as caught:
        store.get("nothere")
    assert "deb" in (caught.value.hint or "")


def test_image_of_an_existing_warewulf_is_read_and_never_written(paths: Paths, tmp_path: Path) -> None:
    old = paths.warewulf_chroots / "rocky/rootfs"
    old.parent.mkdir(parents=True)
    small_tree(old)
    before = sorted(str(path) for path in paths.warewulf_chroots.rglob("*"))
    building.build(paths, "rocky")
    image = ImageStore(paths).get("rocky")
    assert image.artefact("zst") is not None
    assert image.readonly
    with pytest.raises(WwfastError, match="only read"):
        manage.delete(paths, "rocky")
    assert sorted(str(path) for path in paths.warewulf_chroots.rglob("*")) == before
    manage.copy(paths, "rocky", "mine")
    assert not ImageStore(paths).get("mine").readonly


def test_image_import_refuses_what_is_no_root_file_system(paths: Paths, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(WwfastError, match="/bin/sh"):
        import_image(paths, str(tmp_path / "empty"), "x", PLAIN)
    (tmp_path / "file").write_bytes(b"no archive at all" * 100)
    with pytest.raises(WwfastError):
        import_image(paths, str(tmp_path / "file"), "x", PLAIN)
    with pytest.raises(NotFoundError):
        import_image(paths, str(tmp_path / "nothing"), "x", PLAIN)
    assert ImageStore(paths).names() == []
    assert list(paths.chroots.iterdir()) == []


def test_image_import_keeps_the_old_image_until_the_new_is_whole(paths: Paths, image: Image, tmp_path: Path) -> None:
    other = small_tree(tmp_path / "other")
    (other / "etc/other").write_text("x")
    with pytest.raises(WwfastError, match="already"):
        import_image(paths, str(other), "deb", PLAIN)
    with pytest.raises(UsageError):
        import_image(paths, str(other), "deb", PLAIN, force=True, update=True)
    (tmp_path / "empty").mkdir()
    for flag in ("force", "update"):
        with pytest.raises(WwfastError):
            import_image(paths, str(tmp_path / "empty"), "deb", PLAIN, **{flag: True})
        assert (image.rootfs / "etc/passwd").exists()
    import_image(paths, str(other), "deb", PLAIN, force=True)
    assert (image.rootfs / "etc/other").exists()


def test_image_update_unpacks_over_what_is_there(paths: Paths, image: Image, tmp_path: Path) -> None:
    (image.rootfs / "etc/mine").write_text("kept")
    (image.rootfs.parent / "readonly").touch()
    other = small_tree(tmp_path / "other")
    (other / "etc/other").write_text("new")
    import_image(paths, str(other), "deb", PLAIN, update=True)
    assert ((image.rootfs / "etc/mine").read_text(), (image.rootfs / "etc/other").read_text()) == ("kept", "new")
    assert ImageStore(paths).get("deb").readonly


def test_image_import_gives_the_mount_points_that_are_missing(paths: Paths, tmp_path: Path) -> None:
    tree = small_tree(tmp_path / "source")
    for name in ("proc", "sys", "run"):
        (tree / name).rmdir()
    image = import_image(paths, str(tree), "x", PLAIN)
    assert all((image.rootfs / name).is_dir() for name in ("proc", "sys", "run", "dev"))


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("docker://ghcr.io/warewulf/warewulf-rockylinux:9", "warewulf-rockylinux:9"),
        ("docker://host:5000/image@sha256:0123", "image"),
        ("/srv/images/rocky9.tar.gz", "rocky9"),
        ("file:///srv/x.tar", "x"),
        ("/srv/tree/", "tree"),
        ("debian:bookworm", "bookworm"),
    ],
)
def test_image_default_name(source: str, name: str) -> None:
    assert default_name(source) == name


def test_image_in_use_is_named_with_who_uses_it(paths: Paths, image: Image) -> None:
    with locks.locked(paths.run / "images", "deb", "image shell"):
        for step in (lambda: building.build(paths, "deb"), lambda: manage.delete(paths, "deb")):
            with pytest.raises(WwfastError, match=rf"image shell \(process {os.getpid()}\)"):
                step()
    building.build(paths, "deb")


def test_image_delete_works_without_a_build_and_refuses_with_users(paths: Paths, image: Image) -> None:
    with pytest.raises(WwfastError, match="n1"):
        manage.delete(paths, "deb", used_by=["n1"])
    manage.delete(paths, "deb")
    assert ImageStore(paths).names() == []
    assert list(paths.chroots.iterdir()) == []


def test_image_copy_and_rename(paths: Paths, image: Image) -> None:
    building.build(paths, "deb")
    manage.copy(paths, "deb", "copy")
    with pytest.raises(WwfastError, match="already"):
        manage.rename(paths, "deb", "copy")
    manage.rename(paths, "deb", "new")
    store = ImageStore(paths)
    assert store.names() == ["copy", "new"]
    assert store.get("new").artefact("zst") is not None
    assert store.get("copy").artefact("zst") is None


def test_image_damage_is_found(paths: Paths, image: Image) -> None:
    made, _ = building.build(paths, "deb")
    assert made.damage() is None
    artefact = made.artefact("zst")
    assert artefact is not None
    extent = max(artefact.extents, key=lambda extent: extent.length)
    with open(extent.path, "r+b") as file:  # noqa: PTH123
        file.seek(extent.offset + extent.length // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    assert made.damage() is not None


def test_kernel_of_a_node_comes_from_its_image(paths: Paths, image: Image) -> None:
    building.build(paths, "deb")
    images, store = ImageStore(paths), KernelStore(paths)
    found = for_node(node("deb"), images, store)
    assert (found.version, found.boot_format, found.kmods("zst")) == ("6.1.0-9-test", "zst", None)
    assert found.artefact.size == 3000
    assert for_node(node("deb", "6.1"), images, store).artefact is found.artefact, "the digest is computed once"
    with pytest.raises(NotFoundError, match="/usr/bin/su is in the tree of image deb, not in the build that is served"):
        for_node(node("deb", "/usr/bin/su"), images, store)
    outside = "/../../../../../../etc/passwd"
    building.build(paths, "deb", building.How(boots={"/usr/bin/su", outside}, force=True))
    assert for_node(node("deb", "/usr/bin/su"), images, store).artefact.size == 4000
    own = for_node(node("deb", outside), images, store)
    assert for_node(node("deb"), images, store).version == "6.1.0-9-test", "those who name none do not get it"
    served = Path(own.artefact.extents[0].path)
    assert served.is_relative_to(paths.images), "a build has all that its nodes boot"
    assert served.read_bytes() == (image.rootfs / "etc/passwd").read_bytes(), "never the server's file"
    for wrong in (node("deb", "9.9"), node("deb", "/etc"), node(), node("gone")):
        with pytest.raises(NotFoundError):
            for_node(wrong, images, store)


def test_kernel_imported_brings_its_modules_in_a_stage_of_its_own(paths: Paths, image: Image) -> None:
    modules = image.rootfs / "usr/lib/modules/6.1.0-9-test"
    (modules / "kernel").mkdir()
    (modules / "kernel/driver.ko").write_bytes(b"\x7fELF no real module")
    (modules / "modules.dep").write_text("kernel/driver.ko:\n")
    store = KernelStore(paths)
    entry = store.import_("deb", "lts")
    assert store.names() == ["lts"]
    assert [k.version for k in entry.found] == ["6.1.0-9"]
    found = for_node(node("", override="lts"), ImageStore(paths), store)
    assert found.version == "6.1.0-9-test"
    for fmt in ("zst", "gz"):
        kmods = found.kmods(fmt)
        assert kmods is not None
        assert kmods.size > 0
    with pytest.raises(WwfastError, match="already"):
        store.import_("deb", "lts")
    store.import_(str(image.rootfs), "lts", force=True)
    with pytest.raises(WwfastError, match="n1"):
        store.delete("lts", ["n1"])
    store.delete("lts")
    assert store.names() == []
    with pytest.raises(NotFoundError):
        for_node(node("deb", override="lts"), ImageStore(paths), store)
    with pytest.raises(NotFoundError):
        store.import_("deb", "rt", version="9.9")


def test_kernel_modules_are_packed_without_an_entry_for_lib(paths: Paths, image: Image, tmp_path: Path) -> None:
    from wwfast.system.run import run

    (image.rootfs / "usr/lib/modules/6.1.0-9-test/modules.builtin").write_text("")
    entry = KernelStore(paths).import_("deb", "lts")
    kmods = entry.kmods("gz")
    assert kmods is not None
    packed = b"".join(
        Path(extent.path).read_bytes()[extent.offset : extent.offset + extent.length] for extent in kmods.extents
    )
    names = run(["sh", "-c", "gzip -dc | cpio --quiet -t"], input=packed).stdout.decode().split()
    assert "lib" not in names
    assert "lib/modules" in names
    assert "lib/modules/6.1.0-9-test/modules.builtin" in names


def test_kernel_import_follows_links_of_modules_inside_the_image_and_never_strips_the_servers(
    paths: Paths, image: Image, tmp_path: Path
) -> None:
    """RHEL's weak-updates lend modules of other kernels; an absolute link would reach those of the server."""
    host = tmp_path / "host.ko"
    host.write_bytes(b"a module of the server")
    other, own = (image.rootfs / "usr/lib/modules" / release for release in ("6.1.0-1-test", "6.1.0-9-test"))
    for name in (other / "extra/lent.ko", own / "kernel/own.ko"):
        name.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(sys.executable, name)  # what strip can work on
    (own / "weak-updates").mkdir()
    (own / "weak-updates/lent.ko").symlink_to("/lib/modules/6.1.0-1-test/extra/lent.ko")
    (own / "weak-updates/host.ko").symlink_to(host)
    (own / "weak-updates/own.ko").symlink_to("../kernel/own.ko")
    (own / "weak-updates/same.ko").symlink_to("/lib/modules/6.1.0-9-test/kernel/own.ko")
    (own / "weak-updates/up.ko").symlink_to("../" * 40 + "lib/modules/6.1.0-9-test/kernel/own.ko")
    (own / "way").symlink_to("/lib/modules/6.1.0-9-test/kernel")
    (own / "weak-updates/way.ko").symlink_to("../way/own.ko")
    (own / "build/include").mkdir(parents=True)
    files = ("kernel/own.ko", *(f"weak-updates/{name}.ko" for name in ("lent", "own", "same", "up", "way")))
    (own / "modules.dep").write_text("".join(f"{name}:\n" for name in files))
    tree = tmp_path / "gathered"
    gather(image.rootfs, "6.1.0-9-test", tree, strip=True)
    weak = tree / "lib/modules/6.1.0-9-test/weak-updates"
    assert host.read_bytes() == b"a module of the server"
    assert sorted(file.name for file in weak.iterdir()) == ["lent.ko", "own.ko", "same.ko", "up.ko", "way.ko"]
    assert [file.name for file in weak.iterdir() if file.is_symlink()] == ["own.ko"]
    assert not (weak.parent / "build").exists()
    assert (weak / "own.ko").is_symlink()
    assert (other / "extra/lent.ko").read_bytes() == Path(sys.executable).read_bytes(), "the image stays as it is"


def test_kernel_artefact_changes_with_the_file(tmp_path: Path) -> None:
    file = tmp_path / "vmlinuz"
    file.write_bytes(b"one")
    first = store.kernel_artefact(file)
    assert store.kernel_artefact(file) is first
    file.write_bytes(b"two")
    os.utime(file, ns=(1, 1))
    assert store.kernel_artefact(file).digest != first.digest


def test_image_work_of_a_killed_process_is_swept(tmp_path: Path) -> None:
    left = tmp_path / f"{work.PREFIX}left"
    (left / "deep").mkdir(parents=True)
    with work.directory(tmp_path) as mine:
        assert not left.exists()
        with work.directory(tmp_path) as other:
            assert mine.exists()
            assert other.exists()
    assert list(tmp_path.iterdir()) == []
