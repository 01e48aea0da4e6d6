"""Two heads, and machines whose image comes from the caches of their racks, from another rack's, and from a head."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from support.annex import Annex, SecondHead, asking
from support.lab import Laboratory, Namespace, stocked
from support.rack import Rack, racks
from wwfast.archive.artefact import SQUASHFS, TMPFS
from wwfast.demo import debian
from wwfast.demo.cluster import IMAGE
from wwfast.demo.vm import Vm
from wwfast.images.store import ImageStore

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(900)]


@dataclass
class Site:
    """`names` are of nodes: the second one asks the second head first, the others the first."""

    heads: tuple[Laboratory, SecondHead]
    racks: list[Rack]
    names: list[str]

    def fetched(self, rack: Rack) -> int:
        """Bytes that its cache had from both heads."""
        bodies = [head.fetch("/status").stdout.decode() for head in self.heads]
        found = [re.search(rf'"{re.escape(rack.url)}":\s*{{"fetched":\s*(\d+)', body) for body in bodies]
        assert all(found), bodies
        return sum(int(each[1]) for each in found if each is not None)

    def sent(self) -> int:
        """Bytes that left the cards of both heads."""
        first, second = self.heads
        return first.sent() + int(second.network.run(["cat", "/sys/class/net/eth0/statistics/tx_bytes"]).stdout)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Namespace(label="rack") as network, Annex(network, 2) as beside, racks(network, 2) as made:
        place = tmp_path_factory.mktemp("rack")
        first = stocked(place / "first", network, debian.tree())
        first.wwfast("image", "build", IMAGE, "--format", TMPFS, "--format", SQUASHFS, timeout=600)
        told = [{"url": rack.url, "tags": {"rack": f"r{number}"}} for number, rack in enumerate(made, 1)]
        own = {"wwfast": {"caches": told, "heads": [network.server, beside.server]}}
        first.configure(**own)
        first.wwfast("follow", "key")
        near, far = asking([network, beside], 0), asking([network, beside], 1)
        names = [next(near), next(far), next(near)]
        for number, (name, root) in enumerate(zip(names, (TMPFS, SQUASHFS, TMPFS), strict=True), 1):
            first.add_node(name, number, "--root", root, "--tagadd", f"rack=r{1 + number % 2}")
        first.serve()
        second = SecondHead(place / "second", beside, first.tree, first, **own)
        second.follow()
        for number, rack in enumerate(made, 1):
            rack.start(first, place / f"rack{number}")
        yield Site((first, second), made, names)
        second.stop()
        first.stop()


def arrived(vm: Vm) -> dict[str, int]:
    """MiB of the image by where they came from."""
    found = vm.wait(r"stage-1: of the image came (.*)", 300)
    return {origin: int(size) for size, origin in re.findall(r"(\d+) MiB from ([^,\r\n]+)", found[1])}


def told(head: Laboratory, node: str) -> list[str]:
    return [part["told"] for part in head.status(node)["boot"] if "told" in part]


def test_rack_carries_the_image_of_its_nodes_over_the_links_of_two_heads_once(site: Site) -> None:
    head, (first, second) = site.heads[0], site.racks
    head.wwfast("cache", "warm", IMAGE, "--cache", second.url, timeout=120)
    build = ImageStore(head.paths).get(IMAGE).build
    assert build is not None
    sizes = {kind: build.roots()[kind].size for kind in (TMPFS, SQUASHFS)}
    warmed = site.fetched(second)
    assert warmed > sizes[TMPFS] + sizes[SQUASHFS]
    before = site.sent()
    with head.machine(site.names[0], 1, memory=768) as one, head.machine(site.names[1], 2, memory=768) as two:
        assert list(arrived(one)) == [second.url]
        assert list(arrived(two)) == [first.url]
        for vm, name in zip((one, two), site.names, strict=False):
            vm.wait(timeout=300)
            vm.wait_ssh()
            assert vm.ssh("hostname; cat /opt/lab/first") == f"{name}\nof the image\n"
        assert head.status(site.names[0])["way"].endswith("; its image comes from a cache of its rack")
        for each, name in zip(site.heads, site.names, strict=False):
            stages = [part["stage"] for part in each.status(name)["boot"]]
            assert {"image", "system", "runtime"} <= set(stages), "each has asked its own head"
    assert site.fetched(second) == warmed, "it had all of it"
    once = site.fetched(first)
    assert sizes[SQUASHFS] < once < sizes[SQUASHFS] + (64 << 20), "the image, a kernel, stage-1"
    assert site.sent() - before < once * 1.1 + (16 << 20)
    with head.machine(site.names[2], 3, memory=768) as vm:
        assert list(arrived(vm)) == [second.url]
        # The console has it a moment before the server does.
        [said] = head.wait_for(lambda: told(head, site.names[2]), bool, 30)
        assert said.startswith("of the image came ")
    assert site.fetched(second) == warmed
    assert re.search(rf"{second.url} .*\d+% +well", head.wwfast("cache", "status").stdout.decode())


def test_rack_whose_cache_dies_amid_a_boot_costs_seconds(site: Site) -> None:
    """Its node goes on with the other rack's, and when that has died, too, with a head."""
    head, (first, second), name = site.heads[0], site.racks, site.names[0]
    second.ip("link", "set", "eth0", "down")  # silent: nothing answers, nothing is refused
    with head.machine(name, 1, memory=768) as vm:
        vm.wait(r"stage-1: fetching the image", 300)
        vm.wait(rf"stage-1: the cache {second.url} is not asked again", 120)
        first.stop(signal.SIGKILL)
        found = arrived(vm)
        assert "the server" in found
        assert second.url not in found
        vm.wait(timeout=300)
        vm.wait_ssh()
        assert vm.ssh("hostname; cat /opt/lab/first") == f"{name}\nof the image\n"
    assert told(head, name), "what came from where, and what failed"
