"""Images: import from a registry against skopeo + umoci, and the commands an admin waits for.

The peers run as their manuals say for the job: skopeo copies into an OCI layout on the same disk, umoci unpacks it as
root; `umoci raw unpack` is used, which leaves out the record umoci keeps for repacking. Both sides start without a
cache of layers, and both end when the files are written (ours also when they are on the disk, which umoci's are not).
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import random
import shutil
import socket
import subprocess
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from isal import igzip

from benchmarks._harness import ROOT, Bench, child

WWFAST = ROOT / ".venv/bin/wwfast"
LAYERS = 5


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tree", type=Path, help="a root file system to fill the image from (default: this machine's /usr)"
    )


def run(bench: Bench) -> None:
    if os.geteuid() != 0:
        raise SystemExit("benchmark images needs root: it unpacks owners and devices")
    for program in ("skopeo", "umoci", "docker-registry"):
        if shutil.which(program) is None:
            raise SystemExit(f"benchmark images needs {program}: apt-get install {program}")
    bench.peer("skopeo", "skopeo", "--version")
    bench.peer("umoci", "umoci", "--version")
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="wwfast-bench-images-") as name:
        room = Path(name)
        with registry(room) as host:
            size, files = fill(room, host, bench.args.tree or Path("/usr"), (200 if bench.quick else 1000) << 20)
            bench.note(f"the image: {size >> 20} MiB in {files} files, {LAYERS} layers of gzip")
            compare_import(bench, room, host)
        commands(bench, room)


def fill(room: Path, host: str, source: Path, limit: int) -> tuple[int, int]:
    """Push an image of `limit` bytes of files of `source` as HOST/image:v1; bytes and files in it.

    Nothing large stays in memory: a child's peak counts from ours.
    """
    layout = room / "layout"
    (layout / "blobs/sha256").mkdir(parents=True)
    total = files = 0
    todo = walk(source)
    descriptors, diffs = [], []
    for number in range(LAYERS):
        plain, packed = room / "layer.tar", room / "layer.tar.gz"
        with tarfile.open(plain, "w", format=tarfile.PAX_FORMAT) as tar:
            if number == 0:
                add_shell(tar)
            for path in todo:
                tar.add(path, f"usr/{path.relative_to(source)}", recursive=False)
                tar.members.clear()  # type: ignore[attr-defined]
                total += path.lstat().st_size
                files += 1
                if total >= limit * (number + 1) / LAYERS:
                    break
        with plain.open("rb") as data, igzip.open(packed, "wb", compresslevel=2) as out:
            shutil.copyfileobj(data, out, 1 << 20)
        diffs.append(f"sha256:{digest(plain)}")
        descriptors.append(blob(layout, packed, "layer.v1.tar+gzip"))
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diffs}}
    manifest = {
        "schemaVersion": 2,
        "config": blob(layout, config, "config.v1+json"),
        "layers": descriptors,
    }
    image = blob(layout, manifest, "manifest.v1+json")
    index = {"schemaVersion": 2, "manifests": [{**image, "annotations": {"org.opencontainers.image.ref.name": "v1"}}]}
    (layout / "index.json").write_text(json.dumps(index))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    child([*skopeo(), "--dest-tls-verify=false", f"oci:{layout}:v1", f"docker://{host}/image:v1"])
    shutil.rmtree(layout)
    return total, files


def walk(source: Path) -> Iterator[Path]:
    """Files and links below `source`, in an order that mixes large and small ones but is always the same."""
    found = sorted(Path(base, name) for base, _, names in os.walk(source) for name in names)
    random.Random(1).shuffle(found)
    return (path for path in found if path.is_symlink() or path.is_file())


def add_shell(tar: tarfile.TarFile) -> None:
    for name, target in (("bin", "usr/bin"), ("lib", "usr/lib"), ("usr/bin/sh", "dash")):
        link = tarfile.TarInfo(name)
        link.type, link.linkname = tarfile.SYMTYPE, target
        tar.addfile(link)
    tar.add("/bin/dash", "usr/bin/dash")


def digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def blob(layout: Path, content: Path | dict[str, object], kind: str) -> dict[str, object]:
    """Move a file, or write a document, into the layout; its descriptor."""
    if isinstance(content, dict):
        document, content = content, layout / "document"
        content.write_text(json.dumps(document))
    name, size = digest(content), content.stat().st_size
    content.rename(layout / "blobs/sha256" / name)
    return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{name}", "size": size}


def skopeo() -> list[str]:
    return ["skopeo", "--insecure-policy", "copy", "--quiet"]


@contextmanager
def registry(room: Path) -> Iterator[str]:
    """Debian's docker-registry on a free loopback port; yields host:port."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{sock.getsockname()[1]}"
    (room / "registry.yml").write_text(
        "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
        f"storage: {{filesystem: {{rootdirectory: {room / 'storage'}}}}}\nhttp: {{addr: '{host}'}}\n"
    )
    words = ["docker-registry", "serve", str(room / "registry.yml")]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            try:
                with urllib.request.urlopen(f"http://{host}/", timeout=5):
                    break
            except OSError:
                time.sleep(0.1)
        yield host
    finally:
        process.kill()
        process.wait()


def compare_import(bench: Bench, room: Path, host: str) -> None:
    memory: list[float] = []
    # Each run has a directory of its own and nothing is removed before the end: ext4 does not give out the inodes of
    # removed files again for minutes, and looking for others made every new file many times as dear.
    places = (room / f"run{number}" for number in itertools.count())
    ours = peers = room

    def mine() -> float:
        nonlocal ours
        ours = next(places)
        (ours / "etc/warewulf").mkdir(parents=True)
        os.sync()
        words = [str(WWFAST), "--root", str(ours), "image", "import", "--nohttps", f"docker://{host}/image:v1", "x"]
        usage = child(words)
        memory.append(usage.rss)
        return usage.wall

    def theirs() -> float:
        nonlocal peers
        peers = next(places)
        peers.mkdir()
        os.sync()
        copied = child([*skopeo(), "--src-tls-verify=false", f"docker://{host}/image:v1", f"oci:{peers}/layout:v1"])
        unpacked = child(["umoci", "raw", "unpack", "--image", f"{peers}/layout:v1", str(peers / "rootfs")])
        return copied.wall + unpacked.wall

    runs = bench.runs(3)
    bench.compare(
        "1-import",
        "import from a registry",
        ours=mine,
        theirs=theirs,
        peer="skopeo + umoci",
        runs=runs,
        target="<= 0.67 of the peer",
    )
    bench.record("1-rss", "memory of an import, peak", memory, unit="MiB", better="lower", target="<= 300 MiB")
    check_same(ours / "var/lib/wwfast/chroots/x/rootfs", peers / "rootfs")


def check_same(ours: Path, theirs: Path) -> None:
    """Both must have unpacked the same, or the times mean nothing."""
    listing = ["find", ".", "-mindepth", "1", "!", "-type", "d", "-printf", "%P %y %m %U %G %s %l %T@\n"]
    mine, other = (
        sorted(line for line in subprocess.check_output(listing, cwd=tree).splitlines()) for tree in (ours, theirs)
    )
    if mine != other:
        raise SystemExit(f"the trees differ: {len(set(mine) ^ set(other))} lines")


def commands(bench: Bench, room: Path) -> None:
    root = room / "many"
    (root / "etc/warewulf").mkdir(parents=True)
    tree = root / "tree"
    for name in ("bin", "dev", "proc", "sys", "run", "usr", "lib", "lib64", "boot"):
        (tree / name).mkdir(parents=True)
    shutil.copy("/bin/true", tree / "bin/true")
    shutil.copy("/bin/dash", tree / "bin/sh")
    libraries = subprocess.run(["ldd", "/bin/true"], capture_output=True, text=True, check=True).stdout.split()
    for file in (word for word in libraries if word.startswith("/")):
        (tree / file.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, tree / file.lstrip("/"))
    (tree / "boot/vmlinuz-6.1.0-1-test").write_bytes(os.urandom(1 << 20))
    words = [str(WWFAST), "--root", str(root), "image"]
    for number in range(50):
        child([*words, "import", "--build", str(tree), f"image{number:02d}"])
    bench.compare(
        "2-list",
        "image list --long of 50 images",
        ours=lambda: child([*words, "list", "--long"]).wall,
        runs=bench.runs(9),
        target="<= 0.3 s",
    )
    bench.compare(
        "3-exec",
        "image exec --build=false IMAGE -- /bin/true",
        ours=lambda: child([*words, "exec", "--build=false", "image00", "--", "/bin/true"]).wall,
        runs=bench.runs(9),
        target="<= 0.3 s",
    )
