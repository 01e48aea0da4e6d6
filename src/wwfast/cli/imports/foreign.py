"""wwfast import FORMAT FILE: made once for every format of `wwfast.api.sources`."""

from __future__ import annotations

import functools
import sys
from typing import Any

import click

from wwfast.api.entries import count
from wwfast.api.importing import Import, images
from wwfast.api.service import Plan
from wwfast.api.sources import FORMATS, read
from wwfast.cli.completion import completer
from wwfast.cli.context import App, pass_app
from wwfast.cli.nodes.entries import Function, How, difference, text, write_options
from wwfast.cli.output import confirm, dump_json, table, warn
from wwfast.nodes.edit.change import leaves, spelled
from wwfast.nodes.foreign.common import legible
from wwfast.nodes.registry import uncollected
from wwfast.nodes.text.source import NODES

MOST = 60  # keys shown that are not carried over; --json has all


def options(function: Function) -> Function:
    """What every import takes beside its file and the options of commands that write."""
    made = click.option("-j", "--json", "as_json", is_flag=True, help="Print the report as JSON.")(function)
    made = click.option("--with-secrets", is_flag=True, help="Take passwords of BMCs and asset keys along.")(made)
    return click.option(
        "--profile",
        metavar="NAME",
        shell_complete=completer("profile"),
        help="The profile for what 80 % of the nodes have alike; one that is there stays as it is. [default: FORMAT]",
    )(made)


def mapping(function: Function) -> Function:
    return click.option(
        "--map",
        "mapping",
        multiple=True,
        metavar="KEY=FIELD",
        help="Which field a key is: a flag of `node set`, DEVICE.hwaddr, tag.NAME.",
    )(function)


@functools.cache
def command(name: str) -> click.Command:
    """The command of a format."""
    form = FORMATS[name]

    @click.command(name, epilog=f"Example: wwfast import {form.example} --dry-run")
    @click.argument("file", type=click.Path(allow_dash=True))
    @options
    @write_options
    @pass_app
    def run(
        app: App,
        file: str,
        profile: str | None,
        with_secrets: bool,
        as_json: bool,
        how: How,
        mapping: tuple[str, ...] = (),
    ) -> None:
        there = None if how.force else images(app.paths)
        with uncollected():
            job = Import(read(name, file, mapping), profile or name, there, with_secrets)
            written(app, job, f"import {name} {file}", how, as_json)

    run.help = f"{form.summary} FILE may be - for standard input{', or a directory' if form.files else ''}."
    return mapping(run) if form.mapped else run  # type: ignore[return-value]


def written(app: App, job: Import, why: str, how: How, as_json: bool) -> None:
    """Check, show, ask, write, tell."""
    if how.dry_run:
        plan = app.service.plan(job.edit, job.place)
        plan.accept(force=how.force, warn=warn)
        change = difference(plan.draft.source.data, plan.result.data, plan.result.name)
        if as_json:
            dump_json({**report(job, written=False), "change": change})
        else:
            sys.stdout.write(change)
            show(job)
        return

    def agree(_plan: Plan) -> bool:
        if not as_json:
            show(job)
        return confirm(f"Write {result(job)}?", how.yes)

    asked = None if how.yes else agree
    done = app.service.write(job.edit, why=why, warn=warn, force=how.force, place=job.place, agree=asked)
    changed = bool(done and done.changes())
    if as_json:
        dump_json(report(job, written=changed))
        return
    if how.yes or not job.new:
        show(job)
    if changed:
        click.echo(f"added {result(job)}; `wwfast undo` takes it back")
    elif done is not None:
        click.echo("no changes: all of them are there")


def result(job: Import) -> str:
    return count(len(job.new), NODES) + (f" and profile {job.profile}" if job.profile_is_new else "")


def show(job: Import) -> None:
    """The report for people."""
    there = f", {len(job.there)} of them in nodes.conf already" if job.there else ""
    click.echo(f"{count(len(job.found.hosts), NODES)}{there}")
    if job.members:
        kind = "new" if job.profile_is_new else "as it is"
        click.echo(f"profile {job.profile} ({kind}) for {count(job.members, NODES)}:")
        for path, value in leaves(job.shared).items():
            click.echo(f"  {spelled(path)}: {'********' if path[-1] == 'password' else text(value)}")
    rows = job.found.left.rows()
    if rows:
        table(
            ("NOT CARRIED OVER", "NODES", "FOR EXAMPLE", "WHY"),
            [(legible(each.key), each.hosts, legible(each.example), each.why) for each in rows[:MOST]],
        )
    if len(rows) > MOST:
        click.echo(f"and {len(rows) - MOST} keys more: --json has all")


def report(job: Import, *, written: bool) -> dict[str, Any]:
    """The report for programs."""
    return {
        "nodes": len(job.found.hosts),
        "new": job.new,
        "there": job.there,
        "profile": {
            "name": job.profile,
            "new": job.profile_is_new,
            "nodes": job.members,
            "values": {spelled(path): value for path, value in leaves(job.shared).items() if path[-1] != "password"},
        },
        "not carried over": [each._asdict() for each in job.found.left.rows()],
        "written": written,
    }
