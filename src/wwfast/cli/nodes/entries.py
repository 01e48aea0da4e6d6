"""What the commands on nodes and on profiles share: one change, reviewed, checked, written."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from wwfast.cli.context import App
from wwfast.cli.output import confirm, table
from wwfast.config import words, yaml
from wwfast.config.yaml import Tree
from wwfast.errors import ConfigError, NotFoundError
from wwfast.nodes import hostlist
from wwfast.nodes.edit import change
from wwfast.nodes.edit.store import Change, Draft, Key, Store
from wwfast.nodes.text.source import NAMES, NODES, NOUN, Source

Function = Callable[..., Any]
Place = Callable[[str, tuple[str | int, ...]], str]  # an entry, and where in it -> `FILE:LINE: `


def write_options(function: Function) -> Function:
    """--yes, --dry-run, --force: the same on every command that writes."""
    function = click.option(
        "-f", "--force", is_flag=True, help="Write although a value is wrong or something it refers to is missing."
    )(function)
    function = click.option("-n", "--dry-run", is_flag=True, help="Print the change of the file; write nothing.")(
        function
    )
    return click.option("-y", "--yes", is_flag=True, help="Do not ask.")(function)


def store(app: App) -> Store:
    return Store(app.paths, history=app.settings.wwfast.history)


def write(
    app: App,
    edit: Change,
    *,
    why: str,
    yes: bool,
    dry_run: bool,
    force: bool,
    ask: bool = True,
    place: Place = lambda name, path: "",
) -> Draft | None:
    """Check, show, ask, write. None when nothing was to be done or the answer was no.

    `place` tells where the text a change came from says something, to begin a message with.
    """
    target = store(app)
    if dry_run:
        draft, result = target.draft(edit)
        judge(app, draft, result, force, place)
        sys.stdout.write(difference(draft.source.data, result.data, result.name))
        return None
    if yes or not ask:

        def judged(draft: Draft) -> None:
            edit(draft)
            if draft.changes():
                judge(app, draft, draft.result(), force, place)

        done = target.change(judged, why=why)
        if not done.changes():
            click.echo("no changes")
            return None
        if ask:
            show(done)
        return done
    answer = False

    def review(draft: Draft, result: Source) -> bool:
        nonlocal answer
        judge(app, draft, result, force, place)
        show(draft)
        answer = confirm(
            f"Write {len(draft.changes())} changed {'entry' if len(draft.changes()) == 1 else 'entries'}?", yes
        )
        return answer

    done = target.change(edit, why=why, review=review)
    if not done.changes():
        click.echo("no changes")
        return None
    return done if answer else None


def judge(app: App, draft: Draft, result: Source, force: bool, place: Place) -> None:
    """Refuse wrong values, references to nothing, addresses taken twice, or, forced, warn; also of what cannot boot."""
    from wwfast.cli.nodes.references import faults, unbootable

    found = wrong_values(draft.changes(), place) + faults(draft, result, app.paths, app.settings)
    if found and not force:
        raise ConfigError("\n".join(found[:10]), hint="--force writes it all the same")
    for fault in found:
        click.echo(f"warning: {fault}", err=True)
    for cause in [] if found else unbootable(draft, result, app.paths)[:10]:
        click.echo(f"warning: {cause}", err=True)


def wrong_values(changes: Mapping[Key, tuple[Tree, Tree]], place: Place) -> list[str]:
    """What is wrong with the ids and the values that are new, one line each."""
    found: list[str] = []
    for (section, name), (before, after) in changes.items():
        if after is None:
            continue
        if before is None and (wrong := NAMES[section](name)):
            found.append(f"{place(name, ())}{NOUN[section]} {wrong}")
        found += [f"{place(name, issue.path)}{NOUN[section]} {name}: {issue}" for issue in change.faults(before, after)]
    return found


def show(draft: Draft) -> None:
    """Before and after, entries with the same change on one line."""
    groups: dict[tuple[str, str, str, str], list[str]] = {}
    for (section, name), (before, after) in draft.changes().items():
        old, new = change.leaves(before or {}), change.leaves(after or {})
        lines = [
            (NOUN[section], change.spelled(key), text(old.get(key)), text(new.get(key)))
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
    head = 0
    while head < min(len(old), len(new)) and old[head] == new[head]:
        head += 1
    tail = 0
    while tail < min(len(old), len(new)) - head and old[-1 - tail] == new[-1 - tail]:
        tail += 1
    start, keep = max(0, head - 3), max(0, tail - 3)
    lines = difflib.unified_diff(old[start : len(old) - keep], new[start : len(new) - keep], name, name)
    return "".join(shifted(line, start) for line in lines)


def found(draft: Draft, section: str, names: Sequence[str]) -> list[str]:
    """The names that exist; the others are warned about. Raises NotFoundError when none does."""
    there = [name for name in dict.fromkeys(names) if draft.has(section, name)]
    for name in dict.fromkeys(names):
        if name not in there:
            click.echo(f"warning: no {NOUN[section]} '{name}'", err=True)
    if not there:
        raise NotFoundError(f"no {NOUN[section]} of that name", hint=f"wwfast {NOUN[section]} list")
    return there


def count(number: int, section: str) -> str:
    return f"{number} {NOUN[section]}{'' if number == 1 else 's'}"


def names_of(section: str, patterns: Sequence[str]) -> list[str]:
    """Nodes are named by hostlists, profiles one by one."""
    return (
        hostlist.expand(patterns)
        if section == NODES
        else [name for word in patterns for name in word.split(",") if name]
    )
