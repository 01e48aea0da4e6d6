"""A kernel without IPv6, or with it off, is no reason not to serve."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.site import SUPPORT, Site, made

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(180)]

REFUSED = (sys.executable, str(SUPPORT / "without_ipv6.py"))
TRY = "import socket; socket.socket(socket.AF_INET6)"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with made(tmp_path) as one:
        yield one


def test_server_serves_all_by_ipv4_where_the_kernel_has_no_ipv6(site: Site) -> None:
    there = subprocess.run([*REFUSED, sys.executable, "-c", TRY], check=False, capture_output=True, text=True)
    assert "Address family not supported" in there.stderr  # it is not there for whoever runs so
    server = site.start("log", {}, inside=REFUSED)
    site.says("log", "serving on port")
    assert site.ask()["pid"] == server.pid


@pytest.mark.parametrize("name", ["all", "default"])
def test_server_serves_all_by_ipv4_where_ipv6_is_off(site: Site, name: str) -> None:
    for interface in (name, "lo", "eth0"):
        site.space.run("sysctl", "-w", f"net.ipv6.conf.{interface}.disable_ipv6=1")
    server = site.start("log", {})
    site.says("log", "serving on port")
    assert site.ask()["pid"] == server.pid


def test_server_says_at_its_start_what_keeps_nodes_from_booting(site: Site) -> None:
    site.start("log", {})
    site.says("log", "serving on port")
    assert "n1: has no image" in site.space.log("log")
    assert "wwfast node set n1 --image NAME" in site.space.log("log")
