"""Nodes of two architectures on one server, with the iPXE that its admin supplies, by TFTP and by UEFI HTTP boot."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import arm64
from support.lab import Laboratory, Namespace
from wwfast.demo.cluster import RUNTIME, SYSTEM

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(900)]

ARM = "debian-arm64"


@pytest.fixture(scope="module")
def mixed(lab: Laboratory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    """A server with the laboratory's image and one for arm64."""
    with Namespace("10.81.0.1/24", label="mixed") as network:
        made = Laboratory(tmp_path_factory.mktemp("mixed"), network, lab.tree)
        shutil.copytree(arm64.ipxe(), made.root / "srv/ipxe")
        made.configure(paths={"ipxesource": "/srv/ipxe"})
        made.make_keys()
        made.borrow(lab)
        made.wwfast("image", "import", "--build", arm64.tree(), ARM, timeout=300)
        made.add_profile()
        words = ["--image", ARM, "--kernelargs", "console=ttyAMA0", "-O", SYSTEM, "-R", RUNTIME]
        made.wwfast("profile", "add", "arm", *words, "--netmask", "255.255.255.0", "--yes")
        made.serve()
        yield made
        made.stop()


def stages(lab: Laboratory, node: str) -> list[tuple[str, str]]:
    return [(part["stage"], part["sent"]) for part in lab.status(node)["boot"]]


def test_image_of_arm64_boots_by_http_beside_one_of_amd64(mixed: Laboratory) -> None:
    shown = mixed.wwfast("image", "kernels").stdout.decode()
    assert "cloud-arm64" in shown
    assert "cloud-amd64" in shown
    mixed.add_node("arm1", 1, "-P", "arm")
    mixed.add_node("amd1", 2)
    with (
        mixed.machine("arm1", 1, firmware="http", arch="arm64") as arm,
        mixed.machine("amd1", 2, firmware="http") as amd,
    ):
        for vm, machine, binary in ((arm, "aarch64", "ipxe-arm64.efi"), (amd, "x86_64", "snponly.efi")):
            vm.wait(timeout=400)
            # Root's key comes with the runtime overlay: who gets in here shows that it was applied.
            vm.wait_ssh()
            assert vm.ssh("uname -mn").split() == [vm.name, machine]
            assert vm.ssh("systemctl --failed --no-legend --plain") == ""
            took = stages(mixed, vm.name)
            assert ("efiboot", binary) in took
            # The runtime overlay comes twice, before init and by wwclient.
            assert [stage for stage in dict(took) if stage not in ("dhcp", "efiboot")] == [
                *("ipxe", "kernel", "image", "system", "runtime"),
            ]
            assert "tftp" not in dict(took)
    assert json.loads(mixed.fetch("/status").stdout)["unknown"] == {}, "the firmware's downloads have a node"


def test_image_boot_gets_its_ipxe_by_architecture_over_tftp_and_boots_in_two_stages(mixed: Laboratory) -> None:
    mixed.add_node("arm2", 3, "-P", "arm", "--root", "squashfs")
    mixed.wwfast("image", "build", ARM, timeout=600)
    with mixed.machine("arm2", 3, firmware="uefi", arch="arm64") as vm:
        vm.wait(timeout=400)
        vm.wait_ssh()
        assert vm.ssh("stat -f -c %T /; uname -mn").split() == ["overlayfs", "arm2", "aarch64"]
        took = stages(mixed, "arm2")
        assert ("tftp", "ipxe-arm64.efi") in took
        assert "stage1" in dict(took)
        log = Path(mixed.log).read_text()
        assert "arm2 tftp done" in log
        assert "autoexec" not in log, "a newer iPXE asks for it and does without: nobody wants to read of it"


def test_image_for_another_architecture_is_refused_in_words(mixed: Laboratory) -> None:
    mixed.add_node("wrong1", 4, "-P", "arm")
    reason = f"image {ARM} is for arm64 and this node is amd64"
    with mixed.machine("wrong1", 4) as vm:
        vm.wait(reason, 120)
        entry = mixed.wait_for(lambda: mixed.status("wrong1"), lambda entry: entry["stage"] == "ipxe", 30)
        assert entry["failed"]
        assert reason in entry["error"]
        assert not vm.shows("Linux version")
