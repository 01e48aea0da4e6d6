"""Network namespaces of a test's own: a bridge in one, a cable to each of the others, all gone at the end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

_numbers = count(1)


def sh(*words: str | Path, check: bool = True, timeout: float = 60.0) -> str:
    done = subprocess.run(
        [str(word) for word in words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout,
        check=False,
    )
    output = done.stdout.decode(errors="replace")
    if check and done.returncode:
        raise AssertionError(f"{' '.join(map(str, words))}: exit status {done.returncode}\n{output}")
    return output


def end_all(living: Callable[[], list[int]], seconds: float = 10.0) -> None:
    """SIGKILL who is living until nobody is. Raises AssertionError when somebody still is after `seconds`."""
    end = time.monotonic() + seconds
    while pids := living():
        assert time.monotonic() < end, f"processes {pids} cannot be ended"
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


class Namespace:
    """One namespace; what `start` started ends with it."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self._running: list[subprocess.Popen[bytes]] = []
        sh("ip", "netns", "add", name)
        self.run("ip", "link", "set", "lo", "up")

    def prefix(self, *words: str | Path) -> list[str]:
        return ["ip", "netns", "exec", self.name, *(str(word) for word in words)]

    def run(self, *words: str | Path, check: bool = True, timeout: float = 60.0) -> str:
        return sh(*self.prefix(*words), check=check, timeout=timeout)

    def start(self, *words: str | Path, log: str = "log", stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        with (self.folder / f"{self.name}-{log}").open("ab") as output:
            process = subprocess.Popen(
                self.prefix(*words), stdin=stdin, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        self._running.append(process)
        return process

    def log(self, log: str = "log") -> str:
        return (self.folder / f"{self.name}-{log}").read_text(errors="replace")

    def stop(self, process: subprocess.Popen[bytes]) -> int:
        """End one started command and whatever it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            status = process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            status = process.wait(5)
        if process in self._running:
            self._running.remove(process)
        return status

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """End one started command as a crash does: what it started stays."""
        self._running.remove(process)
        process.kill()
        process.wait(10)

    def pids(self) -> list[int]:
        """Who lives in the namespace, whatever became of who started it."""
        return [int(pid) for pid in sh("ip", "netns", "pids", self.name).split()]

    def close_processes(self) -> None:
        """End everything that runs inside. Raises AssertionError when something stays."""
        for process in list(self._running):
            self.stop(process)
        # Clients put themselves into the background, servers leave children: what lives here is ours as well.
        end_all(self.pids)

    def close(self) -> None:
        self.close_processes()
        sh("ip", "netns", "delete", self.name, check=False)


class Network:
    """`hub` holds the bridge br0; `join` makes a namespace with eth0 plugged into it."""

    def __init__(self, folder: Path) -> None:
        self._id = f"{os.getpid() % 100000:x}"
        self.folder = folder
        self.spaces: list[Namespace] = []
        self.hub = self.space("hub")
        self.hub.run("ip", "link", "add", "br0", "type", "bridge", "forward_delay", "0", "stp_state", "0")
        self.hub.run("ip", "link", "set", "br0", "up")

    def space(self, label: str) -> Namespace:
        space = Namespace(f"wt{self._id}-{next(_numbers)}-{label}", self.folder)
        self.spaces.append(space)
        return space

    def join(self, label: str, address: str = "", *, mac: str = "") -> Namespace:
        space = self.space(label)
        self.plug(space, "eth0", address, mac=mac)
        return space

    def plug(self, space: Namespace, device: str, address: str = "", *, mac: str = "", bridge: str = "br0") -> None:
        port = f"p{next(_numbers)}"
        self.hub.run("ip", "link", "add", port, "type", "veth", "peer", "name", device, "netns", space.name)
        self.hub.run("ip", "link", "set", port, "master", bridge, "up")
        if mac:
            space.run("ip", "link", "set", device, "address", mac)
        if address:
            space.run("ip", "address", "add", address, "dev", device)
        space.run("ip", "link", "set", device, "up")

    def close(self) -> None:
        for space in reversed(self.spaces):
            space.close()


@contextlib.contextmanager
def network() -> Iterator[Network]:
    with tempfile.TemporaryDirectory(prefix="wwfast-net-") as folder:
        made = Network(Path(folder))
        try:
            yield made
        finally:
            made.close()


def namespace_number() -> int:
    """What tells this process's network namespace from others; a server under test refuses to start in it."""
    return Path("/proc/self/ns/net").stat().st_ino
