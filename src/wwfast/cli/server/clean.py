"""wwfast clean: give back disk space that only caches hold."""

from __future__ import annotations

import click

from wwfast.cli.context import App, pass_app
from wwfast.cli.numbers import Whole


@click.command(epilog="Example: wwfast clean --dry-run")
@click.option("--keep", "keep_mib", type=Whole(0), default=0, metavar="MIB", help="Leave this much.")
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@pass_app
def clean(app: App, keep_mib: int, dry_run: bool) -> None:
    """Remove packed data that no image refers to any more.

    Images, their builds and what nodes are being sent stay as they are; the next build of a changed image takes
    longer. With --keep the newest such data stay, up to MIB mebibytes.
    """
    from wwfast.pack.cache import collect

    gone = collect(app.paths.frames, keep_mib << 20, dry_run=dry_run)
    verb = "would remove" if dry_run else "removed"
    click.echo(f"{verb} {gone.files} files, {gone.bytes / 2**20:.1f} MiB, from {app.paths.frames}")
