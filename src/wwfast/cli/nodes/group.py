"""wwfast group list."""

from __future__ import annotations

import click

from wwfast.cli.context import App, pass_app
from wwfast.cli.groups import AliasGroup
from wwfast.cli.output import dump_json, table, warn


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
    from wwfast.nodes import groups, hostlist

    known = groups.members(app.registry.snapshot())
    wanted = [name.removeprefix(groups.MARK) for word in names for name in word.split(",") if name]
    for name in wanted:
        if name not in known:
            warn(f"no group '{name}'")
    found = {name: nodes for name, nodes in known.items() if not wanted or name in wanted}
    if as_json:
        dump_json(found)
    elif only:
        for name in dict.fromkeys(node for nodes in found.values() for node in nodes):
            click.echo(name)
    else:
        rows = [(name, str(len(nodes)), hostlist.compress(nodes)) for name, nodes in found.items()]
        table(("GROUP NAME", "COUNT", "NODES"), rows)


group.aliases["ls"] = "list"
