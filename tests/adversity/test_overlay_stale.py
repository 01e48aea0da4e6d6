"""Ways in which a file becomes another one that no event of its directory tells of: a server notices all the same."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.overlays import NODES, Oracle, Site
from wwfast.boot.resolve import Resolver
from wwfast.config.settings import load
from wwfast.daemon.boot.files import SiteFiles
from wwfast.images import building, store
from wwfast.images.kernels.store import KernelStore
from wwfast.paths import Paths
from wwfast.system import libc
from wwfast.system.watch import Watch

INCLUDE = "{{ id }}{{ include('sub/note') }}\n"
BIND = 0x1000
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
Steps = Iterator[str]


@pytest.fixture
def site(paths: Paths) -> Iterator[Site]:
    paths.overlay_cache.mkdir(parents=True)  # so that its coming is no news
    made = Site(paths)
    yield made
    made.service.close()


def note(site: Site, text: str = "1\n", *, template: str = INCLUDE) -> Path:
    site.put("base", "etc/made.j2", template)
    file = site.paths.etc / "sub/note"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    return file


def plain(site: Site) -> Path:
    return site.put("base", "etc/plain", "1\n")


@contextmanager
def bound(source: Path, target: Path) -> Iterator[None]:
    libc.mount(source, target, None, BIND)
    try:
        yield
    finally:
        libc.umount(target)


def made_again(site: Site, file: Path) -> Steps:
    """Often with the very inode, so that it looks as if it were watched already."""
    yield "as it is"
    shutil.rmtree(file.parent)
    file.parent.mkdir()
    file.write_text("2\n")
    yield "made again"
    time.sleep(0.03)
    file.write_text("3\n")
    yield "edited"
    file.unlink()
    yield "removed"


def by_another_name(site: Site, file: Path) -> Steps:
    other = site.paths.root / "other"
    other.hardlink_to(file)
    yield "as it is"
    other.write_text("22\n")
    yield "edited"
    file.unlink()
    file.write_text("3\n")
    other.write_text("4444\n")
    yield "another file"


def file_bound(site: Site, file: Path) -> Steps:
    other = site.paths.root / "other"
    other.write_text("0\n")
    with bound(other, file):
        yield "as it is"
        other.write_text("22\n")
        yield "edited where it comes from"
    yield "unmounted"


def mounted_over(site: Site, file: Path) -> Steps:
    yield "as it is"
    other = site.paths.root / "other"
    shutil.copytree(file.parent, other)
    (other / file.name).write_text("2\n")
    with bound(other, file.parent):
        yield "mounted"
        (other / file.name).write_text("333\n")
        yield "edited"
    yield "unmounted"


def renamed_far_above(site: Site, file: Path) -> Steps:
    yield "as it is"
    top = site.paths.state if file.is_relative_to(site.paths.state) else site.paths.etc
    shutil.copytree(top, top.with_name("next"))
    (top.with_name("next") / file.relative_to(top)).write_text("2\n")
    top.rename(top.with_name("former"))
    top.with_name("next").rename(top)
    yield "another one"
    file.write_text("333\n")
    yield "edited"


@pytest.mark.parametrize(
    ("way", "what"),
    [
        *((way, what) for way in (made_again, by_another_name, renamed_far_above) for what in (plain, note)),
        *(
            pytest.param(*each, marks=ROOT)
            for each in ((mounted_over, plain), (mounted_over, note), (file_bound, plain), (file_bound, note))
        ),
    ],
)
def test_overlay_file_that_becomes_another_one_is_never_stale(
    site: Site, way: Callable[[Site, Path], Steps], what: Callable[[Site], Path]
) -> None:
    oracle = Oracle(site)
    for step in way(site, what(site)):
        assert not oracle.differences(), step


@pytest.mark.parametrize("where", ["", "base", "base/rootfs"])
def test_overlay_behind_a_link_in_the_middle_of_its_way_is_that_of_the_link(site: Site, where: str) -> None:
    srv, oracle = site.paths.root / "srv", Oracle(site)
    for version in ("v1", "v2"):
        file = srv / version / "base/rootfs/etc/plain"
        file.parent.mkdir(parents=True)
        file.write_text(version)
    (srv / "current").symlink_to("v1")
    place = site.paths.site_overlays / where
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(srv / "current" / where)
    assert site.text("etc/plain") == "v1"
    for version in ("v2", "v1", "v2"):
        (srv / "new").symlink_to(version)
        (srv / "new").rename(srv / "current")
        assert not oracle.differences()
        assert site.text("etc/plain") == version


@pytest.mark.parametrize(
    "template",
    [
        "{{ id }}{{ 8 // (include('sub/note') | length - 1) }}\n",
        "{{ 8 // (include('sub/note') | length - 1) }}\n",
        "{% if include('sub/note') == '1' %}{{ import_link('/etc/localtime') }}{% endif %}\n",
    ],
    ids=["of one node", "of all", "a branch"],
)
def test_overlay_template_that_fails_over_a_file_is_well_when_that_is(site: Site, template: str) -> None:
    file, oracle = note(site, "1", template=template), Oracle(site)
    for text in ("1", "22", "1", "333"):
        file.write_text(text)
        assert not oracle.differences(), text
        assert (("n1", "system") in site.service.failures) == (text == "1")


def test_overlay_template_of_what_may_not_be_read_any_more_is_not_served_as_if_it_might(site: Site) -> None:
    (site.paths.root / "srv").mkdir()
    (site.paths.root / "srv/file").write_text("text")
    plainly = site.paths.conf.read_text()
    site.conf(plainly + "wwfast: {include: [/srv/file]}\n")
    site.service.close()
    site.new_service()
    site.put("base", "etc/made.j2", "{{ id }}{{ include('/srv/file') }}\n")
    oracle = Oracle(site)
    assert not oracle.differences()
    site.conf(plainly)
    site.service.reconfigure(load(site.paths))
    assert not oracle.differences()
    assert "may not read /srv/file" in site.service.failures["n1", "system"].message


def test_overlay_files_that_are_rendered_when_asked_for_read_what_they_include_each_time(site: Site) -> None:
    file = note(site)
    template = site.paths.warewulf_files / "x.j2"
    template.parent.mkdir(parents=True)
    template.write_text(INCLUDE)
    for text in ("1", "22", "333"):
        file.write_text(text)
        assert site.service.render_file(site.snapshot, site.node(), "x.j2") == f"n1{text}\n".encode()


def test_overlay_image_of_the_same_name_elsewhere_takes_the_place(site: Site) -> None:
    site.put("base", "etc/made.j2", "{{ id }}{{ include_from('one', 'etc/x') }}\n")
    oracle = Oracle(site)
    tops = site.paths.warewulf_chroots, site.paths.chroots
    for top in tops:
        (top / "another/rootfs").mkdir(parents=True)
    assert not oracle.differences()
    for top in tops:
        (top / "one/rootfs/etc").mkdir(parents=True)
        (top / "one/rootfs/etc/x").write_text(str(top))
        assert not oracle.differences()
    for top in reversed(tops):
        shutil.rmtree(top / "one")
        assert not oracle.differences()


def test_image_that_is_made_again_under_the_id_of_a_former_build_is_itself(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock was set back, or it all happened within a second."""
    monkeypatch.setattr(building, "_new_id", lambda _place: "20260101-000000")
    site.put("base", "etc/made.j2", "{{ id }}{{ kernel.version }}\n")
    site.nodes(NODES.replace("    system", "    image name: one\n    system"))
    oracle, images, digests = Oracle(site), store.ImageStore(site.paths), set()
    for version in ("6.1.0", "6.2.0"):
        rootfs = site.paths.chroots / "one/rootfs"
        for name in ("bin/sh", f"boot/vmlinuz-{version}"):
            (rootfs / name).parent.mkdir(parents=True)
            (rootfs / name).write_text(version)
        building.build(site.paths, "one")
        image = images.get("one")
        assert [kernel.version for kernel in image.kernels()] == [version]
        artefact = image.artefact("gz")
        assert artefact is not None
        digests.add(artefact.digest)
        assert not oracle.differences()
        shutil.rmtree(rootfs.parent)
        shutil.rmtree(site.paths.images / "one")
        assert not oracle.differences()
    assert len(digests) == 2


def test_boot_script_that_is_written_by_another_name_is_taken_in(site: Site) -> None:
    folder, other = site.paths.etc / "ipxe", site.paths.root / "other"
    folder.mkdir()
    other.write_text("#!ipxe\n")
    (folder / "mine.ipxe.j2").hardlink_to(other)
    resolver, watch = Resolver(site.paths), Watch()

    def look() -> bool:
        happened = watch.changed()
        for place, contents in resolver.places(site.snapshot):
            happened |= watch.add([place], contents=contents)
        resolver.resolve(site.snapshot)
        return happened

    assert look()
    look()
    assert not look()
    other.write_text("#!ipxe\nshell\n")
    assert look()
    watch.close()


def test_kernel_whose_files_change_by_hand_is_what_is_there(site: Site) -> None:
    boot = site.paths.kernels / "mine/rootfs/boot"
    boot.mkdir(parents=True)
    kernels = KernelStore(site.paths)
    for version in ("6.1.0", "6.2.0"):
        (boot / f"vmlinuz-{version}").write_text(version)
        assert version in {kernel.version for kernel in kernels.get("mine").found}


def test_http_file_that_keeps_its_size_and_time_has_another_etag(site: Site) -> None:
    """As `cp -p` and `rsync -t` keep it: who asks whether his is still right is not told so."""
    file = site.paths.warewulf_files / "x"
    file.parent.mkdir(parents=True)
    files, found = SiteFiles(file.parent, secure=False), set()
    for text in ("1", "2", "3"):
        file.write_text(text)
        os.utime(file, (10**9, 10**9))
        artefact = files.find("x")
        assert artefact is not None
        found.add(artefact.digest)
        time.sleep(0.01)
    assert len(found) == 3
