"""Changes are noticed by inotify, and by looking again where inotify says nothing."""

from __future__ import annotations

import os
import select
import time
import tracemalloc
from contextlib import closing
from pathlib import Path

import pytest

from support import leaks
from wwfast.system import libc
from wwfast.system.run import run
from wwfast.system.watch import POLL, Watch, existing
from wwfast.system.within import trail


def test_watch_says_at_once_what_happened_on_a_local_disk(tmp_path: Path) -> None:
    watch = Watch()
    watch.add([tmp_path])
    assert not watch.changed()
    (tmp_path / "new").touch()
    assert watch.changed()
    assert not watch.changed()
    watch.close()


def test_watch_hears_nothing_of_who_only_reads(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    watch = Watch()
    watch.add([tmp_path])
    assert [each.read_text() for each in tmp_path.iterdir()] == ["text"]
    assert not watch.changed(), "or who looks what has changed would wake himself for ever"
    watch.close()


def test_watch_looks_again_and_again_where_the_kernel_tells_nothing() -> None:
    watch = Watch()
    watch.add(["/proc/self"])  # no local file system: others may change it
    for _ in range(3):
        began = time.monotonic()
        while not watch.changed():
            assert time.monotonic() < began + 20 * POLL
            time.sleep(POLL / 50)
        assert not watch.changed()
    watch.close()


def test_watch_of_names_hears_of_no_content_until_it_is_asked_to(tmp_path: Path) -> None:
    watch, file = Watch(), tmp_path / "file"
    file.write_text("old")
    assert watch.add([tmp_path], contents=False)
    assert not watch.add([tmp_path], contents=False)
    file.write_text("new")
    assert not watch.changed()
    file.rename(tmp_path / "other")
    assert watch.changed()
    assert watch.add([tmp_path]), "contents were not watched yet"
    assert not watch.add([tmp_path], contents=False), "more than that is watched"
    (tmp_path / "other").write_text("newer")
    assert watch.changed()
    watch.close()


def test_watch_waiting_takes_nothing_and_a_closed_one_hears_nothing(tmp_path: Path) -> None:
    watch = Watch()
    watch.add([tmp_path])
    assert not watch.waiting()
    (tmp_path / "new").touch()
    assert select.select([watch.fileno()], [], [], 0)[0]
    assert watch.waiting()
    assert watch.waiting()
    assert watch.changed()
    assert not watch.waiting()
    (tmp_path / "newer").touch()
    watch.close()
    watch.close()
    assert watch.fileno() == -1
    assert not watch.waiting()
    assert not watch.changed()


def test_watch_of_a_directory_that_was_made_again_begins_again(tmp_path: Path) -> None:
    watch, place, stays = Watch(), tmp_path / "place", tmp_path / "stays"
    assert not watch.add([place]), "there is none yet"
    place.mkdir()
    stays.mkdir()
    assert watch.add([stays, place])
    place.rename(tmp_path / "gone")
    place.mkdir()
    assert watch.changed()
    assert watch.add([place])
    assert not watch.add([stays])
    (place / "new").touch()
    assert watch.changed()
    watch.close()


def test_watch_of_a_directory_that_was_made_again_with_its_inode_begins_again(tmp_path: Path) -> None:
    watch, place = Watch(), tmp_path / "place"
    watch.add([tmp_path])
    for _ in range(5):  # ext4 gives the number that became free last
        place.mkdir()
        assert watch.changed()
        assert watch.add([place])
        (place / "file").touch()
        assert watch.changed()
        (place / "file").unlink()
        place.rmdir()
        assert watch.changed()
    watch.close()


def test_watch_forgets_what_is_gone(tmp_path: Path) -> None:
    watch, places = Watch(), [f"{tmp_path}/one of many places that come once {number}" for number in range(2000)]
    watch.add([tmp_path], contents=False)
    tracemalloc.start()
    try:
        for some in (places[:100], places):  # the first to have seen what it takes at all
            before = tracemalloc.get_traced_memory()[0]
            for place in some:
                os.mkdir(place)  # noqa: PTH102 - no object is to stay
                assert watch.add([place])
                os.rmdir(place)  # noqa: PTH106
            assert watch.changed()
        assert tracemalloc.get_traced_memory()[0] - before < 100 * len(places)
    finally:
        tracemalloc.stop()
    assert not watch.add([tmp_path], contents=False), "and nothing else"
    watch.close()


def test_watch_of_a_file_hears_what_is_written_by_its_other_names(tmp_path: Path) -> None:
    watch, file, other = Watch(), tmp_path / "place/file", tmp_path / "other"
    file.parent.mkdir()
    file.write_text("1")
    other.hardlink_to(file)
    assert watch.add([file])
    assert not watch.waiting(), "nobody is to look every second"
    other.write_text("2")
    assert watch.changed()
    watch.close()


def test_watch_of_a_way_hears_of_links_and_of_directories_that_are_renamed_and_of_nothing_else(tmp_path: Path) -> None:
    watch, link, fresh = Watch(), tmp_path / "link", tmp_path / "fresh"
    for version in ("v1", "v2"):
        (tmp_path / version / "deep/place").mkdir(parents=True)
    link.symlink_to("v1")
    assert watch.follow([link / "deep/place"])
    assert not watch.follow([link / "deep/place"])
    (link / "deep/place/file").touch()
    (tmp_path / "beside").touch()
    assert not watch.changed()
    fresh.symlink_to("v2")
    fresh.rename(link)
    assert watch.changed()
    assert watch.follow([link / "deep/place"])
    (tmp_path / "v2").rename(tmp_path / "v3")
    assert watch.changed()
    watch.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
def test_watch_hears_of_what_is_mounted(tmp_path: Path) -> None:
    watch, place, beside = Watch(), tmp_path / "a b/place", tmp_path / "beside"
    place.mkdir(parents=True)
    beside.mkdir()
    watch.add([place])
    for over, told in ((place.parent, True), (place, True), (beside, False)):
        libc.mount(over, over, None, 0x1000)
        try:
            assert watch.waiting()
            assert watch.waiting(), "asking takes nothing"
            assert watch.changed() == told
            assert not watch.changed()
        finally:
            libc.umount(over)
        assert watch.changed() == told
    watch.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
def test_watch_here_hears_nothing_of_what_other_programs_mount(tmp_path: Path) -> None:
    """Else any test that asks whether there is news would fail beside one that mounts (`conftest.py`)."""
    with closing(Watch()) as watch:
        watch.add([tmp_path])
        theirs = ["nsenter", "--target", str(os.getppid()), "--mount", "--root"]
        run([*theirs, "mount", "-t", "tmpfs", "none", tmp_path])
        try:
            assert not watch.waiting()
        finally:
            run([*theirs, "umount", tmp_path])


def test_watch_without_inotify_looks_for_itself(tmp_path: Path) -> None:
    with leaks.descriptors_at_most(0):
        watch = Watch()
    assert watch.fileno() == -1
    assert watch.add([tmp_path])
    assert watch.waiting()
    assert watch.changed()
    assert not watch.waiting()
    assert not watch.changed(), "a second has not passed"
    watch.close()


def test_watch_without_inotify_sees_that_a_link_leads_to_another_directory_now(tmp_path: Path) -> None:
    place, link = tmp_path / "place", tmp_path / "link"
    place.mkdir()
    link.symlink_to("place")
    with leaks.descriptors_at_most(0):
        watch = Watch()
    assert watch.add([link])
    assert not watch.add([link])
    place.rename(tmp_path / "former")
    place.mkdir()
    assert watch.add([link])
    watch.close()


def test_watch_finds_the_directory_in_which_another_will_come(tmp_path: Path) -> None:
    assert existing(tmp_path) == tmp_path
    assert existing(tmp_path / "a/b/c") == tmp_path
    (tmp_path / "a").touch()
    assert existing(tmp_path / "a/b") == tmp_path
    assert existing(Path("/nonexistent/at/all")) == Path("/")


def test_watch_trail_goes_where_the_links_of_a_root_lead(tmp_path: Path) -> None:
    (tmp_path / "usr/lib/os").mkdir(parents=True)
    (tmp_path / "usr/lib/os/release").touch()
    (tmp_path / "etc").mkdir()
    (tmp_path / "lib").symlink_to("usr/lib")
    (tmp_path / "etc/release").symlink_to("../lib/os/./release")
    (tmp_path / "etc/whole").symlink_to("/lib/os/release")
    (tmp_path / "etc/out").symlink_to("../../../lib/os/release")

    def names(of: str) -> list[str]:
        return [place.removeprefix(str(tmp_path)) for place in trail(tmp_path, of)]

    behind = ["", "", "/usr", "/usr/lib", "/usr/lib/os"]  # lib is looked up in the root, then usr
    for link in ("release", "whole", "out"):
        assert names(f"etc/{link}") == ["", "/etc", *behind]
    assert names("etc/missing/file") == ["", "/etc"], "what comes would come there"
    assert names("/usr//lib/./os/../os") == ["", "/usr", "/usr/lib", "/usr/lib"]


def test_watch_trail_follows_forty_links_as_the_kernel_does(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    for number in range(1, 43):
        (tmp_path / str(number)).symlink_to(str(number - 1))
    assert list(trail(tmp_path, "40/file"))[-1] == f"{tmp_path}/0"
    assert f"{tmp_path}/0" not in trail(tmp_path, "41/file")
    (tmp_path / "round").symlink_to("round")
    assert len(list(trail(tmp_path, "round"))) == 41
