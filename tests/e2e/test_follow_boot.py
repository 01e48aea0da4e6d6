"""Two heads and a real machine: the one that it boots from falls silent, and it logs in all the same."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from support.annex import Annex, SecondHead, asking
from support.lab import Laboratory, Namespace, stocked
from wwfast.archive.artefact import SQUASHFS
from wwfast.demo import debian
from wwfast.demo.cluster import IMAGE

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Laboratory, SecondHead]]:
    place = tmp_path_factory.mktemp("heads")
    with Namespace(label="heads") as network, Annex(network, 2) as beside:
        first = stocked(place / "first", network, debian.tree())
        first.wwfast("image", "build", IMAGE, "--format", SQUASHFS, timeout=600)
        own = {"wwfast": {"heads": [network.server, beside.server]}}
        first.configure(**own)
        first.wwfast("follow", "key")
        first.add_node(next(asking([network, beside], 0)), 1, "--root", SQUASHFS)
        first.serve()
        second = SecondHead(place / "second", beside, first.tree, first, **own)
        second.follow()
        yield first, second
        second.stop()
        first.stop()


def test_follow_head_silenced_while_a_machine_downloads_costs_it_seconds(
    heads: tuple[Laboratory, SecondHead],
) -> None:
    first, second = heads
    name = next(asking([first.network, second.network], 0))
    [peer] = json.loads(first.wwfast("server", "peers", "--json").stdout).values()
    assert (peer["behind"], peer["silent"], peer["said"]) == (0.0, False, "")
    refused = second.wwfast("node", "set", name, "--comment", "x", "--yes", check=False)
    assert refused.returncode == 1
    assert b"takes no edits" in refused.stderr
    with first.machine(name, 1, memory=768) as vm:
        vm.wait(r"stage-1: fetching the image", 300)
        # Nothing answers for this address any more, and nothing is refused; the machine and its ssh have another.
        first.network.ip("address", "del", f"{first.network.server}/24", "dev", "br0")
        first.network.ip("address", "add", "10.77.0.77/24", "dev", "br0")
        vm.wait(rf"stage-1: the head http://{first.network.server}:9873 is not asked for now", 120)
        vm.wait(timeout=400)
        vm.wait_ssh()
        assert vm.ssh("hostname") == f"{name}\n"
        assert f"WWHEADS='{first.network.server} {second.network.server}'" in vm.ssh("cat /warewulf/config")
        up = second.wait_for(lambda: second.status(name), lambda entry: entry["stage"] == "runtime", 120)
        stages = [part["stage"] for part in up["boot"]]
        assert {"image", "system", "runtime"} <= set(stages)
        assert any(re.search(r"head http://\S+ is not asked for now", part.get("told", "")) for part in up["boot"])
        assert b"10.77.0.11" in vm.ssh("cat /etc/hosts").encode(), "of the runtime overlay"
