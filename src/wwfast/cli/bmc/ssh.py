"""wwfast ssh: one command on many nodes."""

from __future__ import annotations

import click

from wwfast.cli.completion import completer
from wwfast.cli.context import App, pass_app
from wwfast.cli.numbers import Real, Whole


@click.command(
    epilog="Example: wwfast ssh 'n[01-40]' uptime",
    context_settings={"allow_interspersed_args": False},  # what follows the nodes belongs to the command
)
@click.argument("pattern", shell_complete=completer("node"))
@click.argument("command", nargs=-1, required=True, metavar="COMMAND...")
@click.option("-n", "--dryrun", is_flag=True, help="Print the commands, run none.")
@click.option("-f", "--fanout", type=Whole(1), default=32, show_default=True, help="Nodes at the same time.")
@click.option("-s", "--sleep", type=Real(0, 86_400), default=0, metavar="S", help="Seconds to wait after each node.")
@click.option("--rsh", default="/usr/bin/ssh", show_default=True, metavar="PATH", help="Program that reaches a node.")
@pass_app
def ssh(app: App, pattern: str, command: tuple[str, ...], dryrun: bool, fanout: int, sleep: float, rsh: str) -> int:
    """Run a command on nodes by ssh, at the address of their primary network device.

    PATTERN is one hostlist or glob, such as n[1-3],login; all further words are the command. Output is printed line by
    line after the name of its node, in the order of the nodes. Nothing is asked: a node that wants a password or has
    an unknown host key fails. Exit status 1 when any failed.
    """
    from wwfast.bmc import commands, runner
    from wwfast.cli.bmc import fanout as many

    words = commands.words(command)
    nodes, refused = many.chosen(app, [pattern])
    report = many.Report([node.id for node in nodes] + [outcome.node for outcome in refused], align=False)
    jobs, unable = many.jobs_for(nodes, lambda node: commands.remote(node, words, rsh))
    for outcome in refused + unable:
        report.fail(outcome)
    if dryrun:
        many.show(report, jobs)
        return report.end()
    for outcome in runner.fan_out(jobs, fanout=fanout, pause=sleep, package="openssh-client"):
        report.outcome(outcome)
    return report.end()
