"""A head node for a benchmark: the real server as a process of its own, on a link of its own, and who asks it there.

On two cores and more the server has core 0 to itself, all others the last one: what the askers cost is then not
taken from the server, and what it costs is not taken from the client that is measured. Its helper processes, too, are
on core 0: the figures are those of a server with one core.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks._harness import ROOT
from wwfast.storm.cluster import PORT, Head, prepare
from wwfast.storm.link import RELAY, SERVER, Link, sources

__all__ = ["ASKERS", "FIRST", "LAST", "PORT", "RELAY", "SERVER", "Askers", "Link", "Server", "pinned", "site"]

FIRST, LAST = "10.212.0.0", "10.212.255.255"  # the range: 65,536 addresses
CONF = """\
ipaddr: {server}
netmask: 255.248.0.0
network: 10.208.0.0
warewulf:
  port: {port}
  secure: {secure}
dhcp:
  enabled: {dhcp}
  range start: {first}
  range end: {last}
tftp:
  enabled: true
nfs:
  enabled: false
"""
ALL = os.sched_getaffinity(0)
SERVERS, ASKERS = {min(ALL)}, {max(ALL)}


def site(
    root: Path, nodes: int, *, dhcp: bool = True, secure: bool = True, first: str = FIRST, last: str = LAST
) -> None:
    """Configuration, image and `nodes` nodes below `root`, as `wwfast storm` has them, with a range of addresses."""
    prepare(root, sources(nodes), 1, firmware=dhcp)
    (root / "etc/warewulf/warewulf.conf").write_text(
        CONF.format(
            server=SERVER, port=PORT, secure=str(secure).lower(), dhcp=str(dhcp).lower(), first=first, last=last
        )
    )


@contextlib.contextmanager
def pinned(cores: set[int]) -> Iterator[None]:
    """What is started within stays on these cores."""
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, mine)


class Server(Head):
    """`wwfast server` on `root`, on its core; `link` ends what is left of it."""

    def __enter__(self) -> Server:
        with pinned(SERVERS):
            super().__enter__()
        return self

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def stop(self) -> None:
        self.__exit__(None, None, None)

    def kill(self) -> None:
        """SIGKILL, in the middle of whatever it does."""
        assert self.process is not None
        os.kill(self.pid, signal.SIGKILL)
        self.process.wait()

    def rss(self) -> float:
        """Resident MiB now."""
        return self.usage()[1]


class Askers:
    """The processes of benchmarks/_strangers.py on the nodes' side of a link."""

    def __init__(self, link: Link) -> None:
        self.link = link

    @contextlib.contextmanager
    def meanwhile(self, kind: str, **ask: Any) -> Iterator[dict[str, Any]]:
        """One works while the body runs; what it printed is in the dictionary afterwards."""
        said: dict[str, Any] = {}
        process = self.start(kind, ask)
        try:
            yield said
            said |= json.loads(process.communicate(timeout=60)[0])  # closes its standard input: the end of its time
        finally:
            if process.poll() is None:
                process.kill()
                process.communicate()

    def run(self, kind: str, **ask: Any) -> dict[str, Any]:
        """One, to the end of its own time."""
        return self.answer(self.start(kind, ask), ask["seconds"] * 3 + 60)

    @staticmethod
    def answer(process: subprocess.Popen[bytes], seconds: float) -> dict[str, Any]:
        """What it prints when its own time is over, which must be within `seconds`."""
        assert process.stdout is not None
        try:
            readable, _, _ = select.select([process.stdout], [], [], seconds)
            line = process.stdout.readline() if readable else b""
        finally:
            process.kill()
            process.communicate()
        if not line:
            raise SystemExit(f"{process.args!r} said nothing within {seconds:.0f} s")
        return dict(json.loads(line))

    def start(self, kind: str, ask: dict[str, Any]) -> subprocess.Popen[bytes]:
        return self.play([sys.executable, "-m", "benchmarks._strangers", kind, json.dumps(ask)])

    def play(self, argv: list[str | Path]) -> subprocess.Popen[bytes]:
        """Any command on the nodes' side."""
        with pinned(ASKERS):
            return self.link.play(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
