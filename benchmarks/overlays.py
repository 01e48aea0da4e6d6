"""Overlays: cold builds, what an edit costs, a storm right after one, against building each node on its own.

The cluster: 40 racks, 3 profiles, a bond of two ports, a VLAN, two networks, a BMC; no two nodes alike. The overlays
are those that the shipped nodes.conf of Warewulf names, with all of its network systems. Every cold build is a process
of its own (`--child`), as `wwfast overlay build` is one.

Set TMPDIR to a file system with a journal: ext4 without one looks at every inode that was deleted in the last minutes
before it makes a file, and a cold build deletes what the last one kept (3.0 s became 6 to 14 there).

The classic way: per node and context a directory is filled (templates compiled once, as ours are), then GNU cpio and
pigz (else gzip) pack it, with as many nodes at a time as there are cores.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import multiprocessing
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks._go_pairs import PAIRS
from benchmarks._harness import ROOT, Bench, seconds
from benchmarks._http_peers import free_port
from wwfast.config.settings import load
from wwfast.nodes.model import Node
from wwfast.nodes.registry import Registry, Snapshot
from wwfast.overlays.files import model
from wwfast.overlays.making.service import CONTEXTS, RUNTIME, SYSTEM, OverlayService
from wwfast.overlays.templates import environment
from wwfast.overlays.templates.data import Cluster, Names, Server
from wwfast.overlays.templates.go import render as go
from wwfast.overlays.templates.render import Template
from wwfast.overlays.templates.sources import Sources
from wwfast.paths import Paths

SYSTEM_SET = [
    *("wwinit", "wwclient", "hosts", "fstab", "hostname", "ssh.host_keys", "issue", "resolv", "udev.netname"),
    *("systemd.netname", "ifcfg", "ifupdown", "NetworkManager", "wicked", "ignition"),
]
RUNTIME_SET = ["hosts", "ssh.authorized_keys", "syncuser"]
CORES = os.cpu_count() or 1
LIMIT = 600.0  # seconds after which a cold build has failed
CONF = "ipaddr: 10.0.0.1/8\n"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nodes", type=int, default=10_000, help="size of the large cluster (10000)")
    parser.add_argument("--only", choices=("cold", "edit", "classic", "storm", "go"), help="one group of rows")


# -- the cluster -----------------------------------------------------------------------------------------------------


def site(root: Path, count: int) -> Paths:
    """A relocated installation with `count` nodes."""
    paths = Paths.at(root)
    paths.etc.mkdir(parents=True)
    paths.conf.write_text(CONF)
    keys = paths.etc / "keys"
    keys.mkdir()
    for kind in ("rsa", "ecdsa", "ed25519"):
        (keys / f"ssh_host_{kind}_key").write_text(f"-----BEGIN {kind}-----\n" + "k" * 400 + "\n")
        (keys / f"ssh_host_{kind}_key.pub").write_text(f"ssh-{kind} {'k' * 200} cluster\n")
    (root / "root/.ssh").mkdir(parents=True)
    (root / "root/.ssh/authorized_keys").write_text("ssh-ed25519 AAAA admin@head\n")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/bash\n" + "".join(
        f"user{n}:x:{1000 + n}:{1000 + n}::/home/user{n}:/bin/bash\n" for n in range(50)
    ))  # fmt: skip
    (root / "etc/group").write_text("root:x:0:\n")
    paths.nodes_conf.write_text(nodes(paths, count))
    return paths


def nodes(paths: Paths, count: int, *, edit: dict[int, tuple[str, str]] | None = None) -> str:
    """nodes.conf; `edit` replaces a text in the entries of some nodes."""

    def known(names: list[str]) -> str:
        return ", ".join(name for name in names if model.distribution(paths, name))

    out = [
        "nodeprofiles:",
        f"  base: {{system overlay: [{known(SYSTEM_SET)}], runtime overlay: [{known(RUNTIME_SET)}], init: /sbin/init,",
        "    root: initramfs, kernel: {args: [quiet, crashkernel=no, net.ifnames=1]},",
        "    resources: {fstab: [{spec: 'warewulf:/home', file: /home, mntops: 'defaults,nofail'},",
        "      {spec: 'warewulf:/opt', file: /opt, mntops: 'defaults,noauto,nofail,ro'}]}}",
        "  gpu: {tags: {kind: gpu, ntp_server: 10.0.0.1}, kernel: {args: [nouveau.modeset=0]}}",
        "  big: {tags: {kind: big, localtime: Europe/Berlin}}",
        "nodes:",
    ]
    for n in range(count):
        high, low, rack = n // 200, n % 200 + 1, n % 40
        entry = f"""\
  n{n:05d}:
    profiles: [base, {"gpu" if n % 3 == 0 else "big"}]
    cluster name: rack{rack:02d}
    ipmi: {{ipaddr: 10.240.{high}.{low}, netmask: 255.255.0.0, username: admin, password: secret{n}}}
    tags: {{rack: r{rack:02d}, slot: "{n}"}}
    network devices:
      default: {{type: bond, device: bond0, ipaddr: 10.1.{high}.{low}, netmask: 255.0.0.0, gateway: 10.0.0.1,
        tags: {{DNS1: 10.0.0.1, DNSSEARCH: cluster.example}}}}
      port1: {{device: eno1, hwaddr: "52:54:00:{n >> 16:02x}:{n >> 8 & 255:02x}:{n & 255:02x}",
        tags: {{master: bond0}}}}
      port2: {{device: eno2, hwaddr: "52:54:01:{n >> 16:02x}:{n >> 8 & 255:02x}:{n & 255:02x}",
        tags: {{master: bond0}}}}
      storage: {{type: vlan, device: bond0.100, ipaddr: 10.128.{high}.{low}, netmask: 255.192.0.0, mtu: 9000,
        tags: {{parent_device: bond0, vlan_id: "100"}}}}"""
        if edit and n in edit:
            assert edit[n][0] in entry
            entry = entry.replace(*edit[n])
        out.append(entry)
    return "\n".join(out) + "\n"


# -- one process that builds -----------------------------------------------------------------------------------------


def child(root: str) -> None:
    """Load the registry, build everything, say how long both took."""
    paths = Paths.at(root)
    settings = load(paths)
    start = time.perf_counter()
    snapshot = Registry(paths).snapshot()
    listed = list(snapshot.nodes.values())
    loaded = time.perf_counter()
    report = OverlayService(paths, settings, alone=True).build(snapshot, listed, processes=CORES)
    done = time.perf_counter()
    assert report.changed == 2 * len(listed), report.failures
    print(json.dumps({"load": loaded - start, "build": done - loaded}))


def cold(paths: Paths) -> tuple[float, float, float]:
    """Seconds of loading and of building, and the highest PSS in MiB of the process and its children."""
    shutil.rmtree(paths.overlay_cache, ignore_errors=True)
    code = "from benchmarks.overlays import child; import sys; child(sys.argv[1])"
    process = subprocess.Popen([sys.executable, "-c", code, paths.root], stdout=subprocess.PIPE, cwd=ROOT)
    peak, end = 0.0, time.monotonic() + LIMIT
    while process.poll() is None:
        if time.monotonic() > end:
            process.kill()
        peak = max(peak, pss(process.pid))
        time.sleep(0.05)
    assert process.stdout is not None
    said = process.stdout.read()
    process.stdout.close()
    if process.returncode:
        raise SystemExit("the build failed")
    times = json.loads(said)
    return times["load"], times["build"], peak


def pss(pid: int) -> float:
    """Proportional set size of a process and its children, MiB."""
    total = 0
    with contextlib.suppress(OSError):
        family = [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
        for each in family:
            with contextlib.suppress(OSError):
                lines = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()
                total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


# -- the classic way -------------------------------------------------------------------------------------------------


class Classic:
    """One archive per node and context, each from a directory of its own."""

    def __init__(self, service: OverlayService, snapshot: Snapshot, into: Path) -> None:
        self.builder = service.builder
        env = environment.make(self.builder.sources)
        self.names = Names(
            env.globals, env.reader, Server(self.builder.conf), Cluster(dict(snapshot.nodes), lambda image: "")
        )
        self.templates: dict[tuple[str, str], Template] = {}
        self.into = into
        self.packer = shutil.which("pigz") or "gzip"
        self.snapshot = snapshot
        for name in {*SYSTEM_SET, *RUNTIME_SET}:  # templates are compiled once, as ours are
            if model.distribution(Paths.at("/"), name):
                for item in self.builder.overlays.items(name):
                    if item.template:
                        self.templates[name, item.path] = Template(env, name, item)

    def build(self, node: Node) -> int:
        size = 0
        for context in CONTEXTS:
            with tempfile.TemporaryDirectory(dir=self.into) as work:
                tree = Path(work)
                self.fill(tree, node, node.system_overlay if context == SYSTEM else node.runtime_overlay)
                image = self.into / f"{node.id}.{context}.img"
                listing = subprocess.run(["find", ".", "-mindepth", "1"], cwd=tree, capture_output=True, check=True)
                with image.open("wb") as out:
                    command = ["cpio", "--quiet", "-o", "-H", "newc", "--renumber-inodes"]
                    subprocess.run(command, cwd=tree, input=listing.stdout, stdout=out, check=True)
                subprocess.run([self.packer, "--keep", "--force", image], check=True)
            size += image.stat().st_size + Path(f"{image}.gz").stat().st_size
        return size

    def fill(self, tree: Path, node: Node, overlays: list[str]) -> None:
        self.names.begin(node)
        for overlay in overlays:
            for item in self.builder.overlays.items(overlay):
                target = tree / item.path
                if item.kind == model.DIRECTORY:
                    target.mkdir(exist_ok=True)
                elif item.kind == model.LINK:
                    target.symlink_to(item.target)
                elif not item.template:
                    shutil.copyfile(item.source, target)
                    target.chmod(item.mode)
                else:
                    for output in self.templates[overlay, item.path].run(self.names, node.id):
                        place = tree / output.path
                        place.parent.mkdir(parents=True, exist_ok=True)
                        if output.kind == model.LINK:
                            place.symlink_to(output.content)
                        else:
                            place.write_bytes(output.content)
                            place.chmod(item.mode)


_classic: Classic | None = None


def _one(name: str) -> int:
    assert _classic is not None
    return _classic.build(_classic.snapshot.nodes[name])


def classic(paths: Paths) -> tuple[float, int]:
    """Seconds and bytes on disk for the whole cluster."""
    global _classic
    snapshot = Registry(paths).snapshot()
    listed = [node.id for node in snapshot.nodes.values()]
    with tempfile.TemporaryDirectory(dir=paths.root) as into:
        start = time.perf_counter()
        _classic = Classic(OverlayService(paths, load(paths)), snapshot, Path(into))
        with multiprocessing.get_context("fork").Pool(CORES) as pool:
            size = sum(pool.imap_unordered(_one, listed, chunksize=8))
        return time.perf_counter() - start, size


# -- rows ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def cluster(count: int) -> Iterator[Paths]:
    with tempfile.TemporaryDirectory(prefix="wwfast-overlays-") as work:
        yield site(Path(work), count)


def run(bench: Bench) -> None:
    bench.peer("cpio", "cpio", "--version")
    bench.peer("pigz", "pigz", "--version")
    large = min(bench.args.nodes, 1000) if bench.quick else bench.args.nodes
    with cluster(1) as paths:
        missing = [name for name in (*SYSTEM_SET, *RUNTIME_SET) if model.distribution(paths, name) is None]
    if missing:
        bench.note(f"overlays not there yet, so not in the set: {', '.join(missing)}")
    groups: dict[str, Callable[[], None]] = {
        "cold": lambda: rows_cold(bench, large),
        "edit": lambda: rows_edit(bench, large),
        "classic": lambda: rows_classic(bench, 100 if bench.quick else 1000),
        "storm": lambda: rows_storm(bench, 1000),
        "go": lambda: rows_go(bench, large),
    }
    for name, rows in groups.items():
        if bench.args.only in (None, name):
            rows()


def rows_cold(bench: Bench, large: int) -> None:
    targets = {1000: "<= 2", 10_000: "<= 15"}
    for count in (100, 1000, 10_000, 50_000):
        if count > large * 5:
            continue
        with cluster(count) as paths:
            results = [cold(paths) for _ in range(1 if count > 10_000 else 3)]
        loads = [load for load, _, _ in results]
        bench.record(
            f"1-cold-{count}",
            f"{count} nodes, system and runtime, cold; registry not included ({statistics.median(loads):.2f} s)",
            [build for _, build, _ in results],
            target=targets.get(count, "report"),
        )
        if count == 10_000 or (large < 10_000 and count == large):
            peaks = [peak for _, _, peak in results]
            bench.record("1-rss", f"{count} nodes cold, PSS of all processes", peaks, unit="MiB", target="<= 400")


def rows_edit(bench: Bench, count: int) -> None:
    with cluster(count) as paths:
        edits(bench, paths, count)


def edits(bench: Bench, paths: Paths, count: int) -> None:
    registry = Registry(paths)
    service = OverlayService(paths, load(paths), alone=True)
    service.build(registry.snapshot(), processes=CORES)
    gc.freeze()
    reloads: list[float] = []
    step = iter(range(1, 100))

    def edited(make: Callable[[int], str], expected: Callable[[int], bool]) -> float:
        paths.nodes_conf.write_text(make(next(step)))
        start = time.perf_counter()
        snapshot = registry.reload()
        loaded = time.perf_counter()
        report = service.build(snapshot)
        assert expected(report.changed), report
        reloads.append(loaded - start)
        return time.perf_counter() - loaded

    def tag(n: int) -> str:
        return nodes(paths, count, edit={n: (f'slot: "{n}"', f'slot: "x{n}"')})

    def address(n: int) -> str:
        return nodes(paths, count, edit={n: (f"ipaddr: 10.1.0.{n + 1},", f"ipaddr: 10.2.0.{n + 1},")})

    def template(_: float) -> float:
        source = model.distribution(paths, "syncuser") or model.distribution(paths, "ssh.authorized_keys")
        assert source is not None
        place = paths.site_overlays / source.name
        if not place.exists():
            from wwfast.overlays.files.edit import clone

            place.parent.mkdir(parents=True, exist_ok=True)
            clone(source, place)
            service.build(registry.snapshot(), processes=CORES)
        file = next(place.rglob("*.j2"))
        file.write_text(file.read_text() + f"# {{{{ id }}}} {next(step)}\n")
        return seconds(lambda: service.build(registry.snapshot(), processes=CORES))

    runs = bench.runs()
    bench.record(
        "2-one-node", f"{count} nodes, a tag of one edited", [edited(tag, lambda n: n <= 4) for _ in range(runs)],
        target="<= 0.3",
    )  # fmt: skip
    bench.record(
        "2-one-address",
        f"{count} nodes, an address of one edited: every hosts file changes",
        [edited(address, lambda n: n == 2 * count) for _ in range(runs)],
        target="<= 1",
    )
    bench.record(
        "2-one-template", f"{count} nodes, a runtime template edited that names each node",
        [template(0) for _ in range(runs)], target="<= 8",
    )  # fmt: skip
    bench.record(
        "2-nothing",
        f"{count} nodes, nothing changed",
        [seconds(lambda: service.build(registry.snapshot())) for _ in range(runs)],
        target="<= 0.5",
    )
    bench.note(f"rows 2: reloading nodes.conf is not included; it took {statistics.median(reloads):.2f} s")
    service.close()
    gc.unfreeze()


def rows_classic(bench: Bench, count: int) -> None:
    with cluster(count) as paths:
        sizes: list[int] = []

        def theirs() -> float:
            took, size = classic(paths)
            sizes.append(size)
            return took

        ours: list[int] = []

        def mine() -> float:
            took = cold(paths)[1]
            ours.append(sum(file.stat().st_size for file in paths.overlay_cache.rglob("*") if file.is_file()))
            return took

        bench.compare(
            "3-classic",
            f"{count} nodes, system and runtime, cold",
            ours=mine,
            theirs=theirs,
            peer="directory, cpio, pigz per node",
            runs=bench.runs(3),
            target="ratio <= 0.1",
        )
        bench.record(
            "5-disk",
            f"{count} nodes, bytes on disk",
            [size / 2**20 for size in ours],
            theirs=[size / 2**20 for size in sizes],
            unit="MiB",
            peer=".img and .img.gz per node and context",
            target="ratio <= 0.05",
        )


def rows_go(bench: Bench, count: int) -> None:
    """Ten templates of a site in Go's language against the same in Jinja2, and how long a hundred take to compile."""

    def sites(paths: Paths) -> dict[str, str]:
        listed = nodes(paths, count)
        found = {}
        for number, suffix in enumerate((model.GO_TEMPLATE, model.TEMPLATE)):
            for name, pair in PAIRS.items():
                file = paths.site_overlays / suffix[1:] / "rootfs" / (name + suffix)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(pair[number])
            head, _, rest = listed.partition("runtime overlay: [")
            head = head[: head.index("system overlay: [")]
            tail = rest.partition("]")[2]
            found[suffix] = f"{head}system overlay: [{suffix[1:]}], runtime overlay: []{tail}"
        return found

    with cluster(count) as paths:
        written = sites(paths)

        def of(suffix: str) -> Callable[[], float]:
            def build() -> float:
                paths.nodes_conf.write_text(written[suffix])
                return cold(paths)[1]

            return build

        bench.compare(
            f"6-go-cold-{count}",
            f"{count} nodes, 10 templates, cold",
            ours=of(model.GO_TEMPLATE),
            theirs=of(model.TEMPLATE),
            peer="the same in Jinja2",
            runs=bench.runs(3),
            target="ratio <= 1.1",
        )
        env = environment.make(Sources(paths, (), lambda name: None))
    engine = go.engine(env)
    sources = [f"{pair[0]}# {number}\n" for number in range(10) for pair in PAIRS.values()]
    times: list[float] = []
    for _ in range(bench.runs(5)):
        start = time.perf_counter()
        for source in sources:
            go.Program(engine, source, "a template")
        times.append((time.perf_counter() - start) * 1000)
    bench.record("6-go-compile", f"{len(sources)} templates compiled", times, unit="ms", target="<= 500")


def rows_storm(bench: Bench, count: int) -> None:
    with cluster(count) as paths:
        storms(bench, paths)


def storms(bench: Bench, paths: Paths) -> None:
    registry = Registry(paths)
    service = OverlayService(paths, load(paths))
    snapshot = registry.snapshot()
    service.build(snapshot)
    listed = list(snapshot.nodes.values())
    site_copy = paths.site_overlays / "hostname/rootfs/etc"
    site_copy.mkdir(parents=True)
    worst: list[float] = []
    twice: list[float] = []
    for n in range(bench.runs()):
        (site_copy / "hostname.j2").write_text(f"{{{{ id }}}}\n# {n}\n")
        ran = service.builder.runs
        latencies = storm(service, snapshot, listed)
        worst.append(statistics.quantiles(latencies, n=100)[98])
        twice.append(service.builder.runs - ran - len(listed))
    bench.record("4-storm-p99", "1,000 nodes ask right after an edit, all at once", worst, target="<= 1")
    bench.record(
        "4-built-twice", "nodes for which templates ran more than once in the storm", twice, unit="nodes", target="0"
    )
    polls = poll_rate(paths, service, snapshot)
    bench.record(
        "4-idle-polls", "idle polls with If-None-Match over HTTP", polls, unit="1/s", better="higher", target=">= 5000"
    )
    service.close()


def storm(service: OverlayService, snapshot: Snapshot, listed: list[Node]) -> list[float]:
    """Seconds from the common start to each node's answer; as many threads ask as in the daemon."""
    from wwfast.daemon.app import BUILDERS  # here: a cold build must not be forked from a process with all of that

    start = time.perf_counter()

    def ask(node: Node) -> float:
        found = service.peek(snapshot, node, SYSTEM, "zst") or service.artefact(snapshot, node, SYSTEM, "zst")
        assert found.size
        return time.perf_counter() - start

    with ThreadPoolExecutor(BUILDERS) as pool:
        return list(pool.map(ask, listed))


def poll_rate(paths: Paths, service: OverlayService, snapshot: Snapshot) -> list[float]:
    """Answers a second to nodes that have what there is: a server process, 32 connections kept open."""
    server = multiprocessing.get_context("fork").Process(target=serve, args=(paths, port := free_port()), daemon=True)
    server.start()
    try:
        requests = []
        for node in snapshot.nodes.values():
            etag = service.artefact(snapshot, node, RUNTIME, "tar").etag
            requests.append(f"GET /runtime/{node.id} HTTP/1.1\r\nHost: head\r\nIf-None-Match: {etag}\r\n\r\n".encode())
        clients = [connected(port) for _ in range(32)]
        exchange(clients, requests[: len(clients)])
        rates = []
        for _ in range(3):
            start, done = time.perf_counter(), 0
            while time.perf_counter() - start < 2:
                at = done % (len(requests) - len(clients))
                exchange(clients, requests[at : at + len(clients)])
                done += len(clients)
            rates.append(done / (time.perf_counter() - start))
        for client in clients:
            client.close()
        return rates
    finally:
        server.terminate()
        server.join()


def exchange(clients: list[socket.socket], requests: list[bytes]) -> None:
    for client, request in zip(clients, requests, strict=True):
        client.sendall(request)
    for client in clients:
        answer = client.recv(4096)
        assert answer.startswith(b"HTTP/1.1 304"), answer


def connected(port: int) -> socket.socket:
    for _ in range(200):
        with contextlib.suppress(ConnectionRefusedError):
            return socket.create_connection(("127.0.0.1", port), timeout=30)
        time.sleep(0.05)
    raise SystemExit("the server did not come up")


def serve(paths: Paths, port: int) -> None:
    """A server whose only object is the runtime overlay of each node, as the daemon answers for it."""
    import asyncio

    import uvloop

    from wwfast.net.http.message import Request, Response
    from wwfast.net.http.server import HttpServer, listen
    from wwfast.net.http.serving import Limits

    service = OverlayService(paths, load(paths))
    snapshot = Registry(paths).snapshot()

    def handler(request: Request) -> Response:
        node = snapshot.nodes[request.path.rpartition("/")[2]]
        found = service.peek(snapshot, node, RUNTIME, "tar") or service.artefact(snapshot, node, RUNTIME, "tar")
        return Response(body=found, content_type="application/x-tar")

    async def forever() -> None:
        server = HttpServer(listen([("127.0.0.1", port)]), handler, on_transfer=lambda _: None, limits=Limits())
        server.start()
        await asyncio.Event().wait()

    uvloop.run(forever())
