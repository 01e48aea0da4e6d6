"""Nothing but memory on the loop: its thread may make no system call on a file system, and every route answers."""

from __future__ import annotations

import shutil
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import memoryonly
from support.daemon import MAC, NODES, Serving, overlay, serving, tiny_image, write_conf
from support.patience import until
from support.tftpserver import running_tftp
from wwfast.images import building
from wwfast.images.kernels.store import KernelStore
from wwfast.net.tftp.transfer import Receiver
from wwfast.paths import Paths

UNBUILT, OVERRIDE = "52:54:00:00:00:02", "52:54:00:00:00:03"
NODES_CONF = (
    NODES
    + f"""
  n2:
    image name: bare
    network devices: {{default: {{hwaddr: "{UNBUILT}", ipaddr: 10.0.0.12}}}}
  n3:
    profiles: [default]
    kernel: {{override: lts}}
    network devices: {{default: {{hwaddr: "{OVERRIDE}", ipaddr: 10.0.0.13}}}}
  d1: {{discoverable: true, profiles: [default], network devices: {{default: {{}}}}}}
"""
)
OVERLAYS = [
    f"/{stage}/{MAC}{query}" for stage in ("system", "runtime") for query in ("", "?compress=zst", "?format=tar")
]
ROUTES = [
    ("/status", 200),
    ("/status?node=n1", 200),
    ("/efiboot/snponly.efi", 200),
    ("/efiboot/none.efi", 404),
    (f"/ipxe/{MAC}", 200),
    (f"/provision/{MAC}", 200),
    (f"/ipxe/{MAC}?memsize=64", 200),
    (f"/ipxe/{UNBUILT}", 200),
    (f"/ipxe/{OVERRIDE}", 200),
    ("/ipxe/not-an-address", 200),
    ("/ipxe/", 400),  # who asks from loopback is in no table of neighbours
    (f"/grub/{MAC}", 404),
    (f"/initramfs/{MAC}", 404),
    (f"/kernel/{MAC}", 200),
    (f"/kernel/{MAC}?image=tiny@20200101-000000", 404),
    (f"/kernel/{UNBUILT}", 200),
    (f"/kernel/{OVERRIDE}", 200),
    (f"/image/{MAC}?compress=zst", 200),
    (f"/container/{MAC}?compress=zst", 200),
    (f"/image/{MAC}?compress=xz", 404),
    (f"/image/{UNBUILT}?compress=zst", 404),
    (f"/kmods/{OVERRIDE}?compress=zst", 200),
    *((path, 200) for path in OVERLAYS),
    (f"/overlay-runtime/{MAC}?compress=gz", 200),
    (f"/system/{MAC}?compress=xz", 404),
    ("/nothing", 404),
    ("/kernel/52:54:00:00:00:99", 400),
]


@pytest.fixture
def server(paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serving]:
    """A daemon whose loop may use nothing but memory; fails at the end if it tried to use more."""
    tiny_image(paths)
    building.build(paths, "tiny")
    tiny_image(paths, "bare")
    KernelStore(paths).import_("bare", "lts")
    overlay(paths)
    (tmp_path / "snponly.efi").write_bytes(b"ipxe" * 1000)
    ipxe = {"00:07": str(tmp_path / "snponly.efi")}
    write_conf(paths, tftp={"enabled": False, "ipxe": ipxe}, wwfast={"template seconds": 1})
    paths.nodes_conf.write_text(NODES_CONF)
    watched = memoryonly.Watched()
    with memoryonly.crowded(monkeypatch):
        with serving(paths) as running:
            running.loop.call_soon_threadsafe(lambda: running.loop.run_in_executor(None, time.sleep, 0))
            running.loop.call_soon_threadsafe(watched.confine)
            assert watched.ready.wait(60)
            if watched.failed:
                pytest.skip(watched.failed)
            yield running
            running.get("/status")
            tried = list(watched.tried)
        watched.end()
    assert tried == []


def test_loop_confinement_sees_what_a_thread_tries(tmp_path: Path) -> None:
    """The control: a thread of this process that looks at the disk is refused and found, others are not."""
    (tmp_path / "file").write_text("seen")
    watched = memoryonly.Watched()
    errors: list[str] = []

    def work() -> None:
        watched.confine()
        for look in ((tmp_path / "file").read_text, (tmp_path / "file").stat, lambda: list(tmp_path.iterdir())):
            try:
                look()
            except OSError as error:
                errors.append(error.strerror or "")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    if watched.failed:
        pytest.skip(watched.failed)
    assert (tmp_path / "file").read_text() == "seen"
    until(lambda: len(watched.tried) >= 3, 20.0)
    watched.end()
    assert len(errors) == 3
    assert all(str(tmp_path) in line for line in watched.tried)


def test_loop_every_route_answers_from_memory(server: Serving, paths: Paths) -> None:
    """Each twice, the second time with all that a first one leaves behind; and as HEAD, in part, and not again."""
    for _ in range(2):
        for path, status in ROUTES:
            assert server.get(path)[0] == status, path
    for path, status in ROUTES:
        assert server.get(path, method="HEAD")[0] == status, path
    _, whole, headers = server.get(f"/image/{MAC}?compress=zst")
    for path, body in ((f"/image/{MAC}?compress=zst", whole), (f"/kernel/{MAC}", b"kernel" * 1000)):
        status, part, _ = server.get(path, headers={"Range": "bytes=100-199"})
        assert (status, part) == (206, body[100:200])
    assert server.get(f"/image/{MAC}?compress=zst", headers={"If-None-Match": headers["etag"]})[0] == 304
    assert b"kernel --name" in server.get("/ipxe/52:54:00:00:00:77")[1], "discovery writes nodes.conf"
    assert "52:54:00:00:00:77" in paths.nodes_conf.read_text()


def test_loop_takes_in_all_that_changes_without_looking(server: Serving, paths: Paths) -> None:
    first = server.get(f"/image/{MAC}?compress=zst")[2]["etag"]
    tree = paths.chroots / "tiny/rootfs"
    (tree / "etc/new").write_text("new\n")
    building.build(paths, "tiny")
    assert server.get(f"/image/{MAC}?compress=zst")[2]["etag"] != first, "what is published before a request is served"
    runtime = f"/runtime/{MAC}?format=tar"
    (paths.site_overlays / "motd/rootfs/etc/motd.j2").write_text("edited {{ id }}\n")
    until(lambda: b"edited n1" in server.get(runtime)[1], 20.0)
    (paths.etc / "ipxe").mkdir()
    (paths.etc / "ipxe/default.ipxe.j2").write_text("#!ipxe\necho ours {{ id }}\n")
    until(lambda: b"echo ours n1" in server.get(f"/ipxe/{MAC}")[1], 20.0)
    (paths.chroots / "bare/rootfs/boot/vmlinuz-6.1.0-1").write_bytes(b"another")
    until(lambda: server.get(f"/kernel/{UNBUILT}")[1] == b"another", 20.0)
    paths.nodes_conf.write_text(NODES_CONF.replace("image name: tiny", "image name: none"))
    until(lambda: server.get(f"/kernel/{MAC}")[0] == 404, 20.0)
    building.build(paths, "bare")
    paths.nodes_conf.write_text(NODES_CONF.replace("image name: tiny", "image name: bare"))
    until(lambda: server.get(f"/image/{MAC}?compress=zst")[0] == 200, 20.0)


ENDLESS = "#!ipxe\necho {{ id }}\n{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}\n"


def test_loop_a_script_of_the_site_that_never_ends_holds_up_nobody_else(server: Serving, paths: Paths) -> None:
    """Nor does one that says why: the console of its node is told the file and the line; strangers get ours."""
    folder = paths.etc / "ipxe"
    folder.mkdir()
    (folder / "other.ipxe.j2").write_text(
        "#!ipxe\necho other {{ id }} {{ network_devices.default.ipaddr }} {{ wait }}\n"
    )
    paths.nodes_conf.write_text(NODES_CONF.replace("  n3:\n", "  n3:\n    ipxe template: other\n"))
    until(lambda: server.get(f"/ipxe/{OVERRIDE}")[1] == b"#!ipxe\necho other n3 10.0.0.13 30\n", 20.0)
    assert b"kernel --name" in server.get("/ipxe/52:54:00:00:00:97")[1], "it is discovered, the next one is a stranger"
    for name in ("default", "message", "unconfigured"):
        (folder / f"{name}.ipxe.j2").write_text(ENDLESS)
    until(lambda: server.daemon.upkeep.standing.scripts.find("message").parent == folder, 20.0)
    answers: dict[str, bytes] = {}
    asked = [f"/ipxe/{MAC}", "/ipxe/52:54:00:00:00:98"]

    def ask(path: str) -> None:
        while (answer := server.get(path, headers={"User-Agent": "iPXE/1.21.1"}))[0] == 503:
            time.sleep(0.1)
        answers[path] = answer[1]

    threads = [threading.Thread(target=ask, args=(path,)) for path in asked]
    for thread in threads:
        thread.start()
    waits: list[float] = []
    while any(thread.is_alive() for thread in threads):
        for path in (f"/ipxe/{OVERRIDE}", f"/system/{MAC}", f"/kernel/{MAC}", "/status?node=n1"):
            began = time.monotonic()
            assert server.get(path)[0] == 200
            waits.append(time.monotonic() - began)
        time.sleep(0.02)
    for thread in threads:
        thread.join()
    assert len(waits) > 100, "it ended too soon for that"
    assert statistics.median(waits) < 0.05
    assert sorted(waits)[int(len(waits) * 0.99)] < 0.5
    assert (
        f"echo iPXE template {folder}/default.ipxe.j2:3, node n1: it ran for more than 1 s"
        in answers[asked[0]].decode()
    )
    assert b"No node of this cluster has the address 52:54:00:00:00:98" in answers[asked[1]]
    began = time.monotonic()
    assert b"ran for more than 1 s" in server.get(f"/ipxe/{MAC}")[1]
    assert time.monotonic() - began < 0.5, "what took long is not tried again at once"
    (folder / "default.ipxe.j2").write_text("#!ipxe\necho mended {{ id }}\n")
    until(lambda: server.get(f"/ipxe/{MAC}")[1] == b"#!ipxe\necho mended n1\n", 20.0)


def test_loop_a_file_that_was_removed_is_asked_for_once_more(server: Serving, paths: Paths) -> None:
    """Whoever removes the cache of overlays while the server runs costs no node its overlay."""
    bodies = {path: server.get(path)[1] for path in OVERLAYS}
    shutil.rmtree(paths.overlay_cache)
    other = f"/system/{MAC}?compress=gz"  # not in memory yet
    assert server.get(other)[0] == 200
    for path, body in bodies.items():
        assert server.get(path)[:2] == (200, body)


def test_loop_of_tftp_sends_files_from_memory() -> None:
    """Whole ones, with and without options, one that is not there, and a repeated request."""
    files = {"snponly.efi": bytes(range(256)) * 400}
    watched = memoryonly.Watched()
    with running_tftp(files) as server:
        server.on_loop(watched.confine)
        assert watched.ready.wait(60)
        if watched.failed:
            pytest.skip(watched.failed)
        for options in ({}, {"blksize": "1468", "windowsize": "4", "tsize": "0"}):
            assert fetched(server.port, "snponly.efi", options).data == files["snponly.efi"]
        assert fetched(server.port, "none", {}).error is not None
        tried = list(watched.tried)
    watched.end()
    assert tried == []


def fetched(port: int, name: str, options: dict[str, str]) -> Receiver:
    receiver = Receiver(name, options)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.5)
        to = ("127.0.0.1", port)
        packets = receiver.start(time.monotonic()) * 2
        while not receiver.done and receiver.error is None:
            for packet in packets:
                sock.sendto(packet, to)
            try:
                data, to = sock.recvfrom(2000)
            except TimeoutError:
                packets = receiver.tick(time.monotonic())
            else:
                packets = receiver.receive(data, time.monotonic())
    return receiver
