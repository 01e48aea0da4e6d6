"""What was installed into an image is on the node that boots it."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.lab import Laboratory
from support.package import CONTENT, FILE, NAME, package
from wwfast.demo.cluster import IMAGE

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(900)]


def test_image_with_a_package_installed_boots_with_it(lab: Laboratory, tmp_path: Path) -> None:
    lab.wwfast("image", "copy", IMAGE, "probed", timeout=300)
    bind = f"{package(tmp_path)}:/tmp/probe.deb:ro"
    lab.wwfast("image", "exec", "--bind", bind, "probed", "--", "dpkg", "-i", "/tmp/probe.deb", timeout=300)
    lab.add_node("probe1", 7, "--image", "probed")
    with lab.machine("probe1", 7) as vm:
        vm.wait(timeout=300)
        vm.wait_ssh()
        assert vm.ssh(f"cat {FILE}") == CONTENT
        assert vm.ssh(f"dpkg-query -W -f '${{db:Status-Status}}' {NAME}") == "installed"
