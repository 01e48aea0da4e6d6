"""wwfast node ..."""

from __future__ import annotations

from typing import Any

import click

from wwfast.cli.context import App, pass_app
from wwfast.cli.edits import register
from wwfast.cli.fields import completer
from wwfast.cli.groups import AliasGroup
from wwfast.nodes.source import NODES


@click.group(cls=AliasGroup, epilog="Example: wwfast node list --net n[01-10]")
def node() -> None:
    """Nodes of the cluster."""


@node.command("list", epilog="Example: wwfast node list --all n[01-10]  |  wwfast node list --image rocky9 'gpu*'")
@click.argument("patterns", nargs=-1, metavar="[PATTERN...]", shell_complete=completer("node"))
@click.option("-n", "--net", is_flag=True, help="Network devices.")
@click.option("-i", "--ipmi", is_flag=True, help="BMC addresses.")
@click.option("-k", "--kernel", is_flag=True, help="Kernels and their arguments.")
@click.option("-l", "--long", is_flag=True, help="Kernel version, image and overlays.")
@click.option("-a", "--all", "everything", is_flag=True, help="Every value and where it comes from.")
@click.option("-y", "--yaml", "as_yaml", is_flag=True, help="Effective nodes as YAML.")
@click.option("-j", "--json", "as_json", is_flag=True, help="Effective nodes as JSON.")
@click.option("--image", metavar="NAME", shell_complete=completer("image"), help="Only nodes with this image.")
@click.option("--profile", metavar="NAME", shell_complete=completer("profile"), help="Only nodes with this profile.")
@click.option("--cluster", metavar="NAME", help="Only nodes of this cluster.")
@click.option("--tag", metavar="KEY[=VALUE]", multiple=True, help="Only nodes with this tag; may repeat.")
@pass_app
def list_(
    app: App, /, patterns: tuple[str, ...], image: str, profile: str, cluster: str, tag: Any, **view: bool
) -> None:
    """List nodes, by hostlists (n[1-3]) and globs ('gpu*')."""
    from wwfast.cli import views

    snapshot = app.registry.snapshot()
    nodes = views.select(snapshot, patterns)
    tags = [word.partition("=") for word in tag]
    if image or profile or cluster or tags:
        nodes = [
            each
            for each in nodes
            if (not image or each.image_name == image)
            and (not profile or profile in snapshot.chain(each.id))
            and (not cluster or each.cluster_name == cluster)
            and all(key in each.tags and (not equals or each.tags[key] == value) for key, equals, value in tags)
        ]
    if view["as_yaml"] or view["as_json"]:
        entries = {each.id: views.plain(each) for each in nodes}
        (views.as_yaml if view["as_yaml"] else views.as_json)(entries)
    elif view["everything"]:
        views.everything(snapshot, nodes)
    else:
        name = next((name for name in ("kernel", "ipmi", "net", "long") if view[name]), "short")
        getattr(views, name)(nodes)
    for problem in snapshot.found_problems():
        if not patterns or problem.kind == "profile" or problem.id in patterns:
            click.echo(f"{'error' if problem.fatal else 'warning'}: {problem}", err=True)


node.aliases["ls"] = "list"
register(node, NODES)
node.add_lazy("status", "wwfast.cli.status:status", "Where each node stands in its boot.")
