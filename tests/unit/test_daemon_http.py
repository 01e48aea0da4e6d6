"""The HTTP surface of a running daemon: routes, checks and codes, with a real image and real overlays."""

from __future__ import annotations

import asyncio
import gzip
import io
import os
import random
import socket
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from support.daemon import MAC, NODES, Serving, overlay, serving, tiny_image, tiny_site, write_conf
from support.patience import until
from wwfast.daemon import app
from wwfast.daemon import upkeep as upkeeping
from wwfast.daemon.boot import routes
from wwfast.daemon.life.relay import Relay
from wwfast.images import building
from wwfast.overlays.making import store
from wwfast.paths import Paths

DASHED = MAC.replace(":", "-").upper()


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    return tiny_site(Paths.at(tmp_path_factory.mktemp("site")))


@pytest.fixture(scope="module")
def server(at: Paths) -> Iterator[Serving]:
    with serving(at) as running:
        yield running


def test_http_a_whole_boot_is_served(server: Serving) -> None:
    status, script, headers = server.get(f"/ipxe/{DASHED}?assetkey=&uuid=&memsize=")
    assert status == 200
    assert script.startswith(b"#!ipxe\n")
    assert b"wwid=${hwaddr} quiet" in script
    assert headers["content-type"].startswith("text/plain")
    assert server.get(f"/kernel/{MAC}")[:2] == (200, b"kernel" * 1000)
    status, image, _ = server.get(f"/image/{MAC}?compress=zst")
    assert status == 200
    raw = zstandard.ZstdDecompressor().decompressobj(read_across_frames=True).decompress(image)
    assert b"ID=tiny" in raw
    assert server.get(f"/kmods/{MAC}?compress=zst")[0] == 404  # no kernel apart from the image
    status, system, headers = server.get(f"/system/{MAC}?compress=gz")
    assert status == 200
    assert b"n1 of tiny\n" in gzip.decompress(system)
    status, runtime, headers = server.get(f"/runtime/{MAC}?format=tar")
    assert status == 200
    with tarfile.open(fileobj=io.BytesIO(runtime)) as archive:
        assert archive.extractfile("etc/motd").read() == b"n1 of tiny\n"  # type: ignore[union-attr]
    assert server.get(f"/runtime/{MAC}?format=tar", headers={"If-None-Match": headers["etag"]})[0] == 304
    entry = server.status("n1")["nodes"]["n1"]
    assert entry["stage"] == "runtime"
    assert [part["stage"] for part in entry["boot"]][-5:] == ["ipxe", "kernel", "image", "system", "runtime"]


def test_http_warewulfs_other_forms_of_a_route_answer_alike(server: Serving) -> None:
    kernel = server.get(f"/kernel/{MAC}")[1]
    for path in (
        f"/kernel?wwid={MAC}",
        f"/kernel/?wwid={DASHED}",
        f"/provision/{MAC}?stage=kernel",
        f"/provision?wwid={MAC}&stage=kernel",
        f"//kernel/{MAC}",
    ):
        assert server.get(path)[1] == kernel, path
    image = server.get(f"/image/{MAC}?compress=zst")[1]
    assert server.get(f"/container/{MAC}?compress=zst")[1] == image
    assert server.get(f"/overlay-system/{MAC}?compress=gz")[0] == 200
    assert server.get(f"/overlay-runtime/{MAC}?compress=gz")[0] == 200


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 404),
        ("/nothing/x", 404),
        ("/provision/52:54:00:00:00:01?stage=efiboot", 400),
        ("/kernel/52:54:00:00:00:99", 400),
        ("/image/52:54:00:00:00:99?compress=zst", 400),
        ("/system/52:54:00:00:00:99", 400),
        ("/grub/52:54:00:00:00:99", 404),
        ("/ipxe/52:54:00:00:00:99", 200),
        ("/kernel/../../etc/passwd", 400),
        ("/image/%2e%2e/%2e%2e/etc/passwd", 400),
        ("/efiboot/../../../etc/passwd", 400),
        ("/efiboot/nothing.efi", 404),
        (f"/image/{MAC}?compress=xz", 404),
        (f"/image/{MAC}", 200),
        (f"/system/{MAC}?compress=xz", 404),
    ],
)
def test_http_statuses(server: Serving, path: str, status: int) -> None:
    """W-24: a compress value that is not known is 404 and nothing else."""
    got, body, headers = server.get(path)
    assert got == status
    assert int(headers["content-length"]) == len(body)
    if status >= 400:
        assert b"root:" not in body
        assert len(body) < 200


def test_http_head_has_the_status_and_length_of_get_and_no_effect(server: Serving) -> None:
    before = server.status()["nodes"]["n1"]["last seen"]
    time.sleep(1.1)
    for path in (
        f"/ipxe/{MAC}",
        f"/kernel/{MAC}",
        f"/image/{MAC}?compress=zst",
        f"/system/{MAC}?compress=zst",
        "/none",
    ):
        head, get = server.get(path, method="HEAD"), None
        assert head[1] == b""
        if path == "/none":
            get = server.get(path)
            assert (head[0], head[2]["content-length"]) == (get[0], get[2]["content-length"])
    assert server.status()["nodes"]["n1"]["last seen"] == before
    for path in (f"/ipxe/{MAC}", f"/kernel/{MAC}", f"/image/{MAC}?compress=zst", f"/system/{MAC}?compress=zst"):
        head, get = server.get(path, method="HEAD"), server.get(path)
        assert (head[0], head[2]["content-length"]) == (get[0], str(len(get[1])))


def test_http_an_unknown_mac_is_told_so_and_asks_again(server: Serving) -> None:
    body = server.get("/ipxe/52:54:00:00:00:77")[1].decode()
    assert "No node of this cluster has the address 52:54:00:00:00:77" in body
    assert "chain --replace" in body
    assert "52:54:00:00:00:77" in server.status()["unknown"]


def test_http_too_little_memory_is_refused_in_words(server: Serving) -> None:
    body = server.get(f"/ipxe/{MAC}?memsize=64")[1].decode()
    assert "kernel --name" not in body
    assert "needs" in body
    assert "64" in body
    assert "kernel --name" in server.get(f"/ipxe/{MAC}?memsize=65536")[1].decode()
    for firmware, again in (("bios", True), ("uefi", True), ("", False), ("odd", False)):
        said = server.get(f"/ipxe/{MAC}?memsize=&firmware={firmware}")[1].decode()
        assert (f"&memsize=${{memsize}}&firmware={firmware}" in said) == again, "also when it asks again"


def test_http_what_stage1_says_is_in_status_and_is_no_boot(server: Serving, caplog: pytest.LogCaptureFixture) -> None:
    said = "/stage1/{}?assetkey=&said=the%20piece%20at%20byte%207%20is%20wrong%1b%5b2J"
    before = server.status("n1")["nodes"]["n1"]
    assert server.get(said.format(MAC), method="HEAD")[:2] == (200, b"")
    assert server.status("n1")["nodes"]["n1"].get("error") == before.get("error")
    assert server.get(said.format(MAC))[:2] == (200, b"")
    entry = server.status("n1")["nodes"]["n1"]
    assert entry["error"].startswith("the piece at byte 7 is wrong")
    assert entry["error"].isprintable()
    assert entry["stage"] == before["stage"]
    assert "n1 stage1 told" in caplog.text
    assert server.get(said.format("52:54:00:00:00:99"))[0] == 400


def test_http_what_stage1_took_from_its_cache_stands_beside_the_image_that_is_done(server: Serving) -> None:
    size = len(server.get(f"/image/{MAC}?compress=zst")[1])
    server.get(f"/kernel/{MAC}")
    server.get(f"/image/{MAC}?compress=zst", headers={"Range": "bytes=5-9"})
    assert server.get(f"/stage1/{MAC}?said=the+cache+is+damaged")[0] == 200
    assert server.status("n1")["nodes"]["n1"]["error"] == "the cache is damaged"
    assert server.get(f"/stage1/{MAC}?said=80+of+84+MiB+came+from+the+cache&well=1")[0] == 200
    entry = server.status("n1")["nodes"]["n1"]
    assert "error" not in entry
    image = entry["boot"][-1]
    assert (image["stage"], image["outcome"], image["bytes"], image["total"]) == ("image", "done", 10, size)
    assert image["told"] == "the cache is damaged; 80 of 84 MiB came from the cache"


def test_http_an_image_in_parts_is_one_stage_with_its_progress(paths: Paths) -> None:
    with serving(tiny_site(paths)) as server:
        size = len(server.get(f"/image/{MAC}?compress=zst", headers={})[1])
        server.get(f"/kernel/{MAC}")
        seen = []
        for start in range(0, size, size // 4):
            end = min(start + size // 4, size) - 1
            got = server.get(f"/image/{MAC}?compress=zst", headers={"Range": f"bytes={start}-{end}"})
            assert (got[0], len(got[1])) == (206, end + 1 - start)
            entry = server.status("n1")["nodes"]["n1"]
            seen.append((entry["bytes"], entry["total"], entry["boot"][-1]["outcome"]))
        assert [outcome for *_, outcome in seen] == ["progress"] * (len(seen) - 1) + ["done"]
        assert [(at, total) for at, total, _ in seen[:-1]] == [
            (size // 4 * (n + 1), size) for n in range(len(seen) - 1)
        ]
        assert [part["stage"] for part in server.status("n1")["nodes"]["n1"]["boot"]] == ["image", "kernel", "image"]


def test_http_status_shows_no_secret(server: Serving) -> None:
    text = server.get("/status")[1].decode()
    assert "n1" in text
    assert "password" not in text
    assert "assetkey" not in text


def site(paths: Paths, nodes: str = NODES, **conf: object) -> Paths:
    tiny_image(paths)
    building.build(paths, "tiny")
    overlay(paths)
    write_conf(paths, **conf)
    paths.nodes_conf.write_text(nodes)
    return paths


def test_http_asset_keys_are_asked_for_at_every_stage(paths: Paths) -> None:
    site(paths, NODES.replace("  n1:\n", "  n1:\n    asset key: s3cret\n"))
    with serving(paths) as server:
        for stage in ("ipxe", "kernel", "image", "system", "runtime"):
            assert server.get(f"/{stage}/{MAC}?compress=zst")[0] == 401
            assert server.get(f"/{stage}/{MAC}?compress=zst&assetkey=wrong")[0] == 401
        assert server.status("n1")["nodes"]["n1"]["sent"] == "BAD_ASSET"
        assert server.get(f"/kernel/{MAC}?assetkey=s3cret")[0] == 200
        assert "s3cret" not in server.get("/status")[1].decode()


def test_http_asset_key_is_the_same_as_each_client_writes_it(paths: Paths) -> None:
    site(paths, NODES.replace("  n1:\n", "  n1:\n    asset key: Rack 7\n"))
    with serving(paths) as server:
        told = [server.get(f"/kernel/{MAC}?assetkey={key}")[0] for key in ("Rack_7", "Rack%207%20", "Rack7")]
    assert told == [200, 200, 401]


def free_privileged_port() -> int:
    """One that nobody holds: a fixed one rests in TIME_WAIT for a minute after each run."""
    for port in random.sample(range(700, 850), 50):
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise AssertionError("no free port")


@pytest.mark.root
def test_http_a_runtime_overlay_needs_a_privileged_port(paths: Paths) -> None:
    site(paths, warewulf={"secure": True})
    with serving(paths) as server:
        assert server.get(f"/runtime/{MAC}?format=tar")[0] == 401
        assert server.get(f"/runtime/{MAC}?format=tar", source=free_privileged_port())[0] == 200


def test_http_nodes_conf_is_taken_up_and_a_broken_one_is_not(paths: Paths) -> None:
    """W-65: a file saved broken leaves the last good registry in place, and says so."""
    site(paths)
    with serving(paths) as server:
        assert server.get("/kernel/52:54:00:00:00:02")[0] == 400
        more = NODES + NODES.split("nodes:\n")[1].replace("n1:", "n2:").replace(":01", ":02").replace(".11", ".12")
        paths.nodes_conf.write_text(more)
        until(lambda: server.get("/kernel/52:54:00:00:00:02")[0] == 200, 10.0)
        paths.nodes_conf.write_text("nodes: {n1: [")
        until(lambda: server.status()["registry error"], 10.0)
        assert "nodes.conf" in server.status()["registry error"]
        assert server.get("/kernel/52:54:00:00:00:02")[0] == 200
        paths.nodes_conf.write_text(NODES)
        until(lambda: server.get("/kernel/52:54:00:00:00:02")[0] == 400, 10.0)
        assert server.status()["registry error"] == ""


@pytest.mark.root
@pytest.mark.parametrize("taken", [True, False], ids=["taken over", "nobody took over"])
def test_http_a_server_that_hands_over_closes_no_phase_that_stays_open_in_its_successor(
    paths: Paths, taken: bool
) -> None:
    """The runtime overlay goes out when the one that takes over has closed it, or when nobody has."""
    site(paths)
    ours, theirs = socket.socketpair()
    with serving(paths) as server:
        guard = server.daemon.guard
        server.loop.call_soon_threadsafe(lambda: guard.saw_dhcp(MAC, boots=True))
        server.loop.call_soon_threadsafe(server.daemon.pause)
        relay = asyncio.run_coroutine_threadsafe(Relay.over(ours), server.loop).result(10)
        handed = asyncio.run_coroutine_threadsafe(server.daemon.state(relay), server.loop)
        known = handed.result(10)["guard"]["nodes"]
        assert [entry[0] for entry in known] == [MAC]
        server.loop.call_soon_threadsafe(server.daemon.http.resume)  # type: ignore[union-attr]
        statuses: list[int] = []
        path, port = f"/runtime/{MAC}?format=tar", free_privileged_port()
        asking = threading.Thread(target=lambda: statuses.append(server.get(path, source=port)[0]))
        asking.start()
        with theirs:
            assert theirs.recv(64).decode() == f"{MAC}\n"
            assert (statuses, guard.closes(MAC, port)) == ([], True)
            if taken:
                theirs.send(f"{MAC}\n".encode())
            else:
                server.loop.call_soon_threadsafe(relay.close)
                server.loop.call_soon_threadsafe(server.daemon.resume)
            asking.join(30)
        assert (statuses, guard.closes(MAC, port)) == ([200], False)


def test_http_a_server_that_was_replaced_makes_what_those_wait_for_who_asked_it(paths: Paths) -> None:
    """An image in another form: a module of dracut asks once, and here."""
    site(paths)
    with serving(paths) as server, socket.create_connection(("127.0.0.1", server.port), 60) as sock:
        assert server.get(f"/image/{MAC}?compress=zst")[0] == 200, "and that connection is the server's by now"
        server.loop.call_soon_threadsafe(server.daemon.let_go)
        until(server.daemon.replaced.is_set, 10.0)
        sock.sendall(f"GET /image/{MAC}?compress=gz HTTP/1.1\r\nHost: x\r\nUser-Agent: curl/8.5.0\r\n\r\n".encode())
        assert sock.recv(64).split()[1] == b"200"


def test_http_a_client_that_waits_is_never_told_to_come_again(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    """A storm of new builds may outrun each look at them: iPXE asks again, curl in a module of dracut is held."""
    monkeypatch.setattr(routes, "LOOKS", 1)
    site(paths)
    with serving(paths) as server:
        answers = [
            server.get(f"/image/{MAC}?compress=gz", headers={"User-Agent": agent})[0]
            for agent in ("iPXE/1.21.1", "curl/8.5.0")
        ]
    assert answers == [503, 200]


@pytest.mark.parametrize("stage", ["kernel", "image"])
@pytest.mark.parametrize(
    ("now", "status"),
    [
        (NODES.replace("image name: tiny", "image name: none"), 404),
        (NODES.replace("image name: tiny", "image name: none").replace("n1:", "n1:\n    asset key: key"), 401),
        ("nodes: {}\n", 400),
    ],
    ids=["another image", "an asset key", "no node"],
)
def test_http_who_waits_while_its_node_is_changed_is_answered_as_the_node_is_now(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, stage: str, now: str, status: int
) -> None:
    """Nobody looks up an image that no node has any more: who waited for it got no answer, ever."""
    monkeypatch.setattr(upkeeping, "WAIT_SECONDS", 30.0)
    site(paths)
    assert now != NODES
    with serving(paths) as server:
        upkeep, registry = server.daemon.upkeep, server.daemon.registry
        looking, changed = threading.Event(), threading.Event()
        resolve = upkeep._resolve

        def held(asked: tuple[str, ...]) -> object:
            looking.set()
            assert changed.wait(30)
            return resolve(asked)

        monkeypatch.setattr(upkeep, "_resolve", held)
        server.loop.call_soon_threadsafe(upkeep.refresh)
        assert looking.wait(30)
        server.loop.call_soon_threadsafe(upkeep._heard)
        answers: list[int] = []
        asking = threading.Thread(target=lambda: answers.append(server.get(f"/{stage}/{MAC}?compress=zst")[0]))
        asking.start()
        until(lambda: bool(upkeep._waiting), 10.0)
        paths.nodes_conf.write_text(now)
        registry.reload()
        changed.set()
        asking.join(40)
    assert answers == [status]


def test_http_an_overlay_edit_is_served_without_a_build(paths: Paths) -> None:
    """W-9: what an overlay depends on is its key, so nothing is ever stale."""
    site(paths)
    with serving(paths) as server:
        before = server.get(f"/runtime/{MAC}?format=tar")
        (paths.site_overlays / "motd/rootfs/etc/motd.j2").write_text("new {{ id }}\n")

        def fresh() -> bool:
            return b"new n1\n" in server.get(f"/runtime/{MAC}?format=tar")[1]

        until(fresh, 10.0)
        assert server.get(f"/runtime/{MAC}?format=tar")[2]["etag"] != before[2]["etag"]


def test_http_overlays_are_served_while_their_cache_is_made_smaller(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What nobody has is removed again and again under requests and edits; nobody gets less than the whole."""
    monkeypatch.setattr(app, "TEND_SECONDS", 0.02)
    monkeypatch.setattr(store, "GRACE", 0.0)
    site(paths)
    with serving(paths) as server:
        for turn in range(20):
            (paths.site_overlays / "motd/rootfs/etc/motd.j2").write_text(f"turn {turn} {{{{ id }}}}\n")
            until(lambda: b"turn %d n1\n" % turn in server.get(f"/runtime/{MAC}?format=tar")[1], 10.0)  # noqa: B023
            good = server.get(f"/runtime/{MAC}?format=tar")[1]
            for _ in range(5):
                assert server.get(f"/runtime/{MAC}?format=tar")[:2] == (200, good)
        contents = named(paths.overlay_cache)
        until(lambda: len(contents & named(paths.overlay_cache)) < 10, 10.0)


def named(cache: Path) -> set[str]:
    """What has forms in it. Directories come and go under the walk, which pathlib's does not bear."""
    return {name.partition(".")[0] for _, _, names in os.walk(cache) for name in names if "." in name}


def test_http_a_broken_overlay_serves_the_last_good_one_and_shows_why(paths: Paths) -> None:
    """W-78."""
    site(paths)
    with serving(paths) as server:
        before = server.get(f"/runtime/{MAC}?format=tar")[1]
        (paths.site_overlays / "motd/rootfs/etc/motd.j2").write_text("{{ nothing_of_that_name }}\n")
        until(
            lambda: (
                "nothing_of_that_name" in server.status()["nodes"]["n1"].get("error", "")
                or not server.get(f"/runtime/{MAC}?format=tar")
            ),
            10.0,
        )
        status, body, _ = server.get(f"/runtime/{MAC}?format=tar")
        assert (status, body) == (200, before)


def test_http_a_rebuilt_image_is_served_at_once_and_transfers_keep_theirs(paths: Paths) -> None:
    site(paths)
    with serving(paths) as server:
        first = server.get(f"/image/{MAC}?compress=zst")
        (paths.chroots / "tiny/rootfs/etc/new").write_text("new\n")
        building.build(paths, "tiny")
        second = server.get(f"/image/{MAC}?compress=zst")
        assert first[2]["etag"] != second[2]["etag"]


def test_http_discovery_gives_two_unknown_addresses_two_nodes(paths: Paths) -> None:
    """W-5, W-14: only a valid address, only at the script stage, one node each."""
    empty = "\n".join(
        f"  d{number}:\n    discoverable: true\n    profiles: [default]\n    network devices: {{default: {{}}}}"
        for number in (1, 2)
    )
    site(paths, NODES.rstrip() + "\n" + empty + "\n")
    with serving(paths) as server:
        server.get("/kernel/52:54:00:00:00:51")
        server.get("/ipxe/not-a-mac")
        server.get("/ipxe/52:54:00:00:00:51", method="HEAD")
        assert "52:54:00:00:00:51" not in paths.nodes_conf.read_text()
        for last in ("51", "52"):
            assert b"kernel --name" in server.get(f"/ipxe/52:54:00:00:00:{last}")[1]
        assert b"No node of this cluster" in server.get("/ipxe/52:54:00:00:00:53")[1]
        text = paths.nodes_conf.read_text()
        assert text.count("52:54:00:00:00:51") == 1
        assert text.count("52:54:00:00:00:52") == 1
        assert "not-a-mac" not in text


def test_http_a_node_left_out_does_not_take_the_entry_of_another(paths: Paths) -> None:
    """Its hardware address is known, though its entry is unusable: it is named, and no discovery gives it a new one."""
    broken = '  b1: {network devices: {default: {hwaddr: "52:54:00:00:00:61", gateway: "fe80::1"}}}'
    free = "  d1: {discoverable: true, profiles: [default], network devices: {default: {}}}"
    site(paths, f"{NODES.rstrip()}\n{broken}\n{free}\n")
    with serving(paths) as server:
        assert b"No node of this cluster" in server.get("/ipxe/52:54:00:00:00:61")[1]
        assert paths.nodes_conf.read_text().count("52:54:00:00:00:61") == 1
        assert "default.gateway: 'fe80::1' is not an IPv4 address" in server.status("b1")["nodes"]["b1"]["error"]
        assert b"kernel --name" in server.get("/ipxe/52:54:00:00:00:62")[1]


def test_http_file_descriptors_are_given_back(paths: Paths) -> None:
    site(paths)
    with serving(paths) as server:
        server.get(f"/image/{MAC}?compress=zst")
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        for _ in range(50):
            server.get(f"/image/{MAC}?compress=zst")
            server.get(f"/system/{MAC}?compress=zst")
        until(lambda: len(list(Path("/proc/self/fd").iterdir())) <= before + 4, 10.0)
