"""wwclient against a real server: what it fetches, how it puts files in place, how it ends. Under dash and busybox."""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.patience import until
from support.wwclient import CLIENT, ROOT, SHELLS, WWID, Node, Overlay, Server
from wwfast.paths import SHARE


@pytest.fixture
def overlay() -> Overlay:
    return Overlay()


@pytest.fixture
def server(overlay: Overlay) -> Iterator[Server]:
    server = Server(overlay)
    yield server
    server.stop()


@pytest.fixture(params=SHELLS, ids=["dash", "busybox"])
def node(request: pytest.FixtureRequest, tmp_path: Path, server: Server) -> Iterator[Node]:
    if not shutil.which(request.param[0]):
        pytest.skip(f"{request.param[0]} is not installed")
    node = Node(tmp_path / "node", request.param, server)
    yield node
    node.end()


def test_client_places_files_with_mode_links_and_directories(node: Node, overlay: Overlay) -> None:
    overlay.directory("etc")
    overlay.directory("etc/secret", 0o700)
    overlay.put("etc/secret/key", "private", 0o600)
    overlay.put("etc/script with blank", "#!/bin/sh\n", 0o755)
    overlay.put("etc/.hidden", "dot")
    overlay.link("etc/localtime", "/usr/share/zoneinfo/Europe/Berlin")
    overlay.put("etc/empty", "")
    overlay.put("etc/suid", "x", 0o4755)
    node.update()
    assert node.read("etc/secret/key") == "private"
    assert stat.S_IMODE((node.root / "etc/secret/key").stat().st_mode) == 0o600
    assert stat.S_IMODE((node.root / "etc/secret").stat().st_mode) == 0o700
    assert stat.S_IMODE((node.root / "etc/script with blank").stat().st_mode) == 0o755
    assert stat.S_IMODE((node.root / "etc/suid").stat().st_mode) == 0o4755
    assert node.read("etc/.hidden") == "dot"
    assert (node.root / "etc/localtime").readlink() == Path("/usr/share/zoneinfo/Europe/Berlin")
    assert node.read("etc/empty") == ""
    assert not node.leftovers()


@pytest.mark.skipif(not ROOT, reason="only root may give files away")
def test_client_keeps_owners_and_notices_their_change(node: Node, overlay: Overlay) -> None:
    overlay.put("etc/file", "same", 0o640, (1234, 4321))
    node.update()
    found = (node.root / "etc/file").stat()
    assert (found.st_uid, found.st_gid) == (1234, 4321)
    overlay.put("etc/file", "same", 0o640, (1, 2))
    node.update()
    found = (node.root / "etc/file").stat()
    assert (found.st_uid, found.st_gid) == (1, 2)


def test_client_asks_with_its_identity_and_the_etag_it_has(node: Node, overlay: Overlay) -> None:
    overlay.put("etc/file", "one")
    node.update()
    before = (node.root / "etc/file").stat()
    node.update()
    first, second = overlay.asked
    assert first.path == second.path == f"/runtime/{WWID}"
    assert first.query["format"] == ["tar"]
    assert first.query["assetkey"] == ["Rack_7_&_co"]
    assert first.query["memory"] == ["1964"], "in MiB what Linux has"
    assert first.query["uuid"] == ["4c4c4544-0042"]
    assert first.etag is None
    assert second.status == 304
    after = (node.root / "etc/file").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_client_changes_in_one_step_and_leaves_equal_files_alone(node: Node, overlay: Overlay) -> None:
    overlay.put("etc/changes", "one")
    overlay.put("etc/stays", "same")
    node.update()
    held = (node.root / "etc/changes").open()
    inode = (node.root / "etc/stays").stat().st_ino
    overlay.put("etc/changes", "two, and longer")
    node.update()
    with held:
        assert held.read() == "one", "who had the file open still reads all of the old one"
    assert node.read("etc/changes") == "two, and longer"
    assert (node.root / "etc/stays").stat().st_ino == inode


def test_client_removes_what_left_the_overlay_and_gives_back_the_images_own(node: Node, overlay: Overlay) -> None:
    (node.root / "etc/hosts").write_text("of the image\n")
    (node.root / "etc/own").write_text("never in the overlay\n")
    overlay.put("etc/hosts", "of the overlay\n")
    overlay.directory("etc/new.d")
    overlay.put("etc/new.d/file", "x")
    overlay.link("etc/link", "nowhere")
    node.update()
    assert node.read("etc/hosts") == "of the overlay\n"
    for path in list(overlay.entries):
        overlay.drop(path)
    node.update()
    assert node.read("etc/hosts") == "of the image\n"
    assert node.read("etc/own") == "never in the overlay\n"
    assert not (node.root / "etc/new.d").exists()
    assert not (node.root / "etc/link").is_symlink()
    assert (node.root / "etc").is_dir()
    node.update()
    assert node.read("etc/hosts") == "of the image\n"


def test_client_puts_back_what_was_changed_on_the_node(node: Node, overlay: Overlay) -> None:
    overlay.put("etc/file", "right")
    overlay.put("etc/gone", "here")
    node.update()
    (node.root / "etc/file").write_text("wrong")
    (node.root / "etc/gone").unlink()
    assert "put back" in node.update()
    assert node.read("etc/file") == "right"
    assert node.read("etc/gone") == "here"
    assert [asked.status for asked in overlay.asked] == [200, 304]


def test_client_takes_the_place_of_links_and_goes_through_linked_directories(node: Node, overlay: Overlay) -> None:
    (node.root / "usr/lib").mkdir(parents=True)
    (node.root / "lib").symlink_to("usr/lib")
    (node.root / "elsewhere").mkdir()
    (node.root / "etc/was-link-to-directory").symlink_to("../elsewhere")
    (node.root / "etc/resolv.conf").symlink_to("../elsewhere/resolv.conf")
    (node.root / "elsewhere/resolv.conf").write_text("of the image")
    overlay.directory("lib", 0o700)
    overlay.put("lib/module", "m")
    overlay.put("etc/was-link-to-directory", "file")
    overlay.put("etc/resolv.conf", "nameserver 10.0.0.1\n")
    node.update()
    assert (node.root / "lib").is_symlink()
    assert node.read("usr/lib/module") == "m"
    assert not list((node.root / "elsewhere").glob("was*"))
    assert node.read("etc/was-link-to-directory") == "file"
    assert not (node.root / "etc/resolv.conf").is_symlink()
    assert node.read("elsewhere/resolv.conf") == "of the image"


def test_client_leaves_directories_alone_that_the_overlay_does_not_name(node: Node, overlay: Overlay) -> None:
    (node.root / "etc").chmod(0o751)
    (node.root / "etc/kept").mkdir(mode=0o750)
    overlay.put("etc/kept/file", "x")
    overlay.put("etc/new/deep/file", "x")
    overlay.directory("etc/named", 0o700)
    (node.root / "etc/named").mkdir(mode=0o755)
    node.update()
    modes = {path: stat.S_IMODE((node.root / path).stat().st_mode) for path in ("etc", "etc/kept", "etc/named")}
    assert modes == {"etc": 0o751, "etc/kept": 0o750, "etc/named": 0o700}
    for path in ("etc/new", "etc/new/deep"):
        assert stat.S_IMODE((node.root / path).stat().st_mode) == 0o755


def test_client_tells_a_root_that_is_updated_what_it_put_there(node: Node, overlay: Overlay) -> None:
    (node.root / ".wwfast-kept").mkdir()
    names = node.root / ".wwfast-kept/overlays"
    names.write_text("\netc/of the system overlay\n")
    (node.root / "usr/lib").mkdir(parents=True)
    (node.root / "lib").symlink_to("usr/lib")
    overlay.put("lib/a file", "x")
    overlay.put("top", "x")
    for _ in range(2):
        node.update()
        assert names.read_text() == "\netc/of the system overlay\nusr/lib/a file\ntop\n"


def test_client_goes_on_where_a_directory_is_in_the_way_and_tries_again(node: Node, overlay: Overlay) -> None:
    (node.root / "etc/blocked").mkdir()
    overlay.put("etc/blocked", "file")
    overlay.put("etc/zfile", "placed all the same")
    done = node.once()
    assert done.returncode == 1
    assert "/etc/blocked: a directory is in the way" in done.stdout
    assert node.read("etc/zfile") == "placed all the same"
    (node.root / "etc/blocked").rmdir()
    node.update()
    assert node.read("etc/blocked") == "file"


def test_client_never_applies_half_an_overlay(node: Node, overlay: Overlay, server: Server) -> None:
    overlay.put("etc/file", "whole")
    node.update()
    whole = overlay.tar
    overlay.put("etc/file", "other")
    cut = overlay.tar()[:700]
    overlay.tar = lambda: cut  # type: ignore[method-assign]
    done = node.once()
    assert done.returncode == 1
    assert "cannot be unpacked" in done.stdout
    assert node.read("etc/file") == "whole"
    overlay.tar = whole  # type: ignore[method-assign]
    node.update()
    assert node.read("etc/file") == "other"


@pytest.mark.parametrize(("status", "words"), [(401, "port below 1024"), (503, "HTTP 503"), (404, "HTTP 404")])
def test_client_says_why_it_is_refused_and_keeps_what_it_has(
    node: Node, overlay: Overlay, status: int, words: str
) -> None:
    overlay.put("etc/file", "kept")
    node.update()
    overlay.status = status
    done = node.once()
    assert done.returncode == 1
    assert words in done.stdout
    assert node.read("etc/file") == "kept"


@pytest.mark.skipif(not ROOT, reason="only root may bind ports below 1024")
def test_client_asks_from_several_privileged_ports(node: Node, overlay: Overlay) -> None:
    node.configure(WWSECURE="true", WWINTERVAL=1)
    overlay.put("etc/file", "x")
    process = node.start()
    until(lambda: len(overlay.asked) >= 4, 20.0)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    ports = [asked.port for asked in overlay.asked]
    assert all(987 <= port <= 1022 for port in ports), ports
    assert len(set(ports)) > 1, ports


@pytest.mark.skipif(not ROOT, reason="only root may bind ports below 1024")
def test_client_finds_the_one_port_that_is_free(node: Node, overlay: Overlay) -> None:
    node.configure(WWSECURE="true")
    overlay.put("etc/file", "x")
    with contextlib.ExitStack() as stack:
        taken = [holder for port in range(987, 1023) if (holder := hold(stack, port))]
        # One that could be bound, so none that rests in TIME_WAIT.
        free = random.choice(taken)
        port = free.getsockname()[1]
        free.close()
        node.update()
    assert overlay.asked[0].port == port


def hold(stack: contextlib.ExitStack, port: int) -> socket.socket | None:
    holder = stack.enter_context(socket.socket())
    try:
        holder.bind(("0.0.0.0", port))
    except OSError:
        return None
    return holder


@pytest.mark.skipif(not ROOT, reason="only root may bind ports below 1024")
def test_client_uses_the_port_of_the_configuration(node: Node, overlay: Overlay) -> None:
    with contextlib.ExitStack() as stack:
        usable = [port for port in random.sample(range(600, 980), 20) if hold(stack, port)]
    port = usable[0]
    node.configure(WWSECURE="true", WWCLIENTPORT=port)
    overlay.put("etc/file", "x")
    node.update()
    assert overlay.asked[0].port == port


def test_client_updates_at_once_on_sighup(node: Node, overlay: Overlay) -> None:
    node.configure(WWINTERVAL=3600)
    overlay.put("etc/file", "one")
    process = node.start()
    until(lambda: (node.root / "run/wwclient/etag").exists() and (node.root / "etc/file").exists(), 20.0)
    time.sleep(0.3)
    overlay.put("etc/file", "two")
    process.send_signal(signal.SIGHUP)
    until(lambda: node.read("etc/file") == "two", 20.0)
    assert process.poll() is None


def test_client_ends_at_once_on_sigterm_whatever_it_does(node: Node, overlay: Overlay, server: Server) -> None:
    overlay.put("etc/file", "x")
    overlay.delay = 30
    fetching = node.start()
    until(lambda: overlay.begun == 1, 20.0)
    begin = time.monotonic()
    fetching.send_signal(signal.SIGTERM)
    assert fetching.wait(10) == 0
    assert time.monotonic() - begin < 5
    overlay.delay = 0
    node.configure(WWINTERVAL=3600)
    sleeping = node.start()
    until(lambda: (node.root / "etc/file").exists(), 20.0)
    sleeping.send_signal(signal.SIGTERM)
    assert sleeping.wait(10) == 0
    assert not (node.root / "run/wwclient/pid").exists()


@pytest.mark.slow
def test_client_outlives_a_server_that_goes_away(node: Node, overlay: Overlay, server: Server) -> None:
    node.configure(WWINTERVAL=1)
    server.stop()
    process = node.start()
    time.sleep(1.5)
    assert process.poll() is None
    overlay.put("etc/file", "one")
    server.start()
    until(lambda: (node.root / "etc/file").exists(), 20.0)
    server.stop()
    time.sleep(1.5)
    overlay.put("etc/file", "two")
    server.start()
    until(lambda: node.read("etc/file") == "two", 20.0)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=10)
    assert output.count("does not answer") <= 2, "the same complaint is made once"


@pytest.mark.slow
def test_client_polls_at_a_phase_of_its_own(node: Node, overlay: Overlay) -> None:
    node.configure(WWINTERVAL=4)
    overlay.put("etc/file", "x")
    node.start()
    until(lambda: len(overlay.asked) >= 2, 30)
    moments = []
    for _ in range(3):
        count = len(overlay.asked)
        until(lambda count=count: len(overlay.asked) > count, 30)
        moments.append(time.time())
    phase = int(subprocess.run(["cksum"], input=WWID.encode(), capture_output=True, check=True).stdout.split()[0]) % 4
    # One of them on time is enough: a busy machine is late, but a client without a phase is never on time.
    late = [(moment - phase) % 4 for moment in moments]
    assert min(late) < 1.5 or max(late) > 3.9, "the moment is that of the node, not of its start"


def test_client_runs_once_at_a_time(node: Node, overlay: Overlay) -> None:
    node.configure(WWINTERVAL=3600)
    overlay.put("etc/file", "x")
    process = node.start()
    until(lambda: (node.root / "etc/file").exists(), 20.0)
    done = node.once()
    assert done.returncode == 1
    assert f"already running as process {process.pid}" in done.stderr
    process.kill()
    process.wait()
    node.update()


def test_client_without_identity_or_configuration_says_so(node: Node) -> None:
    (node.root / "proc/cmdline").write_text("quiet\n")
    done = node.once()
    assert done.returncode == 1
    assert "no wwid=" in done.stderr
    (node.root / "proc/cmdline").write_text("quiet wwid=[eth7]\n")
    (node.root / "sys/class/net/eth7").mkdir(parents=True)
    (node.root / "sys/class/net/eth7/address").write_text(f"{WWID}\n")
    (node.root / "warewulf/config").unlink()
    done = node.once()
    assert done.returncode == 1
    assert "warewulf/config is missing" in done.stdout
    node.configure()
    node.update()
    assert node.server.overlay.asked[-1].path == f"/runtime/{WWID}"


def test_client_unit_is_never_given_up() -> None:
    unit = (CLIENT.parents[1] / "etc/systemd/system/wwclient.service").read_text().splitlines()
    for line in ("Restart=always", "StartLimitIntervalSec=0", "TimeoutStartSec=infinity"):
        assert line in unit


def test_client_tells_systemd_when_the_overlay_is_in_place(node: Node, overlay: Overlay, tmp_path: Path) -> None:
    if not shutil.which("systemd-notify"):
        pytest.skip("systemd is not installed")
    overlay.put("etc/file", "x")
    overlay.status = 503
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(tmp_path / "notify"))
        notify.settimeout(20)
        process = node.start(NOTIFY_SOCKET=str(tmp_path / "notify"))
        until(lambda: len(overlay.asked) >= 2, 20.0)
        overlay.status = 200
        assert b"READY=1" in notify.recv(100)
        assert node.read("etc/file") == "x"
    assert process.poll() is None


def test_client_scripts_are_clean_for_shellcheck() -> None:
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed")
    scripts = [
        path
        for path in sorted((SHARE / "overlays").rglob("*"))
        if path.is_file() and not path.name.endswith(".j2")
        if path.parent.name in ("init.d", "wwinit.d")
        or path.suffix == ".sh"
        or path.read_bytes().startswith(b"#!/bin/sh")
    ]
    assert CLIENT in scripts
    done = subprocess.run(["shellcheck", "-s", "sh", *scripts], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
