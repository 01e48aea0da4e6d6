"""Container images made for tests: a small root file system, OCI layouts of it, and Debian's registry on loopback."""

from __future__ import annotations

import hashlib
import io
import json
import os
import socket
import tarfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from isal import igzip

from wwfast.system.run import run, start

CAPABILITY = b"\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
# htpasswd -nbB user secret
HTPASSWD = "user:$2y$05$CJpnGpfu08oPEOvyEAXOteCJjvvbk/6HA75C3x0BfvwZM7STRAb1C\n"


def small_tree(root: Path) -> Path:
    """A tree with one of everything an image may hold, owners and attributes where we are root; 700 kB."""
    for name in (
        "usr/bin",
        "usr/lib/modules/6.1.0-9-test",
        "etc",
        "boot",
        "dev",
        "proc",
        "sys",
        "run",
        "tmp",
        "srv/deep",
    ):
        (root / name).mkdir(parents=True)
    for link in ("bin", "lib"):
        (root / link).symlink_to(f"usr/{link}")
    (root / "usr/bin/sh").write_bytes(b"\x7fELF\x02\x01" + bytes(12) + b"\x3e\0" + os.urandom(2000))
    (root / "usr/bin/sh").chmod(0o755)
    (root / "usr/bin/su").write_bytes(os.urandom(4000))
    (root / "usr/bin/su").chmod(0o4755)
    (root / "usr/bin/hard").hardlink_to(root / "usr/bin/sh")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nslurm:x:900:900::/:/bin/false\n")
    (root / "etc/group").write_text("root:x:0:\nslurm:x:900:\n")
    (root / "boot/vmlinuz-6.1.0-9-test").write_bytes(os.urandom(3000))
    (root / "boot/config-6.1.0-9-test").write_text("CONFIG_RD_ZSTD=y\n")
    (root / "srv/deep/big").write_bytes(os.urandom(700_000))
    (root / "srv/ünï çode").write_text("x")
    (root / "srv/away").symlink_to("/nowhere")
    (root / "tmp").chmod(0o1777)
    if os.geteuid() == 0:
        os.mknod(root / "dev/null", 0o20666, os.makedev(1, 3))
        os.chown(root / "srv/deep", 900, 901)
        os.chown(root / "srv/away", 900, 901, follow_symlinks=False)
        os.setxattr(root / "usr/bin/hard", "security.capability", CAPABILITY)
    for base, directories, files in os.walk(root, topdown=False):
        for name in (*directories, *files, ""):
            os.utime(Path(base, name), ns=(10**18, 10**18 + len(name) * 10**9 + 5), follow_symlinks=False)
    return root


def facts(tree: Path) -> dict[str, tuple[object, ...]]:
    """All there is to know of a tree, by path: two equal trees have equal facts."""
    found: dict[str, tuple[object, ...]] = {}
    inodes: dict[int, str] = {}
    paths = [Path(base, name) for base, directories, files in os.walk(tree) for name in (*directories, *files)]
    for path in sorted([tree, *paths]):
        status = path.lstat()
        name = str(path.relative_to(tree))
        content: object = None
        if path.is_symlink():
            content = os.readlink(path)  # noqa: PTH115
        elif path.is_file():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        attributes = {k: os.getxattr(path, k, follow_symlinks=False) for k in os.listxattr(path, follow_symlinks=False)}
        first = inodes.setdefault(status.st_ino, name)
        found[name] = (
            *(status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, status.st_rdev),
            *(content, sorted(attributes.items()), first),
        )
    return found


def tar_of(tree: Path) -> bytes:
    """GNU tar's archive of a tree, with attributes."""
    words = ["tar", "--format=posix", "--xattrs", "--xattrs-include=*", "--numeric-owner", "--sort=name", "-cf", "-"]
    return run([*words, "-C", tree, "."], package="tar").stdout


def tar_with(*members: tuple[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.mtime = len(data), 0o644, 1000
            info.uid, info.gid = os.geteuid(), os.getegid()
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


class Layout:
    """An OCI layout being written: images of layers, by tag; several platforms make an index."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "blobs/sha256").mkdir(parents=True)
        (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        self.tags: list[dict[str, object]] = []
        self._write_index()

    def blob(self, data: bytes, kind: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (self.directory / "blobs/sha256" / digest).write_bytes(data)
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}

    def image(self, layers: Sequence[bytes], arch: str = "amd64") -> dict[str, object]:
        """The descriptor of a new image of plain tar layers, which are compressed."""
        config = {
            "architecture": arch,
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(d).hexdigest()}" for d in layers]},
        }
        kind = "application/vnd.oci.image"
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{kind}.manifest.v1+json",
            "config": self.blob(json.dumps(config).encode(), f"{kind}.config.v1+json"),
            "layers": [self.blob(igzip.compress(d, 1, mtime=0), f"{kind}.layer.v1.tar+gzip") for d in layers],
        }
        return self.blob(json.dumps(manifest).encode(), f"{kind}.manifest.v1+json")

    def index(self, images: dict[str, dict[str, object]]) -> dict[str, object]:
        """The descriptor of an index of images by architecture."""
        kind = "application/vnd.oci.image.index.v1+json"
        found = [{**image, "platform": {"os": "linux", "architecture": arch}} for arch, image in images.items()]
        return self.blob(json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": found}).encode(), kind)

    def tag(self, name: str, descriptor: dict[str, object]) -> None:
        self.tags.append({**descriptor, "annotations": {"org.opencontainers.image.ref.name": name}})
        self._write_index()

    def _write_index(self) -> None:
        (self.directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": self.tags}))


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Registry:
    """Debian's docker-registry on a loopback port, with its storage below `directory`."""

    def __init__(self, directory: Path, *, secret: bool = False) -> None:
        self.storage = directory / "storage"
        self.port = free_port()
        self.host = f"127.0.0.1:{self.port}"
        self.creds = ["--dest-creds", "user:secret"] if secret else []
        lines = [
            "version: 0.1",
            "log: {level: error, accesslog: {disabled: true}}",
            f"storage: {{filesystem: {{rootdirectory: {self.storage}}}}}",
            f"http: {{addr: {self.host}}}",
        ]
        if secret:
            (directory / "htpasswd").write_text(HTPASSWD)
            lines.append(f"auth: {{htpasswd: {{realm: test, path: {directory / 'htpasswd'}}}}}")
        config = directory / "registry.yml"
        config.write_text("\n".join(lines) + "\n")
        with (directory / "registry.log").open("wb") as log:
            self.process = start(
                ["docker-registry", "serve", config], stdout=log, stderr=log, tied=True, package="docker-registry"
            )
        for _ in range(300):
            try:
                with urllib.request.urlopen(f"http://{self.host}/", timeout=5):
                    return
            except OSError:
                time.sleep(0.1)
        raise AssertionError((directory / "registry.log").read_text())

    def push(self, layout: Layout, tag: str, *, every: bool = False) -> str:
        """Copy a tag of a layout here as `image:TAG`; return its docker:// reference."""
        reference = f"docker://{self.host}/image:{tag}"
        whole = ["--all"] if every else []
        policy = ["--insecure-policy"]
        words = ["skopeo", *policy, "copy", *whole, "--quiet", *self.creds, "--dest-tls-verify=false"]
        run([*words, f"oci:{layout.directory}:{tag}", reference], package="skopeo")
        return reference

    def blob(self, digest: str) -> Path:
        """The file of a blob in the registry's storage."""
        name = digest.removeprefix("sha256:")
        return self.storage / "docker/registry/v2/blobs/sha256" / name[:2] / name / "data"

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def unreliable(port: int, allowed: int, *, then: str) -> Iterator[int]:
    """A proxy to a local port that passes on `allowed` bytes of answers and `then` stalls or dies; yields its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    left = [allowed]
    stop = threading.Event()
    held: list[socket.socket] = []

    def answer(client: socket.socket, server: socket.socket) -> None:
        try:
            while data := server.recv(16384):
                piece = data[: left[0]]
                left[0] -= len(piece)
                client.sendall(piece)
                if len(piece) < len(data):
                    if then == "stall":
                        stop.wait()
                    break
        except OSError:
            pass
        for sock in (client, server):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # close() alone waits for the other thread's recv()
            sock.close()

    def ask(client: socket.socket, server: socket.socket) -> None:
        try:
            while data := client.recv(16384):
                server.sendall(data)
        except OSError:
            pass

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
                server = socket.create_connection(("127.0.0.1", port))
            except OSError:
                return
            held.extend((client, server))
            for side in (answer, ask):
                threading.Thread(target=side, args=(client, server), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        stop.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for sock in held:
            sock.close()
        thread.join(5)
