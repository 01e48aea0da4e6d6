"""What the checks of `doctor` look at, made of texts."""

from __future__ import annotations

from typing import Any

from support.overlays import OPEN
from wwfast.boot.paper import Paper
from wwfast.config.settings import load
from wwfast.doctor.finding import Scene
from wwfast.nodes.registry import Registry
from wwfast.overlays.making.service import OverlayService
from wwfast.paths import Paths

CONF = """
ipaddr: 127.0.0.1
netmask: 255.0.0.0
network: 127.0.0.0
warewulf: {port: PORT}
dhcp: {enabled: false}
tftp: {enabled: false}
"""


def scene(paths: Paths, conf: str = CONF.replace("PORT", "19873"), nodes: str = "", **more: Any) -> Scene:
    paths.conf.write_text(conf)
    paths.nodes_conf.write_text(nodes or "nodes: {}\nnodeprofiles: {}\n")
    settings = load(paths)
    paths = settings.locations
    overlays = OverlayService(paths, settings, writing=False)
    OPEN.append(overlays)
    snapshot = Registry(paths).snapshot()
    return Scene(paths, settings, snapshot, Paper(paths, settings, overlays, snapshot), **more)
