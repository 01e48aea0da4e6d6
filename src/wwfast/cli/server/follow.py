"""wwfast follow: heads that follow another one."""

from __future__ import annotations

import click

from wwfast.cli.context import App, pass_app
from wwfast.cli.groups import AliasGroup


@click.group(cls=AliasGroup, epilog="Example: wwfast follow key")
def follow() -> None:
    """A second server of the same nodes, which has what the first one has and takes no edits.

    `wwfast server --follow https://ADDRESS` is one. Both know each other by a key that is made once. See docs/scale.md.
    """


@follow.command(epilog="Example: wwfast follow key")
@click.option("-f", "--force", is_flag=True, help="Another one, in place of that which is there.")
@pass_app
def key(app: App, force: bool) -> None:
    """Make the key by which heads know each other.

    Who has it can read everything that nodes get, their passwords as well, and give them what he likes. Copy it to the
    other head over a safe way (scp), with mode 0600; then `systemctl restart wwfast` here.
    """
    from wwfast.heads import key as keys

    made = keys.make(app.paths, force=force)
    click.echo(f"wrote {made}: copy it to the same place of the other head, and start the server here anew")


@follow.command(epilog="Example: wwfast follow end")
@pass_app
def end(app: App) -> None:
    """Let this server follow no other one any more.

    Its own nodes.conf, images and overlays count again. What was mirrored stays in the state directory.
    """
    if not app.paths.following.exists():
        click.echo("this server follows no other one")
        return
    where = app.paths.following.read_text().strip()
    app.paths.following.unlink()
    click.echo(f"{where} is followed no more: start the server without --follow")
