"""Boots from power-on to the login, in one stage and in two, and what an update leaves of the tmpfs way's archive.

Rows 3: machines of 3 GiB without KVM, one at a time and the ways in turns, each with the tree of the demo and zstd in
it; wall seconds are those of a machine that others use too, so the CPU seconds of the emulator stand beside them. Row
4: the bytes of pieces that a node did not have after dpkg replaced curl and libcurl4, to the whole archive.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from pathlib import Path

from benchmarks import _trees
from benchmarks._harness import Bench, alternate
from wwfast.archive.artefact import SQUASHFS, TAR_ZST, TMPFS
from wwfast.demo import debian
from wwfast.demo.cluster import IMAGE, Cluster
from wwfast.demo.netns import Namespace
from wwfast.pack.build import build
from wwfast.pack.manifest import Manifest

ONE = "one"
WAYS = {ONE: ("never", "initramfs"), TMPFS: ("always", "tmpfs"), SQUASHFS: ("always", SQUASHFS)}


def logins(bench: Bench, room: Path) -> None:
    with Namespace(label="bench") as network:
        site = Cluster(room / "site", network, debian.tree(("zstd",)))
        site.configure()
        site.make_keys()
        site.populate()
        for number, (name, (said, root)) in enumerate(WAYS.items(), 1):
            site.add_node(name, number, "--twostage", said, "--root", root)
        site.wwfast("image", "build", IMAGE, timeout=600)
        site.serve()
        try:
            _compare(bench, site)
        finally:
            site.stop()


def _compare(bench: Bench, site: Cluster) -> None:
    cpu: dict[str, list[float]] = {name: [] for name in WAYS}

    def booting(name: str, number: int) -> Callable[[], float]:
        def boot() -> float:
            with site.machine(name, number) as vm:
                begun = os.times().elapsed
                vm.wait(timeout=900)
                took = os.times().elapsed - begun
                assert vm.process is not None
                cpu[name].append(_cpu(vm.process.pid))
            return took

        return boot

    walls = alternate([booting(name, number) for number, name in enumerate(WAYS, 1)], bench.runs(5))
    for name, mine, target in ((TMPFS, walls[1], "<= 1.5"), (SQUASHFS, walls[2], "<= 1.2")):
        what = f"power-on to login in two stages, {name}"
        bench.record(f"3-login-{name}", what, mine, theirs=walls[0], peer="in one stage", target=target)
    for (name, used), took in zip(cpu.items(), walls, strict=True):
        bench.note(
            f"login, {name}: wall {min(took):.1f} to {max(took):.1f} s; CPU {statistics.median(used):.1f} s "
            f"({min(used):.1f} to {max(used):.1f})"
        )


def _cpu(pid: int) -> float:
    """Seconds of a process and its threads so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def fetched(bench: Bench, room: Path) -> None:
    tree, versions = _trees.made(bench.args.work, "real"), _trees.versions(bench.args.work)
    _trees.install(tree, versions[0])

    def made(name: str) -> Manifest:
        return build(tree, room / name, name="b", formats=["zst"], archive=TAR_ZST, frames=room / "frames")

    before = made("before")
    _trees.install(tree, versions[1])
    after = made("after")
    had = {piece.sha256 for piece in before.formats[TAR_ZST].pieces}
    pieces = after.formats[TAR_ZST].pieces
    new = sum(piece.length for piece in pieces if piece.sha256 not in had)
    what = "pieces that differ after dpkg replaced curl and libcurl4, tmpfs way"
    whole = after.formats[TAR_ZST].bytes
    mib = 1 << 20
    bench.record("4-fetched", what, new / mib, theirs=whole / mib, peer="the whole", unit="MiB", target="<= 0.10")
    bench.note(f"{sum(piece.sha256 not in had for piece in pieces)} of {len(pieces)} pieces")
