"""wwfast kernel: kernels kept apart from images."""

from __future__ import annotations

from typing import Any

import click

from wwfast.cli.context import App, pass_app
from wwfast.cli.groups import AliasGroup
from wwfast.cli.output import confirm, dump_json, table


@click.group(cls=AliasGroup, epilog="Example: wwfast kernel import debian lts")
def kernel() -> None:
    """Kernels kept apart from images, for nodes with `kernel: override`."""


@kernel.command("import", epilog="Example: wwfast kernel import rocky9 rt --version 5.14.0-570")
@click.argument("source")
@click.argument("name")
@click.option("--version", default="", help="Only the newest kernel whose version begins so, or one path.")
@click.option("-f", "--force", is_flag=True, help="Replace a kernel of that name once the new one is complete.")
@click.option("--strip-debug", is_flag=True, help="Take debugging symbols out of the modules.")
@pass_app
def import_(app: App, source: str, name: str, version: str, force: bool, strip_debug: bool) -> None:
    """Take the kernels of SOURCE, an image or a directory, with their modules and firmware."""
    entry = app.service.import_kernel(source, name, version=version, force=force, strip=strip_debug)
    found = ", ".join(k.release or k.version for k in entry.found)
    click.echo(f"imported {name}: {found}")


@kernel.command("list", epilog="Example: wwfast kernel list")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@pass_app
def list_(app: App, as_json: bool) -> None:
    """List the kernels that were imported."""
    from wwfast.cli.images.common import size_text, text
    from wwfast.images.kernels import detect
    from wwfast.images.kernels.store import KernelStore

    rows: list[dict[str, Any]] = []
    for entry in KernelStore(app.paths):
        default = detect.default(entry.found)
        count = len(app.service.kernel_users(entry.name))
        rows += [
            {
                "kernel": entry.name,
                "version": k.release or k.version,
                "default": k == default,
                "nodes": count,
                "size": entry.size,
            }
            for k in entry.found
        ]
    if as_json:
        dump_json(rows)
        return
    titles = ["KERNEL", "VERSION", "DEFAULT", "NODES", "SIZE"]
    table(titles, [[*map(text, list(row.values())[:-1]), size_text(row["size"])] for row in rows])


@kernel.command(epilog="Example: wwfast kernel delete old")
@click.argument("names", nargs=-1, required=True)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@pass_app
def delete(app: App, names: tuple[str, ...], yes: bool) -> None:
    """Remove kernels. Refused while a node or profile names one."""
    from wwfast.images.kernels.store import KernelStore

    store = KernelStore(app.paths)
    for name in names:
        store.get(name)
    if confirm(f"Delete {', '.join(names)}?", yes):
        for name in names:
            store.delete(name, app.service.kernel_users(name))
            click.echo(f"deleted {name}")


kernel.aliases |= {"ls": "list", "rm": "delete", "remove": "delete", "del": "delete"}
