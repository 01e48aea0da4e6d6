"""Servers for the DHCP and TFTP benchmarks: ours and the distribution's, each alone in a namespace of its own.

What a server leaves behind ends with it, before the next one starts: children of tftpd-hpa answer TERM by going on
with their transfer, from ports that the next server's clients use.

A single client and its server share one core (`ONE_CORE`): what a block costs is then measured, not how long the
machine takes to wake another core, which here is ten times as much and differs from run to run.
"""

from __future__ import annotations

import contextlib
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path

from benchmarks._harness import ROOT
from support.netns import Namespace, Network, namespace_number, network

__all__ = [
    "CACHE",
    "ONE_CORE",
    "PYTHON",
    "Namespace",
    "Network",
    "most_files",
    "network",
    "ours",
    "program",
    "ready",
    "unpack",
    "wait",
]

PYTHON = ROOT / ".venv/bin/python"
SERVER = ROOT / "tests/support/udp_server.py"
CACHE = ROOT / ".cache/peers"
ONE_CORE = ("taskset", "-c", "0")
_starts = count()


def wait(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def most_files() -> None:
    """Raise the limit of open files as far as it goes: a client is a socket."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def program(name: str, package: str) -> str:
    """Where a peer's program is. Ends the benchmark, naming the package, when it is nowhere."""
    found = shutil.which(name, path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    if found is None:
        sys.exit(f"{name} is not installed: apt-get install {package}")
    return found


def unpack(package: str, name: str) -> str:
    """A program of a package that cannot be installed beside another one: downloaded and unpacked, not installed."""
    home = CACHE / package
    if not (home / name).exists():
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(["apt-get", "download", "-qq", package], cwd=folder, check=True, stderr=subprocess.DEVNULL)
            (archive,) = Path(folder).glob("*.deb")
            subprocess.run(["dpkg-deb", "-x", archive, home], check=True)
    return str(home / name)


@contextlib.contextmanager
def ours(space: Namespace, *, prefix: Sequence[str] = (), **config: object) -> Iterator[subprocess.Popen[bytes]]:
    settings = {"not_in": namespace_number(), "verbose": False, **config}
    log = f"ours-{next(_starts)}"
    process = space.start(*prefix, PYTHON, SERVER, json.dumps(settings), log=log)
    try:
        if not wait(lambda: "ready" in space.log(log) or process.poll() is not None) or process.poll() is not None:
            sys.exit(f"our server did not start:\n{space.log(log)}")
        yield process
    finally:
        space.close_processes()


@contextlib.contextmanager
def ready(
    space: Namespace, *argv: str | Path, port: int, prefix: Sequence[str] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """A peer, once something listens on its UDP port."""
    log = f"peer-{next(_starts)}"
    process = space.start(*prefix, *argv, log=log)
    try:
        if not wait(lambda: f":{port} " in space.run("ss", "-Hlun")):
            sys.exit(f"{argv[0]} did not start:\n{space.log(log)}")
        yield process
    finally:
        space.close_processes()
