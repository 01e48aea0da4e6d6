"""wwfast profile ..."""

from __future__ import annotations

import click

from wwfast.cli.completion import completer
from wwfast.cli.context import App, pass_app
from wwfast.cli.groups import EntryGroup


@click.group(
    cls=EntryGroup, section="nodeprofiles", noun="profile", epilog="Example: wwfast profile set default --image rocky9"
)
def profile() -> None:
    """Settings shared by many nodes."""


@profile.command("list", epilog="Example: wwfast profile list --all default")
@click.argument("names", nargs=-1, metavar="[NAME...]", shell_complete=completer("profile"))
@click.option("-a", "--all", "everything", is_flag=True, help="Every field.")
@click.option("-y", "--yaml", "as_yaml", is_flag=True, help="As YAML.")
@click.option("-j", "--json", "as_json", is_flag=True, help="As JSON.")
@pass_app
def list_(app: App, names: tuple[str, ...], everything: bool, as_yaml: bool, as_json: bool) -> None:
    """List profiles."""
    from wwfast.cli.nodes import listing, views
    from wwfast.config import words
    from wwfast.errors import NotFoundError
    from wwfast.nodes import groups
    from wwfast.nodes.text.source import PROFILES

    snapshot = app.registry.snapshot()
    there, lost = words.matching(words.names(names), snapshot.profiles)
    if as_yaml or as_json:
        entries = {name: snapshot.own(PROFILES, name) for name in there}
        (views.as_yaml if as_yaml else views.as_json)(entries)
    elif everything:
        views.profiles_all(snapshot, there)
    else:
        views.profiles(snapshot, there)
    for problem in listing.told(problem for problem in snapshot.found_problems() if problem.kind == ""):
        click.echo(problem, err=True)
    if lost:
        raise NotFoundError(groups.unknown(lost, "profile"), hint="wwfast profile list")


profile.aliases["ls"] = "list"
