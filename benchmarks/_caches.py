"""A cache of images on a node's disk: what is fetched, and how long it takes to the login, with one and without.

Rows 4-cache: machines of 3 GiB without KVM, one at a time and the two in turns, with the tree of the demo, zstd in it.
Between two builds dpkg replaced curl and libcurl4; the cache has the first build when bytes are counted, and the second
when seconds are. Bytes are those of the server's card less what the boot fetched beside its image. Row 6: the pieces of
the two squashfs of a whole Debian that differ, to all of them.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import _trees
from benchmarks._harness import Bench, alternate, child
from wwfast.archive.artefact import PIECES, SQUASHFS
from wwfast.demo import debian
from wwfast.demo.cluster import IMAGE, Cluster
from wwfast.demo.netns import Namespace
from wwfast.images import filesystems

MIB = 1 << 20
WITH, WITHOUT = "with", "without"


def cached(bench: Bench, room: Path) -> None:
    old, new = _trees.versions(bench.args.work)
    with Namespace(label="bench") as network, _serving(Cluster(room / "site", network, debian.tree(("zstd",)))) as site:
        boots = Boots(site, room)
        boots.image(old)
        boots.login(WITH)
        shutil.copy(boots.disk, room / "old")
        boots.image(new)
        fetched = {name: boots.fetched(name) for name in (WITH, WITHOUT)}
        bench.record(
            "4-cache-fetched", "fetched after dpkg replaced curl and libcurl4, with the former image in the cache",
            [fetched[WITH] / MIB], theirs=[fetched[WITHOUT] / MIB], peer="without a cache", unit="MiB",
            target="<= 0.10",
        )  # fmt: skip
        mine, theirs = alternate([boots.timed(WITH), boots.timed(WITHOUT)], bench.runs(5))
        bench.record(
            "4-cache-login", "power-on to login in two stages, tmpfs, all of the image in the cache",
            mine, theirs=theirs, peer="without a cache", target="<= 1.0",
        )  # fmt: skip
        bench.note(f"login: with {min(mine):.1f} to {max(mine):.1f} s, without {min(theirs):.1f} to {max(theirs):.1f}")


@contextmanager
def _serving(site: Cluster) -> Iterator[Cluster]:
    site.configure()
    site.make_keys()
    site.populate()
    site.add_node(WITH, 1, "--twostage", "always", "--root", "tmpfs", "--cache", "LABEL=cache")
    site.add_node(WITHOUT, 2, "--twostage", "always", "--root", "tmpfs")
    site.serve()
    try:
        yield site
    finally:
        site.stop()


class Boots:
    """Of two nodes, one of which has a disk with a cache."""

    def __init__(self, site: Cluster, room: Path) -> None:
        self.site, self.disk = site, room / "disk"
        with self.disk.open("wb") as file:
            file.truncate(1 << 30)
        child(["mkfs.ext4", "-q", "-F", "-L", "cache", self.disk])

    def image(self, packages: list[Path]) -> None:
        _trees.install(self.site.paths.chroots / IMAGE / "rootfs", packages)
        self.site.wwfast("image", "build", IMAGE, timeout=600)

    def login(self, name: str) -> float:
        """Seconds from power-on."""
        drive = ["-drive", f"file={self.disk},if=virtio,format=raw"] if name == WITH else []
        with self.site.machine(name, 1 if name == WITH else 2, extra=drive) as vm:
            begun = time.monotonic()
            vm.wait(timeout=900)
            return time.monotonic() - begun

    def timed(self, name: str) -> Callable[[], float]:
        return lambda: self.login(name)

    def fetched(self, name: str) -> float:
        """Bytes of the image, and what stands around them in packets."""
        before = self._sent()
        self.login(name)
        boot = self.site.status(name)["boot"]
        return self._sent() - before - sum(part["total"] for part in boot if part["stage"] != "image")

    def _sent(self) -> int:
        return int(self.site.network.run(["cat", "/sys/class/net/br0/statistics/tx_bytes"]).stdout)


def delta(bench: Bench, room: Path) -> None:
    tree, versions = room / "tree", _trees.versions(bench.args.work)
    child(["cp", "-a", _trees.made(bench.args.work, "real"), tree])
    lists = []
    for number, packages in enumerate(versions):
        _trees.install(tree, packages)
        place = room / str(number)
        place.mkdir()
        filesystems.make(tree, place, SQUASHFS)
        lines = (place / (SQUASHFS + PIECES)).read_text().splitlines()
        lists.append([(int(length), sha256) for length, sha256 in map(str.split, lines)])
    before, after = lists
    had = {sha256 for _, sha256 in before}
    differ, whole = sum(length for length, sha256 in after if sha256 not in had), sum(length for length, _ in after)
    what = "pieces that differ after dpkg replaced curl and libcurl4, squashfs"
    bench.record("6-squashfs-delta", what, differ / MIB, theirs=whole / MIB, peer="the whole", unit="MiB")
    bench.note(f"squashfs: {sum(sha256 not in had for _, sha256 in after)} of {len(after)} pieces differ")
