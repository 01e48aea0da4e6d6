"""Every command of the README is run, in its order, by the laboratory's Debian tree."""

from __future__ import annotations

import re
import resource
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.lab import Laboratory
from wwfast.demo.cluster import Cluster
from wwfast.demo.debian import Tree
from wwfast.demo.netns import Namespace

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(900)]

README = Path(__file__).parents[2] / "README.md"
# Make's targets and pip: CI calls the first two itself, test_install.py installs the package.
ELSEWHERE = {"make demo", "make test", "pip install ."}


def commands() -> list[str]:
    """The commands of code blocks, which build on each other, then what stands between backticks in the text."""
    text = README.read_text()
    blocks = re.findall(r"^    ((?:wwfast|make|pip) .*)$", text, re.MULTILINE)
    return [*blocks, *dict.fromkeys(re.findall(r"`(wwfast [a-z][^`]*)`", text))]


@pytest.fixture(scope="module")
def cluster(debian: Tree, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Namespace(label="readme") as network:
        made = Laboratory(tmp_path_factory.mktemp("readme"), network, debian)
        made.configure()
        made.make_keys()
        yield made
        made.stop()


def test_every_command_of_the_readme_runs(cluster: Cluster, debian: Tree) -> None:
    lines = commands()
    assert len(lines) > 20
    assert set(ELSEWHERE) <= set(lines)
    for line in (line for line in lines if line not in ELSEWHERE):
        words = [debian.rootfs if word == "debian:bookworm" else word for word in shlex.split(line)[1:]]
        match line:
            case "wwfast server":
                cluster.serve()
                cluster.wwfast("node", "add", "n[01-40]")
            case "wwfast server --replace":
                before = cluster.server
                cluster.serve("--replace")
                assert before is not None
                assert before.wait(30) == 0, "the one before has ended"
            case "wwfast node status --watch":
                with cluster.network.start([*wwfast(cluster), *words], stdout=subprocess.PIPE) as watch:
                    assert watch.stdout is not None
                    tables = (line for line in watch.stdout if line.startswith(b"NODENAME"))
                    assert next(tables, None)
                    assert next(tables, None), "again and again"
                    watch.terminate()
            case "wwfast image shell debian":
                shell = "echo PS1 is $PS1; exit"
                done = cluster.network.run([*wwfast(cluster), *words], input=shell.encode(), check=False, timeout=120)
                assert done.returncode == 0, done.stderr.decode()
            case "wwfast image exec debian -- /usr/bin/apt-get update":
                # The namespace has no way out: that the program runs in the image is what is shown.
                cluster.wwfast(*[*words[:-1], "--version"], timeout=120)
            case "wwfast node set n1 --image debian@BUILD":
                build = (cluster.paths.images / "debian/current").readlink()
                cluster.wwfast("node", "set", "n1", "--image", f"debian@{build}", "--yes")
            case "wwfast storm --nodes 1000":
                cluster.wwfast("storm", "--nodes", "20", "--rate", "0", "--image-size", "2", timeout=120)
            case "wwfast image rollback debian":
                (cluster.paths.chroots / "debian/rootfs/etc/changed").write_text("so that there are two builds\n")
                cluster.wwfast("image", "build", "debian", timeout=120)
                cluster.wwfast(*words)
            case "wwfast undo":
                cluster.wwfast("node", "set", "n1", "--comment", "a change to take back", "--yes")
                cluster.wwfast(*words, "--yes")
            case "wwfast node set n1 --kerneloverride lts":
                cluster.wwfast(*words, "--yes")
            case "wwfast node status NODE":
                cluster.wwfast("node", "status", "n1")
            case _ if line.startswith("wwfast ssh"):  # n1 is not up; a real one is in test_ssh.py
                cluster.wwfast("ssh", "--dryrun", *words[1:])
            case _ if line.startswith(("wwfast power", "wwfast node sensors", "wwfast node console")):
                # The laboratory has no BMC; a simulated one is in test_power_ipmi.py.
                cluster.wwfast("node", "set", "n1", "--ipmiaddr", "10.0.0.199", "--yes")
                cluster.wwfast(*words, *(["--show"] if "--show" not in words else []))
            case _ if line.startswith("wwfast genconfig man"):
                cluster.wwfast(*[*words[:-1], cluster.root / "man"])
                assert list((cluster.root / "man").rglob("*.1"))
            case _:
                cluster.wwfast(*words, timeout=300, check=not line.startswith("wwfast doctor"))
    assert cluster.stop() == 0


def wwfast(cluster: Cluster) -> list[str | Path]:
    return [sys.executable, "-m", "wwfast", "--root", cluster.root]


def test_readme_warewulf_conf_is_read_as_it_stands(tmp_path: Path) -> None:
    block = re.search(r"Write `/etc/warewulf/warewulf.conf`.*?\n\n((?:    .*\n)+)", README.read_text())
    assert block is not None
    from wwfast.config.settings import load
    from wwfast.paths import Paths

    paths = Paths.at(tmp_path)
    paths.etc.mkdir(parents=True)
    paths.conf.write_text(re.sub(r"^    ", "", block[1], flags=re.MULTILINE))
    settings = load(paths)
    assert settings.network_cidr == "10.0.0.0/22"
    assert settings.is_written("ipaddr")
    assert settings.is_written("network")
    assert settings.dhcp.enabled


def test_readme_time_to_start() -> None:
    """Generous, and of the time it worked, as others work here too: the benchmark holds the tight number."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "wwfast", "--help"], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0
