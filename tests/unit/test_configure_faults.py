"""wwfast configure where something is wrong: services that do not start, files that cannot be written, Latin-1."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from support import chroot
from support.commands import Run, runner
from wwfast.paths import Paths

CONF = """\
ipaddr: 10.0.0.1
netmask: 255.255.255.0
nfs:
  export paths:
  - path: /home
"""
NODES = """\
nodes:
  n1: {network devices: {default: {hwaddr: "52:54:00:00:00:01", ipaddr: 10.0.0.2}}}
  n2: {network devices: {default: {hwaddr: "52:54:00:00:00:02", ipaddr: 10.0.0.3}}}
"""
# What systemd's own program says and does of a unit that does not come up.
SYSTEMCTL = """\
#!/bin/sh
echo "$@" >> /srv/asked
case "$*" in
"reload-or-restart nfs-server")
    echo "Job for nfs-server.service failed because the control process exited with error code." >&2
    exit 1 ;;
"enable isc-dhcp-server")
    echo "Failed to enable unit: Unit file isc-dhcp-server.service does not exist." >&2
    exit 1 ;;
esac
"""


@pytest.fixture
def run(paths: Paths, capsys: pytest.CaptureFixture[str]) -> Run:
    paths.conf.write_text(CONF)
    paths.nodes_conf.write_text(NODES)
    (paths.root / "etc/hosts").write_text("127.0.0.1 localhost\n")

    call = runner(paths, capsys)
    return lambda line: call(*line.split())


@pytest.fixture
def server(tmp_path: Path) -> Paths:
    """A root of its own that systemd runs, so it seems: its directory is there, and a program of its name."""
    paths = Paths.at(tmp_path / "server")
    chroot.furnish(paths.root)
    paths.etc.mkdir()
    paths.conf.write_text(CONF)
    paths.nodes_conf.write_text(NODES)
    (paths.root / "etc/hosts").write_text("127.0.0.1 localhost\n")
    (paths.root / "run/systemd/system").mkdir(parents=True)
    (paths.root / "srv/systemctl").write_text(SYSTEMCTL)
    (paths.root / "srv/systemctl").chmod(0o755)
    return paths


def inside(paths: Paths, *words: str, binds: dict[Path, str] | None = None) -> tuple[int, str, str]:
    environment = {**os.environ, "PATH": f"/srv:{os.environ['PATH']}"}
    argv = [*chroot.wwfast(paths.root, binds), *words]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.mark.root
def test_configure_tells_of_a_service_that_fails_to_start(server: Paths) -> None:
    status, out, err = inside(server, "configure", "nfs")
    assert status == 1
    assert "systemctl reload-or-restart nfs-server: Job for nfs-server.service failed" in err
    assert "journalctl -u nfs-server -e" in err
    assert "wrote /etc/exports" in out
    assert "/home 10.0.0.0/24" in (server.root / "etc/exports").read_text()
    assert (server.root / "srv/asked").read_text().splitlines() == [
        "daemon-reload",
        "enable nfs-server",
        "reload-or-restart nfs-server",
    ]


@pytest.mark.root
def test_configure_all_does_the_rest_where_a_service_fails(server: Paths) -> None:
    server.conf.write_text(f"{CONF}dhcp: {{enabled: false, systemd name: isc-dhcp-server}}\n")
    before = {each: each.read_bytes() for each in sorted((server.root / "etc").rglob("*")) if each.is_file()}
    status, out, err = inside(server, "configure", "--all")
    assert status == 1
    for said in (
        "Job for nfs-server.service failed",
        "Unit file isc-dhcp-server.service does not exist",
        "journalctl -u",
    ):
        assert said in err
    assert "enabled and started wwfast" in out
    assert "10.0.0.2 n1" in (server.root / "etc/hosts").read_text()
    assert inside(server, "configure", "undo")[0] == 0
    assert {each: each.read_bytes() for each in before} == before


@pytest.mark.root
def test_configure_says_which_file_cannot_be_written(server: Paths, tmp_path: Path) -> None:
    readonly = tmp_path / "readonly"
    shutil.copytree(server.root / "etc", readonly)
    status, _, err = inside(server, "configure", "hostfile", binds={readonly: "etc"})
    assert status == 1
    assert "/etc" in err
    assert "Read-only file system" in err
    assert (readonly / "hosts").read_text() == "127.0.0.1 localhost\n"
    assert inside(server, "configure", "hostfile")[0] == 0, "and then it can"


def test_configure_keeps_what_was_edited_between_two_runs(paths: Paths, run: Run) -> None:
    place = paths.root / "etc/hosts"
    assert run("configure hostfile")[0] == 0
    written = place.read_text()
    place.write_text("10.9.9.9 above\n" + written)
    assert run("configure hostfile")[0] == 0
    assert place.read_text() == "10.9.9.9 above\n" + written
    place.write_text(place.read_text() + "10.9.9.8 below\n")
    for _ in range(2):
        status, _, err = run("configure hostfile")
        assert status == 1
        assert "10.9.9.8 below" in err
        assert "above the marker" in err
        assert place.read_text().endswith("10.9.9.8 below\n")
    assert run("configure all")[0] == 1, "all of it says the same, and does the rest"
    assert (paths.root / "etc/exports").exists()
    assert place.read_text().endswith("10.9.9.8 below\n")


def test_configure_keeps_bytes_that_are_no_utf8(paths: Paths, run: Run) -> None:
    place = paths.root / "etc/hosts"
    before = "127.0.0.1 localhost\n10.9.9.9 druck # B\xfcro\n".encode("latin-1")
    place.write_bytes(before)
    assert run("configure hostfile")[0] == 0
    assert place.read_bytes().startswith(before)
    assert place.read_bytes().endswith(b"10.0.0.3 n2 n2-default\n")
    assert run("configure hostfile")[1].endswith("is as it should be\n"), "the second time"
    assert run(f"configure undo {place}")[0] == 0
    assert place.read_bytes() == before


@pytest.mark.parametrize("target", ["/etc/nowhere/hosts", "hosts", "../../../../../../etc/elsewhere"])
def test_configure_goes_where_a_link_leads_below_the_root_only(paths: Paths, run: Run, target: str) -> None:
    place = paths.root / "etc/hosts"
    place.unlink()
    place.symlink_to(target)
    status, _, err = run("configure hostfile")
    assert str(place.readlink()) == target
    if target == "hosts":  # to itself
        assert status == 1
        assert "Too many levels of symbolic links" in err
        return
    assert status == 0
    inside = paths.root / ("etc/nowhere/hosts" if "nowhere" in target else "etc/elsewhere")
    assert "10.0.0.2 n1" in inside.read_text()
    assert run("configure undo")[0] == 0
    assert not inside.exists()
    assert place.is_symlink()


def test_configure_says_where_nothing_starts_services(paths: Paths, run: Run) -> None:
    assert "systemd does not run here: start nfs-server yourself" in run("configure nfs")[1]
    assert "systemd does not run here: start wwfast yourself" in run("configure warewulfd")[1]


@pytest.mark.parametrize("name", ["warewulf.conf", "nodes.conf"])
def test_configure_and_upgrade_say_that_a_file_is_latin1(paths: Paths, run: Run, name: str) -> None:
    place = paths.etc / name
    place.write_bytes(place.read_bytes() + "# B\xfcro\n".encode("latin-1"))
    before = place.read_bytes()
    for words in ("configure hostfile", f"upgrade {'nodes' if name == 'nodes.conf' else 'config'} --yes"):
        status, _, err = run(words)
        assert status == 1
        assert f"{place}:" in err
        assert "is not UTF-8" in err
        assert f"iconv -f ISO-8859-1 -t UTF-8 {place}" in err
    assert place.read_bytes() == before
