"""The way of a node through the overlay engine is short, and as the manual tells it."""

from __future__ import annotations

import re
import sys
from itertools import groupby
from pathlib import Path
from types import FrameType

from support.overlays import Site
from wwfast.overlays import making
from wwfast.paths import Paths

MANUAL = Path(__file__).parents[2] / "docs/overlays.md"
MAKING = Path(making.__path__[0])


def test_overlay_way_of_a_node_is_the_one_in_the_manual(paths: Paths) -> None:
    told = re.findall(r"^\d+\. `(\w+\.\w+)`$", MANUAL.read_text(), re.M)
    site = Site(paths)
    site.put("base", "etc/name.j2", "{{ id }}\n")
    site.ask("n2")
    calls: list[str] = []

    def trace(frame: FrameType, event: str, _: object) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.parent == MAKING:
            calls.append(f"{path.stem}.{frame.f_code.co_name}")

    sys.setprofile(trace)
    try:
        site.ask("n1")
    finally:
        sys.setprofile(None)
    seen = [call for call in calls if call in set(told)]
    assert seen == told
    # Reading and writing what is kept are steps of their own, as is telling a worker what it does not know.
    visits = [file for file, _ in groupby(call.partition(".")[0] for call in told)]
    assert len(set(visits)) <= 6
    assert len(visits) - len(set(visits)) <= 4, "so often the way comes back"
