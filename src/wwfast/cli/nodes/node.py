"""wwfast node ..."""

from __future__ import annotations

import click

from wwfast.cli.completion import completer
from wwfast.cli.context import App, pass_app
from wwfast.cli.groups import EntryGroup


@click.group(cls=EntryGroup, section="nodes", noun="node", epilog="Example: wwfast node list --net n[01-10]")
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
    app: App, /, patterns: tuple[str, ...], image: str, profile: str, cluster: str, tag: tuple[str, ...], **view: bool
) -> None:
    """List nodes, by hostlists (n[1-3]) and globs ('gpu*')."""
    from wwfast.cli.nodes import listing

    shape = "yaml" if view["as_yaml"] else "json" if view["as_json"] else "all" if view["everything"] else ""
    shape = shape or next((name for name in ("kernel", "ipmi", "net", "long") if view[name]), "short")
    wanted = listing.Filter(image or "", profile or "", cluster or "", tag)
    problems, lost = listing.print_nodes(app, shape, patterns, wanted)
    for problem in problems:
        click.echo(problem, err=True)
    if lost:
        from wwfast.errors import NotFoundError
        from wwfast.nodes import groups

        raise NotFoundError(groups.unknown(lost), hint="wwfast node list")


node.aliases["ls"] = "list"
node.add_lazy("status", "wwfast.cli.server.status:status", "Where each node stands in its boot.")
node.add_lazy("sensors", "wwfast.cli.bmc.power:sensors", "Show the sensors of nodes, by their BMCs.")
node.add_lazy("console", "wwfast.cli.bmc.power:console", "Connect the terminal to the serial console of nodes.")
