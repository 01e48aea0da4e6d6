"""Overlays while many ask, while files are edited, and when a build is killed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.overlays import NODES, Site, body, kept, unpack
from wwfast.config.settings import load
from wwfast.overlays.making import store
from wwfast.overlays.making.service import OverlayService
from wwfast.paths import Paths
from wwfast.system.run import start
from wwfast.system.settled import SETTLED

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
            runs = site.service.builder.runs
            for name, raw in zip(names, pool.map(lambda name: asked(site, name), names), strict=True):
                assert f"{n} {name}\n".encode() in raw
            assert site.service.builder.runs - runs == COUNT


def test_overlay_hundred_ask_for_one_node_and_it_is_built_once(site: Site) -> None:
    barrier = threading.Barrier(100)

    def ask(_: int) -> bytes:
        barrier.wait()
        return asked(site, "n001")

    with ThreadPoolExecutor(100) as pool:
        assert len(set(pool.map(ask, range(100)))) == 1
    assert site.service.builder.runs == 1


def test_overlay_edited_while_it_is_built_is_never_mixed(site: Site, tmp_path: Path) -> None:
    """Every answer is one of the states the files were in at some moment since the question."""
    stop = threading.Event()
    begun = time.monotonic()
    asked(site, "n000")  # starts the workers
    current, took, began = [0], [time.monotonic() - begun], [time.monotonic()]

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
            # Longer than an overlay takes, and than this one has: on a machine that just got busy, too, some are whole.
            time.sleep(max(0.005, 2 * max(took[0], min(1.0, time.monotonic() - began[0]))))

    editor = threading.Thread(target=edit)
    editor.start()
    try:
        for n in range(60):
            before, began[0] = current[0], time.monotonic()
            made = asked(site, f"n{n:03d}")
            took[0] = min(1.0, max(took[0] / 2, time.monotonic() - began[0]))
            after = current[0] + 1
            files = unpack(made, tmp_path / "unpacked")
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
    shutil.rmtree(site.paths.overlay_cache)
    for _ in range(6):
        process = start(command, stdout=None, stderr=None)
        time.sleep(0.25 + chance.random() * 0.5)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        site.new_service()
        for name in chance.sample(sorted(good), 10):
            assert body(site.ask(name)) == good[name]
        site.service.close()


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.99])
def test_overlay_files_that_are_torn_are_made_anew(site: Site, part: float) -> None:
    """As after a crash of the machine that lost what was not on the disk: contents, forms of them and records."""
    names = ("n000", "n050", "n099")
    good = {name: [body(site.ask(name, fmt=fmt)) for fmt in ("raw", "tar")] for name in names}
    site.service.close()
    for file in kept(site.paths):
        data = file.read_bytes()
        file.write_bytes(data[: int(len(data) * part)])
    site.new_service()
    assert {name: [body(site.ask(name, fmt=fmt)) for fmt in ("raw", "tar")] for name in names} == good


@pytest.fixture
def wasteful(site: Site) -> Site:
    """Every node was built three times, so two thirds of what is kept nobody has."""
    for n in range(3):
        site.put("base", "etc/version.j2", f"{n} {{{{ id }}}}\n")
        site.service.build(site.snapshot)
    return site


def size(site: Site) -> int:
    return sum(file.stat().st_size for file in kept(site.paths))


def test_overlay_tidying_keeps_what_nodes_have(wasteful: Site) -> None:
    site = wasteful
    given = site.ask("n000")
    good = body(given)
    before = size(site)
    freed = site.service.tend(anyway=True)
    assert 0 < freed <= before
    assert size(site) <= before - freed
    assert body(given) == good, "a transfer may begin a little later"
    now = site.ask("n000")
    assert (body(now), now.etag) == (good, given.etag)
    runs = site.service.builder.runs
    site.new_service()
    assert body(site.ask("n099")).count(b"2 n099\n") == 1
    assert site.service.builder.runs == 0 < runs, "what was kept is found"


def test_overlay_tidying_leaves_what_was_needed_a_moment_ago(wasteful: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transfer may begin some time after its extents were handed out, and another process may be about to use it."""
    site = wasteful
    former = site.ask("n000")
    was = body(former)
    site.put("base", "etc/version.j2", "3 {{ id }}\n")
    site.service.build(site.snapshot)
    assert site.service.tend() == 0
    assert site.service.tend() == 0
    assert body(former) == was
    monkeypatch.setattr(store, "GRACE", 0.0)
    assert site.service.tend() > 0
    assert b"3 n000\n" in body(site.ask("n000"))


def test_overlay_year_of_edits_is_bounded_and_nodes_that_went_leave_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "GRACE", 0.0)
    most = 0
    for n in range(40):
        site.put("base", "etc/version.j2", f"{n % 3} {n} {{{{ id }}}}\n")
        site.nodes(NODES.replace("rack: r1", f"rack: r{n}"))
        site.service.build(site.snapshot)
        site.service.tend()
        if n == 2:
            most = len(kept(site.paths))
    assert len(kept(site.paths)) <= most
    site.nodes("nodes: {}\n")
    site.service.build(site.snapshot)
    site.service.tend()
    site.service.tend()
    assert size(site) < 64 * 1024
    assert not [file for file in kept(site.paths) if file.suffix]
    assert not [file for file in kept(site.paths) if b"n099" in file.read_bytes()]


def test_overlay_tidying_beside_another_process_keeps_what_that_one_made(wasteful: Site) -> None:
    site, other = wasteful, OverlayService(wasteful.paths, load(wasteful.paths))
    site.put("base", "etc/version.j2", "new {{ id }}\n")
    other.build(site.snapshot, [site.node("n000")])
    other.close()
    site.service.tend(anyway=True)
    site.new_service()
    assert b"new n000\n" in body(site.ask("n000"))
    assert site.service.builder.runs == 0


def test_overlay_last_good_one_outlives_tidying_and_restart(wasteful: Site) -> None:
    site = wasteful
    good = body(site.ask("n000"))
    assert site.service.tend(anyway=True) > 0
    site.service.tend()
    site.put("base", "etc/version.j2", "{{ nothing_of_that_name }}\n")
    site.new_service()
    assert body(site.ask("n000")) == good


@pytest.mark.parametrize("where", ["template", "file", "included"])
def test_overlay_files_copied_in_place_are_never_served_half(paths: Paths, where: str) -> None:
    """As `cp` does: cut to nothing, then written piece by piece, again and again while a node asks."""
    site = Site(paths)
    etc = paths.etc / "site.txt"
    etc.write_text("version 0\n" * 2)
    files = {
        "template": site.put("base", "etc/motd.j2", etc.read_text()),
        "file": site.put("base", "etc/motd", etc.read_text()),
        "included": etc,
    }
    for name in files.keys() - {where, "included"}:
        files[name].unlink()
    if where == "included":
        site.put("base", "etc/motd.j2", "{{ include('/etc/warewulf/site.txt') }}\n")
    place, version, counted = files[where], 0, 0
    until = time.monotonic() + 60
    with ThreadPoolExecutor(1) as asking:
        while counted < 15 and time.monotonic() < until:
            version += 1
            was, will = f"version {version - 1}\n" * 2, f"version {version}\n" * 2
            began = time.monotonic()
            with place.open("w", buffering=1) as file:
                asked = asking.submit(site.text, "etc/motd")
                time.sleep(0.003)
                file.write(f"version {version}\n")
                time.sleep(0.003)
                file.write(f"version {version}\n")
            if time.monotonic() - began < SETTLED / 2:  # else it was left alone half written, as far as one can see
                assert asked.result() in (was, will)
                counted += 1
            asked.result()
            time.sleep(2 * SETTLED)
            assert site.text("etc/motd") == will, "and never stale"
    assert counted > 3
