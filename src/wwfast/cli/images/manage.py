"""wwfast image copy, adopt, rename, delete, verify, history, rollback."""

from __future__ import annotations

from typing import Any

import click

from wwfast.cli.context import App, pass_app
from wwfast.cli.images.common import build_one, cell, size_text, warn_stranded
from wwfast.cli.output import confirm, dump_json, table


@click.command(epilog="Example: wwfast image copy debian debian-test")
@click.argument("source")
@click.argument("name")
@click.option("-b", "--build", is_flag=True, help="Build the copy.")
@pass_app
def copy(app: App, source: str, name: str, build: bool) -> None:
    """Copy an image; on file systems that can, the data is shared."""
    from wwfast.images import manage, names

    manage.copy(app.paths, names.check(source), name)
    click.echo(f"copied {source} to {name}")
    if build:
        build_one(app, name)


@click.command(epilog="Example: wwfast image adopt --all")
@click.argument("names", nargs=-1)
@click.option("-a", "--all", "every", is_flag=True, help="All images of an existing Warewulf.")
@click.option("--move", is_flag=True, help="Take the tree itself, at once; Warewulf has it no more.")
@click.option("-b", "--build", is_flag=True, help="Build it afterwards.")
@pass_app
def adopt(app: App, names: tuple[str, ...], every: bool, move: bool, build: bool) -> None:
    """Make images of an existing Warewulf ours, under their names, so that they can be changed.

    Their trees are copied; on file systems that can, the data is shared. Nodes go on booting what they boot.
    """
    from wwfast.errors import UsageError
    from wwfast.images import manage
    from wwfast.images.store import ImageStore

    if bool(names) == every:
        raise UsageError("which images?", hint="name them, or give --all")
    store = ImageStore(app.paths)
    for name in names:  # all of them before the first is taken
        store.get(name)
    wanted = [image.name for image in store if not image.own] if every else dict.fromkeys(names)
    for name in wanted:
        made = manage.adopt(app.paths, name, move=move)
        click.echo(f"image {name} is ours: {made.rootfs.parent}")
        if build:
            build_one(app, name)
    if not wanted:
        click.echo("no image of an existing Warewulf is left")


@click.command(epilog="Example: wwfast image rename debian debian12")
@click.argument("old")
@click.argument("new")
@click.option("-b", "--build", is_flag=True, help="Build it afterwards.")
@pass_app
def rename(app: App, old: str, new: str, build: bool) -> None:
    """Rename an image, and in nodes.conf wherever it is named."""
    changed = app.service.rename_image(old, new)
    click.echo(f"renamed {old} to {new}" + (f"; {changed} nodes and profiles changed" if changed else ""))
    if build:
        build_one(app, new)


@click.command(epilog="Example: wwfast image delete old")
@click.argument("names", nargs=-1, required=True)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@pass_app
def delete(app: App, names: tuple[str, ...], yes: bool) -> None:
    """Remove images and their builds. Refused while a node or profile names one.

    One that was adopted may go at any time: that of Warewulf takes its place, and the builds stay.
    """
    names = tuple(dict.fromkeys(names))
    app.service.check_deletable_images(names)
    if confirm(f"Delete {', '.join(names)}?", yes):
        for name in names:
            app.service.delete_image(name)
            click.echo(f"deleted {name}")


@click.command(epilog="Example: wwfast image verify debian")
@click.argument("names", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@pass_app
def verify(app: App, names: tuple[str, ...], as_json: bool) -> None:
    """Read all that is served of images and compare it with its digests, then with the tree.

    Exit status 1 when something is damaged; a tree that changed since the build is only told of.
    """
    from wwfast.errors import WwfastError
    from wwfast.images.store import ImageStore

    store = ImageStore(app.paths)
    rows: list[dict[str, Any]] = []
    for name, made in [(name, store.get(name)) for name in names or store.names()]:
        wrong = made.build.damage() if made.build else None
        compared = made.build is not None and not wrong and not made.pinned
        differences = made.build.differences(made.rootfs) if made.build and compared else []
        build = made.build.id if made.build else None
        rows.append({"name": name, "build": build, "damage": wrong, "differences": differences})
        if not as_json:
            click.echo(f"{name}: {wrong or ('whole' if build else 'not built')}")
            for line in differences:
                click.echo(f"{name}: {line}")
    if as_json:
        dump_json(rows)
    if broken := [row["name"] for row in rows if row["damage"]]:
        raise WwfastError(
            f"not as built: {', '.join(broken)}", hint=f"build again: wwfast image build --full {' '.join(broken)}"
        )


@click.command(epilog="Example: wwfast image history debian")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@pass_app
def history(app: App, name: str, as_json: bool) -> None:
    """List the builds kept of an image, the newest first."""
    from wwfast.images import names
    from wwfast.images.kernels import detect
    from wwfast.images.store import ImageStore, current_id
    from wwfast.nodes import uses

    store = ImageStore(app.paths)
    store.get(names.check(name))
    current = current_id(app.paths, name)
    used = uses.of_images(app.registry.snapshot())
    rows: list[dict[str, Any]] = []
    for made in reversed(store.builds(name)):
        kernel = detect.default(made.kernels)
        nodes = used.get(f"{name}@{made.id}", []) + (used.get(name, []) if made.id == current else [])
        rows.append(
            {
                "build": made.id,
                "built": made.info.created,
                "kernel": (kernel.release or kernel.version) if kernel else "",
                "size": min(made.info.sizes.values(), default=0),
                "served": made.id == current,
                "nodes": len(nodes),
            }
        )
    if as_json:
        dump_json(rows)
        return
    titles = ["BUILD", "CREATION TIME", "KERNEL VERSION", "SIZE", "SERVED", "NODES"]
    table(
        titles,
        [
            [r["build"], cell(r, "built"), r["kernel"], size_text(r["size"]), "*" if r["served"] else "", r["nodes"]]
            for r in rows
        ],
    )


@click.command(epilog="Example: wwfast image rollback debian")
@click.argument("name")
@click.argument("build", required=False)
@pass_app
def rollback(app: App, name: str, build: str | None) -> None:
    """Serve the build before the current one again, or the one named; nodes get it from the next boot on."""
    from wwfast.images import building

    made = building.rollback(app.paths, name, build)
    click.echo(f"{name}: build {made.id} is served now")
    warn_stranded(app, name)


COMMANDS = (copy, adopt, rename, delete, verify, history, rollback)
