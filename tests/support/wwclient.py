"""wwclient in a root of its own, and a small server for it."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import signal
import subprocess
import tarfile
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from wwfast.paths import SHARE

CLIENT = SHARE / "overlays/wwclient/rootfs/warewulf/wwclient"
SHELLS = [["dash"], ["busybox", "sh"]]
WWID = "52:54:00:00:00:0a"
ROOT = os.geteuid() == 0


@dataclass
class Asked:
    path: str
    query: dict[str, list[str]]
    etag: str | None
    port: int
    status: int


@dataclass
class Overlay:
    """What the server has: entries by path, sent as tar under the ETag of its bytes."""

    entries: dict[str, tarfile.TarInfo] = field(default_factory=dict)
    data: dict[str, bytes] = field(default_factory=dict)
    status: int = 200
    asked: list[Asked] = field(default_factory=list)
    delay: float = 0  # of an answer, unless the server ends
    begun: int = 0  # requests that arrived, answered or not

    def put(self, path: str, data: bytes | str, mode: int = 0o644, owner: tuple[int, int] | None = None) -> None:
        raw = data.encode() if isinstance(data, str) else data
        self._add(path, tarfile.REGTYPE, mode, owner).size = len(raw)
        self.data[path] = raw

    def link(self, path: str, target: str) -> None:
        self._add(path, tarfile.SYMTYPE, 0o777, None).linkname = target

    def directory(self, path: str, mode: int = 0o755) -> None:
        self._add(path, tarfile.DIRTYPE, mode, None)

    def drop(self, path: str) -> None:
        del self.entries[path]

    def _add(self, path: str, kind: bytes, mode: int, owner: tuple[int, int] | None) -> tarfile.TarInfo:
        info = tarfile.TarInfo(path)
        info.type, info.mode = kind, mode
        info.uid, info.gid = owner or (os.getuid(), os.getgid())
        self.entries[path] = info
        return info

    def tar(self) -> bytes:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            for path in sorted(self.entries):
                archive.addfile(self.entries[path], io.BytesIO(self.data.get(path, b"")))
        return out.getvalue()


class Server:
    """A small HTTP server of the test's own on loopback; `restart` keeps its port."""

    def __init__(self, overlay: Overlay) -> None:
        self.overlay = overlay
        self.http: ThreadingHTTPServer | None = None
        self.port = 0
        self.start()

    def start(self) -> None:
        overlay, ended = self.overlay, threading.Event()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                overlay.begun += 1
                body = overlay.tar()
                etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
                condition = self.headers["If-None-Match"]
                status = 304 if overlay.status == 200 and condition == etag else overlay.status
                url = urlsplit(self.path)
                ended.wait(overlay.delay)
                self.send_response(status)
                self.send_header("ETag", etag)
                self.send_header("Content-Length", str(len(body) if status == 200 else 0))
                # The server closes first, as with a client that asks once a minute; TIME_WAIT is then on its side.
                self.send_header("Connection", "close")
                self.close_connection = True
                self.end_headers()
                if status == 200:
                    self.wfile.write(body)
                overlay.asked.append(Asked(url.path, parse_qs(url.query), condition, self.client_address[1], status))

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.http, self.ended = ThreadingHTTPServer(("127.0.0.1", self.port), Handler), ended
        self.http.daemon_threads = False  # their sockets are closed when the server is
        self.port = self.http.server_address[1]
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        if self.http is not None:
            self.ended.set()
            self.http.shutdown()
            self.http.server_close()
            self.http = None


class Node:
    """A root directory with what wwclient reads of a node, and the client run in it."""

    def __init__(self, root: Path, shell: list[str], server: Server) -> None:
        self.root, self.shell, self.server = root, shell, server
        (root / "proc").mkdir(parents=True)
        (root / "proc/cmdline").write_text(f"quiet wwid={WWID} console=ttyS0\n")
        (root / "proc/meminfo").write_text("MemTotal:        2012004 kB\nMemFree:          512 kB\n")
        (root / "sys/class/dmi/id").mkdir(parents=True)
        (root / "sys/class/dmi/id/chassis_asset_tag").write_text("Rack 7 & co\n")
        (root / "sys/class/dmi/id/product_uuid").write_text("4c4c4544-0042\n")
        (root / "etc").mkdir()
        (root / "warewulf").mkdir()
        self.configure()
        self.running: list[subprocess.Popen[str]] = []

    def configure(self, **changes: object) -> None:
        values = {
            "WWIPADDR": "127.0.0.1",
            "WWPORT": self.server.port,
            "WWSECURE": "false",
            "WWINTERVAL": 2,
            "WWTLS": "false",
            **changes,
        }
        (self.root / "warewulf/config").write_text("".join(f"{key}='{value}'\n" for key, value in values.items()))

    def argv(self, *words: str) -> list[str]:
        return [*self.shell, str(CLIENT), "--root", str(self.root), *words]

    def once(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.argv("--once"), capture_output=True, text=True, timeout=60, check=False)

    def update(self) -> str:
        done = self.once()
        assert done.returncode == 0, done.stdout + done.stderr
        assert not done.stderr
        return done.stdout

    def start(self, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            self.argv(),
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.running.append(process)
        return process

    def end(self) -> None:
        for process in self.running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()

    def read(self, path: str) -> str:
        return (self.root / path).read_text()

    def leftovers(self) -> list[Path]:
        return list(self.root.rglob(".wwclient.*"))
