"""wwfast group list."""

from __future__ import annotations

import click

from wwfast.cli.context import App, pass_app
from wwfast.cli.groups import AliasGroup
from wwfast.cli.output import dump_json, table


@click.group(cls=AliasGroup, epilog="Example: wwfast group list rack1")
def group() -> None:
    """Groups of nodes, named as @GROUP wherever nodes are."""


@group.command("list", epilog="Example: wwfast group list -n gpu")
@click.argument("names", nargs=-1, metavar="[GROUP...]")
@click.option("-n", "--nodes", "only", is_flag=True, help="Only the names of the nodes, one in a line.")
@click.option("-j", "--json", "as_json", is_flag=True, help="As JSON.")
@pass_app
def list_(app: App, names: tuple[str, ...], only: bool, as_json: bool) -> None:
    """List groups and their nodes."""
    from wwfast.config import words
    from wwfast.errors import NotFoundError
    from wwfast.nodes import groups, hostlist

    known = groups.members(app.registry.snapshot())
    wanted = [name.removeprefix(groups.MARK) for name in words.names(names)]
    there, lost = words.matching(wanted, known)
    found = {name: known[name] for name in there}
    if as_json:
        dump_json(found)
    elif only:
        for name in dict.fromkeys(node for nodes in found.values() for node in nodes):
            click.echo(name)
    else:
        rows = [(name, str(len(nodes)), hostlist.compress(nodes)) for name, nodes in found.items()]
        table(("GROUP NAME", "COUNT", "NODES"), rows)
    if lost:
        raise NotFoundError(groups.unknown(lost, "group"), hint="wwfast group list")


group.aliases["ls"] = "list"
