"""Each kind of work has a queue of its own: whatever is being made, edits, scripts and discoveries go on."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.daemon import MAC, NODES, overlay, serving, tiny_image, write_conf
from wwfast.archive.artefact import Artefact
from wwfast.daemon import app
from wwfast.daemon.boot import routes, target
from wwfast.images import building
from wwfast.overlays.making.service import OverlayService
from wwfast.paths import Paths

EMPTY = "  d1: {discoverable: true, profiles: [default], network devices: {default: {}}}\n"
IPXE = {"User-Agent": "iPXE/1.21.1"}
EDIT_SECONDS = 0.5  # from an edit to its being served, plus what a loaded machine adds


def test_queue_of_overlays_that_are_stuck_keeps_neither_edits_nor_discovery_nor_the_node_itself(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_image(paths)
    building.build(paths, "tiny")
    overlay(paths)
    write_conf(paths)
    paths.nodes_conf.write_text(NODES + EMPTY)
    stuck, asked = threading.Event(), threading.Semaphore(0)
    made = OverlayService.artefact
    calls: list[str] = []

    def artefact(self: OverlayService, *given: object) -> Artefact:
        calls.append(str(given[-1]))
        asked.release()
        assert stuck.wait(60)
        return made(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(OverlayService, "artefact", artefact)
    monkeypatch.setattr(app, "BUILDERS", 4)
    monkeypatch.setattr(target, "HELD_SECONDS", 0.2)
    monkeypatch.setattr(routes, "SCRIPT_SECONDS", 0.2)
    wanted = [f"/{stage}/{MAC}?{form}" for stage in ("system", "runtime") for form in ("compress=gz", "format=tar")]
    with serving(paths) as server, ThreadPoolExecutor(16) as clients:
        waiting = [clients.submit(server.get, path) for path in (*wanted, *wanted, *wanted)]  # 12 for 4 threads
        for _ in range(4):
            assert asked.acquire(timeout=30)
        status, _, headers = server.get(f"/system/{MAC}?compress=zst", headers=IPXE)
        assert (status, headers["retry-after"]) == (503, "2"), "iPXE obeys, so it is told to come again"
        for kernel_args in ("first", "second", "third"):
            began = time.monotonic()
            paths.nodes_conf.write_text(NODES.replace("quiet", kernel_args) + EMPTY)
            while kernel_args.encode() not in server.get(f"/ipxe/{MAC}")[1]:
                assert time.monotonic() < began + 4 * EDIT_SECONDS
                time.sleep(0.01)
        assert b"kernel --name" in server.get("/ipxe/52:54:00:00:00:77")[1], "discovery has a thread of its own"
        assert server.get("/status")[0] == 200
        assert len(calls) == 4, "one job for all who ask for the same, and no more than there are threads"
        stuck.set()
        assert [job.result(60)[0] for job in waiting] == [200] * 12, "nobody fails because a queue is long"
        assert server.get(f"/system/{MAC}?compress=zst", headers=IPXE)[0] == 200
