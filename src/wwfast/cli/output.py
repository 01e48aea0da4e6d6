"""How commands talk: plain tables for people, JSON for programs, one way to ask before destroying."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import click

from wwfast.errors import WwfastError


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Warewulf's layout: two blanks between columns, a line of dashes under the header, last column unpadded."""
    body = [["--" if cell is None or cell == "" else str(cell).replace("\n", "\\n") for cell in row] for row in rows]
    widths = [len(title) for title in header]
    for row in body:
        for index, cell in enumerate(row):
            if len(cell) > widths[index]:
                widths[index] = len(cell)
    form = "  ".join(f"{{:<{width}}}" for width in widths[:-1])
    last = len(header) - 1
    out = [f"{form.format(*row[:last])}  {row[last]}" if last else row[0] for row in [list(header), *body]]
    dashes = ["-" * len(title) for title in header]
    out.insert(1, f"{form.format(*dashes[:last])}  {dashes[last]}" if last else dashes[0])
    sys.stdout.write("\n".join(line.rstrip() for line in out) + "\n")


def dump_json(data: Any) -> None:
    sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False, default=str) + "\n")


def warn(line: str) -> None:
    click.echo(f"warning: {line}", err=True)


def confirm(question: str, yes: bool) -> bool:
    """Ask, a person or whatever standard input holds (`echo y |`). Raises WwfastError when there is no answer."""
    if yes:
        return True
    said = answer(question)
    if said is None:
        raise WwfastError("nobody answered; nothing was changed", hint="--yes does not ask")
    return said


def answer(question: str) -> bool | None:
    """What is said to a question; None at the end of standard input."""
    if sys.stdin is not None and sys.stdin.isatty():
        return click.confirm(question)
    click.echo(f"{question} [y/N]: ", nl=False, err=True)
    try:
        said = sys.stdin.readline() if sys.stdin is not None else ""
    except (OSError, ValueError):  # closed, or no text
        said = ""
    click.echo(said.strip() or "no answer on standard input", err=True)
    return said.strip().lower() in ("y", "yes") if said else None


PATIENCE = 1.0  # s: what is done by then needs no bar


@contextlib.contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Tell it `done, total`: a bar on a terminal, once it takes longer than PATIENCE."""
    begin, shown = time.monotonic(), contextlib.ExitStack()
    update: Callable[[int, int], None] | None = None if sys.stderr.isatty() else lambda done, total: None

    def tell(done: int, total: int) -> None:
        nonlocal update
        if update is None and time.monotonic() - begin > PATIENCE:
            update = shown.enter_context(_bar(what))
        if update is not None:
            update(done, total)

    with shown:
        yield tell


@contextlib.contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int], None]]:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(what)
        yield lambda done, total: bars.update(task, completed=done, total=total)
