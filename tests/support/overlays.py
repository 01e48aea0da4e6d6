"""A relocated installation with overlays, nodes and a service, driven the way the daemon drives them."""

from __future__ import annotations

import select
import shutil
import subprocess
from pathlib import Path

from wwfast.archive import newc
from wwfast.archive.artefact import Artefact
from wwfast.config.settings import load
from wwfast.errors import WwfastError
from wwfast.nodes.model import Node
from wwfast.nodes.registry import Registry, Snapshot
from wwfast.overlays.making.service import CONTEXTS, OverlayService
from wwfast.paths import Paths

NODES = """\
nodeprofiles:
  all:
    system overlay: [base]
    runtime overlay: [live]
nodes:
  n1:
    profiles: [all]
    tags: {rack: r1}
    network devices:
      default: {device: eth0, ipaddr: 10.0.1.1, netmask: 255.255.0.0, hwaddr: "52:54:00:00:00:01"}
  n2:
    profiles: [all]
    network devices:
      default: {device: eth0, ipaddr: 10.0.1.2, netmask: 255.255.0.0, hwaddr: "52:54:00:00:00:02"}
"""

OPEN: list[OverlayService] = []  # closed after each test: Linux gives a user 128 watches


class Site:
    """`put` writes overlay files, `nodes` writes nodes.conf; everything is taken in when next asked."""

    def __init__(self, paths: Paths, *, conf: str = "ipaddr: 10.0.0.1/16\n", nodes: str = NODES) -> None:
        paths.etc.mkdir(parents=True, exist_ok=True)
        self.paths = paths
        self.conf(conf)
        paths.nodes_conf.write_text(nodes)
        self.registry = Registry(paths)
        self.snapshot: Snapshot = self.registry.snapshot()
        self.service = self.new_service()

    def conf(self, text: str) -> None:
        self.paths.conf.write_text(text)

    def new_service(self) -> OverlayService:
        """Another process, as it were: same files, nothing in memory."""
        self.service = OverlayService(self.paths, load(self.paths))
        OPEN.append(self.service)
        return self.service

    def put(self, overlay: str, path: str, text: str | bytes = "", mode: int = 0o644) -> Path:
        file = self.paths.site_overlays / overlay / "rootfs" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        file.chmod(mode)
        return file

    def nodes(self, text: str) -> None:
        self.paths.nodes_conf.write_text(text)
        self.snapshot = self.registry.reload()

    def node(self, name: str = "n1") -> Node:
        return self.snapshot.nodes[name]

    def peek(self, name: str = "n1", context: str = "system") -> Artefact | None:
        """As the server's loop does: when there is news, it says so, and somebody else looks."""
        if select.select([self.service.fileno()], [], [], 0)[0]:
            self.service.heard()
        return self.service.peek(self.snapshot, self.node(name), context, "raw")

    def ask(self, name: str = "n1", context: str = "system", fmt: str = "raw") -> Artefact:
        return self.service.artefact(self.snapshot, self.node(name), context, fmt)

    def text(self, path: str, name: str = "n1", context: str = "system") -> str:
        """A file as the node would find it."""
        return self.unpacked(name, context)[path].decode()

    def unpacked(self, name: str = "n1", context: str = "system") -> dict[str, bytes]:
        """Files by path, and targets of links as b'-> target'; by GNU cpio's eyes."""
        return unpack(body(self.ask(name, context)), self.paths.root / "unpacked")


def told(service: OverlayService, site: Site) -> dict[tuple[str, str], object]:
    """For each node and context the entries of its archive, or why there are none."""
    found: dict[tuple[str, str], object] = {}
    for name, node in site.snapshot.nodes.items():
        for context in CONTEXTS:
            try:
                made = newc.entries(body(service.artefact(site.snapshot, node, context, "raw")))
                found[name, context] = [(it.name, it.mode, it.uid, it.gid, it.data) for it in made]
            except WwfastError as error:
                found[name, context] = error.message
            if (failure := service.failures.get((name, context))) is not None:
                found[name, context] = failure.message
    return found


class Oracle:
    """Compares the service of a site with one that begins now, with empty caches."""

    def __init__(self, site: Site) -> None:
        self.site, self.number = site, 0

    def differences(self) -> list[tuple[object, object, object]]:
        """Where and what, of the one that lives long, and of one that begins now."""
        self.number += 1
        paths = self.site.paths.with_(cache=self.site.paths.root / f"fresh/{self.number}")
        service = OverlayService(paths, load(paths))
        try:
            fresh = told(service, self.site)
        finally:
            service.close()
            shutil.rmtree(paths.cache, ignore_errors=True)
        lasting = told(self.site.service, self.site)
        return [(key, lasting[key], fresh[key]) for key in fresh if lasting[key] != fresh[key]]


def kept(paths: Paths) -> list[Path]:
    """The files of the overlay cache."""
    return sorted(file for file in paths.overlay_cache.rglob("*") if file.is_file() and file.name != "lock")


def body(artefact: Artefact) -> bytes:
    """Every byte a node would be sent."""
    parts = []
    for extent in artefact.extents:
        with Path(extent.path).open("rb") as file:
            file.seek(extent.offset)
            parts.append(file.read(extent.length))
    data = b"".join(parts)
    assert len(data) == artefact.size
    return data


def unpack(newc: bytes, into: Path) -> dict[str, bytes]:
    into.mkdir(exist_ok=True)
    subprocess.run(["find", str(into), "-mindepth", "1", "-delete"], check=True)
    done = subprocess.run(
        ["cpio", "-idmu", "--quiet", "--no-absolute-filenames"], cwd=into, input=newc, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    found: dict[str, bytes] = {}
    for path in sorted(into.rglob("*")):
        name = str(path.relative_to(into))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}".encode()
        elif path.is_file():
            found[name] = path.read_bytes()
    return found
