"""wwfast upgrade: nodes.conf and warewulf.conf of Warewulf 4.3 to 4.5, said as since 4.6."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wwfast.cli.context import App, pass_app
from wwfast.cli.groups import AliasGroup
from wwfast.cli.nodes.entries import How, difference, show
from wwfast.cli.output import confirm, warn
from wwfast.errors import NotFoundError
from wwfast.system import files

if TYPE_CHECKING:
    from wwfast.nodes.edit.store import Change, Draft
    from wwfast.nodes.text.source import Source

FILE = click.Path(path_type=Path)


@click.group(cls=AliasGroup, epilog="Example: wwfast upgrade nodes --add-defaults --replace-overlays --dry-run")
def upgrade() -> None:
    """Bring nodes.conf and warewulf.conf of Warewulf 4.3 to 4.5 to the form of 4.6."""


@upgrade.command("nodes", epilog="Example: wwfast upgrade nodes --add-defaults --replace-overlays --dry-run")
@click.option(
    "--add-defaults",
    is_flag=False,
    flag_value="true",
    type=bool,
    default=False,
    metavar="[true|false]",
    help="Fill the profile `default` with what 4.6 has there, and give it to nodes without a profile.",
)
@click.option(
    "--replace-overlays",
    is_flag=False,
    flag_value="true",
    type=bool,
    default=False,
    metavar="[true|false]",
    help="Name the overlays that took the place of `wwinit` and `generic`.",
)
@click.option("-i", "--input-path", "source", type=FILE, help="Read this file instead of nodes.conf.")
@click.option("-o", "--output-path", "target", type=FILE, help="Write this file instead of nodes.conf; - prints it.")
@click.option(
    "--with-warewulfconf", "conf", type=FILE, help="The old warewulf.conf: its NFS mounts become fstab lines."
)
@click.option("-n", "--dry-run", is_flag=True, help="Print the change of the file; write nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@pass_app
def nodes(
    app: App,
    add_defaults: bool,
    replace_overlays: bool,
    source: Path | None,
    target: Path | None,
    conf: Path | None,
    dry_run: bool,
    yes: bool,
) -> None:
    """Say nodes.conf as 4.6 does; comments stay, and `wwfast undo` takes it back."""
    from functools import partial

    from wwfast.api import upgrading
    from wwfast.config import former as settings
    from wwfast.config import yaml
    from wwfast.images.kernels.store import KernelStore
    from wwfast.nodes.edit.store import Draft
    from wwfast.nodes.former import Upgrade
    from wwfast.nodes.text.source import Source

    for named in filter(None, (source, conf)):
        read(named)
    place = conf or app.given.conf
    mounts = settings.mounts(yaml.load(read(place), str(place))) if place.exists() else []
    kept = set(KernelStore(app.paths).names())
    how = How(yes, dry_run, force=False)
    run = Upgrade(add_defaults, replace_overlays, mounts, kept.__contains__)
    edit = partial(upgrading.edit, run)

    ours = os.path.realpath(app.paths.nodes_conf)
    source, target = (it if it and os.path.realpath(it) != ours else None for it in (source, target))
    if source or target:
        draft = Draft(Source.read(source or app.paths.nodes_conf))
        edit(draft)
        if target:
            put(target, draft.result().data, how)
        else:
            replace(app, draft.result(), how)
    else:
        in_place(app, edit, how)
    for line in run.told:
        warn(line)


def in_place(app: App, edit: Change, how: How) -> None:
    """Without the checks of other edits: what entries refer to was there or not before, as wrong values were; `doctor`
    tells of both, and they are no reason to stay with the old form."""
    store = app.service.store()
    if how.dry_run:
        draft, result = store.draft(edit)
        sys.stdout.write(difference(draft.source.data, result.data, result.name))
        return

    agreed = True

    def agree(draft: Draft, _result: Source) -> bool:
        nonlocal agreed
        show(draft)
        agreed = confirm(f"Write {len(draft.changes())} changed entries?", yes=False)
        return agreed

    done = store.change(edit, why="upgrade nodes", review=None if how.yes else agree)
    changed = len(done.changes())
    if agreed:
        click.echo(f"upgraded {changed} entries; `wwfast undo` takes it back" if changed else "no changes")


def replace(app: App, fresh: Source, how: How) -> None:
    """Put what another file says in the place of nodes.conf."""
    from wwfast.api import upgrading

    store, name = app.service.store(), str(app.paths.nodes_conf)
    there = store.content()
    if there == fresh.data:
        click.echo("no changes")
        return
    sys.stdout.write(difference(there, fresh.data, name))
    for line in upgrading.leaving(there, name, fresh):
        warn(line)
    if not how.dry_run and confirm(f"Write {name}?", how.yes):
        store.replace(there, fresh.data, why=f"upgrade nodes -i {fresh.name}")
        click.echo(f"{name} says now what {fresh.name} said; `wwfast undo` takes it back")


@upgrade.command("config", epilog="Example: wwfast upgrade config --dry-run")
@click.option("-i", "--input-path", "source", type=FILE, help="Read this file instead of warewulf.conf.")
@click.option("-o", "--output-path", "target", type=FILE, help="Write this file instead of warewulf.conf; - prints it.")
@click.option("-n", "--dry-run", is_flag=True, help="Print the change of the file; write nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@pass_app
def config(app: App, source: Path | None, target: Path | None, dry_run: bool, yes: bool) -> None:
    """Say warewulf.conf as 4.6 does; comments stay, and the former file is kept beside it as warewulf.conf-old."""
    from wwfast.api import upgrading

    place = source or app.given.conf
    data = read(place)
    fresh, told = upgrading.conf(data, str(place))
    put(target or app.given.conf, fresh, How(yes, dry_run, force=False))
    for line in told:
        warn(line)


def read(path: Path) -> bytes:
    """A file that was named, or has to be there. Raises WwfastError where there is none."""
    if not path.exists():
        raise NotFoundError(f"there is no file {path}", hint="-i names the file to read")
    return files.read(path)


def put(target: Path, after: bytes, how: How) -> None:
    """Print the result (`-`), its difference from what is there, or write it; what was there is kept as NAME-old."""
    if str(target) == "-":
        sys.stdout.write(after.decode())
        return
    there = target.read_bytes() if target.exists() else b""
    if there == after:
        click.echo("no changes")
        return
    sys.stdout.write(difference(there, after, str(target)))
    if how.dry_run or not confirm(f"Write {target}?", how.yes):
        return
    if there:
        kept = unused(target)
        files.replace(kept, there, mode=target.stat().st_mode & 0o7777)
        click.echo(f"the former file is {kept}; back again: mv {kept} {target}")
    files.replace(target, after)


def unused(target: Path) -> Path:
    """NAME-old, or with a number where that is taken: a former file is never overwritten."""
    names: Any = (f"-old{number or ''}" for number in range(1000))
    return next(
        target.with_name(target.name + end) for end in names if not target.with_name(target.name + end).exists()
    )
