"""What the commands that reach many nodes share: choosing them, asking, and telling node by node."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence

import click

from wwfast.bmc.commands import Job
from wwfast.bmc.runner import Outcome
from wwfast.cli.context import App
from wwfast.cli.nodes.views import select, unusable
from wwfast.errors import NotFoundError, WwfastError
from wwfast.nodes import groups, hostlist
from wwfast.nodes.model import Node


class Report:
    """Prints outcomes and counts the failures; output to stdout, why something failed to stderr."""

    def __init__(self, names: Iterable[str], *, align: bool = True) -> None:
        self.all = list(names)
        self.width = max((len(name) for name in self.all), default=0) + 1 if align else 0
        self.failed: list[str] = []

    def line(self, node: str, text: str, err: bool = False) -> None:
        click.echo(f"{node + ':':<{self.width}} {text}".rstrip(), err=err)

    def outcome(self, outcome: Outcome) -> None:
        for line in outcome.out.splitlines():
            self.line(outcome.node, line)
        for line in outcome.err.splitlines():
            self.line(outcome.node, line, err=True)
        if outcome.reason:
            self.fail(outcome)

    def fail(self, outcome: Outcome) -> None:
        self.failed.append(outcome.node)
        self.line(outcome.node, f"error: {outcome.reason}", err=True)
        if outcome.hint:
            self.line(outcome.node, f"hint: {outcome.hint}", err=True)

    def end(self) -> int:
        """The exit status, after a line that says how many failed."""
        if not self.failed:
            return 0
        names = hostlist.compress(dict.fromkeys(self.failed))
        click.echo(f"error: failed on {len(self.failed)} of {len(self.all)} nodes: {names}", err=True)
        return 1


def chosen(app: App, patterns: Sequence[str]) -> tuple[list[Node], list[Outcome]]:
    """Nodes by hostlists and globs in the order of the registry, and the names that are no usable node.

    Raises NotFoundError when no node is meant at all.
    """
    snapshot = app.registry.snapshot()
    nodes, lost = select(snapshot, patterns)
    wrong: dict[str, str] = {}
    for problem in unusable(snapshot, patterns):
        wrong.setdefault(problem.id, problem.message)
    if not nodes and not wrong:
        raise NotFoundError(groups.unknown(lost or patterns), hint="wwfast node list")
    return nodes, [Outcome(name, reason="no node of that name") for name in lost] + [
        Outcome(name, reason=reason) for name, reason in wrong.items()
    ]


def jobs_for(nodes: Iterable[Node], make: Callable[[Node], Job]) -> tuple[list[Job], list[Outcome]]:
    """The jobs of the nodes that can have one, and why the others cannot."""
    jobs: list[Job] = []
    refused: list[Outcome] = []
    for node in nodes:
        try:
            jobs.append(make(node))
        except WwfastError as error:
            refused.append(Outcome(node.id, reason=error.message, hint=error.hint or ""))
    return jobs, refused


def show(report: Report, jobs: Iterable[Job]) -> None:
    """Print the commands instead of running them; secrets are not among their words."""
    for job in jobs:
        report.line(job.node, shlex.join(job.argv))
