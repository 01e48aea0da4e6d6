"""wwfast image: import, build and look at operating system images."""

from __future__ import annotations

import click
from click.core import ParameterSource

from wwfast.cli.context import App, pass_app
from wwfast.cli.groups import AliasGroup
from wwfast.cli.images import inside, manage
from wwfast.cli.images.common import SIZES, build_one, cell, facts, progress, size_text, text, way_text, ways_of
from wwfast.cli.numbers import Whole
from wwfast.cli.output import dump_json, table


@click.group(cls=AliasGroup, epilog="Example: wwfast image import docker://docker.io/library/debian:12 debian")
def image() -> None:
    """Operating system images of the nodes."""


@image.command("import", epilog="Example: wwfast image import docker://docker.io/library/debian:12 debian")
@click.argument("source")
@click.argument("name", required=False)
@click.option("-f", "--force", is_flag=True, help="Replace an image of that name once the new one is complete.")
@click.option("-u", "--update", is_flag=True, help="Unpack over what the image holds now.")
@click.option("-b", "--build", is_flag=True, help="Build it afterwards.")
@click.option("--syncuser", is_flag=True, help="Bring this server's users and groups into it.")
@click.option("--platform", "--arch", envvar="WAREWULF_OCI_PLATFORM", default="", help="Such as arm64 or linux/arm64.")
@click.option("--username", envvar="WAREWULF_OCI_USERNAME", default="", help="User at the registry.")
@click.option(
    "--password", "--passwd", envvar="WAREWULF_OCI_PASSWORD", default="", help="Seen by all: better by stdin."
)
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.option("--nohttps", is_flag=True, envvar="WAREWULF_OCI_NOHTTPS", help="Accept a registry without valid TLS.")
@pass_app
def import_(
    app: App,
    source: str,
    name: str | None,
    force: bool,
    update: bool,
    build: bool,
    syncuser: bool,
    platform: str,
    username: str,
    password: str,
    password_stdin: bool,
    nohttps: bool,
) -> None:
    """Make an image from SOURCE.

    SOURCE is docker://REGISTRY/NAME:TAG (or @DIGEST), oci:DIR[:NAME], a tar archive of a container image or of a root
    file system (plain, gz, zstd, xz, bz2), docker-archive:FILE:NAME for one image of several in an archive, a
    directory, or debian:SUITE.
    """
    import sys

    from wwfast.archive.limits import Limits
    from wwfast.errors import UsageError
    from wwfast.images.sources.importing import default_name, import_image, unused
    from wwfast.images.sources.options import Options

    context = click.get_current_context()
    asked = [name for name in context.params if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    if idle := unused(source, asked):
        raise UsageError(f"{source} has no use for --{idle[0].replace('_', '-')}", hint="it is for docker://")
    if password_stdin:
        password = sys.stdin.readline().rstrip("\n")
    if bool(username) != bool(password):
        raise UsageError("give both a user name and a password", hint="--username NAME --password-stdin")
    with progress() as shown:
        options = Options(platform, username, password, nohttps, progress=shown, limits=Limits.of(app.settings.wwfast))
        made = import_image(app.paths, source, name or default_name(source), options, force=force, update=update)
    click.echo(f"imported {made.name}")
    if syncuser:
        from wwfast.images.inside import users as accounts

        accounts.sync(app.paths, made.name)
    if build:
        build_one(app, made.name)


@image.command(epilog="Example: wwfast image build debian")
@click.argument("names", nargs=-1)
@click.option("-a", "--all", "every", is_flag=True, help="All images.")
@click.option("-f", "--force", is_flag=True, help="Publish a new build also when nothing changed.")
@click.option("--full", is_flag=True, help="Take nothing from earlier builds.")
@click.option("--check", is_flag=True, help="Read every file again, also those whose times did not change.")
@click.option(
    "--format",
    "formats",
    multiple=True,
    type=click.Choice(["zst", "gz", "raw", "squashfs", "erofs", "tmpfs", "disk"]),
    help="Formats to make.",
)
@click.option("--level", type=Whole(1, 19), default=3, show_default=True, help="Compression level, 1 to 19.")
@click.option("--syncuser", is_flag=True, help="Bring this server's users and groups into it first.")
@click.option("--json", "as_json", is_flag=True, help="What became of each, for programs.")
@pass_app
def build(
    app: App,
    names: tuple[str, ...],
    every: bool,
    force: bool,
    full: bool,
    check: bool,
    formats: tuple[str, ...],
    level: int,
    syncuser: bool,
    as_json: bool,
) -> None:
    """Pack images for the nodes. The one served is replaced when the new one is complete."""
    from wwfast.errors import UsageError
    from wwfast.images.store import ImageStore

    if bool(names) == every:
        raise UsageError("name the images to build, or use --all", hint="wwfast image list")
    store, rows = ImageStore(app.paths), []
    for name in names:  # all of them before the first is built
        store.get(name)
    for name in store.names() if every else dict.fromkeys(names):
        if syncuser:
            from wwfast.images.inside import users as accounts  # with all that unpacks archives

            accounts.sync(app.paths, name)
        how = {"force": force, "full": full, "check": check, "formats": formats, "level": level}
        rows.append(build_one(app, name, quiet=as_json, **how))
    if as_json:
        dump_json(rows)


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
    """List the images.

    With --long SIZE is what a node downloads, TREE what that unpacks to, DISK what the build takes here, and SHARED how
    much of that other builds have too.
    """
    from wwfast.config import words
    from wwfast.errors import NotFoundError
    from wwfast.images.store import ImageStore
    from wwfast.nodes import groups

    wanted, lost = words.matching(names, ImageStore(app.paths).names())
    if not (long or kernel or size or chroot or compressed or as_json):
        table(["IMAGE NAME"], [[name] for name in wanted])
    else:
        _facts(app, wanted, long=long, kernel=kernel, as_json=as_json)
    if lost:
        raise NotFoundError(groups.unknown(lost, "image"), hint="wwfast image list")


def _facts(app: App, wanted: list[str], *, long: bool, kernel: bool, as_json: bool) -> None:
    """What there is to say of images, in the one of its forms that is asked for."""
    from wwfast.images.sizes import footprints
    from wwfast.images.store import ImageStore

    store = ImageStore(app.paths)
    disk = footprints(app.paths) if long or as_json else None
    rows = [facts(app, store.get(name), disk) for name in wanted]
    if as_json:
        dump_json(rows)
    elif long:
        titles = ["IMAGE NAME", "NODES", "KERNEL VERSION", "CREATION TIME", "MODIFICATION TIME", "SIZE"]
        titles += ["TREE", "DISK", "SHARED"]
        keys = ["name", "nodes", "kernel", "created", "built", "size", "tree", "disk", "shared"]
        table(titles, [[cell(row, key) for key in keys] for row in rows])
    elif kernel:
        table(["IMAGE NAME", "NODES", "KERNEL VERSION"], [[r["name"], r["nodes"], r["kernel"]] for r in rows])
    else:
        table(["IMAGE NAME", "NODES", "SIZE"], [[r["name"], r["nodes"], size_text(r["size"])] for r in rows])


@image.command(epilog="Example: wwfast image show --all debian")
@click.argument("name")
@click.option("-a", "--all", "everything", is_flag=True, help="Kernel, sizes, nodes.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@pass_app
def show(app: App, name: str, everything: bool, as_json: bool) -> None:
    """Show where the tree of an image is, or all there is to know."""
    from wwfast.images.sizes import footprints
    from wwfast.images.store import ImageStore
    from wwfast.nodes import uses

    made = ImageStore(app.paths).get(name)
    if not (everything or as_json):
        click.echo(made.rootfs)
        return
    row = facts(app, made, footprints(app.paths))
    row["nodes"] = uses.users(app.registry.snapshot(), made.name)
    row["min_ram"] = made.min_ram
    row["ways"] = ways_of(made)
    if as_json:
        dump_json(row)
        return
    for key, value in row.items():
        if key == "nodes":
            value = f"{len(value)}  {', '.join(value)}"
        elif key in SIZES:
            value = size_text(value)
        elif key == "ways":
            value = f"\n{'':<10} ".join(map(way_text, value))
        elif key == "sizes":
            value = ", ".join(f"{fmt} {size_text(size)}" for fmt, size in value.items())
        elif key in ("created", "built"):
            value = cell(row, key)
        click.echo(f"{key + ':':<10} {'--' if value in (None, '') else value}")


@image.command(epilog="Example: wwfast image kernels debian")
@click.argument("names", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@pass_app
def kernels(app: App, names: tuple[str, ...], as_json: bool) -> None:
    """List the kernels that images hold, which one a node gets, and whether nodes get its modules with the image."""
    from wwfast.images.store import ImageStore
    from wwfast.nodes import uses

    store = ImageStore(app.paths)
    rows = []
    for name, made in [(name, store.get(name)) for name in names or store.names()]:
        default = made.default_kernel()
        count = len(uses.users(app.registry.snapshot(), made.name))
        rows += [
            {
                "image": name,
                "kernel": k.path,
                "version": k.version,
                "default": k == default,
                "nodes": count,
                "modules": k.release not in made.without,
            }
            for k in made.kernels()
        ]
    if as_json:
        dump_json(rows)
    else:
        table(
            ["Image", "Kernel", "Version", "Default", "Nodes", "Modules"],
            [list(map(text, row.values())) for row in rows],
        )


for command in (*inside.COMMANDS, *manage.COMMANDS):
    image.add(command)
image.aliases |= {
    **dict.fromkeys(("rm", "remove", "del"), "delete"),
    "pull": "import",
    "cp": "copy",
    "mv": "rename",
    "ls": "list",
    "chroot": "shell",
    "kernel": "kernels",
}
