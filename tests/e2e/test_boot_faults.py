"""Boots that must not succeed, and machines nobody knows: what the admin sees, and how it ends well."""

from __future__ import annotations

import pytest

from support.lab import Laboratory
from wwfast.boot.stages import Stage
from wwfast.demo.cluster import IMAGE, hwaddr
from wwfast.paths import SHARE

FIRST_DOWNLOAD = "{% for stage in stages -%}\n"

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(900)]


def test_boot_without_its_image_ends_at_kernel(lab: Laboratory) -> None:
    """The image vanishes between the script, which promises it, and its download; the node tries again and again."""
    script = (SHARE / "ipxe/default.ipxe.j2").read_text()
    assert FIRST_DOWNLOAD in script
    templates = lab.paths.etc / "ipxe"
    templates.mkdir(exist_ok=True)
    (templates / "late.ipxe.j2").write_text(script.replace(FIRST_DOWNLOAD, f"sleep 15\n{FIRST_DOWNLOAD}", 1))
    lab.add_node("lost", 5, "--ipxe", "late")
    built = lab.paths.images / IMAGE
    with lab.machine("lost", 5) as vm:
        lab.wait_stage("lost", [Stage.KERNEL], 180)
        hidden = built.rename(built.with_name(f".{IMAGE}"))
        try:
            vm.wait("A download failed", 120)
            entry = lab.wait_for(lambda: lab.status("lost"), lambda found: bool(found["failed"]), 60)
            shown = lab.wait_for(
                lambda: lab.wwfast("node", "status", "--failed", "lost", check=False),
                lambda done: done.returncode == 1,
                60,
            )
        finally:
            hidden.rename(built)
    assert entry["stage"] == Stage.KERNEL
    assert entry["error"].startswith("image: ")
    (line,) = [line for line in shown.stdout.decode().splitlines() if line.startswith("lost ")]
    assert line.split()[1] == Stage.KERNEL.label


def test_boot_that_a_crash_forgot_begins_anew_by_itself(lab: Laboratory) -> None:
    """The server no longer knows that the machine boots, and refuses it its system overlay until it asks DHCP again."""
    script = (SHARE / "ipxe/default.ipxe.j2").read_text()
    assert "set delay:int32 2\n" in script
    templates = lab.paths.etc / "ipxe"
    templates.mkdir(exist_ok=True)
    late = script.replace(FIRST_DOWNLOAD, f"sleep 15\n{FIRST_DOWNLOAD}", 1).replace(
        "delay:int32 2\n", "delay:int32 32\n"
    )
    (templates / "forgotten.ipxe.j2").write_text(late)
    lab.add_node("forgotten", 61, "--ipxe", "forgotten")
    with lab.machine("forgotten", 61) as vm:
        lab.wait_stage("forgotten", [Stage.KERNEL], 180)
        lab.stop()
        lab.paths.database.unlink()
        lab.serve()
        vm.wait("A download failed", 120)
        refused = lab.wait_for(lambda: lab.status("forgotten"), lambda found: bool(found["error"]), 60)
        assert "forgotten is not booting" in refused["error"]
        lab.wait_stage("forgotten", [Stage.KERNEL, Stage.IMAGE, Stage.SYSTEM, Stage.RUNTIME], 240)


def test_boot_of_an_unknown_machine_waits_until_a_discoverable_node_takes_it(lab: Laboratory) -> None:
    with lab.machine("stranger", 6) as vm:
        vm.wait("No node of this cluster has the address", 120)
        lab.wwfast("node", "add", "found", "--ipaddr", lab.address(6), "--discoverable", "--yes")
        lab.wait_stage("found", [Stage.KERNEL, Stage.IMAGE, Stage.SYSTEM, Stage.RUNTIME], 180)
    listed = lab.wwfast("node", "list", "-a", "found").stdout.decode()
    assert hwaddr(6) in listed
