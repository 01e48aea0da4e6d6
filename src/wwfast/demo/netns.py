"""A network of our own on this machine: a namespace with a bridge, taps for virtual machines, and nothing else.

No address of it is reachable from outside and nothing outside can be reached from it.
"""

from __future__ import annotations

import itertools
import os
import signal
import time
from pathlib import Path
from typing import Any

from wwfast.errors import WwfastError
from wwfast.system.run import Argv, Done, Process, run, start

NETNS = Path("/run/netns")
MORTAL = ("setpriv", "--pdeathsig", "KILL")  # ends with the thread that started it
_serial = itertools.count()


class Namespace:
    """A context manager: entering makes it, leaving ends every process in it and removes it.

    `address` is that of the bridge br0 with its prefix length, the provisioning server's side.
    """

    def __init__(self, address: str = "10.77.0.1/24", *, label: str = "lab") -> None:
        self.name = f"wwfast-{label}-{os.getpid()}-{next(_serial)}"
        self.address = address
        self._taps = itertools.count()

    @property
    def server(self) -> str:
        return self.address.partition("/")[0]

    def __enter__(self) -> Namespace:
        run(["ip", "netns", "add", self.name], package="iproute2")
        try:
            self.assert_private()
            self.ip("link", "set", "lo", "up")
            # No spanning tree: a port of the bridge forwards at once, firmware does not wait.
            self.ip("link", "add", "br0", "type", "bridge", "stp_state", "0", "forward_delay", "0")
            self.ip("address", "add", self.address, "dev", "br0")
            self.ip("link", "set", "br0", "up")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def assert_private(self) -> None:
        """Raise unless this namespace exists and is not the one we run in."""
        mine, its = Path("/proc/self/ns/net").stat(), (NETNS / self.name).stat()
        if (mine.st_dev, mine.st_ino) == (its.st_dev, its.st_ino):
            raise WwfastError(f"{self.name} is the network namespace of this machine itself, not one of our own")

    def within(self, argv: Argv) -> list[str | Path]:
        """The command line that runs `argv` inside; it dies with the thread that started it."""
        self.assert_private()
        return ["ip", "netns", "exec", self.name, *MORTAL, *argv]

    def run(self, argv: Argv, **options: Any) -> Done:
        """As wwfast.system.run.run, inside."""
        return run(self.within(argv), **options)

    def start(self, argv: Argv, **options: Any) -> Process:
        """As wwfast.system.run.start, inside; ended with the namespace at the latest."""
        return start(self.within(argv), **options)

    def ip(self, *words: str) -> None:
        run(["ip", "-netns", self.name, *words])

    def tap(self) -> str:
        """A new tap on the bridge; its name inside the namespace."""
        name = f"tap{next(self._taps)}"
        self.ip("tuntap", "add", "dev", name, "mode", "tap")
        self.ip("link", "set", name, "master", "br0", "up")
        return name

    def pids(self) -> list[int]:
        """Processes that live in the namespace."""
        return [int(word) for word in run(["ip", "netns", "pids", self.name]).stdout.split()]

    def close(self) -> None:
        if not (NETNS / self.name).exists():
            return
        deadline = time.monotonic() + 10
        while (pids := self.pids()) and time.monotonic() < deadline:
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            time.sleep(0.05)
        run(["ip", "netns", "delete", self.name])


class Loopback:
    """What works without root: this machine's own 127.0.0.1, with the interface of a Namespace."""

    server = "127.0.0.1"

    def run(self, argv: Argv, **options: Any) -> Done:
        return run(argv, **options)

    def start(self, argv: Argv, **options: Any) -> Process:
        return start([*MORTAL, *argv], **options)
