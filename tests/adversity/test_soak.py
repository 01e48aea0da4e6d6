"""Nodes poll while everything changes: every answer is right and fresh, and the server does not grow.

`WWFAST_SOAK_MINUTES` says how long (1); `make soak` asks for ten.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.soak import Site, soak
from wwfast.storm.cluster import Head
from wwfast.storm.link import Link

NODES = 2000
MINUTES = float(os.environ.get("WWFAST_SOAK_MINUTES", "1"))
DESCRIPTORS = 8  # more at the end than after a tenth of the time
MEMORY = 400.0  # MiB


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(60 * MINUTES + 240)
def test_nodes_get_what_is_right_while_everything_changes(tmp_path: Path) -> None:
    site = Site(tmp_path, NODES)
    site.prepare()
    with Link() as link, Head(tmp_path, link, firmware=True) as head:
        early, late = soak(site, head, link, 60 * MINUTES, 100.0)
    assert (early.wrong + late.wrong)[:5] == []
    assert early.asked + late.asked > 20 * 60 * MINUTES
    assert late.descriptors - early.descriptors <= DESCRIPTORS
    assert late.rss <= MEMORY
