"""add, set, unset, delete, edit, import and export, made once for nodes and once for profiles."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from wwfast.api.entries import Entries, Place, count, places
from wwfast.cli.completion import completer
from wwfast.cli.context import App, pass_app
from wwfast.cli.editor import keeping, opened
from wwfast.cli.nodes.entries import Function, How, write, write_options
from wwfast.cli.nodes.fields import FieldCommand, set_options, set_request, unset_options, unset_request
from wwfast.cli.output import answer, warn
from wwfast.config import yaml
from wwfast.config.schema import written
from wwfast.errors import ConfigError, UsageError, WwfastError
from wwfast.nodes.edit import change
from wwfast.nodes.edit.flags import flags
from wwfast.nodes.edit.store import Change
from wwfast.nodes.merge import SCHEMA
from wwfast.nodes.text.source import NODES, NOUN, PROFILES, Source
from wwfast.system import files


@dataclass(frozen=True, slots=True)
class Kind:
    """Nodes or profiles: their words on the command line."""

    section: str

    @property
    def noun(self) -> str:
        return NOUN[self.section]

    @property
    def profile(self) -> bool:
        return self.section == PROFILES

    @property
    def example(self) -> str:
        return "gpu" if self.profile else "n[01-10]"

    @property
    def entries(self) -> Entries:
        return Entries(self.section, warn)

    def argument(self, *, required: bool = False, complete: bool = True) -> Callable[[Function], Function]:
        return click.argument(
            "names",
            nargs=-1,
            required=required,
            metavar="NAME..." if self.profile else "PATTERN...",
            shell_complete=completer(self.noun) if complete else None,
        )

    def write(
        self, app: App, edit: Change, verb: str, names: Sequence[str], how: How, done: str = "changed", **more: Any
    ) -> None:
        """Write it, and say how many entries that changed."""
        made = write(app, edit, why=" ".join([self.noun, verb, *names]), how=how, **more)
        if made:
            click.echo(f"{done} {count(len(made.changes()), self.section)}")


@functools.cache
def commands(section: str) -> dict[str, click.Command]:
    """The writing commands of a section by name."""
    kind = Kind(section)
    made = [make(kind) for make in (_add, _set, _unset, _delete, _edit, _export, _import)]
    return {command.name or "": command for command in made}


def _add(kind: Kind) -> click.Command:
    values = "--kernelargs nouveau.modeset=0" if kind.profile else "--image rocky9 --ipaddr 10.0.1.1"

    @click.command("add", cls=FieldCommand, epilog=f"Example: wwfast {kind.noun} add {kind.example} {values}")
    @kind.argument(required=True, complete=False)
    @set_options(profile=kind.profile, adding=True)
    @write_options
    @pass_app
    def add(app: App, /, names: tuple[str, ...], how: How, **given: Any) -> None:
        request = asked(given, adding=True)
        wanted = kind.entries.named(names)
        kind.write(app, kind.entries.add(wanted, request), "add", names, how, "added", ask=False)

    add.help = "Add profiles." if kind.profile else "Add nodes. Addresses are counted up from node to node."
    return add


def _set(kind: Kind) -> click.Command:
    @click.command(
        "set", cls=FieldCommand, epilog=f"Example: wwfast {kind.noun} set {kind.example} --tagadd rack=r12 --yes"
    )
    @kind.argument()
    @click.option("-a", "--all", "every", is_flag=True, help=f"All {kind.noun}s.")
    @set_options(profile=kind.profile, adding=False)
    @write_options
    @pass_app
    def set_(app: App, /, names: tuple[str, ...], every: bool, how: How, **given: Any) -> None:
        request = asked(given, adding=False)
        if bool(names) == every:
            raise UsageError(f"which {kind.noun}s?", hint=f"name them, like {kind.example}, or give --all")
        edit = kind.entries.set(None if every else names, request, force=how.force)
        kind.write(app, edit, "set", names, how)

    set_.help = f"Change {kind.noun}s: only the flags given change anything; UNDEF as a value clears it."
    return set_


def _unset(kind: Kind) -> click.Command:
    @click.command(
        "unset", cls=FieldCommand, epilog=f"Example: wwfast {kind.noun} unset {kind.example} --image --tag rack"
    )
    @kind.argument()
    @unset_options(profile=kind.profile)
    @write_options
    @pass_app
    def unset(app: App, /, names: tuple[str, ...], how: How, **given: Any) -> None:
        request = unset_request(given)
        if not names:
            raise UsageError(f"which {kind.noun}s?", hint=f"name them, like {kind.example}")
        if request.empty:
            hint = f"name the fields: wwfast {kind.noun} unset {kind.example} --image"
            raise UsageError("nothing to clear", hint=hint)
        edit = kind.entries.unset(names, request, force=how.force)
        kind.write(app, edit, "unset", names, how)

    unset.help = f"Clear own values of {kind.noun}s; what they inherit stays."
    return unset


def _delete(kind: Kind) -> click.Command:
    @click.command("delete", epilog=f"Example: wwfast {kind.noun} delete {kind.example} --yes")
    @kind.argument(required=True)
    @write_options
    @pass_app
    def delete(app: App, names: tuple[str, ...], how: How) -> None:
        edit = kind.entries.delete(names, force=how.force)
        done = write(app, edit, why=f"{kind.noun} delete {' '.join(names)}", how=how)
        if done:
            gone = sum(after is None for _, after in done.changes().values())
            click.echo(f"deleted {count(gone, kind.section)}")

    also = " One in use is refused; --force also takes it out of its users." if kind.profile else ""
    delete.help = f"Delete {kind.noun}s.{also}"
    return delete


def _edit(kind: Kind) -> click.Command:
    @click.command("edit", epilog=f"Example: wwfast {kind.noun} edit {kind.example}")
    @kind.argument()
    @click.option("--noheader", is_flag=True, help="Without the list of keys at the top.")
    @write_options
    @pass_app
    def edit(app: App, names: tuple[str, ...], noheader: bool, how: How) -> None:
        entries, source = kind.entries, Source.read(app.paths.nodes_conf)
        before = entries.written(source, names)

        def check(after: dict[str, Any], place: Place) -> None:
            if not how.force:
                entries.check_edited(source, before, after, place)

        head = "" if noheader else header(kind.section)
        name = f"{kind.noun}s.yaml"
        after, text = edited(app, name, head + (as_yaml(before) if before else ""), entries, check)
        with keeping(app, name, text):
            kind.write(app, entries.edited(source, before, after), "edit", names, how)

    edit.help = f"Edit {kind.noun}s as YAML in $EDITOR; removing one deletes it."
    return edit


def _export(kind: Kind) -> click.Command:
    @click.command("export", epilog=f"Example: wwfast {kind.noun} export {kind.example} > {kind.noun}s.yaml")
    @kind.argument()
    @pass_app
    def export(app: App, names: tuple[str, ...]) -> None:
        sys.stdout.write(as_yaml(kind.entries.written(Source.read(app.paths.nodes_conf), names)))

    export.help = f"Print {kind.noun}s as they are written (not merged), as YAML that import takes back unchanged."
    return export


def _import(kind: Kind) -> click.Command:
    @click.command("import", epilog=f"Example: wwfast {kind.noun} import {kind.noun}s.yaml --yes")
    @click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
    @click.option("--replace", is_flag=True, help="What exists is replaced by what the file says of it, not merged.")
    @write_options
    @pass_app
    def import_(app: App, file: str, replace: bool, how: How) -> None:
        data = read(Path(file))
        edit = kind.entries.take(kind.entries.parse(data, file), replace=replace)
        kind.write(app, edit, "import", [file], how, "imported", place=places(data, file))

    import_.help = f"Take {kind.noun}s from a YAML map of {kind.noun}s; it is merged into one that exists."
    return import_


def asked(given: dict[str, Any], *, adding: bool) -> change.Request:
    """What a command line says. Raises UsageError."""
    request = change.checked(set_request(given), adding=adding)
    for name in request.unsaid:
        click.echo(f"note: --{name} with an address that is none changes nothing; UNDEF clears it", err=True)
    return request


def read(path: Path) -> bytes:
    """A file that was named, `-` is standard input. Raises WwfastError."""
    given = str(path) == "-"
    try:
        return files.rest(sys.stdin.buffer, "-") if given else files.read(path)
    except OSError as error:
        raise WwfastError(f"{'standard input' if given else path}: {error.strerror}") from error


def as_yaml(trees: dict[str, Any]) -> str:
    """Entries by name, as they are written."""
    return yaml.dump(written(trees, SCHEMA, 1))


def header(section: str) -> str:
    keys = "\n".join(
        f"#   {'.'.join(step.key or '<name>' for step in flag.path)}: {flag.doc.help}"
        for flag in flags()
        if section == NODES or not flag.doc.node_only
    )
    return f"# {NOUN[section]}s by name. Saving without a change does nothing. Keys:\n{keys}\n"


def edited(
    app: App, name: str, text: str, entries: Entries, check: Callable[[dict[str, Any], Place], None]
) -> tuple[dict[str, Any], bytes]:
    """What is left after $EDITOR, and its text; asks to try again when it is no YAML, or `check` raises ConfigError.
    Who does not try has the text kept as `name` (`editor.keeping`)."""
    from wwfast.system import work

    data = b""
    with work.directory(app.paths.run) as room:  # 0700, and in memory: it may hold passwords
        path = room / "edit.yaml"
        path.write_text(text)
        while True:
            with keeping(app, name, data):
                opened(path)
            data = path.read_bytes()
            try:
                after = entries.parse(data, path.name)
                check(after, places(data, path.name))
                return after, data
            except ConfigError as error:
                click.echo(f"error: {error.message}", err=True)
                with keeping(app, name, data):
                    if not answer("Edit again?"):
                        raise
