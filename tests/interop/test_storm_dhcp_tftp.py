"""A storm from the firmware's first packet on, against the whole server."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.parametrize("profile", ["bios", "uefi"])
def test_storm_dhcp_tftp_and_everything_after(profile: str) -> None:
    words = ["--nodes", "60", "--dhcp", "--profile", profile, "--image-size", "1", "--rate", "0", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "wwfast", "storm", *words], capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    stages = ["dhcp", "tftp", "dhcp-ipxe", "ipxe", "kernel", "image", "system", "runtime"]
    assert {stage: seen["nodes"] for stage, seen in report["stages"].items()} == dict.fromkeys(stages, 60)
    assert report["failures"] == []
