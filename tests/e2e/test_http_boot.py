"""Real iPXE in a crowd: machines that wait for their turn behind a full house, and one whose download is cut."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support import house
from support.lab import Laboratory
from wwfast.boot.stages import Stage
from wwfast.demo.vm import Vm

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(900)]

RATE = 20 << 20  # bytes/s of the whole house
GUESTS = 64
LATE = 4


def guests(name: str, first: int, count: int) -> dict[str, str]:
    """Nodes that are nothing but an address: name -> MAC."""
    return {f"{name}{number:02}": f"52:54:00:78:00:{first + number:02x}" for number in range(count)}


def queue(lab: Laboratory) -> tuple[int, int]:
    """Nodes that wait, and those with the ones in service: more are served at once when the link carries more. The
    guests ask from addresses that are not theirs, so their own status says nothing of it."""
    found = json.loads(lab.fetch("/status").stdout)["queue"]
    return found["queued"], found["queued"] + found["served"]


@contextmanager
def full_house(lab: Laboratory, macs: list[str]) -> Iterator[None]:
    process = lab.network.start(
        [sys.executable, house.__file__, lab.network.server, str(lab.port), str(RATE), *macs], stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        with process.stdout as said:
            assert said.readline() == b"full\n"
        yield
    finally:
        process.kill()
        process.wait()


def cut_connections_of(lab: Laboratory, vm: Vm) -> None:
    """Reset them from outside, as a firewall in between would."""
    lab.network.run(["ss", "-KHtn", "dst", f"{vm.ipaddr}", "and", "sport", f"= :{lab.port}"], package="iproute2")


def throttle(lab: Laboratory, vm: Vm) -> None:
    """So that its image takes long enough to be cut in the middle."""
    assert vm.process is not None
    found = re.search(r"ifname=(\w+)", " ".join(map(str, vm.process.args)))
    assert found
    shape = ["tbf", "rate", "100mbit", "burst", "256kb", "latency", "50ms"]
    lab.network.run(["tc", "qdisc", "add", "dev", found[1], "root", *shape], package="iproute2")


def test_http_boot_waits_behind_a_full_house_and_survives_a_cut_transfer(lab: Laboratory, tmp_path: Path) -> None:
    early, late = guests("early", 0, GUESTS), guests("late", GUESTS, LATE)
    entries = {
        name: {"profiles": ["default"], "network devices": {"default": {"hwaddr": mac}}}
        for name, mac in (early | late).items()
    }
    described = tmp_path / "guests.yaml"
    described.write_text(json.dumps(entries))
    lab.wwfast("node", "import", described, "--yes")
    lab.add_node("held1", 41)
    lab.add_node("held2", 42)
    with lab.machine("held1", 41) as bios, lab.machine("held2", 42, firmware="uefi") as uefi:
        throttle(lab, bios)
        with full_house(lab, [*early.values()]):
            for vm in (bios, uefi):
                lab.wait_for(lambda: lab.status(vm.name).get("place"), lambda place: place, 300)  # noqa: B023
            before, there = queue(lab)
            with full_house(lab, [*late.values()]):
                lab.wait_for(lambda: queue(lab)[1], lambda count: count >= there + LATE, 60)
                seen: dict[str, list[int]] = {vm.name: [] for vm in (bios, uefi)}
                for _ in range(6):
                    time.sleep(1.0)
                    for name, places in seen.items():
                        entry = lab.status(name)
                        assert entry["stage"] == Stage.IPXE, "it waits for its kernel"
                        places.append(entry["place"])
                        assert 0 < entry["place"] <= before, "whoever came later is behind it"
                        assert entry["eta"] > 0
                for places in seen.values():
                    assert places == sorted(places, reverse=True), "it keeps its place"
        lab.wait_stage("held1", [Stage.IMAGE], 120)
        time.sleep(1.0)
        cut_connections_of(lab, bios)
        bios.wait("A download failed", 60)
        for vm in (bios, uefi):
            vm.wait(timeout=300)
            entry = lab.wait_stage(vm.name, [Stage.RUNTIME], 120)
            assert not entry["failed"]
    log = lab.log.read_text()
    cut = re.search(r"held1 image failed \S+ (\d+)/(\d+) bytes", log)
    assert cut
    assert 0 < int(cut[1]) < int(cut[2])
    assert re.search(r"held1 image done \S+ (\d+)/\1 bytes", log)
