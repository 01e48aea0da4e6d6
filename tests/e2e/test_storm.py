"""`wwfast storm`: the real server in a namespace, simulated nodes in another, nothing left behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from wwfast.errors import WwfastError
from wwfast.storm.racks import Fabric, shares


def wwfast(*words: str, seconds: float = 110) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WWFAST_")}
    argv = [sys.executable, "-m", "wwfast", *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=seconds, env=environment, check=False)


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


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
def test_storm_in_racks_carries_each_byte_to_each_rack_once() -> None:
    """Real nginx, real scripts and lists of pieces."""
    racks = ("--racks", "3", "--caches", "nginx", "--head-rate", "1", "--rate", "1")
    done = wwfast("storm", "--nodes", "30", "--image-size", "4", *racks, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["failures"] == []
    assert {stage: value["nodes"] for stage, value in result["stages"].items()} == dict.fromkeys(
        ("ipxe", "kernel", "stage1", "pieces", "image", "told", "system", "runtime"), 30
    )
    assert result["caches that failed"] == 0
    of_rack = (4 + 8) << 20  # of the image and its kernel
    assert 3 * of_rack < result["bytes of the head's link"] < 2 * 3 * of_rack + 30 * (64 << 10)
    assert 30 * of_rack < result["bytes"]
    there = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    left = [pid for pid in re.findall(r"wwrack-(?:x|[csn]\d+-)(\d+)-\d+", there) if not Path(f"/proc/{pid}").exists()]
    assert not left, "others may be at work"


TWO = ("--racks", "1", "--heads", "2")


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("fail", ["head@0.5", "head2@4", "kill@3", "kill2@4"])
def test_storm_in_racks_with_two_heads_loses_no_node_with_one_of_them(fail: str) -> None:
    """In the midst of scripts, kernels and images: real scripts and lists, from a head that follows the other."""
    shape = ("--racks", "2", "--heads", "2", "--head-rate", "0.05", "--rate", "1", "--image-size", "2")
    done = wwfast("storm", "--nodes", "12", *shape, "--fail", fail, "--json", seconds=500)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["failures"] == []
    assert result["heads that failed"] > 0
    assert {stage: value["nodes"] for stage, value in result["stages"].items()} == dict.fromkeys(
        ("ipxe", "kernel", "stage1", "pieces", "image", "system", "runtime"), 12
    )


@pytest.mark.parametrize(
    "words",
    [("--heads", "2"), ("--fail", "head@1"), *((*TWO, "--fail", each) for each in ("head3@1", "head", "x@1"))],
)
def test_storm_refuses_heads_that_it_cannot_play(words: tuple[str, ...]) -> None:
    done = wwfast("storm", "--nodes", "1", *words)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)


@pytest.mark.parametrize(
    "words", [("--caches", "nginx"), ("--racks", "2", "--dhcp"), ("--racks", "2", "--clusters", "2")]
)
def test_storm_in_racks_refuses_what_it_cannot_play(words: tuple[str, ...]) -> None:
    done = wwfast("storm", "--nodes", "1", *words)
    assert (done.returncode, "racks" in done.stderr) == (2, True)


def test_storm_in_racks_has_room_for_so_many_nodes() -> None:
    with pytest.raises(WwfastError, match="501 nodes are more than 2 racks of 250 have"):
        shares(501, Fabric(2, None, None).racks)
    assert shares(7, Fabric(3, None, None).racks) == [3, 2, 2]


def test_storm_against_another_server_must_be_meant() -> None:
    done = wwfast("storm", "--server", "192.0.2.1", "--nodes", "1")
    assert done.returncode == 2
    assert "--i-own-it" in done.stderr
    assert "Traceback" not in done.stderr
