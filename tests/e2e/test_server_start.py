"""The server in a network of its own, without machines: what happens while it starts."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from support.lab import Laboratory, Namespace, Tree

pytestmark = [pytest.mark.root, pytest.mark.slow]


def test_server_does_not_start_where_tls_is_wanted(tmp_path: Path) -> None:
    """Runtime overlays hold secrets: they must not go in the open where the file says that they do not."""
    with Namespace() as network:
        lab = Laboratory(tmp_path, network, Tree(tmp_path, tmp_path))
        lab.configure(warewulf={"tls": True})
        refused = lab.wwfast("server", check=False, timeout=30)
        assert refused.returncode == 1
        assert b"TLS is not served" in refused.stderr
        assert b"Traceback" not in refused.stderr


def test_server_sees_nodes_added_while_it_starts(tmp_path: Path) -> None:
    """DHCP listens for another server for three seconds; what is edited meanwhile must not be missed."""
    with Namespace() as network:
        lab = Laboratory(tmp_path, network, Tree(tmp_path, tmp_path))
        lab.configure()
        with lab.log.open("wb") as log:
            server = network.start(
                [sys.executable, "-m", "wwfast", "--root", tmp_path, "server"], stdout=log, stderr=log
            )
        # It holds its port, and has read nodes.conf before.
        lab.wait_for(lambda: network.run(["ss", "-Hlt", "sport = :9873"]).stdout, lambda shown: b"LISTEN" in shown, 60)
        assert b"serving on port" not in lab.log.read_bytes()
        lab.add_node("early", 1)
        lab.wait_for(lambda: json.loads(lab.fetch("/status").stdout)["nodes"], lambda nodes: "early" in nodes, 30)
        server.terminate()
        assert server.wait(30) == 0
