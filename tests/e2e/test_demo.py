"""The demo that needs no root: simulated nodes go the whole way, and everything ends with it."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from wwfast.boot.stages import Stage
from wwfast.demo import simulated
from wwfast.demo.cluster import Cluster
from wwfast.errors import WwfastError


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WWFAST_CACHE", str(tmp_path))


@pytest.mark.slow
def test_demo_without_root_boots_every_simulated_node_through_every_stage() -> None:
    screen = StringIO()
    simulated.run(Console(file=screen, width=120))
    shown = screen.getvalue()
    assert "not root" in shown
    for stage in (Stage.IPXE, Stage.KERNEL, Stage.IMAGE, Stage.KMODS, Stage.SYSTEM):
        assert stage.label in shown
    for number in range(simulated.NODES):
        (line,) = [line for line in shown.splitlines() if line.startswith(f"s{number + 1} ")]
        assert Stage.RUNTIME.label in line
    assert shown.rstrip().endswith("the server is gone again")


@pytest.mark.slow
def test_demo_tells_which_node_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_a_node(cluster: Cluster) -> None:
        prepare(cluster)
        cluster.wwfast("node", "delete", "s8", "--yes")

    prepare = simulated.prepare
    monkeypatch.setattr(simulated, "prepare", without_a_node)
    with pytest.raises(WwfastError, match="did not come up"):
        simulated.run(Console(file=StringIO()))
