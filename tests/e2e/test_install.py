"""What `pip install` gives: a wheel in a clean virtual environment, away from the checkout, serves a node."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from wwfast.system.run import run, start, stop

CHECKOUT = Path(__file__).parents[2]
HWADDR = "52:54:00:77:00:01"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin directory of a virtual environment that holds nothing but the wheel and what it depends on."""
    place = tmp_path_factory.mktemp("install")
    source = place / "source"
    leave = shutil.ignore_patterns("*.so", "__pycache__", "*.egg-info")
    shutil.copytree(CHECKOUT / "src", source / "src", ignore=leave)
    shutil.copytree(CHECKOUT / "build", source / "build")  # extensions as `make setup` built them from the same text
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", place, source], cwd=place, timeout=600)
    (wheel,) = place.glob("wwfast-*.whl")
    run([sys.executable, "-m", "venv", place / "venv"], timeout=120)
    run([place / "venv/bin/pip", "--disable-pip-version-check", "-q", "install", wheel], cwd=place, timeout=300)
    return place / "venv/bin"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_installed_wheel_serves_a_node_away_from_the_checkout(installed: Path, tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    wwfast = [installed / "wwfast", "--root", tmp_path]
    where = run([installed / "python", "-c", "import wwfast; print(wwfast.__file__)"], cwd=tmp_path, env=environment)
    assert Path(where.stdout.decode().strip()).is_relative_to(installed.parent)

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    etc = tmp_path / "etc/warewulf"
    etc.mkdir(parents=True)
    settings = {
        "ipaddr": "127.0.0.1",
        "warewulf": {"port": port},
        "dhcp": {"enabled": False},
        "tftp": {"enabled": False},
    }
    (etc / "warewulf.conf").write_text(json.dumps(settings))
    run([*wwfast, "node", "add", "n1", "--hwaddr", HWADDR, "--ipaddr", "10.0.0.2", "--yes"], env=environment)
    log = (tmp_path / "log").open("wb")
    server = start([*wwfast, "server"], cwd=tmp_path, env=environment, stdout=log, stderr=log)
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        deadline = time.monotonic() + 60
        while True:
            try:
                with opener.open(f"http://127.0.0.1:{port}/status", timeout=10) as answer:
                    status = json.load(answer)
                break
            except OSError:
                assert server.poll() is None, (tmp_path / "log").read_text()
                assert time.monotonic() < deadline, (tmp_path / "log").read_text()
                time.sleep(0.2)
        assert list(status["nodes"]) == ["n1"]
        # The script comes from a template of the package: it has no image, and says so.
        with opener.open(f"http://127.0.0.1:{port}/ipxe/{HWADDR}", timeout=10) as answer:
            assert answer.read().startswith(b"#!ipxe")
    finally:
        assert stop(server, 70) == 0
        log.close()
