"""wwfast import warewulf: the files of a Warewulf 4 become ours, after a plan, by steps that can be taken back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wwfast.cli.context import App, pass_app
from wwfast.cli.output import confirm, dump_json, progress, warn

if TYPE_CHECKING:
    from wwfast.api.adopting import Adoption, Plan, Step
    from wwfast.api.built import Compared
    from wwfast.api.site import Finding

FOLDER = click.Path(path_type=Path, file_okay=False, exists=True)
SHOWN = 20  # lines of one difference


@click.command(epilog="Example: wwfast import warewulf --dry-run")
@click.option(
    "--from", "source", type=FOLDER, metavar="DIR", help="Root of the site's files; this server's without it."
)
@click.option(
    "--built", type=FOLDER, metavar="DIR", help="Compare with what Warewulf built of its overlays (its provision/)."
)
@click.option("-n", "--dry-run", is_flag=True, help="Print the plan; do nothing.")
@click.option("--json", "as_json", is_flag=True, help="For programs; does nothing without --yes.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@pass_app
def warewulf(app: App, source: Path | None, built: Path | None, dry_run: bool, as_json: bool, yes: bool) -> None:
    """Take over the files of a Warewulf 4.3 to 4.7: look at them, say what differs and what is left to do, and do it.

    Every step is said with the command that takes it back; asked again, nothing is left to do. Nothing of Warewulf's
    own is changed but warewulf.conf and nodes.conf, where they are of a version before 4.6.
    """
    from wwfast.api.adopting import Adoption

    adoption = Adoption(app.given, source or app.given.root)
    plan = adoption.plan()
    compared = beside(adoption, built) if built is not None and not plan.faults else None
    done: list[str] = []
    if not as_json:
        show(plan)
        show_compared(compared)
    try:
        plan.accept()
        wanted = bool(plan.steps) and not dry_run
        if wanted and (yes if as_json else confirm(f"Do these {len(plan.steps)} steps?", yes)):
            for step in plan.steps:
                for line in step.run():
                    warn(line)
                done.append(step.name)
                if not as_json:
                    click.echo("\n".join([f"done: {step.name}: {step.does}", *back(step)]))
    finally:
        if as_json:
            dump_json(described(plan, compared, len(done)))


def beside(adoption: Adoption, place: Path) -> Compared:
    from wwfast.api import built

    site = adoption.site
    with progress("comparing overlays") as tell:
        return built.compare(site.paths, site.settings, site.snapshot, place, tell)


def show(plan: Plan) -> None:
    said = "before 4.6", "4.6 or later"
    versions = [said[not text.former] for text in (plan.site.conf, plan.site.nodes)]
    if not plan.faults:
        click.echo(f"Warewulf below {plan.site.root}: warewulf.conf of {versions[0]}, nodes.conf of {versions[1]}")
        if versions[0] != versions[1]:
            click.echo("Their versions differ; each is read as what it is.")
    section("The same", plan.same)
    for title, findings in (("Differs", plan.differs), ("Left to do", plan.todo)):
        section(title, [line for each in findings for line in told(each)])
    steps = [[f"{at}. {each.name}: {each.does}", *back(each)] for at, each in enumerate(plan.steps, 1)]
    section("Steps", [line for each in steps for line in each])
    if not plan.faults and not plan.steps:
        click.echo("\nThere is nothing for this command to do.")


def section(title: str, lines: list[str]) -> None:
    if lines:
        click.echo("\n".join([f"\n{title}", *(f"  {line}" for line in lines)]))


def told(finding: Finding) -> list[str]:
    lines = [f"{finding.what}: {finding.why}"]
    if finding.fix:
        lines.append(f"    {finding.fix}")
    return [*lines, *back(finding)]


def back(each: Finding | Step) -> list[str]:
    """How it is taken back, where that has a command."""
    return [f"    back: {each.undo}"] if each.undo else []


def show_compared(compared: Compared | None) -> None:
    from wwfast.cli.overlays.compare import lines
    from wwfast.nodes import hostlist

    if compared is None:
        return
    found = []
    for each in compared.differences:
        number = len(each.nodes)
        found.append(
            f"{each.context}: /{each.path}: {each.what}, on {number} node{'s' * (number > 1)}: {each.nodes[0]}"
        )
        if each.before is not None and each.after is not None:
            changed = list(lines(each.before, each.after, "Warewulf", "wwfast"))
            found += [f"    {line}" for line in changed[:SHOWN]]
            found += [f"    and {len(changed) - SHOWN} lines more"] * (len(changed) > SHOWN)
    section("Files of nodes that differ", found or ["none"])
    section("Not compared", [f"{hostlist.compress(nodes)}, {why}" for why, nodes in compared.failed.items()])


def described(plan: Plan, compared: Compared | None, done: int) -> dict[str, Any]:
    site = plan.site
    made: dict[str, Any] = {
        "site": str(site.root),
        "before 4.6": [text.path.name for text in (site.conf, site.nodes) if text.former],
        "faults": [each._asdict() for each in plan.faults],
        "same": plan.same,
        "differs": [each._asdict() for each in plan.differs],
        "to do": [each._asdict() for each in plan.todo],
        "steps": [
            {"step": each.name, "does": each.does, "undo": each.undo, "done": at < done}
            for at, each in enumerate(plan.steps)
        ],
    }
    if compared is not None:
        made["built"] = {
            "differences": [
                {"context": each.context, "path": f"/{each.path}", "what": each.what, "nodes": each.nodes}
                for each in compared.differences
            ],
            "not compared": [{"why": why, "nodes": nodes} for why, nodes in compared.failed.items()],
        }
    return made
