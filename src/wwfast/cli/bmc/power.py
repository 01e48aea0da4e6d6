"""wwfast power ..., node sensors, node console: what a node's BMC does for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from wwfast.cli.completion import completer
from wwfast.cli.context import App, pass_app
from wwfast.cli.groups import AliasGroup
from wwfast.cli.numbers import Whole

Function = Callable[..., Any]

FANOUT = 50
# Seconds one ipmitool may take. It gives up on a silent BMC after ten; some BMCs list sensors for a minute.
PATIENCE, SENSORS = 30, 180
PACKAGE = "ipmitool"
ASKED = {"off": "Power off", "cycle": "Power-cycle", "reset": "Reset", "soft": "Shut down"}
SUMMARY = {
    "on": "Power nodes on.",
    "off": "Power nodes off at once.",
    "cycle": "Power nodes off and on again.",
    "reset": "Reset nodes without switching them off.",
    "soft": "Ask the system of nodes to shut down (ACPI).",
}


@click.group(cls=AliasGroup, epilog="Example: wwfast power status 'n[01-40]'")
def power() -> None:
    """Power of the nodes, by their BMCs (IPMI).

    ipmitool is run for each node with the ipmi fields of nodes.conf; a BMC that has not answered after 30 s is given up
    and holds up no other. A node without a password takes IPMITOOL_PASSWORD of the environment. What ends the work of
    more than one node is asked for first.
    """


def options(function: Function) -> Function:
    function = click.option(
        "--fanout", type=Whole(1), default=FANOUT, show_default=True, help="BMCs asked at the same time."
    )(function)
    function = click.option("-s", "--show", is_flag=True, help="Print the commands, run none.")(function)
    return argument(function)


argument = click.argument("patterns", nargs=-1, required=True, metavar="PATTERN...", shell_complete=completer("node"))


def command(action: str) -> click.Command:
    """The command of an action that changes something."""

    @click.command(action, epilog=f"Example: wwfast power {action} 'n[01-10]'", help=SUMMARY[action])
    @options
    @click.option("-y", "--yes", is_flag=True, help="Do not ask.")
    @pass_app
    def run(app: App, patterns: tuple[str, ...], show: bool, fanout: int, yes: bool) -> int:
        return act(app, patterns, action, fanout=fanout, show=show, yes=yes)

    return run


for _action in SUMMARY:
    power.add(command(_action))


@power.command("status", epilog="Example: wwfast power status 'n[01-10]' --json")
@options
@click.option("-j", "--json", "as_json", is_flag=True, help="As JSON: power (on, off, null), output, error.")
@pass_app
def status(app: App, patterns: tuple[str, ...], show: bool, fanout: int, as_json: bool) -> int:
    """Show whether nodes are powered."""
    return act(app, patterns, "status", fanout=fanout, show=show, as_json=as_json)


@click.command("sensors", epilog="Example: wwfast node sensors n1 --full")
@options
@click.option("-F", "--full", is_flag=True, help="With thresholds.")
@pass_app
def sensors(app: App, patterns: tuple[str, ...], show: bool, fanout: int, full: bool) -> int:
    """Show the sensors of nodes, by their BMCs; each has 180 s."""
    return act(app, patterns, "sensors full" if full else "sensors", fanout=fanout, show=show, timeout=SENSORS)


@click.command("console", epilog="Example: wwfast node console n1")
@argument
@click.option("-s", "--show", is_flag=True, help="Print the commands, run none.")
@pass_app
def console(app: App, patterns: tuple[str, ...], show: bool) -> int:
    """Connect the terminal to the serial console of nodes, one after the other; `~.` leaves it."""
    from wwfast.bmc import commands, runner
    from wwfast.cli.bmc import fanout

    nodes, refused = fanout.chosen(app, patterns)
    report = fanout.Report([node.id for node in nodes] + [outcome.node for outcome in refused])
    jobs, unable = fanout.jobs_for(nodes, lambda node: commands.bmc(node, "console"))
    for outcome in refused + unable:
        report.fail(outcome)
    if show:
        fanout.show(report, jobs)
        return report.end()
    for job in jobs:
        click.echo(f"{job.node}: console", err=True)
        report.outcome(runner.attached(job, PACKAGE))
    return report.end()


def act(
    app: App,
    patterns: tuple[str, ...],
    action: str,
    *,
    fanout: int,
    show: bool,
    yes: bool = False,
    as_json: bool = False,
    timeout: float = PATIENCE,
) -> int:
    """Choose nodes, ask, run, tell; the exit status."""
    from wwfast.bmc import commands, runner
    from wwfast.cli.bmc import fanout as many
    from wwfast.cli.output import confirm, dump_json
    from wwfast.nodes import hostlist

    nodes, refused = many.chosen(app, patterns)
    report = many.Report([node.id for node in nodes] + [outcome.node for outcome in refused])
    jobs, unable = many.jobs_for(nodes, lambda node: commands.bmc(node, action))
    for outcome in refused + unable:
        report.fail(outcome)
    if show:
        many.show(report, jobs)
        return report.end()
    if action in ASKED and len(jobs) > 1:
        names = hostlist.compress(job.node for job in jobs)
        if not confirm(f"{ASKED[action]} {len(jobs)} nodes: {names}?", yes):
            return report.end()
    outcomes = runner.fan_out(jobs, fanout=fanout, timeout=timeout, package=PACKAGE)
    if not as_json:
        for outcome in outcomes:
            report.outcome(outcome)
        return report.end()
    done = list(outcomes)
    report.failed += [outcome.node for outcome in done if outcome.reason]
    dump_json(
        {
            outcome.node: {
                "power": powered(outcome.out),
                "output": outcome.out.strip(),
                "error": "\n".join(filter(None, (outcome.err.strip(), outcome.reason))),
            }
            for outcome in [*done, *refused, *unable]
        }
    )
    return report.end()


def powered(text: str) -> str | None:
    """`on` or `off` of ipmitool's `Chassis Power is on`; None for anything else."""
    word = text.strip().rpartition(" ")[2]
    return word if word in ("on", "off") else None
