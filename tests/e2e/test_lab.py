"""The laboratory itself: what it makes is private, and nothing of it stays behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from wwfast.demo.debian import Tree
from wwfast.demo.netns import NETNS, Namespace
from wwfast.errors import WwfastError
from wwfast.system.run import run

pytestmark = pytest.mark.root


def test_a_namespace_is_private_and_goes_away_with_its_processes() -> None:
    with Namespace() as lab:
        lab.tap()
        sleeper = lab.start(["sleep", "1000"])
        routes = lab.run(["ip", "route"]).stdout.decode().split()
        assert routes[:3] == ["10.77.0.0/24", "dev", "br0"]
        assert "default" not in routes
        assert sleeper.pid in lab.pids()
        inside = lab.run(["readlink", "/proc/self/ns/net"]).stdout.decode().strip()
        assert inside != str(Path("/proc/self/ns/net").readlink())
    assert sleeper.wait(10) != 0
    assert not (NETNS / lab.name).exists()


def test_commands_never_run_in_the_network_of_the_machine() -> None:
    lab = Namespace()
    NETNS.mkdir(exist_ok=True)
    (NETNS / lab.name).symlink_to("/proc/self/ns/net")
    try:
        with pytest.raises(WwfastError, match="is the network namespace of this machine itself"):
            lab.run(["true"])
    finally:
        (NETNS / lab.name).unlink()


def test_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    with Namespace() as lab:
        line = lab.within(["sleep", "1000"])
        run(["sh", "-c", '"$@" & echo $! >"$0"; sleep 0.5', tmp_path / "pid", *line])
        assert int((tmp_path / "pid").read_text()) not in lab.pids()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_tree_of_the_laboratory_hides_nothing_an_overlay_brings(debian: Tree) -> None:
    etc = debian.rootfs / "etc"
    assert not [name for name in ("hostname", "resolv.conf") if (etc / name).exists()]
    assert not list(etc.glob("ssh/ssh_host_*"))
    assert not list(etc.glob("systemd/network/*"))
    assert len(list(debian.rootfs.glob("boot/vmlinuz-*"))) == 1
    assert (debian.rootfs / "lib").is_symlink()
