"""Two-stage boots: making squashfs and EROFS against their tools alone, and the first stage.

Rows 1: `wwfast image build --format KIND` against mksquashfs or mkfs.erofs with the same options, brought to the disk
as ours is. The image was built for one stage before, and one of its files changes before each run, so that there is
something to make; its tree is warm in the page cache. `--tree` says which. Rows 2: stage-1 of Debian's generic kernel
with the drivers of all ethernet cards, and the firmware they ask for as far as Debian has it (non-free-firmware
included): cold with no cache at all, warm after a change that does not concern it. Rows 3 and 4-fetched are in _logins,
4-cache and 6 in _caches, 5 in _two_stages.

Trees are made once (minutes, root and a Debian mirror) and kept below `--work`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import _caches, _logins, _trees, _two_stages
from benchmarks._harness import ROOT, Bench, Usage, child, seconds
from wwfast.archive.artefact import EROFS, SQUASHFS
from wwfast.demo.debian import cache
from wwfast.images import filesystems
from wwfast.images.kernels import detect
from wwfast.images.stage1 import making
from wwfast.pack import engine

WWFAST = ROOT / ".venv/bin/wwfast"
IMAGE = "bench"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tree", choices=["real", "typical"], default="typical", help="for rows 1 (real with --quick)")
    parser.add_argument("--work", type=Path, default=cache() / "benchmarks", help="where trees are kept")
    parser.add_argument("--out", type=Path, default=Path("/var/tmp"), help="where images are built")
    parser.add_argument("--only", default="", help="rows whose id begins with one of these, for example 1,2-stage1")


def run(bench: Bench) -> None:
    if os.geteuid() != 0:
        raise SystemExit("benchmark twostage needs root: its images have owners and devices")
    wanted = tuple(word for word in bench.args.only.split(",") if word)
    for prefix, part in PARTS.items():
        if not wanted or any(word.startswith(prefix) or prefix.startswith(word) for word in wanted):
            with tempfile.TemporaryDirectory(dir=bench.args.out, prefix="wwfast-bench-twostage-") as room:
                part(bench, Path(room))
    if wanted:
        bench.rows = [row for row in bench.rows if row.id.startswith(wanted)]


def storm(bench: Bench, _room: Path) -> None:
    _two_stages.run(bench)


class Site:
    """One image of a server of its own, filled from a tree."""

    def __init__(self, root: Path, tree: Path) -> None:
        (root / "etc/warewulf").mkdir(parents=True)
        self.root, self.count = root, 0
        self.rootfs = root / "var/lib/wwfast/chroots" / IMAGE / "rootfs"
        self.rootfs.parent.mkdir(parents=True)
        child(["cp", "-a", tree, self.rootfs])
        self.build()

    def build(self, *words: str) -> Usage:
        return child([WWFAST, "--root", self.root, "image", "build", *words, IMAGE])

    def change(self) -> None:
        """Of a file that is not in stage-1; the clock is let tick, so that the next build need not read all again."""
        self.count += 1
        (self.rootfs / "etc/motd").write_text(f"run {self.count}\n")
        time.sleep(engine.CLOCK_TICK / 1e9)


def roots(bench: Bench, room: Path) -> None:
    bench.peer("mksquashfs", "mksquashfs", "-version")
    bench.peer("mkfs.erofs", "mkfs.erofs", "--version")
    site = Site(room / "site", _trees.made(bench.args.work, "real" if bench.quick else bench.args.tree))
    alone = room / "alone"
    for kind, runs in ((SQUASHFS, 5), (EROFS, 3)):
        site.build("--format", kind)  # its stage-1 is there from now on

        cpu: tuple[list[float], list[float]] = [], []

        def ours(kind: str = kind, cpu: list[float] = cpu[0]) -> float:
            site.change()
            used = site.build("--format", kind)
            cpu.append(used.cpu)
            return used.wall

        def theirs(kind: str = kind, cpu: list[float] = cpu[1]) -> float:
            alone.unlink(missing_ok=True)
            words = filesystems.command(site.rootfs, alone, kind)
            used = child(["sh", "-c", '"$@" 2> /dev/null && sync "$0"', alone, *words])
            cpu.append(used.cpu)
            return used.wall

        program, _ = filesystems.PACKAGES[kind]
        bench.compare(
            f"1-{kind}",
            f"image build --format {kind}",
            ours=ours,
            theirs=theirs,
            peer=program,
            runs=bench.runs(runs),
            target="<= 1.05 of the peer",
        )
        bench.record(f"1-{kind}-cpu", "the same, CPU seconds", cpu[0], theirs=cpu[1], peer=program)
    site.build("--format", SQUASHFS)
    bench.compare(
        "1-squashfs-nothing",
        "the same when nothing changed",
        ours=lambda: site.build("--format", SQUASHFS).wall,
        runs=bench.runs(5),
        target="<= 0.5 s",
    )


def stage1(bench: Bench, room: Path) -> None:
    tree = room / "tree"
    child(["cp", "-a", _trees.made(bench.args.work, "generic"), tree])
    kernels = detect.kernels(tree)
    sizes: list[float] = []
    count = 0

    def job(former: Path | None) -> making.Job:
        nonlocal count
        count += 1
        (room / str(count)).mkdir()
        return making.Job(tree, IMAGE, room / str(count) / making.PLACE, room / "frames", former)

    def cold() -> float:
        shutil.rmtree(room / "frames", ignore_errors=True)
        mine = job(None)
        took = seconds(lambda: making.make(mine, kernels))
        made = making.load(mine.place.parent, kernels[0].release)
        if made is None:
            raise SystemExit("the tree has no stage-1")
        sizes.append(made.size / (1 << 20))
        return took

    def warm() -> float:
        former = room / str(count) / making.PLACE
        (tree / "etc/motd").write_text(f"{count}\n")
        mine = job(former)
        took = seconds(lambda: making.make(mine, kernels))
        for part in (making.PROGRAMS, kernels[0].release):
            if (former / part / "manifest.json").stat().st_ino != (mine.place / part / "manifest.json").stat().st_ino:
                raise SystemExit(f"{part} was made again")
        return took

    rows: list[tuple[str, str, Callable[[], float], str]] = [
        ("2-stage1-cold", "stage-1 with all ethernet drivers, made", cold, "<= 6 s"),
        ("2-stage1-warm", "stage-1, taken over from the last build", warm, "<= 0.3 s"),
    ]
    for id, name, ours, target in rows:
        bench.compare(id, name, ours=ours, runs=bench.runs(5), target=target)
    bench.record("2-stage1-size", "stage-1, packed", sizes, unit="MiB", target="<= 32 MiB")
    drivers = list((tree / "lib/modules" / kernels[0].release).rglob("*.ko*"))
    bench.note(f"the kernel: {kernels[0].release}, {len(drivers)} modules in the tree")


PARTS: dict[str, Callable[[Bench, Path], None]] = {
    "1-": roots,
    "2-": stage1,
    "3-": _logins.logins,
    "4-fetched": _logins.fetched,
    "4-cache-": _caches.cached,
    "5-": storm,
    "6-": _caches.delta,
}  # by what the ids of their rows begin with
