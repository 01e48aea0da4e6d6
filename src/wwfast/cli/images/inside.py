"""wwfast image exec, shell, syncuser: changing an image from inside."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from wwfast.cli.context import App, pass_app
from wwfast.cli.images.common import build_one

if TYPE_CHECKING:
    from wwfast.images.inside.contain import Room
    from wwfast.images.store import Image

EXIT_SCRIPTS = ("/etc/warewulf/image_exit.sh", "/etc/warewulf/container_exit.sh")

F = TypeVar("F", bound=Callable[..., Any])


def options(function: F) -> F:
    """What exec and shell have in common."""
    for option in (
        click.option("-b", "--bind", multiple=True, metavar="SRC[:DST[:ro|copy]]", help="Show SRC of this server."),
        click.option("-n", "--node", metavar="NODE", help="With the overlays of that node, read-only."),
        click.option("--build", default="true", type=click.BOOL, help="--build=false: do not build afterwards."),
        click.option("--syncuser", is_flag=True, help="Bring this server's users and groups into it afterwards."),
    ):
        function = option(function)
    return function


@click.command(
    "exec",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog="Example: wwfast image exec debian -- apt-get install -y vim",
)
@options
@click.argument("name")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@pass_app
def exec_(
    app: App, name: str, command: tuple[str, ...], bind: tuple[str, ...], node: str | None, build: bool, syncuser: bool
) -> None:
    """Run a command inside an image. Its exit status is ours; after a failure nothing is built."""
    from wwfast.errors import UsageError

    if command[0].startswith("-") and command[0] != "--":
        hint = f"options go before the name: wwfast image exec {command[0]} {name} -- ..."
        raise UsageError(f"{command[0]} is no command", hint=hint)
    inside_image(app, name, command, bind, node, build, syncuser)


@click.command(epilog="Example: wwfast image shell debian")
@options
@click.argument("name")
@pass_app
def shell(app: App, name: str, bind: tuple[str, ...], node: str | None, build: bool, syncuser: bool) -> None:
    """Open a shell inside an image."""
    inside_image(app, name, (), bind, node, build, syncuser)


def inside_image(
    app: App, name: str, command: tuple[str, ...], bind: tuple[str, ...], node: str | None, build: bool, syncuser: bool
) -> None:
    from wwfast.images import names
    from wwfast.images.inside import contain
    from wwfast.images.store import ADOPT, ImageStore
    from wwfast.system import locks, within

    image = ImageStore(app.paths).get(names.check(name))
    if not image.own:
        click.echo(f"note: image {name} of {image.rootfs.parent} is only read: {ADOPT.format(name)}", err=True)
    words = command[1:] if command[:1] == ("--",) else command
    what = f"image {'exec' if command else 'shell'}"
    with locks.locked(app.paths.run / "images", image.name, what), room(app, image, bind, node) as made:
        status = contain.run_inside(made, words or (contain.shell(image.rootfs),))
        if status == 0:
            script = next((path for path in EXIT_SCRIPTS if within.is_file(image.rootfs, path)), None)
            if script is not None:
                status = contain.run_inside(made, ("/bin/sh", script))
    if status != 0:
        if build and node is None and not image.readonly:
            click.echo(f"{name}: ended with {status}, so it is not built: wwfast image build {name}", err=True)
        sys.exit(status)
    if syncuser and image.readonly:
        click.echo(f"warning: image {name} is read-only: users and groups stay as they are", err=True)
    if node is None and not image.readonly:
        if syncuser:
            from wwfast.images.inside import users

            users.sync(app.paths, name)
        if build:
            build_one(app, name)


@contextmanager
def room(app: App, image: Image, bind: tuple[str, ...], node: str | None) -> Iterator[Room]:
    """How to run in an image: binds of the command line and of warewulf.conf, and a node's overlays on top."""
    from wwfast.images.inside.binds import Bind
    from wwfast.images.inside.contain import Room
    from wwfast.system import work

    binds = [Bind.parse(text) for text in bind]
    taken = {one.dest for one in binds}
    for mount in app.settings.image_mounts:
        one = Bind(Path(mount.source), mount.dest or mount.source, mount.readonly, mount.copy)
        if one.dest not in taken and one.source.exists():
            binds.append(one)
    if node is None:
        yield Room(image.name, image.rootfs, binds, image.readonly)
        return
    with work.directory(app.paths.cache / "exec") as place:
        yield Room(image.name, image.rootfs, binds, over=(unpacked_overlays(app, node, place),))


def unpacked_overlays(app: App, node: str, place: Path) -> Path:
    """The system and runtime overlays of a node, rendered, as a tree."""
    from wwfast.archive.stream import opened
    from wwfast.errors import NotFoundError
    from wwfast.images.sources.unpack import Unpacker
    from wwfast.overlays.making.service import OverlayService

    snapshot = app.registry.snapshot()
    if node not in snapshot.nodes:
        raise NotFoundError(f"there is no node {node}", hint="see: wwfast node list")
    tree = place / "overlays"
    tree.mkdir(mode=0o755)
    with closing(OverlayService(app.paths, app.settings)) as service, Unpacker(tree) as unpacker:
        for context in ("system", "runtime"):
            file = place / f"{context}.tar"
            with file.open("wb") as out:
                for extent in service.artefact(snapshot, snapshot.nodes[node], context, "tar").extents:
                    with open(extent.path, "rb") as source:  # noqa: PTH123 - a str by contract
                        source.seek(extent.offset)
                        out.write(source.read(extent.length))
            with opened(file) as stream:
                unpacker.apply(stream)
        unpacker.finish()
    return tree


@click.command(epilog="Example: wwfast image syncuser --no-write debian")
@click.argument("name")
@click.option("--write/--no-write", default=True, help="--no-write: only say what would change.")
@click.option("--build", is_flag=True, help="Build it afterwards.")
@pass_app
def syncuser(app: App, name: str, write: bool, build: bool) -> None:
    """Bring this server's users and groups into an image and give its files the ids that follow."""
    from wwfast.images.inside import users

    made = users.sync(app.paths, name) if write else users.plan(app.paths, name)
    for kind, moved in (("user", made.uids), ("group", made.gids)):
        for account, (before, after) in moved.items():
            click.echo(f"{kind} {account}: {before} -> {after}")
    if not write:
        for change in made.changes:
            owner = f"{change.uid if change.uid >= 0 else ''}:{change.gid if change.gid >= 0 else ''}"
            click.echo(f"chown {owner} /{change.path}")
    if not made.needed:
        click.echo(f"{name}: users and groups agree")
    elif write:
        click.echo(f"{name}: users and groups written, {len(made.changes)} files changed")
    else:
        click.echo(f"{name}: would be written, {len(made.changes)} files would change")
    if write and build:
        build_one(app, name)


COMMANDS = (exec_, shell, syncuser)
