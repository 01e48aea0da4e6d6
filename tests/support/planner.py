"""The planner with what lies on the disk now, as the daemon has it after it has looked."""

from __future__ import annotations

from functools import partial

from support.overlays import OPEN
from wwfast.boot.plan import Ask, BootPlan, Planner
from wwfast.boot.resolve import Resolver
from wwfast.boot.stages import Stage
from wwfast.config.settings import Settings
from wwfast.errors import WwfastError
from wwfast.nodes.model import Node
from wwfast.nodes.registry import Snapshot
from wwfast.overlays.making.service import OverlayService
from wwfast.paths import Paths


class Fresh:
    """`plan` looks at the disk each time; overlays are made when asked for."""

    def __init__(self, paths: Paths, settings: Settings, overlays: OverlayService | None = None) -> None:
        self._planner = Planner(settings)
        self._resolver = Resolver(paths)
        if overlays is None:
            overlays = OverlayService(paths, settings)
            OPEN.append(overlays)
        self._overlays = overlays

    def plan(self, snapshot: Snapshot, node: Node | None, stage: Stage, ask: Ask) -> BootPlan:
        standing = self._resolver.resolve(snapshot, [ask.image] if ask.image else [])
        plan = self._planner.plan(standing, node, stage, ask, partial(self._overlays.artefact, snapshot))
        assert plan is not None
        while plan.script is not None:
            try:
                plan = plan.with_text(self._overlays.write(plan.script))
            except WwfastError as error:
                plan = self._planner.instead(standing, plan, ask, error)
        return plan
