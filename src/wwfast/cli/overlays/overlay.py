"""wwfast overlay: look at, change and build what differs between nodes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wwfast.cli.completion import completer
from wwfast.cli.context import App, pass_app
from wwfast.cli.groups import AliasGroup
from wwfast.cli.numbers import Whole
from wwfast.cli.output import dump_json, progress, table

if TYPE_CHECKING:
    from wwfast.overlays.files.model import Overlay

overlay_argument = click.argument("name", metavar="OVERLAY", shell_complete=completer("overlay"))


@click.group(cls=AliasGroup, epilog="Example: wwfast overlay show --render n1 hosts etc/hosts")
def overlay() -> None:
    """What differs between nodes: files and templates."""


@contextmanager
def telling(app: App, name: str) -> Iterator[None]:
    """A change of an overlay that is not the site's makes a copy: say so."""
    from wwfast.overlays.files import model

    before = model.find(app.paths, name)
    yield
    if model.find(app.paths, name).site and not before.site:
        click.echo(f"overlay {name} was copied to the site overlays; the shipped one is unchanged")


def emit(data: bytes) -> None:
    import sys

    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def place(found: Overlay) -> str:
    return "true" if found.site else "false" if found.distribution else "warewulf"


@overlay.command("list", epilog="Example: wwfast overlay list -a hosts")
@click.argument("names", nargs=-1, metavar="[OVERLAY...]", shell_complete=completer("overlay"))
@click.option("-a", "--all", "entries", is_flag=True, help="One line for each file and directory.")
@click.option("-l", "--long", is_flag=True, help="With modes and owners.")
@click.option("-p", "--path", is_flag=True, help="Where it is, instead of SITE.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@pass_app
def list_(app: App, names: tuple[str, ...], entries: bool, long: bool, path: bool, as_json: bool) -> None:
    """Overlays of the site and of the distribution."""
    from wwfast.overlays.files import model

    found = [model.find(app.paths, name) for name in names or model.names(app.paths)]
    items = {each.name: each.items() for each in found}
    if as_json:
        dump_json(
            {
                each.name: {
                    "path": str(each.path),
                    "site": each.site,
                    "distribution": each.distribution,
                    "entries": [
                        {"path": it.path, "kind": it.kind, "mode": f"{it.mode:04o}", "uid": it.uid, "gid": it.gid}
                        for it in items[each.name]
                    ],
                }
                for each in found
            }
        )
        return
    last = "PATH" if path else "SITE"

    def where(each: Overlay, it: model.Item | None = None) -> str:
        return str(it.source if it else each.path) if path else place(each)

    if not (entries or long):
        table(("OVERLAY NAME", "FILES/DIRS", last), [(it.name, len(items[it.name]), where(it)) for it in found])
        return
    rows: list[tuple[object, ...]] = []
    for each in found:
        for it in items[each.name]:
            name = it.path + "/" * (it.kind == model.DIRECTORY)
            head = (f"{it.mode:04o}", it.uid, it.gid) if long else ()
            rows.append((*head, each.name, name, where(each, it)))
    table((*(("PERM MODE", "UID", "GID") if long else ()), "OVERLAY", "FILE PATH", last), rows)


@overlay.command(epilog="Example: wwfast overlay show --render n1 hosts etc/hosts")
@overlay_argument
@click.argument("file")
@click.option("-r", "--render", "node", metavar="NODE", shell_complete=completer("node"), help="As NODE would get it.")
@click.option("-q", "--quiet", is_flag=True, help="Only the content.")
@pass_app
def show(app: App, name: str, file: str, node: str | None, quiet: bool) -> None:
    """Print a file of an overlay, as it is or rendered for a node."""
    from wwfast.errors import NotFoundError
    from wwfast.overlays.files import model

    there = model.find(app.paths, name)
    found = there.find(file)
    if node is None or found.suffix not in model.TEMPLATES:
        if found.is_symlink():
            click.echo(f"-> {found.readlink()}")
        elif found.is_dir():
            raise NotFoundError(f"{file} is a directory", hint=f"wwfast overlay list -a {name}")
        else:
            emit(there.read(found) or b"")
        return
    from wwfast.overlays.making.service import OverlayService

    snapshot = app.registry.snapshot()
    if node not in snapshot.nodes:
        raise NotFoundError(f"no node {node}", hint="wwfast node list")
    with closing(OverlayService(app.paths, app.settings, alone=True)) as service:
        item, outputs = service.render(snapshot, snapshot.nodes[node], name, file)
    if not outputs:
        click.echo("aborted: the node gets no file of this template", err=True)
    for output in outputs:
        if not quiet:
            click.echo(f"backupFile: {'true' if output.backup else 'false'}\nwriteFile: true")
            click.echo(f"Filename: /{output.path}" + (f" (mode {item.mode:04o})" if output.kind == model.FILE else ""))
        if output.kind == model.LINK:
            click.echo(f"Symlink: {output.content.decode(errors='replace')}")
        else:
            emit(output.content)


overlay.aliases["cat"] = "show"


@overlay.command(epilog="Example: wwfast overlay create login")
@click.argument("name", metavar="OVERLAY")
@pass_app
def create(app: App, name: str) -> None:
    """Make an empty overlay."""
    from wwfast.overlays.files import edit, model

    shipped = model.distribution(app.paths, name) is not None
    made = edit.create(app.paths, name)
    click.echo(f"made {made.rootfs}")
    if shipped:
        click.echo(f"it takes the place of the shipped overlay {name}", err=True)


@overlay.command("edit", epilog="Example: wwfast overlay edit hosts etc/hosts.j2")
@overlay_argument
@click.argument("file")
@click.option("-p", "--parents", is_flag=True, help="Make missing directories.")
@click.option("-m", "--mode", metavar="OCTAL", help="Permissions of the file.")
@pass_app
def edit_(app: App, name: str, file: str, parents: bool, mode: str | None) -> None:
    """Edit a file of an overlay in $EDITOR; a new one if there is none."""
    from wwfast.cli.editor import keeping, opened
    from wwfast.errors import WwfastError
    from wwfast.overlays.files import edit, model
    from wwfast.system import work

    bits = octal(mode) if mode is not None else None
    there = model.find(app.paths, name)
    path = there.named(file)
    relative = str(path.relative_to(there.rootfs))
    before = there.read(path)
    edit.missing_above(there, path, make=parents)
    with work.directory(app.paths.run) as room:
        copy = room / path.name
        if before is not None:
            copy.write_bytes(before)
        opened(copy)
        after = copy.read_bytes()
    if after == before and bits is None:
        click.echo("nothing changed")
        return
    with keeping(app, path.name, after), telling(app, name), edit.changing(app.paths, name) as target:
        new = target.inside(relative)
        if target.read(new) != before:
            raise WwfastError(f"{name}: {relative} was changed by someone else meanwhile; nothing was written")
        with edit.parents_of(target, new, make=parents):
            edit.replace(target, new, after, mode=bits)


@overlay.command("import", epilog="Example: wwfast overlay import --parents login /etc/profile.d/site.sh")
@overlay_argument
@click.argument("source", type=click.Path(path_type=Path), metavar="FILE")
@click.argument("new", required=False)
@click.option("-o", "--overwrite", is_flag=True, help="Replace a file that is there.")
@click.option("-p", "--parents", is_flag=True, help="Make missing directories.")
@click.option("--workers", type=Whole(), expose_value=False, hidden=True)  # wwctl's, without effect there as well
@pass_app
def import_(app: App, name: str, source: Path, new: str | None, overwrite: bool, parents: bool) -> None:
    """Copy FILE of this server into an overlay, to the same path or to NEW."""
    from wwfast.overlays.files import edit

    with telling(app, name):
        target = edit.import_file(app.paths, name, source, new, overwrite=overwrite, parents=parents)
    click.echo(f"imported {target}")


@overlay.command(epilog="Example: wwfast overlay mkdir login etc/profile.d")
@overlay_argument
@click.argument("directory")
@click.option("-m", "--mode", default="0755", show_default=True, metavar="OCTAL", help="Permissions.")
@pass_app
def mkdir(app: App, name: str, directory: str, mode: str) -> None:
    """Make a directory in an overlay, and its parents."""
    from wwfast.overlays.files import edit

    with telling(app, name):
        edit.mkdir(app.paths, name, directory, octal(mode))


@overlay.command(epilog="Example: wwfast overlay delete login etc/motd")
@overlay_argument
@click.argument("file", required=False)
@click.option("-f", "--force", is_flag=True, help="Also with everything in it.")
@click.option("-p", "--parents", is_flag=True, help="Also directories that become empty.")
@pass_app
def delete(app: App, name: str, file: str | None, force: bool, parents: bool) -> None:
    """Delete a file of an overlay, or a site overlay."""
    app.service.delete_from_overlay(name, file, force=force, parents=parents)


@overlay.command(epilog="Example: wwfast overlay chmod login etc/secret 0600")
@overlay_argument
@click.argument("file")
@click.argument("mode")
@pass_app
def chmod(app: App, name: str, file: str, mode: str) -> None:
    """Permissions of a file in an overlay (octal)."""
    from wwfast.overlays.files import edit

    with telling(app, name):
        edit.chmod(app.paths, name, file, octal(mode))


@overlay.command(epilog="Example: wwfast overlay chown login etc/secret 0:42")
@overlay_argument
@click.argument("file")
@click.argument("owner", metavar="UID[:GID]")
@pass_app
def chown(app: App, name: str, file: str, owner: str) -> None:
    """Owner and group of a file in an overlay, as numbers; UID: and :GID work, too."""
    from wwfast.config import checks
    from wwfast.errors import UsageError
    from wwfast.overlays.files import edit

    user, _, group = owner.partition(":")
    if any(checks.owner(word) for word in (user, group) if word) or not (user or group):
        raise UsageError(
            f"{checks.shown(owner)} is not UID[:GID]", hint="numbers, for example 0:42: a node need not know our names"
        )
    with telling(app, name):
        edit.chown(app.paths, name, file, int(user or -1), int(group or -1))


@overlay.command(epilog="Example: wwfast overlay info hosts etc/hosts.j2")
@overlay_argument
@click.argument("file")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@pass_app
def info(app: App, name: str, file: str, as_json: bool) -> None:
    """What a template does and which data it reads."""
    from wwfast.overlays.files import model
    from wwfast.overlays.templates import info

    there = model.find(app.paths, name)
    found = info.describe(app.paths, there, there.find(file))
    if as_json:
        dump_json({"documentation": found.general, "variables": [row._asdict() for row in found.variables]})
        return
    for line in found.general:
        click.echo(line)
    table(("VARIABLE", "OPTION", "TYPE", "HELP"), found.variables)


overlay.aliases["variables"] = overlay.aliases["vars"] = "info"


@overlay.command(epilog="Example: wwfast overlay lint")
@click.argument("names", nargs=-1, metavar="[OVERLAY...]", shell_complete=completer("overlay"))
@pass_app
def lint(app: App, names: tuple[str, ...]) -> None:
    """Say what of the templates will not run, before a node asks. Without OVERLAY: of all, and of iPXE scripts."""
    from wwfast.boot.loader.script import Scripts
    from wwfast.errors import WwfastError
    from wwfast.overlays.files import model
    from wwfast.overlays.templates.porting.lint import Linter

    linter = Linter(app.paths)
    chosen = [model.find(app.paths, name) for name in names or model.names(app.paths)]
    wrong = [said for each in chosen for said in linter.overlay(each)]
    if not names:
        wrong += Scripts(app.paths).wrong()
    for said in wrong:
        click.echo(said)
    if wrong:
        raise WwfastError(f"{len(wrong)} will not run", hint="docs/templates.md says what does")
    click.echo(f"{linter.templates} templates of {len(chosen)} overlays: nothing is wrong with them")


@overlay.command(epilog="Example: wwfast overlay convert --print slurm")
@overlay_argument
@click.option("-p", "--print", "only_print", is_flag=True, help="Write nothing; also show what is not the same.")
@pass_app
def convert(app: App, name: str, only_print: bool) -> None:
    """Write a Jinja2 template beside each Go template that has one which gives the nodes the same."""
    from wwfast.overlays.files import edit, model
    from wwfast.overlays.templates.porting.compare import Porter
    from wwfast.system import work

    there = model.find(app.paths, name)
    with work.directory(app.paths.run) as room:
        ported = list(Porter(app.paths, app.settings, app.registry.snapshot().nodes, room).overlay(there))
    for each in ported:
        path = each.item.output + model.TEMPLATE
        if only_print:
            click.echo(f"# {path}" + (f": {each.wrong}" if each.wrong else ""))
            click.echo(each.source, nl=not each.source.endswith("\n"))
        elif not each.same:
            click.echo(f"{each.item.path} stays: {each.wrong}")
        elif os.path.lexists(there.inside(path)):
            click.echo(f"{path} is there already, and stays as it is")
        else:
            with telling(app, name), edit.changing(app.paths, name) as target:
                edit.replace(target, target.inside(path), each.source.encode(), mode=each.item.mode)
            click.echo(f"{path} takes the place of {each.item.path}, and writes the same")
    if not ported:
        click.echo(f"overlay {name} has no Go templates")


@overlay.command(epilog="Example: wwfast overlay diff hosts")
@click.argument("names", nargs=-1, metavar="[OVERLAY...]", shell_complete=completer("overlay"))
@pass_app
def diff(app: App, names: tuple[str, ...]) -> None:
    """How site overlays differ from the shipped ones of the same name."""
    from wwfast.cli.overlays import compare
    from wwfast.overlays.files import model

    chosen = names or [
        name
        for name in model.names(app.paths)
        if model.distribution(app.paths, name) and not model.find(app.paths, name).distribution
    ]
    for name in chosen:
        for line in compare.overlays(app.paths, name):
            click.echo(line)


def host_elsewhere(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """Warewulf before 4.3 wrote the files of the server by a flag of this command."""
    from wwfast.errors import UsageError

    if value:
        raise UsageError("the host overlay is written by `configure`", hint="wwfast configure hostfile (or --all)")


@overlay.command(epilog="Example: wwfast overlay build --dry-run --diff n[1-10]")
@click.argument("patterns", nargs=-1, metavar="[PATTERN...]", shell_complete=completer("node"))
@click.option("--workers", type=Whole(0), default=0, metavar="N", help="Processes; 0 is one for each CPU.")
@click.option("--system", "contexts", flag_value="system", help="Only system overlays.")
@click.option("--runtime", "contexts", flag_value="runtime", help="Only runtime overlays.")
@click.option("-n", "--dry-run", is_flag=True, help="Only say what would change on how many nodes.")
@click.option("--diff", "with_diff", is_flag=True, help="With --dry-run: show one example of each change.")
@click.option("--ignore-go-templates", is_flag=True, help="Use the shipped overlay where the site's has Go templates.")
@click.option("-H", "--host", is_flag=True, hidden=True, expose_value=False, callback=host_elsewhere)
@pass_app
def build(
    app: App,
    patterns: tuple[str, ...],
    workers: int,
    contexts: str | None,
    dry_run: bool,
    with_diff: bool,
    ignore_go_templates: bool,
) -> None:
    """Build overlays ahead of time. The server builds what is missing when a node asks."""
    import os

    from wwfast.cli.nodes import views
    from wwfast.errors import NotFoundError, WwfastError
    from wwfast.nodes import groups
    from wwfast.overlays.making.service import CONTEXTS, OverlayService

    snapshot = app.registry.snapshot()
    nodes, lost = views.select(snapshot, patterns)
    unusable = views.unusable(snapshot, patterns)
    if lost:
        raise NotFoundError(groups.unknown(lost), hint="wwfast node list")
    chosen = (contexts,) if contexts else CONTEXTS
    service = OverlayService(
        app.paths, app.settings, ignore_go_templates=ignore_go_templates or None, alone=True, writing=not dry_run
    )
    if dry_run:
        from wwfast.cli.overlays import compare

        with closing(service):
            for line in compare.pending(service, snapshot, nodes, chosen, with_diff=with_diff):
                click.echo(line)
        return
    with closing(service), progress("building overlays") as advance:
        report = service.build(
            snapshot, nodes, chosen, processes=workers if workers > 0 else os.cpu_count() or 1, progress=advance
        )
    failed = report.failures
    click.echo(f"{len(nodes)} nodes: {report.changed} of {report.asked} overlay images changed")
    if failed:
        (node, context), first = next(iter(failed.items()))
        raise WwfastError(f"{len(failed)} failed, for example {context} of {node}: {first.message}", hint=first.hint)
    if unusable:
        raise WwfastError(f"{len(unusable)} of the nodes left out, for example {unusable[0]}", hint="wwfast doctor")


def octal(text: str) -> int:
    from wwfast.config import checks
    from wwfast.errors import UsageError

    if wrong := checks.mode(text):
        raise UsageError(wrong, hint="for example 0644")
    return int(text, 8)


for alias, name in (
    ("ls", "list"),
    ("new", "create"),
    ("add", "create"),
    ("cp", "import"),
    ("rm", "delete"),
    ("remove", "delete"),
    ("del", "delete"),
):
    overlay.aliases[alias] = name
