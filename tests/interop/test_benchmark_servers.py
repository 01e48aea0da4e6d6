"""What the benchmarks start ends before the next server runs, whatever it left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path

import pytest
from benchmarks import _http_peers
from benchmarks._udp import ready

from support.netns import network

# A server as tftpd-hpa and nginx can be: its child has a port of its own and goes on when the server is told to end.
LEAVES_A_CHILD = """
import os, signal, socket, sys, time
kind = socket.SOCK_DGRAM if sys.argv[1] == "udp" else socket.SOCK_STREAM
own, childs = socket.socket(type=kind), socket.socket(type=kind)
childs.bind(("", int(sys.argv[2]) + 1))
if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if sys.argv[1] == "udp":
        os.setsid()
    while True:
        time.sleep(1)
own.bind(("", int(sys.argv[2])))
if sys.argv[1] == "tcp":
    own.listen()
signal.pause()
"""


@pytest.mark.root
def test_children_that_outlive_a_udp_server_are_gone_before_the_next_one() -> None:
    with network() as net:
        space = net.join("server", "10.99.0.1/24")
        for _ in range(2):  # the second could not bind the child's port
            with ready(space, sys.executable, "-c", LEAVES_A_CHILD, "udp", "6900", port=6900):
                assert ":6901 " in space.run("ss", "-Hlun")
                assert len(space.pids()) == 2
            assert space.pids() == []
            assert space.run("ss", "-Hlun") == ""


def test_children_that_outlive_an_http_server_are_gone_before_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "server"
    script.write_text(f"#!{sys.executable}\nimport sys\nsys.argv[1:] = ['tcp', sys.argv[1]]\n{LEAVES_A_CHILD}")
    script.chmod(0o755)
    monkeypatch.setattr(_http_peers, "build", lambda name: script)
    server = _http_peers.Server("bare", tmp_path, _http_peers.free_port())
    try:
        with server:
            assert len(_http_peers.session(server.process.pid)) == 2
        assert _http_peers.session(server.process.pid) == []
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.process.pid, signal.SIGKILL)
