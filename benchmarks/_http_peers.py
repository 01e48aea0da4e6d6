"""The servers that are measured, each as processes of its own: ours, nginx with its best settings, a bare loop in C."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks._harness import ROOT
from support.netns import end_all

NATIVE = Path(__file__).parent / "native"
WORKERS = 2  # threads or processes that send, for every server

# The best known settings for large static files: sendfile in chunks of 2 MiB, a head corked to its file, open files
# kept, no log, one listener per worker.
NGINX = """
daemon off;
user root;
pid {work}/nginx.pid;
error_log {work}/error.log;
worker_processes {workers};
worker_rlimit_nofile 60000;
events {{ worker_connections 25000; multi_accept on; use epoll; }}
http {{
    access_log off;
    default_type application/octet-stream;
    sendfile on; sendfile_max_chunk 2m; tcp_nopush on; tcp_nodelay on;
    keepalive_requests 100000000; keepalive_timeout 75s; send_timeout 600s;
    open_file_cache max=5000 inactive=600s; open_file_cache_valid 600s;
    server {{
        listen {port} reuseport backlog=65535;
        root {tree};
        location ~ ^/(kernel|image)/ {{ try_files /$1 =404; }}
        location ~ ^/(ipxe|kmods|system|runtime)/(.*)$ {{ try_files /$2.$1 =404; }}
    }}
}}
"""


def build(name: str) -> Path:
    """Compile benchmarks/native/NAME.c; the program."""
    made = ROOT / ".cache" / f"bench-{name}"
    source = NATIVE / f"{name}.c"
    if not made.exists() or made.stat().st_mtime < source.stat().st_mtime:
        made.parent.mkdir(exist_ok=True)
        subprocess.run(["gcc", "-O2", "-pthread", "-o", made, source], check=True)
    return made


class Server:
    """A context manager around one server process and its workers, in namespace `within` if given."""

    def __init__(self, kind: str, tree: Path, port: int, *, within: str = "", policy: str = "wave") -> None:
        self.kind, self.tree, self.port, self.within, self.policy = kind, tree, port, within, policy

    def __enter__(self) -> Server:
        self.work = Path(tempfile.mkdtemp(prefix="wwbench-"))
        self.start()
        return self

    def start(self) -> None:
        if self.kind == "nginx":
            conf = self.work / "nginx.conf"
            conf.write_text(NGINX.format(work=self.work, workers=WORKERS, port=self.port, tree=self.tree))
            argv: list[str | Path] = ["nginx", "-p", self.work, "-c", conf]
        elif self.kind == "bare":
            argv = [build("bare"), str(self.port), self.tree / "image"]
        else:
            argv = [sys.executable, "-m", "benchmarks._http_server", self.tree, str(self.port), self.policy]
        prefix = ["ip", "netns", "exec", self.within] if self.within else []
        self.process = subprocess.Popen(
            [str(word) for word in [*prefix, *argv]],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL if self.kind == "nginx" else None,
            start_new_session=True,
        )
        deadline = time.monotonic() + 20
        while not self._listens():
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise SystemExit(f"{self.kind} did not start")
            time.sleep(0.05)

    def _listens(self) -> bool:
        prefix = ["ip", "netns", "exec", self.within] if self.within else []
        done = subprocess.run([*prefix, "ss", "-Hltn", f"sport = :{self.port}"], capture_output=True, check=False)
        return bool(done.stdout.strip())

    def stop(self) -> None:
        """End it, and whatever it started that outlives it: the next server has the machine to itself."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        end_all(partial(session, self.process.pid))

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.work, ignore_errors=True)

    def pids(self) -> list[int]:
        """The process and its children."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [self.process.pid, *map(int, children)]

    def cpu(self) -> float:
        """CPU seconds so far."""
        ticks = 0
        for pid in self.pids():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def rss(self) -> float:
        """Resident MiB now."""
        total = 0
        for pid in self.pids():
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    total += int(line.split()[1])
        return total / 1024


def session(leader: int) -> list[int]:
    """Living members of the session that `leader` began, whether it lives or not."""
    found = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, sid = place.read_text().rpartition(") ")[2].split()[:4]
        except (OSError, ValueError):  # it has just ended
            continue
        if int(sid) == leader and state != "Z":
            found.append(int(place.parent.name))
    return found


def load(port: int, target: str, connections: int, seconds: float, *more: str) -> dict[str, Any]:
    """Run the load client on the loopback to its end."""
    argv = [build("load"), "127.0.0.1", str(port), target, str(connections), str(seconds), *more]
    return dict(json.loads(subprocess.run(argv, check=True, capture_output=True).stdout))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def fill(path: Path, size: int, seed: int = 0) -> None:
    """A file of `size` bytes that do not compress, the same for the same seed."""
    import random

    block = random.Random(seed).randbytes(1 << 20)
    with path.open("wb") as file:
        left = size
        while left:
            file.write(block[: min(left, len(block))])
            left -= min(left, len(block))


def conditions() -> dict[str, str]:
    """What of the kernel's network decides such figures."""
    return {
        name: Path(f"/proc/sys/{path}").read_text().strip()
        for name, path in (
            ("congestion control", "net/ipv4/tcp_congestion_control"),
            ("default qdisc", "net/core/default_qdisc"),
        )
    }


def versions(sources: Sequence[str] = ()) -> None:
    """Compile what will be needed, before anything is measured; refuse without the peer."""
    if shutil.which("nginx") is None:
        raise SystemExit("nginx is not installed: apt-get install nginx-light")
    for name in ("load", "bare", *sources):
        build(name)
