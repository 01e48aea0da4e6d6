"""wwfast ssh with a real SSH server and client."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.bmc import free_port
from support.patience import until
from wwfast.paths import Paths
from wwfast.system.run import run, start

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


@pytest.fixture(scope="module")
def rsh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A server on loopback with a home of its own for root, and a program that reaches it with ssh."""
    assert shutil.which("dropbear"), "dropbear is missing: apt-get install dropbear-bin (tools/setup.sh does)"
    home, port = tmp_path_factory.mktemp("home"), free_port()
    home.chmod(0o700)  # the server refuses keys below a directory others may write
    (home / ".ssh").mkdir(mode=0o700)
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", home / "key"], package="openssh-client")
    (home / "key.pub").rename(home / ".ssh/authorized_keys")
    run(["dropbearkey", "-t", "ed25519", "-f", home / "host"], package="dropbear-bin")
    # In a mount namespace of its own: the machine's /root stays as it is.
    script = f"mount --bind {home} /root && exec dropbear -F -E -r /root/host -p 127.0.0.1:{port} -P /root/pid"
    with (home / "log").open("wb") as log:
        server = start(["unshare", "--mount", "sh", "-c", script], stdout=log, stderr=log, tied=True)
    program = home / "rsh"
    program.write_text(
        f"#!/bin/sh\nexec ssh -F none -p {port} -i {home}/key -o BatchMode=yes -o StrictHostKeyChecking=no"
        f' -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR "$@"\n'
    )
    program.chmod(0o755)
    try:

        def listens() -> bool:
            assert server.poll() is None, (home / "log").read_text()
            return f":{port:04X} " in Path("/proc/net/tcp").read_text()

        until(listens, 15.0)
        yield program
    finally:
        server.terminate()
        server.wait(15)


def test_ssh_runs_the_command_and_tells_who_failed(paths: Paths, rsh: Path) -> None:
    """Both nodes are this server; it tells them apart by nothing, so the command decides by a file."""
    device = {"network devices": {"default": {"ipaddr": "127.0.0.1"}}}
    paths.nodes_conf.write_text(json.dumps({"nodes": {"n1": device, "n2": device}}))
    mark = paths.root / "mark"
    words = [sys.executable, "-m", "wwfast", "--root", paths.root, "ssh", "--rsh", rsh, "--fanout", "1"]
    done = run([*words, "n[2,1]", f"echo one; echo two >&2; mkdir {mark}"], check=False, timeout=50)
    assert done.stdout == b"n1: one\nn2: one\n"
    err = done.stderr.decode()
    assert "n1: two\nn2: two\nn2: mkdir: " in err
    assert err.endswith("failed with exit status 1\nerror: failed on 1 of 2 nodes: n2\n")
    assert done.returncode == 1
    assert mark.is_dir()
