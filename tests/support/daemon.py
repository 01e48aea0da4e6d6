"""A daemon in the test's own process, on a free loopback port, without DHCP and TFTP."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvloop

from support import leaks
from wwfast.config.settings import load
from wwfast.daemon.app import Daemon
from wwfast.images import building
from wwfast.net.http.server import listen
from wwfast.paths import Paths

MAC = "52:54:00:00:00:01"
NODES = f"""
nodeprofiles:
  default:
    image name: tiny
    system overlay: [motd]
    runtime overlay: [motd]
    kernel: {{args: [quiet]}}
nodes:
  n1:
    profiles: [default]
    network devices: {{default: {{hwaddr: "{MAC}", ipaddr: 10.0.0.11}}}}
"""


def tiny_image(paths: Paths, name: str = "tiny") -> Path:
    """A tree with what the image code looks for; its kernel is no kernel."""
    root = paths.chroots / name / "rootfs"
    for folder in ("boot", "etc", "usr/bin", "usr/lib/modules/6.1.0-1"):
        (root / folder).mkdir(parents=True)
    (root / "lib").symlink_to("usr/lib")
    (root / "boot/vmlinuz-6.1.0-1").write_bytes(b"kernel" * 1000)
    (root / "boot/config-6.1.0-1").write_text("CONFIG_RD_ZSTD=y\n")
    for tool in ("curl", "tar", "sh"):
        (root / "usr/bin" / tool).write_text("#!\n")
    (root / "etc/os-release").write_text("ID=tiny\n" * 30000)
    return root


def overlay(paths: Paths, name: str = "motd", text: str = "{{ id }} of {{ image_name }}\n") -> None:
    folder = paths.site_overlays / name / "rootfs/etc"
    folder.mkdir(parents=True)
    (folder / "motd.j2").write_text(text)


def write_conf(paths: Paths, **changes: Any) -> None:
    sections: dict[str, Any] = {
        "ipaddr": "127.0.0.1",
        "netmask": "255.0.0.0",
        "network": "127.0.0.0",
        "warewulf": {"port": 9873, "secure": False},
        "dhcp": {"enabled": False},
        "tftp": {"enabled": False},
    }
    paths.conf.write_text(json.dumps(sections | changes))


def tiny_site(paths: Paths) -> Paths:
    """A site whose node boots: image, overlays, warewulf.conf, nodes.conf."""
    paths.etc.mkdir(parents=True, exist_ok=True)
    tiny_image(paths)
    building.build(paths, "tiny")
    overlay(paths)
    write_conf(paths)
    paths.nodes_conf.write_text(NODES)
    return paths


class Serving:
    """A running daemon and a client for it."""

    def __init__(self, daemon: Daemon, port: int, loop: asyncio.AbstractEventLoop) -> None:
        self.daemon = daemon
        self.port = port
        self.loop = loop

    def get(
        self, path: str, *, method: str = "GET", source: int = 0, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes, dict[str, str]]:
        """(status, body, headers with lower-case names); `source` is the port to ask from."""
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.port, timeout=30, source_address=("127.0.0.1", source) if source else None
        )
        try:
            connection.request(method, path, headers=headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}
        finally:
            connection.close()

    def status(self, node: str = "") -> Any:
        return json.loads(self.get("/status" + (f"?node={node}" if node else ""))[1])


@contextmanager
def serving(paths: Paths, follow: str = "") -> Iterator[Serving]:
    """Start a daemon for `paths` in a thread of its own; stops it and re-raises what broke it, or what it left open."""
    with leaks.of_a_server(), _serving(paths, follow) as running:
        yield running


@contextmanager
def _serving(paths: Paths, follow: str) -> Iterator[Serving]:
    [listener] = listen([("127.0.0.1", 0)])
    port = listener.getsockname()[1]
    started = threading.Event()
    state: dict[str, Any] = {}

    async def main(sock: socket.socket) -> None:
        daemon = Daemon(paths, load(paths), listeners=[sock], follow=follow)
        await asyncio.to_thread(daemon.heads.first)
        state["end"] = asyncio.Event()
        state["loop"] = asyncio.get_running_loop()
        try:
            await daemon.start()
            state["daemon"] = daemon
            started.set()
            await state["end"].wait()
        finally:
            await daemon.stop(5)

    def work() -> None:
        try:
            uvloop.run(main(listener))
        except BaseException as error:
            state["error"] = error
        finally:
            started.set()

    thread = threading.Thread(target=work)
    thread.start()
    started.wait(60)
    try:
        if "error" in state:
            raise state["error"]
        yield Serving(state["daemon"], port, state["loop"])
    finally:
        if "daemon" in state:
            state["loop"].call_soon_threadsafe(state["end"].set)
        thread.join(60)
    if "error" in state:
        raise state["error"]
