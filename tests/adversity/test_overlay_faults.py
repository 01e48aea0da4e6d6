"""Overlays while many ask, while files are edited, and when a build is killed."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.overlays import Site, body, unpack
from wwfast.config.settings import load
from wwfast.overlays.service import OverlayService
from wwfast.paths import Paths
from wwfast.run import start

COUNT = 100


@pytest.fixture
def site(paths: Paths) -> Site:
    nodes = "nodes:\n" + "".join(
        f"  n{n:03d}: {{system overlay: [base], runtime overlay: [base], tags: {{rack: r{n % 4}}}}}\n"
        for n in range(COUNT)
    )
    made = Site(paths, nodes=nodes)
    made.put("base", "etc/version.j2", "0 {{ id }}\n")
    made.put("base", "etc/rack.j2", "0 {{ tags.rack }}\n")
    made.put("base", "etc/static", "0\n")
    return made


def asked(site: Site, name: str) -> bytes:
    """As the daemon asks: without waiting if it can, else for sure."""
    return body(site.peek(name) or site.ask(name))


def test_overlay_storm_right_after_an_edit_is_all_fresh_and_built_once(site: Site) -> None:
    names = list(site.snapshot.nodes)
    site.service.build(site.snapshot)
    with ThreadPoolExecutor(16) as pool:
        for n in range(1, 6):
            site.put("base", "etc/version.j2", f"{n} {{{{ id }}}}\n")
            made = site.service._builder.made
            for name, raw in zip(names, pool.map(lambda name: asked(site, name), names), strict=True):
                assert f"{n} {name}\n".encode() in raw
            assert site.service._builder.made - made == COUNT


def test_overlay_hundred_ask_for_one_node_and_it_is_built_once(site: Site) -> None:
    barrier = threading.Barrier(100)

    def ask(_: int) -> bytes:
        barrier.wait()
        return asked(site, "n001")

    with ThreadPoolExecutor(100) as pool:
        assert len(set(pool.map(ask, range(100)))) == 1
    assert site.service._builder.made == 3  # static files, its rack, itself


def test_overlay_edited_while_it_is_built_is_never_mixed(site: Site, tmp_path: Path) -> None:
    """Every answer is one of the states the files were in at some moment since the question."""
    stop = threading.Event()
    current = [0]

    def edit() -> None:
        n = 0
        while not stop.is_set():
            n += 1
            for name in ("static", "rack.j2", "version.j2"):
                work = site.paths.root / "work"
                tail = {"static": "", "rack.j2": " {{ tags.rack }}", "version.j2": " {{ id }}"}[name]
                work.write_text(f"{n}{tail}\n")
                work.rename(site.paths.site_overlays / "base/rootfs/etc" / name)
            current[0] = n
            time.sleep(0.005)

    editor = threading.Thread(target=edit)
    editor.start()
    try:
        for n in range(60):
            before = current[0]
            files = unpack(asked(site, f"n{n:03d}"), tmp_path / "unpacked")
            after = current[0] + 1
            for path in ("etc/static", "etc/rack", "etc/version"):
                assert before <= int(files[path].split()[0]) <= after, path
    finally:
        stop.set()
        editor.join()
    for name in ("static", "rack.j2", "version.j2"):
        tail = {"static": "", "rack.j2": " {{ tags.rack }}", "version.j2": " {{ id }}"}[name]
        site.put("base", f"etc/{name}", f"last{tail}\n")
    assert site.unpacked("n000") == {"etc/static": b"last\n", "etc/rack": b"last r0\n", "etc/version": b"last n000\n"}


def test_overlay_build_survives_kill_9(site: Site) -> None:
    """Killed anywhere, what the next process serves is right; nothing half is ever taken from the packs."""
    good = {name: body(site.ask(name)) for name in site.snapshot.nodes}
    site.service.close()
    chance = random.Random(7)
    command = [sys.executable, "-m", "wwfast", "--root", str(site.paths.root), "overlay", "build", "--workers", "2"]
    for pack in site.paths.overlay_cache.iterdir():
        pack.unlink()
    for _ in range(6):
        process = start(command, stdout=None, stderr=None)
        time.sleep(0.25 + chance.random() * 0.5)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        site.new_service()
        for name in chance.sample(sorted(good), 10):
            assert body(site.ask(name)) == good[name]
        site.service.close()


def test_overlay_torn_pack_ends_where_it_is_torn(site: Site) -> None:
    site.service.build(site.snapshot)
    good = {name: body(site.ask(name)) for name in site.snapshot.nodes}
    site.service.close()
    (pack,) = site.paths.overlay_cache.iterdir()
    data = pack.read_bytes()
    for length in (0, 30, len(data) // 3, len(data) - 1):
        pack.write_bytes(data[:length])
        for other in site.paths.overlay_cache.iterdir():
            if other != pack:
                other.unlink()
        site.new_service()
        assert {name: body(site.ask(name)) for name in ("n000", "n050", "n099")} == {
            name: good[name] for name in ("n000", "n050", "n099")
        }
        site.service.close()


@pytest.fixture
def wasteful(site: Site) -> Site:
    """Every node was built three times; the packs have been left alone for long."""
    for n in range(3):
        site.put("base", "etc/version.j2", f"{n} {{{{ id }}}}\n")
        site.service.build(site.snapshot)
    site.service.close()
    age(site)
    site.new_service()
    return site


def age(site: Site, suffix: str = "") -> None:
    for pack in site.paths.overlay_cache.glob(f"*{suffix}"):
        os.utime(pack, (1, 1))


def test_overlay_compaction_keeps_what_nodes_have(wasteful: Site) -> None:
    site = wasteful
    given = site.ask("n000")
    good = body(given)
    before = sum(pack.stat().st_size for pack in site.paths.overlay_cache.iterdir())
    freed = site.service.tend(anyway=True)
    assert 0 < site.service._builder.packs.size() < freed <= before
    assert body(given) == good, "a transfer may begin a little later"
    now = site.ask("n000")
    assert (body(now), now.etag) == (good, given.etag)
    assert {extent.path for extent in now.extents}.isdisjoint(extent.path for extent in given.extents)
    age(site, ".old")
    site.service.tend()
    assert sum(pack.stat().st_size for pack in site.paths.overlay_cache.iterdir()) < before
    assert not list(site.paths.overlay_cache.glob("*.old"))
    assert body(now) == body(site.ask("n000")) == good
    site.new_service()
    assert body(site.ask("n099")).count(b"2 n099\n") == 1
    assert site.service._builder.runs == 0, "what was copied is found by its key"


def test_overlay_compaction_by_another_process_is_noticed(wasteful: Site) -> None:
    site = wasteful
    good = {name: body(site.ask(name)) for name in ("n000", "n050")}
    age(site)
    first, other = site.service, site.new_service()
    assert other.tend(anyway=True) > 0
    other.close()
    site.service = first
    first.tend()
    age(site, ".old")
    site.new_service().tend()
    site.service = first
    for name, was in good.items():
        assert body(site.ask(name)) == was


def test_overlay_compaction_waits_for_others_that_write(wasteful: Site) -> None:
    """A build under way began its pack before ours: what it says last must win after a restart, too."""
    site, builder = wasteful, OverlayService(wasteful.paths, load(wasteful.paths))
    site.put("base", "etc/version.j2", "new {{ id }}\n")
    builder.build(site.snapshot, [site.node("n000")])
    before = sorted(site.paths.overlay_cache.iterdir())
    assert site.service.tend(anyway=True) == 0
    assert sorted(site.paths.overlay_cache.iterdir()) == before
    builder.close()


def test_overlay_last_good_one_outlives_compaction_and_restart(wasteful: Site) -> None:
    site = wasteful
    good = body(site.ask("n000"))
    assert site.service.tend(anyway=True) > 0
    age(site, ".old")
    site.service.tend()
    site.put("base", "etc/version.j2", "{{ nothing_of_that_name }}\n")
    site.new_service()
    assert body(site.ask("n000")) == good
