"""Boots that must not succeed, and machines nobody knows: what the admin sees, and how it ends well."""

from __future__ import annotations

import pytest

from support.lab import Laboratory
from wwfast.demo.cluster import IMAGE, hwaddr

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(900)]


def test_boot_without_its_image_ends_at_kernel(lab: Laboratory) -> None:
    """The kernel is fetched, the image vanishes before it is asked for."""
    lab.add_node("lost", 5, "-P", "default")
    built = lab.paths.images / IMAGE
    with lab.machine("lost", 5) as vm:
        lab.wait_stage("lost", ["ipxe", "kernel"], 120)
        hidden = built.rename(built.with_name("hidden"))
        try:
            entry = lab.wait_stage("lost", ["kernel"], 60)
            vm.wait(r"(?i)not found|error", 60)
            entry = lab.status("lost")
        finally:
            hidden.rename(built)
    assert entry["stage"] == "kernel"
    assert entry["failed"]
    assert "image" in entry["error"]
    shown = lab.wwfast("node", "status", "--failed", check=False)
    assert shown.returncode == 1
    assert "KERNEL" in shown.stdout.decode()


def test_boot_of_an_unknown_machine_waits_until_a_discoverable_node_takes_it(lab: Laboratory) -> None:
    with lab.machine("stranger", 6) as vm:
        vm.wait(r"(?i)unconfigured|not configured|unknown", 120)
        lab.wwfast("node", "add", "found", "--ipaddr", lab.address(6), "--discoverable", "--yes")
        lab.wait_stage("found", ["kernel", "image", "system", "runtime"], 180)
    listed = lab.wwfast("node", "list", "-a", "found").stdout.decode()
    assert hwaddr(6) in listed
