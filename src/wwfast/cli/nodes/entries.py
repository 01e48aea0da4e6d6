"""What the commands on nodes and on profiles share: one change, shown, agreed to, written."""

from __future__ import annotations

import difflib
import functools
import re
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import click

from wwfast.api.entries import Place, nowhere
from wwfast.api.service import Plan
from wwfast.cli.context import App
from wwfast.cli.output import confirm, table, warn
from wwfast.config import words, yaml
from wwfast.config.schema import meaning
from wwfast.nodes import hostlist
from wwfast.nodes.edit import change
from wwfast.nodes.edit.store import Change, Draft
from wwfast.nodes.merge import SCHEMA
from wwfast.nodes.text.patch import alike, flow
from wwfast.nodes.text.source import NOUN

Function = Callable[..., Any]


class How(NamedTuple):
    """What was said of a change beside the change itself: the options of every command that writes."""

    yes: bool
    dry_run: bool
    force: bool


def write_options(function: Function) -> Function:
    """--yes, --dry-run, --force, given to the command as `how`."""

    def gathered(*args: Any, yes: bool, dry_run: bool, force: bool, **given: Any) -> Any:
        return function(*args, how=How(yes, dry_run, force), **given)

    made: Function = functools.update_wrapper(gathered, function)
    made = click.option(
        "-f", "--force", is_flag=True, help="Write although a value is wrong or something it refers to is missing."
    )(made)
    made = click.option("-n", "--dry-run", is_flag=True, help="Print the change of the file; write nothing.")(made)
    return click.option("-y", "--yes", is_flag=True, help="Do not ask.")(made)


def write(app: App, edit: Change, *, why: str, how: How, ask: bool = True, place: Place = nowhere) -> Draft | None:
    """Check, show, ask, write. None when nothing was to be done or the answer was no."""
    if how.dry_run:
        plan = app.service.plan(edit, place)
        plan.accept(force=how.force, warn=warn)
        sys.stdout.write(difference(plan.draft.source.data, plan.result.data, plan.result.name))
        return None

    def agree(plan: Plan) -> bool:
        show(plan.draft)
        number = len(plan.draft.changes())
        return confirm(f"Write {number} changed {'entry' if number == 1 else 'entries'}?", how.yes)

    asked = agree if ask and not how.yes else None
    done = app.service.write(edit, why=why, warn=warn, force=how.force, place=place, agree=asked)
    if done is None:
        return None
    if not done.changes():
        click.echo("no changes")
        return None
    if ask and how.yes:
        show(done)
    return done


def show(draft: Draft) -> None:
    """Before and after, entries with the same change on one line."""
    groups: dict[tuple[str, str, str, str], list[str]] = {}
    for (section, name), (before, after) in draft.changes().items():
        old, new = (change.leaves(meaning(tree or {}, SCHEMA)) for tree in (before, after))
        lines = [
            (NOUN[section], change.spelled(key), *texts(old.get(key), new.get(key)))
            for key in {**old, **new}
            if old.get(key) != new.get(key)
        ]
        if after is None:
            lines = [(NOUN[section], "", "", "deleted")]
        elif not lines:
            lines = [(NOUN[section], "", "", "added")]
        for line in lines:
            groups.setdefault(line, []).append(name)
    table(
        ("ENTRY", "FIELD", "BEFORE", "AFTER"),
        [(f"{noun} {hostlist.compress(names)}", field, old, new) for (noun, field, old, new), names in groups.items()],
    )


def shifted(line: str, by: int) -> str:
    """A hunk header of a comparison that began `by` lines down."""
    found = HUNK.match(line)
    if found is None:
        return line
    return f"@@ -{int(found[1]) + by}{found[2]} +{int(found[3]) + by}{found[4]} @@\n"


def texts(old: Any, new: Any) -> tuple[str, str]:
    """Two values that differ, if only in what YAML makes of them, side by side."""
    before, after = text(old), text(new)
    return (before, after) if before != after else (flow(old), flow(new))


def text(value: Any) -> str:
    """A value as it is shown: a list as an option would take it, what would break the table in quotes."""
    if value is None:
        return "<unset>"
    shown = words.join(map(str, value)) if isinstance(value, list) else str(value)
    return shown if shown.isprintable() else yaml.scalar(shown)


HUNK = re.compile(r"@@ -([0-9]+)(\S*) \+([0-9]+)(\S*) @@")


def difference(before: bytes, after: bytes, name: str) -> str:
    """A unified diff of the file; only the part between the first and the last changed line is compared."""
    old, new = (data.decode(errors="replace").splitlines(keepends=True) for data in (before, after))
    head, tail = alike(old, new)
    start, keep = max(0, head - 3), max(0, tail - 3)
    lines = difflib.unified_diff(old[start : len(old) - keep], new[start : len(new) - keep], name, name)
    return "".join(shifted(line, start) for line in lines)
