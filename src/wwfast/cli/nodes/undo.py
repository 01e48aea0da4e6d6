"""wwfast undo."""

from __future__ import annotations

import sys

import click

from wwfast.cli.context import App, pass_app
from wwfast.cli.nodes.entries import difference
from wwfast.cli.output import confirm, table, warn
from wwfast.errors import ConfigError
from wwfast.nodes.edit.store import Version


@click.command(epilog="Example: wwfast undo --yes")
@click.option("-l", "--list", "show", is_flag=True, help="List the kept versions, newest first.")
@click.option("-n", "--dry-run", is_flag=True, help="Print what would change back; write nothing.")
@click.option("-f", "--force", is_flag=True, help="Even if the file was changed by other means since.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@pass_app
def undo(app: App, show: bool, dry_run: bool, force: bool, yes: bool) -> None:
    """Take back the last change of nodes.conf; repeat it to go back further."""
    from datetime import datetime

    target = app.service.store()
    if show:
        kept = []
        for path in reversed(target.versions()):
            try:
                kept.append(Version.read(path))
            except ConfigError as error:  # one that is none hides no other
                warn(f"{error.message}; {error.hint}")
        table(("BEFORE", "AT"), [(each.why, datetime.fromtimestamp(each.at).isoformat(" ")) for each in kept])
        return
    version = target.recall()
    if not force:
        target.require_last(version)
    sys.stdout.write(difference(target.content(), version.data, str(app.paths.nodes_conf)))
    for line in app.service.stranded_by(version.data):
        warn(line)
    if not dry_run and confirm(f"Take back '{version.why}'?", yes):
        target.undo(version, force=force)
        click.echo(f"took back: {version.why}")
