"""Packing images: against cpio, zstd, pigz, bsdtar and 3cpio, and against our own cold build.

All outputs go to one file system (`--out`, a tmpfs by default, so that fsync, which both sides do, costs neither of
them); trees are warm in the page cache. Peers: GNU cpio newc, `zstd -T0 -3`, `pigz -6` (its default, all cores),
`bsdtar --format newc`, `3cpio --create`. Our side is `wwfast.pack.build.build` in this process, digests, manifest
and publication included.

`--tree` chooses the tree of rows 1, 2 and 4; rows 3 are measured on `typical` and `real`, row 5 on `few-huge`. Trees
are made once (minutes, root and a Debian mirror) and kept below `--work`. Every step leaves them as it found them
but for the versions of two packages.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import _trees
from benchmarks._harness import Bench, Usage, child, seconds, slim
from wwfast.demo.debian import cache
from wwfast.pack import engine, manifest
from wwfast.pack.build import build

LIST = "cd {tree} && find . -mindepth 1 -printf '%P\\n' | LC_ALL=C sort"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tree", choices=["real", "typical", "many-small", "few-huge"], default="real")
    parser.add_argument("--work", type=Path, default=cache() / "benchmarks", help="where trees are kept")
    parser.add_argument("--out", type=Path, default=Path("/dev/shm/wwfast-bench"), help="where archives are written")
    parser.add_argument("--only", default="", help="rows whose id begins with one of these, for example 1,3-package")
    parser.add_argument("--segments", action="store_true", help="only the table that decides the segment size")


def shell(script: str) -> Callable[[], float]:
    """Wall seconds of a pipeline, with its output brought to the disk."""
    return lambda: child(["sh", "-ec", script]).wall


class Ours:
    """Builds with a cache and a directory of their own, cold or again."""

    def __init__(self, out: Path) -> None:
        self.out, self.count = out, 0

    def fresh(self) -> None:
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir(parents=True)

    def build(self, tree: Path, fmt: str, **options: float) -> manifest.Manifest:
        self.count += 1
        dest = self.out / f"images/{self.count}"
        return build(tree, dest, name="bench", formats=[fmt], frames=self.out / "frames", **options)  # type: ignore[arg-type]

    def cold(self, tree: Path, fmt: str) -> Callable[[], float]:
        def once() -> float:
            self.fresh()
            return seconds(lambda: self.build(tree, fmt))

        return once

    def again(self, tree: Path, fmt: str, change: Callable[[], None] = lambda: None) -> Callable[[], float]:
        """A rebuild after `change`; the change itself is not timed. Files must be older than the clock's tick."""

        def once() -> float:
            change()
            time.sleep(engine.CLOCK_TICK / 1e9)
            return seconds(lambda: self.build(tree, fmt))

        return once


def run(bench: Bench) -> None:
    args = bench.args
    wanted = tuple(word for word in args.only.split(",") if word)
    args.out.mkdir(parents=True, exist_ok=True)
    for name, argv in (
        ("cpio", ["cpio", "--version"]),
        ("zstd", ["zstd", "--version"]),
        ("pigz", ["pigz", "--version"]),
        ("bsdtar", ["bsdtar", "--version"]),
        ("3cpio", ["3cpio", "--version"]),
    ):
        bench.peer(name, *argv)
    try:
        if args.segments:
            segment_table(bench)
            return
        for prefix, part in (("1", zst), ("2", gz), ("4", raw), ("3", rebuild), ("5", memory)):
            if not wanted or any(word[0] == prefix for word in wanted):
                part(bench)
        if wanted:
            bench.rows = [row for row in bench.rows if row.id.startswith(wanted)]
    finally:
        shutil.rmtree(args.out, ignore_errors=True)


def warm(tree: Path) -> None:
    child(["sh", "-c", f"tar cf - -C {tree} . | cat > /dev/null"])


def zst(bench: Bench) -> None:
    tree, out = _trees.made(bench.args.work, bench.args.tree), bench.args.out
    warm(tree)
    ours = Ours(out / "ours")
    listed = LIST.format(tree=tree)
    cpio = f"({listed} | cpio --quiet -o -H newc) > {out}/peer.cpio"
    child(["sh", "-ec", cpio])
    zstd = f"zstd -q -f -T0 -3 {out}/peer.cpio -o {out}/peer.zst && sync {out}/peer.zst"
    cold = ours.cold(tree, "zst")
    single = bench.compare(
        "1-cold-zst",
        f"cold zst -3 of {bench.args.tree}",
        ours=cold,
        theirs=shell(zstd),
        peer="zstd -T0 -3 of the ready archive",
        target="<= 1.05",
    )
    sizes = [path.stat().st_size for path in (out / "ours/images").glob("*/*.pack")]
    bench.record(
        "1-size",
        "bytes of the zst artefact",
        sum(sizes),
        theirs=(out / "peer.zst").stat().st_size,
        peer="zstd -T0 -3",
        unit="B",
        target="<= 1.02",
    )
    both = bench.compare(
        "1-two-step",
        f"cold zst -3 of {bench.args.tree}",
        ours=cold,
        theirs=shell(f"{cpio} && {zstd}"),
        peer="cpio to a file, then zstd -T0 -3",
        target="<= 0.4",
    )
    share = (single.theirs or 0) / (both.theirs or 1)
    bench.note(
        f"1-two-step: zstd -T0 alone takes {share:.2f} of the two steps on {os.cpu_count()} cores, the least that "
        "anything which compresses as zstd does can reach here; more cores make it less."
    )
    runs = 1 if bench.quick else 3
    process = [alone(ours, tree) for _ in range(runs)]
    two_steps = [slim(["sh", "-ec", f"{cpio} && {zstd}"]) for _ in range(runs)]
    for id, what, unit, place in (("1-cpu", "CPU seconds", "s", 1), ("1-rss", "peak RSS", "MiB", 2)):
        bench.record(
            id,
            f"{what} of cold zst -3, in a process of its own",
            [usage[place] for usage in process],
            theirs=[usage[place] for usage in two_steps],
            peer="cpio to a file, then zstd -T0 -3",
            unit=unit,
        )
    (out / "peer.cpio").unlink()
    ours.fresh()


def alone(ours: Ours, tree: Path) -> Usage:
    """A cold build by a process that does nothing else; its start is part of it."""
    ours.fresh()
    return slim([sys.executable, "-c", BUILD, tree, ours.out / "images/1", ours.out / "frames"])


def gz(bench: Bench) -> None:
    tree, out = _trees.made(bench.args.work, bench.args.tree), bench.args.out
    ours = Ours(out / "ours")
    pigz = f"({LIST.format(tree=tree)} | cpio --quiet -o -H newc) > {out}/peer.cpio && pigz -f {out}/peer.cpio"
    bench.compare(
        "2-gz",
        f"cold gz of {bench.args.tree}",
        ours=ours.cold(tree, "gz"),
        theirs=shell(f"{pigz} && sync {out}/peer.cpio.gz"),
        peer="cpio to a file, then pigz",
        target="<= 0.34",
        runs=bench.runs(5 if bench.args.tree == "real" else 3),
    )
    bench.record(
        "2-size",
        "bytes of the gz artefact",
        sum(path.stat().st_size for path in (out / "ours/images").glob("*/*.pack")),
        theirs=(out / "peer.cpio.gz").stat().st_size,
        peer="pigz",
        unit="B",
        target="<= 1.03",
    )
    (out / "peer.cpio.gz").unlink()
    ours.fresh()


def raw(bench: Bench) -> None:
    tree, out = _trees.made(bench.args.work, bench.args.tree), bench.args.out
    ours = Ours(out / "ours")
    listed = LIST.format(tree=tree)
    peers = [
        ("4-raw-gnu", "GNU cpio", f"{listed} | cpio --quiet -o -H newc > {out}/peer.raw", "<= 0.25"),
        ("4-raw-bsdtar", "bsdtar", f"bsdtar --format newc -cf {out}/peer.raw -C {tree} .", "<= 0.34"),
    ]
    if shutil.which("3cpio"):
        peers.append(("4-raw-3cpio", "3cpio", f"{listed} | 3cpio --create {out}/peer.raw", "--"))
    else:
        bench.note("4-raw-3cpio: left out, 3cpio is not installed (cargo install threecpio)")
    for id, peer, script, target in peers:
        bench.compare(
            id,
            f"raw archive of {bench.args.tree}",
            ours=ours.cold(tree, "raw"),
            theirs=shell(f"rm -f {out}/peer.raw; {script} && sync {out}/peer.raw"),
            peer=peer,
            target=target,
        )
    size = (out / "peer.raw").stat().st_size
    (out / "peer.raw").unlink()
    ours.fresh()
    least = bench.record(
        "4-write",
        f"write alone: {size >> 20} MiB from one buffer to one file",
        [written(out / "peer.raw", size) for _ in range(bench.runs())],
    )
    for row in [row for row in bench.rows if row.id.startswith("4-raw")]:
        bench.note(f"{row.id}: the write alone is {least.ours / (row.theirs or 1):.2f} of {row.peer}'s time.")


def written(path: Path, size: int) -> float:
    """Seconds it takes to write `size` bytes to a new file without reading anything."""
    block = memoryview(os.urandom(1 << 20))

    def work() -> None:
        with path.open("wb", buffering=0) as file:
            for left in range(size, 0, -len(block)):
                file.write(block[:left])

    took = seconds(work)
    path.unlink()
    return took


BUILD = (
    "import sys; from pathlib import Path; from wwfast.pack.build import build; "
    "build(Path(sys.argv[1]), Path(sys.argv[2]), name='b', formats=['zst'], frames=Path(sys.argv[3]))"
)


def rebuild(bench: Bench) -> None:
    rebuild_of(bench, "typical", "", "<= 0.10")
    rebuild_of(bench, "real", "-real", "<= 0.20, 0.06 s")


def rebuild_of(bench: Bench, name: str, suffix: str, target: str) -> None:
    out, tree = bench.args.out, _trees.made(bench.args.work, name)
    warm(tree)
    ours = Ours(out / "ours")
    versions = _trees.versions(bench.args.work)
    turns = itertools.count()

    def upgrade() -> None:
        _trees.install(tree, versions[next(turns) % 2])

    def against_cold(id: str, what: str, values: list[float], target: str = "") -> None:
        bench.record(id, what, values, theirs=cold, peer="our own cold build", target=target)

    _trees.install(tree, versions[1])
    time.sleep(engine.CLOCK_TICK / 1e9)
    cold = [ours.cold(tree, "zst")() for _ in range(bench.runs(3))]
    entries = ours.build(tree, "zst").entries
    same = [ours.again(tree, "zst")() for _ in range(bench.runs(7))]
    against_cold(f"3-no-change{suffix}", f"rebuild of {name} ({entries} entries), no change", same, "<= 0.03")
    upgraded = [ours.again(tree, "zst", upgrade)() for _ in range(bench.runs(6))]
    against_cold(f"3-package{suffix}", f"rebuild of {name} after dpkg replaced curl, libcurl4", upgraded, target)

    if name == "typical":
        walks = [seconds(lambda: engine.scan(tree)) * 50_000 / entries for _ in range(bench.runs(7))]
        bench.record("3-walk", "walk and cutting, per 50,000 entries", walks, target="<= 0.2 s")
    walls = []
    for turn in range(bench.runs(3)):
        upgrade()
        time.sleep(engine.CLOCK_TICK / 1e9)
        argv = [sys.executable, "-c", BUILD, tree, out / f"ours/images/c{turn}", out / "ours/frames"]
        walls.append(child(argv).wall)
    bench.record(f"3-process{suffix}", f"package rebuild of {name} in a process of its own, start included", walls)
    _trees.install(tree, versions[1])
    if name == "typical":
        with some_files(tree) as grow:
            scattered = [ours.again(tree, "zst", grow)() for _ in range(bench.runs(3))]
        against_cold("3-scattered", "rebuild after 1 % of the files grew by a byte, at random places", scattered)
    ours.fresh()


@contextmanager
def some_files(tree: Path) -> Iterator[Callable[[], None]]:
    """A function that lets another 1 % of the files grow by a byte each time; at the end all are as before.

    The package database is left out: dpkg refuses one with a line too many.
    """
    chance = random.Random(5)
    database = tree / "var/lib/dpkg"
    files = sorted(
        path
        for path in tree.rglob("*")
        if path.is_file() and not path.is_symlink() and not path.is_relative_to(database)
    )
    before: dict[Path, os.stat_result] = {}

    def grow() -> None:
        for path in chance.sample(files, len(files) // 100):
            before.setdefault(path, path.stat())
            with path.open("ab") as file:
                file.write(b"\n")

    try:
        yield grow
    finally:
        for path, facts in reversed(before.items()):  # two names of one inode: the first seen knows its true size
            os.truncate(path, facts.st_size)
            os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def memory(bench: Bench) -> None:
    """Peak RSS of a process that does nothing but one cold build of a 4 GiB tree."""
    tree, ours = _trees.made(bench.args.work, "few-huge"), Ours(bench.args.out / "ours")
    values = [alone(ours, tree).rss for _ in range(bench.runs(2))]
    ours.fresh()
    bench.record("5-rss", "peak RSS of a cold zst build of few-huge (4 GiB)", values, unit="MiB", target="<= 300")


def segment_table(bench: Bench) -> None:
    """Segment size against archive size, cold build and rebuild after an upgraded package, in CPU seconds."""
    out, work = bench.args.out, bench.args.work
    tree = _trees.made(work, bench.args.tree)
    warm(tree)
    old, new = _trees.versions(work)
    ours = Ours(out / "ours")
    bench.note(f"Segment size, on {bench.args.tree}:")
    bench.note("| mean segment | segments | zst bytes | cold, CPU s | rebuild after a package, CPU s | packed anew |")
    bench.note("|---|---|---|---|---|---|")
    for mib in (0.5, 1, 2, 4, 8):
        _trees.install(tree, new)
        time.sleep(engine.CLOCK_TICK / 1e9)
        ours.fresh()
        start = time.process_time()
        ours.build(tree, "zst", segment=mib * 2**20)
        cold = time.process_time() - start
        spent, anew = [], 0
        for turn in range(bench.runs(4)):
            _trees.install(tree, (old, new)[turn % 2])
            time.sleep(engine.CLOCK_TICK / 1e9)
            start = time.process_time()
            listed = ours.build(tree, "zst", segment=mib * 2**20)
            spent.append(time.process_time() - start)
            anew = max(anew, listed.packed)
        size = listed.formats["zst"].bytes
        median = statistics.median(spent)
        bench.note(f"| {mib} MiB | {len(listed.segments)} | {size} | {cold:.2f} | {median:.3f} | {anew} |")
        print(f"  {mib} MiB: {median:.3f} s", flush=True)
    _trees.install(tree, new)
