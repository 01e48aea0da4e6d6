"""Parts of the script of stage-1, run by the shell of this machine with a real curl, and a server that fails."""

from __future__ import annotations

import fcntl
import hashlib
import os
import random
import re
import select
import socket
import stat
import subprocess
import termios
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from support.box import box
from support.patience import until
from wwfast.archive.artefact import TAR_ZST
from wwfast.images import archives
from wwfast.images.stage1 import programs
from wwfast.pack.build import build, load

BODY = bytes(range(256)) * 4096  # 1 MiB
MAIN = "\nmkdir -p /proc"
TCP_REPAIR = 19  # linux/tcp.h


class Server(ThreadingHTTPServer):
    """Serves `body` by ranges; `faults` are taken one for each request: what is to go wrong with it."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, body: bytes = BODY, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.body = body
        self.faults: list[str] = []
        self.always = ""
        self.asked: list[str] = []
        self.told: list[str] = []
        self.memory: list[str] = []
        self.carried: list[str] = []
        self.paths: list[str] = []  # of requests that are no reports, with their queries
        self.open = self.most = 0  # requests that were read and not answered: now, and at one time
        self.counted = threading.Lock()

    def count(self, change: int) -> None:
        with self.counted:
            self.open += change
            self.most = max(self.most, self.open)

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def url(self) -> str:
        return f"{self.base}/image"


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None: ...

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self.server.memory += parse_qs(parts.query).get("memory", [])
        if parts.path.startswith("/stage1/"):
            self.server.told += parse_qs(parts.query)["said"]
            self.server.carried += parse_qs(parts.query).get("carried", [])
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        asked = self.headers.get("Range", "")
        self.server.asked.append(asked)
        self.server.paths.append(self.path)
        self.server.count(1)
        fault = self.server.faults.pop(0) if self.server.faults else self.server.always
        if fault == "two":  # until there is another one
            until(lambda: self.server.most > 1, 30.0)
        elif fault == "slow":
            time.sleep(0.1)
        self.server.count(-1)
        if fault.isdigit():
            self.send_error(int(fault))
            return
        if fault == "held":  # until it goes, or as long as 60 s are with FAST
            select.select([self.connection], [], [], 3)
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", asked) if fault != "whole" else None
        data = self.server.body[int(found[1]) : int(found[2]) + 1] if found else self.server.body
        self.send_response(206 if found else 200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if fault == "flipped":
            at = len(data) // 3
            data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        if fault in ("cut", "killed"):
            if fault == "killed":
                self.server.server_close()
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
            return
        if fault == "gone":  # as if its machine had been switched off: no word comes of the connection any more
            self.wfile.write(data[:1000])
            until(lambda: not any(fcntl.ioctl(self.connection, termios.TIOCOUTQ, bytes(4))), 30.0)
            self.connection.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
            os.close(self.connection.detach())
            self.close_connection = True
            return
        self.wfile.write(data)


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def run(place: Path, server: Server, command: str, *, within: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """A part of the script; its pauses are short and noted, and a boot that stops tells it and ends with 9."""
    parts, main, _ = programs.INIT.read_text().partition(MAIN)
    assert main
    words = f"""{parts}
STORE={place} WHY={place}-why image={server.url}?compress=x base={server.base} nic=eth0 wwid=52:54:00:00:00:01
asset='a b&c' memory=512
patience= delay=0 RUN=262144
sleep() {{ echo "$1" >> {place}/pauses; command sleep 0.02; }}
fail() {{ say "BOOT STOPPED: $*"; tell "BOOT STOPPED: $*"; exit 9; }}
argument() {{ echo "$given"; }}
{command}"""
    environment = {"PATH": os.environ["PATH"]}  # PID 1 has no more
    return subprocess.run(
        [*within, "sh", "-c", words], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


#: What the script calls of a machine, and what it may not do to this one.
APPLETS = ("wc", "sha256sum", "head", "mv", "cp")
STUBS = """
mount() { echo mount "$@" >> /calls; }
modprobe() { :; }
ip() { :; }
sleep() { echo "sleep $1" "$(cat /proc/sysrq-trigger)" >> /calls; }
pause() { :; }
curl() {
    query=''
    for word; do case $word in assetkey=*) ;; said=*) query=${word#*=} ;; esac; done
    [ -z "$query" ] || { echo "$query" >> /told; return 0; }
    echo curl >> /calls
    cat /served
}
"""


def bare(place: Path, cmdline: str = "") -> Path:
    """A root of busybox whose /proc and /sys are files, in which a node is restarted by writing to one."""
    root = box(place / "bare")
    for name in APPLETS:
        (root / "bin" / name).symlink_to("busybox")
    (root / "bin/switch_root").write_text('#!/bin/sh\necho switch_root "$@" >> /calls\n')
    (root / "bin/switch_root").chmod(0o755)
    os.mknod(root / "dev/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    (root / "proc/sys/kernel").mkdir(parents=True)
    for name, text in {
        "proc/cmdline": f"quiet {cmdline}\n",
        "proc/uptime": "5.25 9.75\n",
        "proc/meminfo": "MemTotal:        1048576 kB\n",
        "proc/sys/kernel/sysrq": "16\n",
        "proc/sys/kernel/randomize_va_space": "2\n",
        "proc/sysrq-trigger": "",
        "calls": "",
        "told": "",
    }.items():
        (root / name).write_text(text)
    return root


def inside(root: Path, words: str, *, main: bool = False, said: str = "") -> subprocess.CompletedProcess[str]:
    """Words behind the functions of the script, with `main` all the rest of it behind these, in a root of `bare`; what
    it calls is in /calls there, and what it tells the server in /told. `said` is typed on the console."""
    parts, found, rest = programs.INIT.read_text().partition(MAIN)
    assert found
    script = f"{parts}\n{STUBS}\nnic=eth0 base=http://x wwid=n asset= memory=1024\n{words}"
    command = ["unshare", "-m", "chroot", root, "/bin/sh", "-c", script + (found + rest if main else "")]
    environment = {"PATH": os.environ["PATH"]}
    return subprocess.run(command, env=environment, input=said, capture_output=True, text=True, timeout=60, check=False)


def listed(place: Path, size: int = 300_000, body: bytes = BODY) -> Path:
    lines = []
    for start in range(0, len(body), size):
        piece = body[start : start + size]
        lines.append(f"{len(piece)} {hashlib.sha256(piece).hexdigest()}\n")
    (place / "pieces").write_text("".join(lines))
    return place / "pieces"


def archive(
    place: Path, form: str = TAR_ZST, tree: Path | None = None, next_: str = "next"
) -> tuple[bytes, Path, Path]:
    """A tree, the archive of it as it is served, and the list of its pieces; with a tree the next archive of that."""
    dest = place / "image"
    if tree is None:
        tree = _tree(place / "tree")
        (place / "store").mkdir()
        (place / "new").mkdir()
    else:
        dest = place / next_
    made = build(tree, dest, name="t", formats=("zst",), archive=form, frames=place / "frames", segment=100_000)
    archives.listed(dest, made)
    packed = load(dest, form)
    assert packed is not None
    body = b"".join(Path(path).read_bytes()[at : at + length] for path, at, length in packed.extents)
    return body, tree, dest / "tmpfs.pieces"


def _tree(tree: Path) -> Path:
    (tree / "usr").mkdir(parents=True)
    for number in range(200):
        file = tree / f"usr/file{number}"
        file.write_bytes(random.Random(number).randbytes(9000))
        os.utime(file, (4_000_000_000, 4_000_000_000))  # the year 2096: some clocks stand at 1970
    (tree / "usr/large").write_bytes(random.Random(0).randbytes(6 << 20))
    (tree / "usr/again").hardlink_to(tree / "usr/large")
    return tree
