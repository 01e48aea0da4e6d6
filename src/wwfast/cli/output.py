"""How commands talk: plain tables for people, JSON for programs, one way to ask before destroying."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Warewulf's layout: two blanks between columns, a line of dashes under the header, last column unpadded."""
    body = [["--" if cell is None or cell == "" else str(cell) for cell in row] for row in rows]
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


def confirm(question: str, yes: bool) -> bool:
    """Ask; without a terminal and without --yes the answer is no."""
    if yes:
        return True
    if not sys.stdin.isatty():
        click.echo(f"{question} [y/N]: no (not a terminal; use --yes)", err=True)
        return False
    return click.confirm(question)
