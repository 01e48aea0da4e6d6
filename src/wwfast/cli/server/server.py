"""wwfast server: the daemon in the foreground."""

from __future__ import annotations

import click

from wwfast.cli.context import App, pass_app


@click.command(epilog="Example: wwfast server --force-dhcp")
@click.option("--replace", is_flag=True, help="Take over from the wwfast server that runs here, without a gap.")
@click.option("--force-dhcp", is_flag=True, help="Start DHCP although another server answers on the network.")
@click.option(
    "--ignore-go-templates",
    is_flag=True,
    help="Let the shipped overlay serve where a site copy of it still holds Go templates.",
)
@pass_app
def server(app: App, replace: bool, force_dhcp: bool, ignore_go_templates: bool) -> None:
    """Run the provisioning server: DHCP, TFTP and HTTP in one process, in the foreground.

    nodes.conf, overlays and images are taken up as they change. SIGHUP reloads at once, SIGTERM finishes running
    transfers and ends. SIGUSR2 starts the program anew, with warewulf.conf as it is now: the new process takes over
    as with --replace, the old one ends when its transfers are done. DHCP starts only when `ipaddr` and `network` are
    written in warewulf.conf.
    """
    from wwfast.daemon.life.process import serve

    serve(
        app.paths,
        app.settings,
        replace=replace,
        force_dhcp=force_dhcp,
        ignore_go_templates=ignore_go_templates,
    )
