"""What fails in a running server is told by /status, log and doctor; all else goes on, and in the end it does, too."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.daemon import MAC, NODES, overlay, serving, tiny_image, write_conf
from support.patience import until
from support.site import Site, made
from wwfast.daemon import app, following
from wwfast.daemon.life import supervision
from wwfast.nodes.registry import Registry, Snapshot
from wwfast.paths import Paths
from wwfast.system.watch import Watch

SECOND = "52:54:00:00:00:02"
MORE = NODES + NODES.split("nodes:\n")[1].replace("n1:", "n2:").replace(":01", ":02").replace(".11", ".12")


@pytest.fixture
def ready(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> Paths:
    monkeypatch.setattr(supervision, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(supervision, "MOST_PAUSE", 0.2)
    monkeypatch.setattr(following, "LOOK_SECONDS", 0.1)
    tiny_image(paths)
    overlay(paths)
    write_conf(paths)
    paths.nodes_conf.write_text(NODES)
    return paths


def test_a_reload_that_crashes_is_told_and_tried_again_with_the_last_good_registry_in_place(
    ready: Paths, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    original = Registry.reload
    crashes = 0

    def crashing(self: Registry) -> Snapshot:
        nonlocal crashes
        crashes += 1
        raise RuntimeError("secret of n2")

    with serving(ready) as server, caplog.at_level(logging.INFO):
        monkeypatch.setattr(Registry, "reload", crashing)
        ready.nodes_conf.write_text(MORE)
        until(lambda: crashes >= 3)
        trouble = server.status()["troubles"]["reading nodes.conf"]
        assert trouble["count"] >= 2
        assert "secret" not in str(trouble)
        assert server.get(f"/ipxe/{MAC}")[0] == 200
        assert "nodes.conf: " not in caplog.text  # that it was read
        assert caplog.text.count("reading nodes.conf failed") == 1
        monkeypatch.setattr(Registry, "reload", original)
        until(lambda: "n2" in server.status()["nodes"])  # without another edit
        until(lambda: server.status()["troubles"] == {})
        assert "reading nodes.conf works again" in caplog.text


@pytest.mark.parametrize("inotify", [True, False])
def test_looking_at_files_goes_on_after_an_error(ready: Paths, monkeypatch: pytest.MonkeyPatch, inotify: bool) -> None:
    """Where inotify does not work (NFS), looking every few seconds is all there is."""
    original = Watch.changed
    failing: list[Callable[[], object]] = []

    def changed(self: Watch) -> bool:
        for fail in failing:
            fail()
        return original(self)

    def fail() -> None:
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr(Watch, "changed", changed)
    if not inotify:
        monkeypatch.setattr(Watch, "fileno", lambda self: -1)
    with serving(ready) as server:
        failing.append(fail)
        until(lambda: "watching nodes.conf" in server.status()["troubles"])
        assert "Stale file handle" in server.status()["troubles"]["watching nodes.conf"]["error"]
        ready.nodes_conf.write_text(MORE)
        failing.clear()
        until(lambda: "n2" in server.status()["nodes"])
        until(lambda: "watching nodes.conf" not in server.status()["troubles"])


def test_giving_back_space_goes_on_after_any_error(ready: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "TEND_SECONDS", 0.01)
    with serving(ready) as server:
        broken: list[int] = []

        def tend() -> int:
            broken.append(1)
            raise MemoryError if len(broken) < 5 else OSError(28, "No space left on device")

        monkeypatch.setattr(server.daemon.overlays, "tend", tend)
        until(lambda: len(broken) > 6)
        assert "No space left" in server.status()["troubles"]["giving back overlay space"]["error"]
        monkeypatch.setattr(server.daemon.overlays, "tend", lambda: 0)
        until(lambda: server.status()["troubles"] == {})


def test_builds_that_do_not_end_are_told_and_hold_up_nothing_else(
    ready: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "SLOW_SECONDS", 0.2)
    free = threading.Event()
    with serving(ready) as server:
        try:
            for _ in range(2 * app.BUILDERS):
                server.daemon.builders.submit(free.wait)
            said = f"{app.BUILDERS} of {app.BUILDERS} threads"
            until(lambda: said in str(server.status()["troubles"].get("building overlays")))
            ready.nodes_conf.write_text(MORE)
            until(lambda: "n2" in server.status()["nodes"])
        finally:
            free.set()
        until(lambda: server.status()["troubles"] == {})


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with made(tmp_path) as one:
        yield one


def lease(site: Site) -> None:
    site.client.run("busybox", "udhcpc", "-i", "eth0", "-n", "-q", "-s", "/bin/true")


@pytest.mark.root
@pytest.mark.slow
def test_a_database_error_is_told_stops_nothing_and_ends_with_its_cause(site: Site) -> None:
    server = site.start("server", {"limits": {"daemon.app.OFFER_SECONDS": 0.2}})
    site.says("server", "serving on port")
    database = site.paths.database
    for name in (database, database.with_name(database.name + "-wal"), database.with_name(database.name + "-shm")):
        if name.exists():
            name.rename(name.with_name(name.name + ".kept"))
    database.mkdir()
    lease(site)  # answered all the same
    until(lambda: "writing down leases" in site.ask()["troubles"])
    site.paths.nodes_conf.write_text('{"nodes": {"n7": {}}}')
    site.says("server", "nodes.conf: 1 nodes")
    doctor = site.space.run(sys.executable, "-m", "wwfast", "--root", site.paths.root, "doctor", check=False)
    assert "the running server: writing down leases fails" in doctor
    # One that was started meanwhile would end both, if it could: it cannot use that database either.
    new = site.start("new", {}, "--replace")
    assert new.wait(60) == 1
    database.rmdir()
    until(lambda: site.ask()["troubles"] == {})
    # Nobody would find a server whose offer was deleted: it is made again.
    site.paths.handover.unlink()
    until(site.paths.handover.exists)
    new = site.start("newer", {}, "--replace")
    site.says("newer", "serving on port")
    assert server.wait(60) == 0
    assert site.ask()["pid"] == new.pid


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.parametrize("at", ["net.dhcp.journal:Journal.close", "daemon.state.database:PhaseStore.close"])
def test_a_server_that_is_stopped_ends_in_its_time_with_a_thread_that_is_stuck(site: Site, at: str) -> None:
    limits = {"daemon.app.WRITE_SECONDS": 0.5, "daemon.life.process.STOPPING_LIMIT": 3.0}
    server = site.start("server", {"limits": limits, "at": at, "do": "stuck"})
    site.says("server", "serving on port")
    lease(site)
    began = time.monotonic()
    os.kill(server.pid, signal.SIGTERM)
    server.wait(30)
    assert time.monotonic() - began < 20
    assert "was not written within" in site.space.log("server")
