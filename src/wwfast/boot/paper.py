"""Boots on paper: what the server would answer, with all that lies on the disk as it is when it is first asked for."""

from __future__ import annotations

from functools import cached_property, partial
from typing import TYPE_CHECKING

from wwfast.boot.plan import UNSEEN, Ask, BootPlan, Planner
from wwfast.boot.resolve import Resolver
from wwfast.boot.ways import Machine
from wwfast.errors import NotFoundError, WwfastError
from wwfast.images.kernels.store import KernelStore, NodeKernel, for_node
from wwfast.images.store import Image, ImageStore
from wwfast.nodes import machines

if TYPE_CHECKING:
    from wwfast.boot.stages import Stage
    from wwfast.boot.standing import Standing
    from wwfast.boot.ways import Choice
    from wwfast.config.settings import Settings
    from wwfast.nodes.model import Node
    from wwfast.nodes.registry import Snapshot
    from wwfast.overlays.making.service import OverlayService
    from wwfast.paths import Paths


class Paper:
    """For one snapshot. `plan` makes overlays where it must."""

    def __init__(self, paths: Paths, settings: Settings, overlays: OverlayService, snapshot: Snapshot) -> None:
        self._paths = paths
        self.images = ImageStore(paths)
        self.overlays = overlays
        self._kernels = KernelStore(paths)
        self._planner = Planner(settings)
        self._resolver = Resolver(paths)
        self._snapshot = snapshot

    @cached_property
    def _standing(self) -> Standing:
        return self._resolver.resolve(self._snapshot)

    def image(self, node: Node) -> Image:
        """Raises WwfastError."""
        if not node.image_name:
            raise NotFoundError(f"node {node.id} has no image", hint=f"wwfast node set {node.id} --image NAME")
        return self.images.get(node.image_name)

    def kernel(self, node: Node) -> NodeKernel:
        """Raises WwfastError."""
        return for_node(node, self.images, self._kernels)

    def boot_script(self, node: Node, ask: Ask) -> BootPlan:
        """As if all overlays were there. Raises WwfastError for what the node's console would show instead."""
        plan = self._planner.boot_script(self._standing, node, ask, lambda *_: UNSEEN)
        assert plan is not None
        return plan.with_text(self.overlays.write(plan.script)) if plan.script is not None else plan

    def way(self, node: Node, ask: Ask) -> Choice | None:
        """How its image comes to a node; None where it does not, which `boot_script` says why."""
        try:
            plan = self._planner.boot_script(self._standing, node, ask, lambda *_: UNSEEN)
        except WwfastError:
            return None
        return plan.way if plan is not None else None

    def machine(self, node: Node) -> Machine:
        """As the node last reported it."""
        memory = self._machines.get(node.id, 0)
        return Machine(memory, former=memory > 0)

    @cached_property
    def _machines(self) -> dict[str, int]:
        try:
            return machines.read(self._paths.machines)
        except WwfastError:  # the server that runs tells it
            return {}

    def plan(self, node: Node, stage: Stage, ask: Ask) -> BootPlan:
        plan = self._planner.plan(self._standing, node, stage, ask, partial(self.overlays.artefact, self._snapshot))
        assert plan is not None
        return plan
