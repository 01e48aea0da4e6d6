"""What the demo puts on the screen: its own steps, and the timeline of a boot as /status tells it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress_bar import ProgressBar
from rich.table import Table

from wwfast.boot.stages import Stage

TITLES = ("STAGE", "AT (s)", "SENT", "BYTES", "TOOK (s)")
NUMBERS = ("AT (s)", "BYTES", "TOOK (s)")


def timeline(entry: dict[str, Any], powered: float, *, bars: bool = True) -> Table:
    """The stages of one boot so far; `entry` of /status, `powered` the Unix time the machine was switched on."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in (*TITLES, *(("",) if bars else ())):
        table.add_column(title, justify="right" if title in NUMBERS else "left")
    for part in entry.get("boot", []):
        total = part["total"] or part["bytes"] or 1
        done = part["bytes"] if part["total"] else total
        bar = [ProgressBar(total=total, completed=done, width=30)] if bars else []
        table.add_row(*row(part, powered), *bar)
    return table


def row(part: dict[str, Any], powered: float) -> tuple[str, str, str, str, str]:
    """The cells of one stage, in the order of TITLES."""
    size = part["bytes"]
    amount = f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size} B"
    return Stage(part["stage"]).label, f"{part['at'] - powered:.1f}", part["sent"], amount, f"{part['seconds']:.2f}"


def tell(console: Console, entry: dict[str, Any], powered: float, told: int) -> int:
    """Without a terminal: one line for every stage that is over, after the first `told`; how many that makes."""
    over = [part for part in entry.get("boot", []) if part["outcome"] == "done"]
    for part in over[told:]:
        stage, at, sent, size, took = row(part, powered)
        console.print(f"{at:>7} s  {stage:<16} {sent:<40} {size:>9} in {took} s", markup=False, soft_wrap=True)
    return max(told, len(over))


@contextmanager
def step(console: Console, what: str) -> Iterator[None]:
    """One thing the demo does, with the seconds it took."""
    begin = time.monotonic()
    with console.status(what):
        yield
    console.print(f"  {what}: {time.monotonic() - begin:.1f} s", markup=False, soft_wrap=True)


def command(console: Console, line: str, output: bytes) -> None:
    """A command and what it said."""
    console.print(f"\n$ {line}", markup=False)
    console.print(output.decode(errors="replace").rstrip(), markup=False, soft_wrap=True)


def short(path: Path) -> Path:
    """Relative to where we are, if below it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
