"""Machines whose image comes from the caches of their racks, from another rack's, and from the server."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator

import pytest

from support.lab import Laboratory, Namespace, stocked
from support.rack import Rack, racks
from wwfast.archive.artefact import SQUASHFS, TMPFS
from wwfast.demo import debian
from wwfast.demo.cluster import IMAGE
from wwfast.demo.vm import Vm
from wwfast.images.store import ImageStore

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Laboratory, list[Rack]]]:
    with Namespace(label="rack") as network, racks(network, 2) as made:
        place = tmp_path_factory.mktemp("rack")
        site = stocked(place / "site", network, debian.tree())
        site.wwfast("image", "build", IMAGE, "--format", TMPFS, "--format", SQUASHFS, timeout=600)
        told = [{"url": rack.url, "tags": {"rack": f"r{number}"}} for number, rack in enumerate(made, 1)]
        site.configure(wwfast={"caches": told})
        for number, root in enumerate((TMPFS, SQUASHFS, TMPFS), 1):
            site.add_node(f"n{number}", number, "--root", root, "--tagadd", f"rack=r{1 + number % 2}")
        site.serve()
        for number, rack in enumerate(made, 1):
            rack.start(site, place / f"rack{number}")
        yield site, made
        site.stop()


def arrived(vm: Vm) -> dict[str, int]:
    """MiB of the image by where they came from."""
    found = vm.wait(r"stage-1: of the image came (.*)", 300)
    return {origin: int(size) for size, origin in re.findall(r"(\d+) MiB from ([^,\r\n]+)", found[1])}


def fetched(site: Laboratory, rack: Rack) -> int:
    body = site.fetch("/status").stdout.decode()
    found = re.search(rf'"{re.escape(rack.url)}":\s*{{"fetched":\s*(\d+)', body)
    assert found is not None, body[-2000:]
    return int(found[1])


def told(site: Laboratory, node: str) -> list[str]:
    return [part["told"] for part in site.status(node)["boot"] if "told" in part]


def test_rack_carries_the_image_of_its_nodes_over_the_link_of_the_server_once(
    caches: tuple[Laboratory, list[Rack]],
) -> None:
    site, (first, second) = caches
    site.wwfast("cache", "warm", IMAGE, "--cache", second.url, timeout=120)
    build = ImageStore(site.paths).get(IMAGE).build
    assert build is not None
    sizes = {kind: build.roots()[kind].size for kind in (TMPFS, SQUASHFS)}
    warmed = fetched(site, second)
    assert warmed > sizes[TMPFS] + sizes[SQUASHFS]
    before = site.sent()
    with site.machine("n1", 1, memory=768) as one, site.machine("n2", 2, memory=768) as two:
        assert list(arrived(one)) == [second.url]
        assert list(arrived(two)) == [first.url]
        for vm, name in ((one, "n1"), (two, "n2")):
            vm.wait(timeout=300)
            vm.wait_ssh()
            assert vm.ssh("hostname; cat /opt/lab/first") == f"{name}\nof the image\n"
        assert site.status("n1")["way"].endswith("; its image comes from a cache of its rack")
    assert fetched(site, second) == warmed, "it had all of it"
    once = fetched(site, first)
    assert sizes[SQUASHFS] < once < sizes[SQUASHFS] + (64 << 20), "the image, a kernel, stage-1"
    assert site.sent() - before < once * 1.1 + (16 << 20)
    with site.machine("n3", 3, memory=768) as vm:
        assert list(arrived(vm)) == [second.url]
        # The console has it a moment before the server does.
        [said] = site.wait_for(lambda: told(site, "n3"), bool, 30)
        assert said.startswith("of the image came ")
    assert fetched(site, second) == warmed
    assert re.search(rf"{second.url} .*\d+% +well", site.wwfast("cache", "status").stdout.decode())


def test_rack_whose_cache_dies_amid_a_boot_costs_seconds(caches: tuple[Laboratory, list[Rack]]) -> None:
    """Its node goes on with the other rack's, and when that has died, too, with the server."""
    site, (first, second) = caches
    second.ip("link", "set", "eth0", "down")  # silent: nothing answers, nothing is refused
    with site.machine("n1", 1, memory=768) as vm:
        vm.wait(r"stage-1: fetching the image", 300)
        vm.wait(rf"stage-1: the cache {second.url} is not asked again", 120)
        first.stop(signal.SIGKILL)
        found = arrived(vm)
        assert "the server" in found
        assert second.url not in found
        vm.wait(timeout=300)
        vm.wait_ssh()
        assert vm.ssh("hostname; cat /opt/lab/first") == "n1\nof the image\n"
    assert told(site, "n1"), "what came from where, and what failed"
