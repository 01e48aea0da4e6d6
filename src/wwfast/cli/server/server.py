"""wwfast server: the daemon in the foreground, and the heads that follow it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from wwfast.cli.context import App, pass_app
from wwfast.cli.groups import AliasGroup
from wwfast.errors import WwfastError

if TYPE_CHECKING:
    from wwfast.paths import Paths


@click.group(cls=AliasGroup, invoke_without_command=True, epilog="Example: wwfast server --force-dhcp")
@click.option("--replace", is_flag=True, help="Take over from the wwfast server that runs here, without a gap.")
@click.option("--force-dhcp", is_flag=True, help="Start DHCP although another server answers on the network.")
@click.option(
    "--ignore-go-templates",
    is_flag=True,
    help="Let the shipped overlay serve where a site copy of it still holds Go templates.",
)
@click.option("--follow", metavar="URL", help="Have what the head at https://ADDRESS has, and take no edits.")
@click.pass_context
def server(ctx: click.Context, replace: bool, force_dhcp: bool, ignore_go_templates: bool, follow: str | None) -> None:
    """Run the provisioning server: DHCP, TFTP and HTTP in one process, in the foreground.

    nodes.conf, overlays and images are taken up as they change. SIGHUP reloads at once, SIGTERM finishes running
    transfers and ends. SIGUSR2 starts the program anew, with warewulf.conf as it is now: the new process takes over
    as with --replace, the old one ends when its transfers are done. DHCP starts only when `ipaddr` and `network` are
    written in warewulf.conf.

    With --follow it serves the nodes, images and overlays of another server, also while that one is away.
    """
    from wwfast.daemon.life.process import serve

    if ctx.invoked_subcommand is not None:
        return
    app = ctx.find_object(App)
    assert app is not None
    serve(
        _followed(app, follow) if follow is not None else _own(app),
        app.settings,
        replace=replace,
        force_dhcp=force_dhcp,
        ignore_go_templates=ignore_go_templates,
        follow=follow or "",
    )


def _own(app: App) -> Paths:
    if app.paths.mirror is not None:
        where = app.paths.following.read_text().strip()
        raise WwfastError(
            f"this server follows {where}", hint=f"wwfast server --follow {where}; or end that: wwfast follow end"
        )
    return app.paths


def _followed(app: App, url: str) -> Paths:
    """Of a server that follows from now on: other commands know it, too."""
    import ssl

    from wwfast.heads import key
    from wwfast.heads.following import address
    from wwfast.system import files
    from wwfast.system.folders import folder

    address(url, app.settings.wwfast.follow_port)
    key.context(key.place(app.paths), ssl.PROTOCOL_TLS_CLIENT)  # first: one that cannot follow goes on taking edits
    folder(app.paths.state)
    files.replace(app.paths.following, f"{url}\n".encode())
    return app.paths.as_served()


@server.command(epilog="Example: wwfast server peers")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@pass_app
def peers(app: App, as_json: bool) -> int:
    """Show the heads that follow this one: what they serve, and how far they are behind.

    Exit status 1 where one is silent, or cannot follow.
    """
    from wwfast.cli.images.common import size_text
    from wwfast.cli.output import dump_json, table
    from wwfast.cli.server.status import fetch

    found = fetch(app)
    if "following" in found:
        raise WwfastError(f"this server follows {found['following']['url']}", hint="ask there")
    if "peers" not in found:
        raise WwfastError(
            "this server has no key for heads that follow it", hint="wwfast follow key; then systemctl restart wwfast"
        )
    known = found["peers"]
    if as_json:
        dump_json(known)
    else:
        table(
            ("HEAD", "ADDRESS", "VERSION", "REVISION", "BEHIND", "TO COME", "SEEN", "STATE"),
            (
                (
                    name,
                    peer["address"],
                    peer["version"],
                    peer["revision"],
                    f"{peer['behind']:.0f} s",
                    size_text(peer["missing"]),
                    f"{peer['seen']:.0f} s ago",
                    "silent" if peer["silent"] else peer["said"] or "well",
                )
                for name, peer in sorted(known.items())
            ),
        )
    return 1 if any(peer["silent"] or peer["said"] for peer in known.values()) else 0
