"""`wwfast storm`: the real server in a namespace, simulated nodes in another, nothing left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def wwfast(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WWFAST_")}
    argv = [sys.executable, "-m", "wwfast", *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=110, env=environment, check=False)


@pytest.mark.root
@pytest.mark.slow
def test_storm_of_nodes_that_all_get_their_own_set(tmp_path: Path) -> None:
    png = tmp_path / "storm.png"
    done = wwfast("storm", "--nodes", "40", "--image-size", "4", "--clusters", "2", "--png", str(png), "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["failures"] == []
    assert {stage: value["nodes"] for stage, value in result["stages"].items()} == dict.fromkeys(
        ("ipxe", "kernel", "image", "system", "runtime"), 40
    )
    assert result["stages"]["image"]["t50"] < result["stages"]["image"]["last"]
    assert png.read_bytes().startswith(b"\x89PNG")
    left = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    assert f"wwstorm-s{os.getpid()}" not in left


def test_storm_against_another_server_must_be_meant() -> None:
    done = wwfast("storm", "--server", "192.0.2.1", "--nodes", "1")
    assert done.returncode == 2
    assert "--i-own-it" in done.stderr
    assert "Traceback" not in done.stderr
