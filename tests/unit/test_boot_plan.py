"""The plan of a request: what it costs."""

from __future__ import annotations

import sys
from pathlib import Path

from support.daemon import MAC, NODES, overlay, tiny_image, write_conf
from wwfast.boot.plan import Ask, Planner
from wwfast.boot.stages import Stage
from wwfast.config.settings import load
from wwfast.images import publish
from wwfast.nodes.registry import Registry
from wwfast.overlays.service import OverlayService
from wwfast.paths import Paths

LOOKS = ("open", "os.scandir", "os.listdir", "glob.glob")


def test_boot_plan_of_a_known_node_opens_no_file_and_lists_no_folder(tmp_path: Path) -> None:
    paths = Paths.at(tmp_path)
    paths.etc.mkdir(parents=True)
    tiny_image(paths)
    publish.build(paths, "tiny")
    overlay(paths)
    write_conf(paths)
    paths.nodes_conf.write_text(NODES)
    settings = load(paths)
    overlays = OverlayService(paths, settings)
    planner = Planner(paths, settings, overlays)
    snapshot = Registry(paths).snapshot()
    node = snapshot.nodes["n1"]
    looked: list[str] = []
    watching = False

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if watching and event in LOOKS:
            looked.append(f"{event} {arguments[0]}")

    sys.addaudithook(hook)  # there is no way to take one away again: `watching` silences it
    try:
        for stage in (Stage.IPXE, Stage.KERNEL, Stage.IMAGE, Stage.SYSTEM, Stage.RUNTIME):
            for watching in (False, True):
                plan = planner.plan(snapshot, node, stage, Ask(MAC, compress="zst"))
                watching = False
                assert plan is not None
                assert not plan.failed
        assert looked == []
        watching = True
        snapshot.nodes["n1"]
        Path(tmp_path / "seen").write_text("the hook sees files")
        watching = False
        assert looked, "the hook works"
    finally:
        watching = False
        overlays.close()
