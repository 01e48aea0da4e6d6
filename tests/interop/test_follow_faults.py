"""A head that follows, and what goes wrong: keys, versions, disks, links, edits. The last good is served meanwhile."""

from __future__ import annotations

import gzip
import http.client
import http.server
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support import everycommand
from support.daemon import MAC, NODES, Serving, write_conf
from support.heads import LEADING, Heads, Wire
from support.patience import until
from wwfast.boot.heads import order
from wwfast.cli import groups
from wwfast.config.settings import load
from wwfast.errors import WwfastError
from wwfast.heads import key
from wwfast.heads.following import Following
from wwfast.heads.mirror import Mirror
from wwfast.images import building
from wwfast.overlays.making.service import OverlayService
from wwfast.paths import Paths

LARGE = 24 << 20


@pytest.fixture
def heads(tmp_path: Path) -> Heads:
    return Heads(tmp_path)


@contextmanager
def following(heads: Heads, url: str = "") -> Iterator[Following]:
    """Without a server around it."""
    overlays = OverlayService(heads.second, load(heads.second))
    try:
        yield Following(heads.second, url or heads.url, heads.port, "second", overlays.results)
    finally:
        overlays.close()


@contextmanager
def wired(heads: Heads) -> Iterator[Wire]:
    wire = Wire(heads.port)
    try:
        yield wire
    finally:
        wire.close()


def large_kernel(paths: Paths) -> bytes:
    body = os.urandom(LARGE)
    (paths.chroots / "tiny/rootfs/boot/vmlinuz-6.1.0-1").write_bytes(body)
    building.build(paths, "tiny")
    return body


def said(heads: Heads, it: Following) -> str:
    """What is wrong with a turn."""
    with pytest.raises(WwfastError) as failed:
        it.turn()
    assert it.said == failed.value.message
    return failed.value.message


# -- keys ---------------------------------------------------------------------------------------------------------


def test_follow_key_of_another_head_opens_nothing(heads: Heads) -> None:
    key.make(heads.second, force=True)
    with heads.leading() as first, following(heads) as it:
        assert "do not have the same key" in said(heads, it)
        assert first.status()["peers"] == {}
    assert it.revision == ""


def test_follow_without_a_certificate_nothing_is_told(heads: Heads) -> None:
    with heads.leading():
        stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        stranger.check_hostname, stranger.verify_mode = False, ssl.CERT_NONE
        with (
            socket.create_connection(("127.0.0.1", heads.port), 10) as raw,
            stranger.wrap_socket(raw) as wire,
            pytest.raises(ssl.SSLError, match="certificate required"),
        ):
            wire.recv(1)


def test_follow_key_that_others_can_read_is_refused(heads: Heads) -> None:
    key.place(heads.second).chmod(0o644)
    with pytest.raises(WwfastError, match="can be read by others"), following(heads):
        pass
    key.place(heads.first).chmod(0o640)
    with heads.leading_badly() as first:
        assert "can be read by others" in first.status()["troubles"][LEADING]["error"]
        assert first.get(f"/kernel/{MAC}")[0] == 200, "nodes boot all the same"


def test_follow_key_is_made_once_and_is_secret(heads: Heads) -> None:
    place = key.place(heads.first)
    assert place.stat().st_mode & 0o777 == 0o600
    before = place.read_bytes()
    with pytest.raises(WwfastError, match="there is a key already"):
        key.make(heads.first)
    assert place.read_bytes() == before


def test_follow_clock_that_is_off_keeps_nobody_apart(heads: Heads, tmp_path: Path) -> None:
    """A certificate that is out of its dates stands for a clock that is: only its content counts."""
    place, request, made = key.place(heads.first), tmp_path / "request", tmp_path / "made"
    subprocess.run(["openssl", "req", "-new", "-key", place, "-subj", "/CN=old", "-out", request], check=True)
    signed = ["openssl", "x509", "-req", "-in", request, "-signkey", place, "-days", "-1", "-out", made]
    subprocess.run(signed, check=True, capture_output=True)
    private = subprocess.run(["openssl", "pkey", "-in", place], check=True, capture_output=True).stdout
    for paths in (heads.first, heads.second):
        key.place(paths).write_bytes(private + made.read_bytes())
    with heads.leading(), following(heads) as it:
        assert it.turn()[0]


# -- links and disks ----------------------------------------------------------------------------------------------


def test_follow_goes_on_where_a_link_broke(heads: Heads) -> None:
    large_kernel(heads.first)
    with heads.leading(), wired(heads) as wire:
        wire.most = LARGE // 2
        with following(heads, wire.url) as it:
            said(heads, it)
            assert it.revision == ""
        half = wire.came
        wire.most = 1 << 40
        with following(heads, wire.url) as it:  # another process: what arrived is on the disk
            assert it.turn()[0]
        assert LARGE // 4 < half < wire.came < 2 * LARGE + (1 << 20), "the kernel, and the image with it, once"


def test_follow_link_that_is_silent_ends_no_service(heads: Heads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wwfast.heads.following.SECONDS", 1.0)
    with heads.leading(), wired(heads) as wire, heads.following(wire.url) as second:
        revision = second.status()["following"]["revision"]
        wire.silent = True
        until(lambda: "does not answer" in second.status()["following"]["said"])
        assert second.get(f"/kernel/{MAC}")[0] == 200
        heads.first.nodes_conf.write_text(NODES.replace("quiet", "loud"))
        wire.silent = False
        until(lambda: b"loud" in second.get(f"/ipxe/{MAC}")[1])
        assert second.status()["following"]["revision"] != revision


def test_follow_what_is_damaged_on_the_way_is_fetched_anew(heads: Heads) -> None:
    with heads.leading(), following(heads) as it:
        assert it.turn()[0]
        mirror = Mirror(heads.second.mirror or Path())
        known = mirror.manifest()
        assert known is not None
        entry = max(known.entries, key=lambda entry: entry.size)
        mirror.path(entry).unlink()
        mirror.path(entry).with_name(f"{mirror.path(entry).name}.part").write_bytes(b"x" * 100)
        assert "is not what the other head said it is" in said(heads, it)
        assert it.turn()[0]
        assert mirror.holds(known)


@pytest.mark.root
def test_follow_disk_that_is_full_is_told_and_former_state_is_served(heads: Heads) -> None:
    place = heads.second.mirror or Path()
    place.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", place], check=True)
    try:
        with heads.leading() as first, heads.following() as second:
            large_kernel(heads.first)
            until(lambda: "has room for" in second.status()["following"]["said"])
            assert second.get(f"/kernel/{MAC}")[1] == b"kernel" * 1000
            until(lambda: "MiB are to come" in next(iter(first.status()["peers"].values()))["said"])
            subprocess.run(["mount", "-o", "remount,size=128m", place], check=True)
            until(lambda: len(second.get(f"/kernel/{MAC}")[1]) == LARGE)
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def test_follow_part_of_an_overlay_that_the_first_head_lost_is_made_anew(heads: Heads) -> None:
    with heads.leading() as first:
        until(lambda: first.get(f"/runtime/{MAC}?compress=gz")[0] == 200)
        with following(heads) as it:
            until(lambda: not it.turn()[0])
        place = heads.second.mirror or Path()
        for root in (heads.first.overlay_cache, place / "overlays"):
            for part in root.glob("[0-9a-f][0-9a-f]/*"):
                part.unlink()
        shutil.rmtree(place / "revisions")
        with following(heads) as it:
            assert "was damaged on disk" in said(heads, it)
            until(lambda: turned(it))
        with heads.following() as second:
            assert b"n1 of tiny\n" in gzip.decompress(second.get(f"/runtime/{MAC}?compress=gz")[1])


def turned(it: Following) -> bool:
    try:
        return it.turn()[0]
    except WwfastError:
        return False


def test_follow_after_an_hour_away_fetches_what_changed(heads: Heads) -> None:
    large_kernel(heads.first)
    with heads.leading(), wired(heads) as wire:
        with following(heads, wire.url) as it:
            assert it.turn()[0]
        assert wire.came > LARGE
        for number in range(5):
            heads.first.nodes_conf.write_text(NODES.replace("quiet", f"loud{number}"))
            (heads.first.site_overlays / "motd/rootfs/etc/motd.j2").write_text(f"{number} of {{{{ id }}}}\n")
        wire.came = 0
        with following(heads, wire.url) as it:
            until(lambda: it.turn()[0] or b"loud4" in heads.second.nodes_conf.read_bytes())
            until(lambda: not it.turn()[0])
        assert b"loud4" in heads.second.nodes_conf.read_bytes()
        assert wire.came < 1 << 20


# -- versions -----------------------------------------------------------------------------------------------------


class Other(http.server.BaseHTTPRequestHandler):
    """A head of a version to come."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = json.dumps({"format": 7, "version": "9.9.9", "anything": []}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def test_follow_head_of_another_version_is_named_and_the_last_good_is_served(heads: Heads) -> None:
    with heads.leading(), following(heads) as it:
        it.turn()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", heads.port), Other)
    server.socket = key.context(key.place(heads.first), ssl.PROTOCOL_TLS_SERVER).wrap_socket(server.socket, True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        with heads.following() as second:
            until(lambda: "runs wwfast 9.9.9" in second.status()["following"]["said"])
            assert second.get(f"/kernel/{MAC}")[0] == 200
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_follow_head_of_another_version_is_seen_by_the_first(heads: Heads) -> None:
    with heads.leading() as first:
        context = key.context(key.place(heads.second), ssl.PROTOCOL_TLS_CLIENT)
        connection = http.client.HTTPSConnection("127.0.0.1", heads.port, timeout=30, context=context)
        try:
            body = json.dumps({"format": 7, "version": "9.9.9", "name": 5}).encode()
            for method, path, data, status in (
                ("POST", "/heads/poll", body, 200),
                ("POST", "/heads/poll", b"{", 500),
                ("POST", "/heads/poll", b'{"format": 1, "closed": 7}', 500),
                ("GET", "/heads/object/../../etc/shadow", None, 404),
                ("GET", f"/heads/object/{'0' * 64}", None, 404),
                ("POST", "/heads/parts", b"x" * 16, 500),
                ("GET", "/status", None, 404),
            ):
                connection.request(method, path, data)
                answer = connection.getresponse()
                assert (answer.status, len(answer.read()) < 300) == (status, True), path
        finally:
            connection.close()
        [peer] = first.status()["peers"].values()
        assert (peer["version"], peer["said"]) == ("9.9.9", "its heads speak form 7, not 1")


# -- what admins and nodes see ------------------------------------------------------------------------------------


def test_follow_heads_are_seen_in_server_peers(heads: Heads) -> None:
    def peers(paths: Paths) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "wwfast", "--root", str(paths.root), "server", "peers"]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    with heads.leading() as first:
        listening = {"port": first.port, "secure": False}
        write_conf(heads.first, warewulf=listening)
        assert peers(heads.first).returncode == 0, "none follows"
        with heads.following() as second:
            until(lambda: second.status()["following"]["revision"] != "")
            done = peers(heads.first)
            [row] = done.stdout.splitlines()[2:]
            assert done.returncode == 0, done
            assert second.status()["following"]["revision"] in row
            assert re.search(r" 0 s +0 B .* s ago +well$", row), row
            write_conf(heads.second, warewulf={"port": second.port, "secure": False})
            asked = peers(heads.second)
            assert (asked.returncode, f"this server follows {heads.url}" in asked.stderr) == (1, True)
        until(lambda: next(iter(first.status()["peers"].values()))["silent"])
        done = peers(heads.first)
        assert done.returncode == 1
        assert done.stdout.rstrip().endswith("silent")


def test_follow_nodes_are_not_sent_to_a_head_that_is_away(tmp_path: Path) -> None:
    """The first head is at another address for nodes; the second one finds out whether it is there."""
    heads = Heads(tmp_path, heads=["127.0.0.1:9874"])
    sent = f"chain --replace --autofree --timeout 5000 http://127.0.0.1:9874/ipxe/{MAC}".encode()
    nodes = NODES.replace("n1:", "NAME:")
    name = next(name for name in map("n{}".format, range(50)) if order(name, BOTH)[0] == BOTH[1])
    heads.first.nodes_conf.write_text(nodes.replace("NAME", name))
    with heads.leading(), heads.following() as second:
        until(lambda: sent in second.get(f"/ipxe/{MAC}")[1])
    with heads.following() as second:
        until(lambda: sent not in second.get(f"/ipxe/{MAC}")[1])


BOTH = ["127.0.0.1:9873", "127.0.0.1:9874"]


# -- edits --------------------------------------------------------------------------------------------------------


def edit(second: Serving, heads: Heads) -> Iterator[None]:
    """What somebody may do to a mirror, each after the other."""
    at = heads.second.nodes_conf
    at.write_text(NODES.replace("10.0.0.11", "10.0.0.99"))
    yield
    at.unlink()
    at.write_text("nodes: {}\n")
    yield
    [kernel] = (heads.second.images / "tiny").glob("2*/kernels/*vmlinuz*")
    kernel.write_bytes(b"mine")
    yield
    shutil.rmtree(heads.second.images / "tiny")
    yield


def test_follow_edits_of_the_mirror_are_put_right(heads: Heads) -> None:
    with heads.leading(), heads.following() as second:
        before = heads.second.nodes_conf.read_bytes()
        for _ in edit(second, heads):
            until(
                lambda: (
                    second.get(f"/kernel/{MAC}")[1] == b"kernel" * 1000
                    and heads.second.nodes_conf.read_bytes() == before
                    and Mirror(heads.second.mirror or Path()).manifest() is not None
                )
            )


def test_follow_every_command_that_writes_says_where_edits_are_made(
    heads: Heads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDITOR", "true")
    with heads.leading(), following(heads) as it:
        it.turn()
    heads.second.following.write_text(f"{heads.url}\n")
    root = heads.second.root

    def play() -> tuple[list[str], str]:
        wrong = [name for name in LOOKS if everycommand.run(root, name).status != 0]
        wrong += [] if "n1" in everycommand.run(root, "node list").said else ["node list"]
        for name in everycommand.ARGUMENTS.keys() - set(groups.READS.replace("\n", " ").strip().split(", ")):
            done = everycommand.run(root, name)
            if done.status != 1 or f"this server follows {heads.url} and takes no edits" not in done.said:
                wrong.append(f"{name}: {done}")
        return wrong, ""

    before = everycommand.content(root)
    assert everycommand.in_child(play) == ([], "")
    assert everycommand.content(root) == before
    assert {
        "node set",
        "image build",
        "overlay edit",
        "undo",
        "kernel import",
        "clean",
    } <= everycommand.ARGUMENTS.keys()
    assert everycommand.in_child(lambda: everycommand.run(root, "follow end", "").status) == 0
    assert everycommand.in_child(lambda: everycommand.run(root, "profile add", "own").status) == 0


LOOKS = ("image list", "node list", "profile list", "node export", "group list")
