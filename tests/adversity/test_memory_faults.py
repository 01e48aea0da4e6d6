"""Memory that runs out in an extension: each of its allocations fails once; and files larger than any memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.faults import allocations
from wwfast.paths import Paths

MOST = 4 << 20  # KiB of addresses: a command has less than a tenth of it


def ended(paths: Paths, words: str) -> str:
    """What a command says of what it cannot read; it ends by itself, and soon."""
    wwfast = f"ulimit -v {MOST}; exec {sys.executable} -m wwfast --root {paths.root} {words}"
    done = subprocess.run(["sh", "-c", wwfast], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def endless(tmp_path: Path, paths: Paths) -> Path:
    """A file of 10 TiB that takes no room, and an overlay for it."""
    (paths.root / "var/lib/wwfast/overlays/big/rootfs").mkdir(parents=True)
    paths.nodes_conf.write_text("nodes:\n  n1: {runtime overlay: [big]}\n")
    made = tmp_path / "endless"
    with made.open("wb") as file:
        file.truncate(10 << 40)
    return made


@pytest.mark.parametrize(
    "words",
    [
        "node import {} -y",
        "node import - -y <{}",
        "--warewulfconf {} node list",
        "upgrade nodes -i {}",
        "upgrade config -i {}",
    ],
)
@pytest.mark.parametrize("device", [False, True])
def test_what_has_no_end_is_refused_by_its_name(paths: Paths, endless: Path, words: str, device: bool) -> None:
    if device and "--warewulfconf" in words:
        return  # a device is none
    place = "/dev/zero" if device else endless
    told = ended(paths, words.format(place))
    assert f"{'standard input' if '<' in words else place}: larger than 256 MiB" in told


def test_what_has_no_end_is_read_of_no_file_of_the_site(paths: Paths, endless: Path) -> None:
    inside = paths.root / "var/lib/wwfast/overlays/big/rootfs"
    assert f"{endless} is larger than 4 GiB - 1" in ended(paths, f"overlay import big {endless} /x")
    assert "/dev/zero: larger than 256 MiB" in ended(paths, "overlay import big /dev/zero /x")
    assert f"{endless} is an archive without anything in it" in ended(paths, f"image import {endless} x")
    for name in ("file", "file.j2", "file.ww"):
        endless.rename(inside / name)
        for command in ("overlay build n1", "doctor n1"):
            assert f"{inside / name} is larger than 4 GiB - 1" in ended(paths, command)
        assert name in ended(paths, f"overlay show big {name}")
        (inside / name).rename(endless)
    endless.rename(paths.nodes_conf)
    for command in ("node list", "node add n2 -y", "undo -y", "doctor"):
        assert f"{paths.nodes_conf}: larger than 256 MiB" in ended(paths, command)


def test_overlays_are_made_within_the_limits_of_whoever_started_us(paths: Paths) -> None:
    """As in a batch job: hard limits of addresses and of CPU time, which only lower ones can replace."""
    paths.etc.mkdir(parents=True, exist_ok=True)
    paths.nodes_conf.write_text("nodes:\n  n1: {system overlay: [hostname]}\n")
    wwfast = f"ulimit -v {MOST}; ulimit -t 300; exec {sys.executable} -m wwfast --root {paths.root} overlay build n1"
    done = subprocess.run(["sh", "-c", wwfast], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done
    assert "1 nodes: 2 of 2 overlay images changed" in done.stdout


def test_every_allocation_of_an_extension_may_fail(tmp_path: Path) -> None:
    library = tmp_path / "allocations.so"
    words = ["gcc", "-shared", "-fPIC", "-O2", "-fno-builtin", "-Wall", "-Werror"]
    subprocess.run([*words, "-o", library, allocations.SOURCE, "-ldl"], check=True)
    done = subprocess.run(
        [sys.executable, "-m", "support.faults.allocations", tmp_path / "tree"],
        env=os.environ | {"LD_PRELOAD": str(library), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    failed = {name: int(number) for name, number in map(str.split, done.stdout.splitlines())}
    assert set(failed) == {use.__name__ for use in allocations.USES}
    assert min(failed.values()) > 0, "a use that allocates nothing shows nothing"
