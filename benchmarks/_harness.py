"""What every benchmark shares: alternating runs, medians, the machine it ran on, one table and one JSON format.

A benchmark is a module of this package with `run(bench: Bench) -> None`, and `arguments(parser) -> None` if it has
options of its own (`bench.args`). It calls `bench.compare(...)` or `bench.record(...)` once per row.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]


@dataclass
class Row:
    """`ours` and `theirs` are medians of the same work in the same run; `ratio` is ours/theirs.

    `id` is the number of the target and a slug, stable over time; `runs` holds every measured value.
    """

    id: str
    name: str
    ours: float
    unit: str
    better: str
    peer: str | None = None
    theirs: float | None = None
    ratio: float | None = None
    target: str = ""
    runs: dict[str, list[float]] = field(default_factory=dict)

    @property
    def spread(self) -> float:
        """Half of (max - min) of our runs, relative to the median."""
        mine = self.runs.get("ours", [])
        return (max(mine) - min(mine)) / 2 / self.ours if mine and self.ours else 0.0


class Usage(NamedTuple):
    """One child process: wall and CPU seconds, peak resident MiB.

    Linux counts what the process was before its exec, too, so `rss` is never less than ours; see `slim`.
    """

    wall: float
    cpu: float
    rss: float


SLIM = (
    "import os, sys; pid = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ); "
    "_, status, usage = os.wait4(pid, 0); print(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024); "
    "sys.exit(os.waitstatus_to_exitcode(status) != 0)"
)


def seconds(work: Callable[[], Any]) -> float:
    """Wall seconds of one call, without a garbage collection left over from the last one."""
    gc.collect()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def child(argv: Sequence[str | Path], *, stdin_file: Path | None = None, cwd: Path | None = None) -> Usage:
    """Run a command to its end and measure it; its own children count too. A failure ends the benchmark."""
    start = time.perf_counter()
    with Path(stdin_file or os.devnull).open("rb") as stdin:
        process = subprocess.Popen([str(word) for word in argv], stdin=stdin, stdout=subprocess.DEVNULL, cwd=cwd)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{argv[0]} failed with status {process.returncode}")
    return Usage(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def slim(argv: Sequence[str | Path]) -> Usage:
    """Like `child`, but started by a process of 10 MiB, so that `rss` is the command's own."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-c", SLIM, *map(str, argv)], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{argv[0]} failed")
    cpu, rss = done.stdout.splitlines()[-1].split()
    return Usage(time.perf_counter() - start, float(cpu), float(rss))


def alternate(works: Sequence[Callable[[], float]], runs: int) -> list[list[float]]:
    """`runs` values of each work, in turns, so that a slower minute of the machine hits all of them."""
    values: list[list[float]] = [[] for _ in works]
    for _ in range(runs):
        for index, work in enumerate(works):
            values[index].append(float(work()))
    return values


def version_of(*argv: str) -> str:
    """First line a peer prints about its version, or 'not installed'."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=20, check=False)
    except FileNotFoundError:
        return "not installed"
    return next(iter((done.stdout or done.stderr).strip().splitlines()), "").strip()


def machine(peers: dict[str, str]) -> dict[str, Any]:
    cpu = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "peers": peers,
    }


def commit() -> str:
    head = version_of("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD")
    dirty = subprocess.run(["git", "-C", ROOT, "diff", "--quiet", "HEAD", "--", "src"], check=False).returncode
    return head + ("-dirty" if dirty else "")


class Bench:
    """One run of one benchmark: its options, its rows and the peers it met."""

    def __init__(self, name: str, args: argparse.Namespace) -> None:
        self.name = name
        self.args = args
        self.quick: bool = args.quick
        self.rows: list[Row] = []
        self.peers: dict[str, str] = {}
        self.notes: list[str] = []
        self.load = os.getloadavg()[0]

    def runs(self, full: int = 5) -> int:
        """How often to repeat: `full` times, or twice with --quick."""
        return 2 if self.quick else full

    def peer(self, name: str, *argv: str) -> None:
        """Remember the version of a peer for the `machine` section."""
        self.peers[name] = version_of(*argv)

    def note(self, text: str) -> None:
        """A line below the table: a condition of the measurement, a reason for a lost row."""
        self.notes.append(text)

    def compare(
        self,
        id: str,
        name: str,
        *,
        ours: Callable[[], float],
        theirs: Callable[[], float] | None = None,
        peer: str | None = None,
        unit: str = "s",
        better: str = "lower",
        runs: int | None = None,
        target: str = "",
    ) -> Row:
        """Measure `ours` and, in turns, `theirs`; each call returns one value in `unit`."""
        works = [ours] if theirs is None else [ours, theirs]
        values = alternate(works, runs or self.runs())
        return self.record(
            id,
            name,
            values[0],
            theirs=values[1] if theirs else None,
            peer=peer,
            unit=unit,
            better=better,
            target=target,
        )

    def record(
        self,
        id: str,
        name: str,
        ours: Sequence[float] | float,
        *,
        theirs: Sequence[float] | float | None = None,
        peer: str | None = None,
        unit: str = "s",
        better: str = "lower",
        target: str = "",
    ) -> Row:
        """Add a row from values measured elsewhere."""
        assert better in ("lower", "higher")
        mine = [ours] if isinstance(ours, (int, float)) else list(ours)
        others = [] if theirs is None else [theirs] if isinstance(theirs, (int, float)) else list(theirs)
        median = statistics.median(mine)
        against = statistics.median(others) if others else None
        row = Row(
            id=id,
            name=name,
            ours=median,
            unit=unit,
            better=better,
            peer=peer,
            theirs=against,
            ratio=median / against if against else None,
            target=target,
            runs={"ours": mine, **({"theirs": others} if others else {})},
        )
        self.rows.append(row)
        print(f"  {row.id}: {number(row.ours)} {row.unit}" + (f" (x {row.ratio:.3f})" if row.ratio else ""), flush=True)
        return row

    def result(self) -> dict[str, Any]:
        return {
            "bench": self.name,
            "commit": commit(),
            "quick": self.quick,
            "load_before": round(self.load, 2),
            "machine": machine(self.peers),
            "rows": [asdict(row) for row in self.rows],
            "notes": self.notes,
        }

    def table(self) -> str:
        head = ("id", "what", "ours", "theirs", "unit", "ratio", "spread", "target", "peer")
        body = [
            (
                row.id,
                row.name,
                number(row.ours),
                "--" if row.theirs is None else number(row.theirs),
                row.unit,
                "--" if row.ratio is None else f"{row.ratio:.3f}",
                f"±{row.spread:.0%}",
                row.target or "--",
                row.peer or "--",
            )
            for row in self.rows
        ]
        widths = [max(len(line[column]) for line in [head, *body]) for column in range(len(head))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in [head, *body]
        ]
        return "\n".join(line.rstrip() for line in [*lines, *self.notes])


def number(value: float) -> str:
    """Four significant digits, no exponent."""
    if value == 0 or abs(value) >= 1000:
        return f"{value:.0f}"
    return f"{value:.{max(0, 4 - len(str(int(abs(value)))))}f}"
