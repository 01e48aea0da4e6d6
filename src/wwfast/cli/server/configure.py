"""wwfast configure: what a new server needs once."""

from __future__ import annotations

import click

from wwfast.cli.context import App, pass_app


@click.group(epilog="Example: wwfast configure ssh")
def configure() -> None:
    """Make what a new server needs once.

    DHCP, TFTP and the boot files need nothing: the server itself has them.
    """


@configure.command(epilog="Example: wwfast configure ssh")
@click.option(
    "-t",
    "--keytypes",
    "kinds",
    multiple=True,
    metavar="TYPE",
    help="Types of keys, instead of `ssh: key types` of warewulf.conf; may be repeated.",
)
@pass_app
def ssh(app: App, kinds: tuple[str, ...]) -> None:
    """Make the host keys of the nodes, and a key that opens them for root; what exists stays."""
    from wwfast.overlays.files.sshkeys import make_host_keys, make_login

    wanted = kinds or tuple(app.settings.ssh.key_types)
    made = make_host_keys(app.paths, wanted)
    login = make_login(app.paths, wanted[0]) if wanted else None
    for path in (*made, *([login] if login else [])):
        click.echo(f"made {path}")
    if not made and not login:
        click.echo("all keys are there already")
