"""wwfast image: import, build, look at, change and remove operating system images."""

from __future__ import annotations

from typing import Any

import click

from wwfast.cli.context import App, pass_app
from wwfast.cli.output import confirm, dump_json, table


@click.group(epilog="Example: wwfast image import docker://docker.io/library/debian:12 debian")
def image() -> None:
    """Operating system images of the nodes."""


def size_text(count: int | None) -> str:
    """1024-based, one decimal: `1.4 GiB`."""
    if count is None:
        return "--"
    value, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"


def references(app: App) -> dict[str, list[str]]:
    """Which nodes name which image (`NAME` or `NAME@BUILD`), resolved."""
    found: dict[str, list[str]] = {}
    for node in app.registry.snapshot().nodes.values():
        if node.image_name:
            found.setdefault(node.image_name, []).append(node.id)
    return found


def users(app: App, name: str) -> list[str]:
    """Nodes that use an image, in any of its builds."""
    return [node for ref, nodes in references(app).items() if ref.partition("@")[0] == name for node in nodes]


@image.command("import", epilog="Example: wwfast image import /srv/rocky9.tar.gz rocky9")
@click.argument("source")
@click.argument("name", required=False)
@click.option("-f", "--force", is_flag=True, help="Replace an image of that name once the new one is complete.")
@click.option("-u", "--update", is_flag=True, help="Unpack over what the image holds now.")
@click.option("-b", "--build", is_flag=True, help="Build it afterwards.")
@pass_app
def import_(app: App, source: str, name: str | None, force: bool, update: bool, build: bool) -> None:
    """Make an image from SOURCE: a directory or a tar archive of a root file system."""
    from wwfast.images.importing import Options, default_name, import_image

    made = import_image(app.paths, source, name or default_name(source), Options(), force=force, update=update)
    click.echo(f"imported {made.name}")
    if build:
        build_one(app, made.name, force=False)


@image.command(epilog="Example: wwfast image build debian")
@click.argument("names", nargs=-1)
@click.option("-a", "--all", "every", is_flag=True, help="All images.")
@click.option("-f", "--force", is_flag=True, help="Compress everything anew, also what did not change.")
@click.option("--format", "formats", multiple=True, type=click.Choice(["zst", "gz", "raw"]), help="Formats to make.")
@pass_app
def build(app: App, names: tuple[str, ...], every: bool, force: bool, formats: tuple[str, ...]) -> None:
    """Pack images for the nodes. The one served is replaced when the new one is complete."""
    from wwfast.errors import UsageError
    from wwfast.images.store import ImageStore

    if bool(names) == every:
        raise UsageError("name the images to build, or use --all", hint="wwfast image list")
    for name in ImageStore(app.paths).names() if every else names:
        build_one(app, name, force=force, formats=formats)


def build_one(app: App, name: str, *, force: bool, formats: tuple[str, ...] = ()) -> None:
    import time

    from wwfast.images import publish

    begun = time.monotonic()
    pinned = publish.in_use_of(name, references(app).keys())
    made, changed = publish.build(app.paths, name, formats=formats, force=force, in_use=pinned)
    if not changed:
        click.echo(f"{name}: nothing changed since build {made.id}")
        return
    sizes = ", ".join(
        f"{fmt} {size_text(artefact.size)}" for fmt in ("raw", "zst", "gz") if (artefact := made.artefact(fmt))
    )
    click.echo(f"{name}: build {made.id} in {time.monotonic() - begun:.1f} s, {sizes}")


@image.command("list", epilog="Example: wwfast image list --long")
@click.argument("names", nargs=-1)
@click.option("-l", "--long", is_flag=True, help="Kernel, times and size as well.")
@click.option("-k", "--kernel", is_flag=True, help="The default kernel of each.")
@click.option("-s", "--size", is_flag=True, help="What a node downloads.")
@click.option("-c", "--chroot", is_flag=True, help="As --size.")
@click.option("--compressed", is_flag=True, help="As --size.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@pass_app
def list_(
    app: App,
    names: tuple[str, ...],
    long: bool,
    kernel: bool,
    size: bool,
    chroot: bool,
    compressed: bool,
    as_json: bool,
) -> None:
    """List the images."""
    from wwfast.images.store import ImageStore

    store = ImageStore(app.paths)
    wanted = [name for name in store.names() if not names or name in names]
    if not (long or kernel or size or chroot or compressed or as_json):
        table(["IMAGE NAME"], [[name] for name in wanted])
        return
    rows = [facts(app, store.get(name)) for name in wanted]
    if as_json:
        dump_json(rows)
    elif long:
        titles = ["IMAGE NAME", "NODES", "KERNEL VERSION", "CREATION TIME", "MODIFICATION TIME", "SIZE"]
        keys = ["name", "nodes", "kernel", "created", "built", "size"]
        table(titles, [[cell(row, key) for key in keys] for row in rows])
    elif kernel:
        table(["IMAGE NAME", "NODES", "KERNEL VERSION"], [[r["name"], r["nodes"], r["kernel"]] for r in rows])
    else:
        table(["IMAGE NAME", "NODES", "SIZE"], [[r["name"], r["nodes"], size_text(r["size"])] for r in rows])


def facts(app: App, made: Any) -> dict[str, Any]:
    """One image for list and show: counts, times as Unix seconds, sizes in bytes."""
    default = made.default_kernel()
    artefact = made.artefact(made.boot_format)
    return {
        "name": made.name,
        "nodes": len(users(app, made.name)),
        "kernel": (default.release or default.version) if default else "",
        "arch": made.arch,
        "created": int(made.rootfs.parent.stat().st_mtime),
        "built": made.build.info.created if made.build else None,
        "build": made.build.id if made.build else None,
        "format": made.boot_format,
        "size": artefact.size if artefact else 0,
        "writable": not made.readonly,
        "rootfs": str(made.rootfs),
    }


def cell(row: dict[str, Any], key: str) -> str:
    import time

    value = row[key]
    if key in ("created", "built"):
        return time.strftime("%d %b %y %H:%M %Z", time.localtime(value)) if value else ""
    return size_text(value) if key == "size" else str(value)


@image.command(epilog="Example: wwfast image show --all debian")
@click.argument("name")
@click.option("-a", "--all", "everything", is_flag=True, help="Kernel, sizes, nodes.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@pass_app
def show(app: App, name: str, everything: bool, as_json: bool) -> None:
    """Show where the tree of an image is, or all there is to know."""
    from wwfast.images.store import ImageStore

    made = ImageStore(app.paths).get(name)
    if not (everything or as_json):
        click.echo(made.rootfs)
        return
    row = facts(app, made)
    row["nodes"] = users(app, made.name)
    row["min_ram"] = made.min_ram
    if as_json:
        dump_json(row)
        return
    for key, value in row.items():
        if key == "nodes":
            value = f"{len(value)}  {', '.join(value)}"
        elif key in ("size", "min_ram"):
            value = size_text(value)
        elif key in ("created", "built"):
            value = cell(row, key)
        click.echo(f"{key + ':':<10} {'--' if value in (None, '') else value}")


@image.command(epilog="Example: wwfast image kernels debian")
@click.argument("names", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@pass_app
def kernels(app: App, names: tuple[str, ...], as_json: bool) -> None:
    """List the kernels that images hold, and which one a node gets."""
    from wwfast.images.store import ImageStore

    store = ImageStore(app.paths)
    rows = []
    for name in names or store.names():
        made = store.get(name)
        default = made.default_kernel()
        count = len(users(app, made.name))
        rows += [
            {"image": name, "kernel": k.path, "version": k.version, "default": k == default, "nodes": count}
            for k in made.kernels()
        ]
    if as_json:
        dump_json(rows)
    else:
        table(["Image", "Kernel", "Version", "Default", "Nodes"], [list(map(text, row.values())) for row in rows])


def text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@image.command(epilog="Example: wwfast image delete old")
@click.argument("names", nargs=-1, required=True)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@pass_app
def delete(app: App, names: tuple[str, ...], yes: bool) -> None:
    """Remove images and their builds. Refused while a node or profile names one."""
    from wwfast.images import manage
    from wwfast.images.store import ImageStore

    store = ImageStore(app.paths)
    for name in names:
        store.get(name)
    if confirm(f"Delete {', '.join(names)}?", yes):
        for name in names:
            manage.delete(app.paths, name, used_by=owners(app, name))
            click.echo(f"deleted {name}")


def owners(app: App, name: str) -> list[str]:
    """Nodes and profiles that name an image."""
    profiles = app.registry.snapshot().profiles
    named = [f"profile {key}" for key, profile in profiles.items() if profile.image_name.partition("@")[0] == name]
    return named + users(app, name)
