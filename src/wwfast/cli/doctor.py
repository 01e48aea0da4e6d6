"""wwfast doctor: what keeps nodes from booting, each with the command that mends it."""

from __future__ import annotations

import click

from wwfast.cli.context import App, pass_app


@click.command(epilog="Example: wwfast doctor --json")
@click.option("--json", "as_json", is_flag=True, help="Findings as JSON.")
@pass_app
def doctor(app: App, as_json: bool) -> int:
    """Check this server for what keeps nodes from booting.

    Looks at ports and who holds them, firewall, iPXE binaries, disk space, kernel limits against the number of
    nodes, images and nodes.conf, and asks the server that runs what fails in it. Exit status 1 when an error was found.
    """
    from wwfast.cli.output import dump_json
    from wwfast.cli.status import fetch
    from wwfast.doctor.examine import examine
    from wwfast.doctor.finding import ERROR, Scene
    from wwfast.errors import WwfastError

    try:
        running = fetch(app, "-")  # no node: what is told of the server itself
    except WwfastError:
        running = {}  # none runs, or not yet
    findings = examine(Scene(app.paths, app.settings, app.registry.snapshot(), running=running))
    if as_json:
        dump_json([{name: getattr(f, name) for name in ("level", "check", "message", "fix")} for f in findings])
    else:
        for finding in findings:
            colour = "red" if finding.level == ERROR else "yellow"
            click.echo(f"{click.style(finding.level, fg=colour)}: {finding.message}\n    {finding.fix}")
        if not findings:
            click.echo("nothing found that would keep nodes from booting")
    return 1 if any(finding.level == ERROR for finding in findings) else 0
