"""wwfast doctor: what keeps nodes from booting, each with the command that mends it."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import click

from wwfast.cli.completion import completer
from wwfast.cli.context import App, pass_app

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wwfast.doctor.finding import Finding, Progress

ANSWER_SECONDS = 5.0  # the server that runs may hang; everything else is told all the same


@click.command(epilog="Example: wwfast doctor 'n[001-040]' --json")
@click.argument("patterns", nargs=-1, metavar="[NODE...]", shell_complete=completer("node"))
@click.option("--json", "as_json", is_flag=True, help="Findings as JSON.")
@pass_app
def doctor(app: App, patterns: tuple[str, ...], as_json: bool) -> int:
    """Find what keeps nodes from booting, before they try.

    Plays the boot of every node, or of those named, on paper: is it known, has it an address, its script, kernel,
    image, overlays, and what they need to start; nothing is written or built. Looks at this server as well: ports and
    who holds them, firewall, iPXE binaries, disk, limits, warewulf.conf, and what fails in the server that runs.
    Exit status 1 when an error was found; warnings alone are 0.
    """
    from wwfast.cli.output import dump_json, progress
    from wwfast.doctor.finding import ERROR

    with progress("booting nodes on paper") as tell:
        findings = found(app, patterns, tell)
    if as_json:
        dump_json(
            [{name: getattr(it, name) for name in ("level", "check", "nodes", "message", "fix")} for it in findings]
        )
    else:
        for finding in findings:
            colour = "red" if finding.level == ERROR else "yellow"
            click.echo(f"{click.style(finding.level, fg=colour)}: {finding.message}")
            if finding.fix:
                click.echo(f"    {finding.fix}")
        if not findings:
            click.echo("nothing found that would keep nodes from booting")
    return 1 if any(finding.level == ERROR for finding in findings) else 0


def found(app: App, patterns: Sequence[str], tell: Progress) -> list[Finding]:
    from wwfast.boot.paper import Paper
    from wwfast.cli.server.status import LOCAL, fetch
    from wwfast.doctor.examine import examine
    from wwfast.doctor.finding import Scene
    from wwfast.errors import WwfastError
    from wwfast.overlays.making.service import OverlayService

    snapshot = app.registry.snapshot()
    chosen = named(app, patterns) if patterns else None
    try:
        # No node: what is told of the server itself; and not by ipaddr, which may be another machine's.
        running = fetch(app, "-", address=LOCAL, timeout=ANSWER_SECONDS)
    except WwfastError:
        running = {}  # none runs, or not yet
    with closing(OverlayService(app.paths, app.settings, writing=False)) as overlays:
        paper = Paper(app.paths, app.settings, overlays, snapshot)
        scene = Scene(app.paths, app.settings, snapshot, paper, running=running, chosen=chosen, progress=tell)
        return examine(scene)


def named(app: App, patterns: Sequence[str]) -> frozenset[str]:
    """Ids that the patterns mean, of usable entries or not. Raises UsageError for one that is no node's."""
    from wwfast.errors import UsageError
    from wwfast.nodes import groups
    from wwfast.nodes.text.source import NODES

    chosen, lost = groups.meant(patterns, app.registry.snapshot().source.trees[NODES], app.registry.snapshot)
    if lost:
        raise UsageError(groups.unknown(lost), hint="wwfast node list")
    return frozenset(chosen)
