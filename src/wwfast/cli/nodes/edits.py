"""add, set, unset, delete, edit, import and export, made once for nodes and once for profiles."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from wwfast.cli.completion import completer
from wwfast.cli.context import App, pass_app
from wwfast.cli.editor import kept, opened
from wwfast.cli.nodes.entries import Place, count, found, names_of, write, write_options, wrong_values
from wwfast.cli.nodes.fields import FieldCommand, set_options, set_request, unset_options, unset_request
from wwfast.cli.output import answer
from wwfast.config import checks, yaml
from wwfast.config.schema import shape
from wwfast.errors import ConfigError, NotFoundError, UsageError, WwfastError
from wwfast.nodes.edit import change
from wwfast.nodes.edit.flags import flags
from wwfast.nodes.edit.store import Draft
from wwfast.nodes.text.source import NAMES, NODES, NOUN, PROFILES, Source

COUNTED = ("ipaddr", "ipmiaddr")  # flags whose address is counted up over the nodes of one `node add`


@functools.cache
def commands(section: str) -> dict[str, click.Command]:
    """The writing commands of a section by name."""
    noun, example = NOUN[section], "n[01-10]" if section == NODES else "gpu"
    profile = section == PROFILES
    complete = completer(noun)
    argument = click.argument(
        "names", nargs=-1, metavar="PATTERN..." if not profile else "NAME...", shell_complete=complete
    )

    @click.command(
        "add",
        cls=FieldCommand,
        epilog=f"Example: wwfast {noun} add {example} --image rocky9 --ipaddr 10.0.1.1"
        if not profile
        else "Example: wwfast profile add gpu --kernelargs nouveau.modeset=0",
    )
    @click.argument("names", nargs=-1, required=True, metavar="PATTERN..." if not profile else "NAME...")
    @set_options(profile=profile, adding=True)
    @write_options
    @pass_app
    def add(app: App, /, names: tuple[str, ...], yes: bool, dry_run: bool, force: bool, **given: Any) -> None:
        request = change.checked(set_request(given), adding=True)
        wanted = names_of(section, names)
        first = {name: request.values[name] for name in COUNTED if request.values.get(name)} if section == NODES else {}

        def edit(draft: Draft) -> None:
            for index, name in enumerate(wanted):
                if wrong := NAMES[section](name):
                    raise UsageError(f"{noun} {wrong}")
                if name in wanted[:index]:
                    raise UsageError(f"{noun} '{name}' is named twice")
                if draft.has(section, name):
                    raise ConfigError(f"{noun} '{name}' exists", hint=f"wwfast {noun} set {name} ...")
                for flag, address in first.items():
                    request.values[flag] = change.following(address, index)
                tree: dict[str, Any] = {}
                change.apply(tree, request)
                if section == NODES and "profiles" not in tree and draft.has(PROFILES, "default"):
                    tree = {"profiles": ["default"], **tree}
                draft.put(section, name, ordered(tree))

        if write(app, edit, why=f"{noun} add {' '.join(names)}", yes=yes, dry_run=dry_run, force=force, ask=False):
            click.echo(f"added {count(len(wanted), section)}")

    add.help = f"Add {noun}s. Addresses are counted up from node to node." if not profile else "Add profiles."

    @click.command("set", cls=FieldCommand, epilog=f"Example: wwfast {noun} set {example} --tagadd rack=r12 --yes")
    @argument
    @click.option("-a", "--all", "every", is_flag=True, help=f"All {noun}s.")
    @set_options(profile=profile, adding=False)
    @write_options
    @pass_app
    def set_(
        app: App, /, names: tuple[str, ...], every: bool, yes: bool, dry_run: bool, force: bool, **given: Any
    ) -> None:
        request = change.checked(set_request(given), adding=False)
        if not names and not every:
            raise UsageError(f"which {noun}s?", hint=f"name them, like {example}, or give --all")
        wanted = names_of(section, names)

        def edit(draft: Draft) -> None:
            for name in draft.names(section) if every else found(draft, section, wanted):
                change.apply(draft.get(section, name), request)

        if done := write(app, edit, why=f"{noun} set {' '.join(names)}", yes=yes, dry_run=dry_run, force=force):
            click.echo(f"changed {count(len(done.changes()), section)}")

    set_.help = f"Change {noun}s: only the flags given change anything; UNDEF as a value clears it."

    @click.command("unset", cls=FieldCommand, epilog=f"Example: wwfast {noun} unset {example} --image --tag rack")
    @argument
    @unset_options(profile=profile)
    @write_options
    @pass_app
    def unset(app: App, /, names: tuple[str, ...], yes: bool, dry_run: bool, force: bool, **given: Any) -> None:
        request = unset_request(given)
        if not names:
            raise UsageError(f"which {noun}s?", hint=f"name them, like {example}")
        if request.empty:
            raise UsageError("nothing to clear", hint=f"name the fields: wwfast {noun} unset {example} --image")
        wanted = names_of(section, names)

        def edit(draft: Draft) -> None:
            for name in wanted:
                if not draft.has(section, name) and not force:
                    raise NotFoundError(f"no {noun} '{name}'", hint="--force skips it")
            for name in found(draft, section, wanted):
                change.unset(draft.get(section, name), request)

        if done := write(app, edit, why=f"{noun} unset {' '.join(names)}", yes=yes, dry_run=dry_run, force=force):
            click.echo(f"changed {count(len(done.changes()), section)}")

    unset.help = f"Clear own values of {noun}s; what they inherit stays."

    @click.command("delete", epilog=f"Example: wwfast {noun} delete {example} --yes")
    @click.argument(
        "names", nargs=-1, required=True, metavar="PATTERN..." if not profile else "NAME...", shell_complete=complete
    )
    @write_options
    @pass_app
    def delete(app: App, names: tuple[str, ...], yes: bool, dry_run: bool, force: bool) -> None:
        wanted = names_of(section, names)

        def edit(draft: Draft) -> None:
            for name in found(draft, section, wanted):
                if section == PROFILES:
                    release(draft, name, force)
                draft.delete(section, name)

        if done := write(app, edit, why=f"{noun} delete {' '.join(names)}", yes=yes, dry_run=dry_run, force=force):
            gone = sum(after is None for _, after in done.changes().values())
            click.echo(f"deleted {count(gone, section)}")

    delete.help = f"Delete {noun}s." + (
        " One in use is refused; --force also takes it out of its users." if profile else ""
    )

    @click.command("edit", epilog=f"Example: wwfast {noun} edit {example}")
    @argument
    @click.option("--noheader", is_flag=True, help="Without the list of keys at the top.")
    @write_options
    @pass_app
    def edit(app: App, names: tuple[str, ...], noheader: bool, yes: bool, dry_run: bool, force: bool) -> None:
        source = Source.read(app.paths.nodes_conf)
        wanted = found(Draft(source), section, names_of(section, names)) if names else list(source.trees[section])
        before = {name: source.trees[section][name] for name in wanted}

        def check(after: dict[str, Any], place: Place) -> None:
            if wanted and not after and not force:
                raise ConfigError(
                    f"nothing is left of {count(len(wanted), section)}", hint=f"wwfast {noun} delete removes {noun}s"
                )
            wrong = wrong_values({(section, name): (before.get(name), tree) for name, tree in after.items()}, place)
            if wrong and not force:
                raise ConfigError("\n".join(wrong[:10]), hint="--force writes it all the same")

        after, written = edited(
            app, yaml.dump(before) if before else "", header(section) if not noheader else "", section, check
        )

        changed = [name for name in {**before, **after} if before.get(name, ...) != after.get(name, ...)]

        def put(draft: Draft) -> None:
            now = draft.source.trees[section]
            if lost := [name for name in changed if now.get(name, ...) != (source.trees[section].get(name, ...))]:
                raise WwfastError(
                    f"{noun} {', '.join(lost[:5])} was changed by someone else meanwhile; nothing was written",
                    hint=f"{kept(app, f'{noun}s.yaml', written)}; "
                    f"wwfast {noun} edit {' '.join(lost[:5])} begins from what is there now",
                )
            for name in changed:
                if name in after:
                    draft.put(section, name, after[name])
                else:
                    draft.delete(section, name)

        if done := write(app, put, why=f"{noun} edit {' '.join(names)}", yes=yes, dry_run=dry_run, force=force):
            click.echo(f"changed {count(len(done.changes()), section)}")

    edit.help = f"Edit {noun}s as YAML in $EDITOR; removing one deletes it."

    @click.command("export", epilog=f"Example: wwfast {noun} export {example} > {noun}s.yaml")
    @argument
    @pass_app
    def export(app: App, names: tuple[str, ...]) -> None:
        source = Source.read(app.paths.nodes_conf)
        wanted = found(Draft(source), section, names_of(section, names)) if names else list(source.trees[section])
        sys.stdout.write(yaml.dump({name: source.trees[section][name] for name in wanted}))

    export.help = f"Print {noun}s as they are written (not merged), as YAML that import takes back unchanged."

    @click.command("import", epilog=f"Example: wwfast {noun} import {noun}s.yaml --yes")
    @click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
    @write_options
    @pass_app
    def import_(app: App, file: str, yes: bool, dry_run: bool, force: bool) -> None:
        data = sys.stdin.buffer.read() if file == "-" else read(Path(file))
        trees = entries(data, file, section)

        def put(draft: Draft) -> None:
            for name, tree in trees.items():
                draft.put(section, name, tree)

        how = {"yes": yes, "dry_run": dry_run, "force": force}
        if done := write(app, put, why=f"{noun} import {file}", place=places(data, file), **how):
            click.echo(f"imported {count(len(done.changes()), section)}")

    import_.help = f"Take {noun}s from a YAML map of {noun}s; one that exists is replaced."

    made = (add, set_, unset, delete, edit, export, import_)
    return {command.name or "": command for command in made}


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise WwfastError(f"{path}: {error.strerror}") from error


def places(data: bytes, name: str) -> Place:
    """Where a text of entries says something."""
    return lambda entry, path: f"{name}:{yaml.locate(data, (entry, *path))}: "


def entries(data: bytes, name: str, section: str) -> dict[str, Any]:
    """A map of entries from its text. Raises ConfigError with file and line."""
    tree = yaml.load(data, name)
    if tree is None:
        return {}
    place = places(data, name)
    if not isinstance(tree, dict):
        raise ConfigError(f"{name}:1: must be a map of {NOUN[section]}s by name, not {shape(tree)}")
    if tree.keys() <= {NODES, PROFILES}:
        raise ConfigError(
            f"{name}: this is a whole nodes.conf, not a map of {NOUN[section]}s",
            hint=f"copy it to its place, or take what stands below '{section}:'",
        )
    for key, entry in tree.items():
        if checks.fatal(NAMES[section], key):
            raise ConfigError(f"{place(key, ())}{NOUN[section]} {NAMES[section](key)}")
        if entry is None:
            tree[key] = {}
        elif not isinstance(entry, dict):
            raise ConfigError(f"{place(key, ())}{NOUN[section]} {key}: must be a map of keys, not {shape(entry)}")
    return tree


def ordered(tree: dict[str, Any]) -> dict[str, Any]:
    """Keys in the order of the model."""
    from wwfast.nodes.merge import SCHEMA

    rank = {key: index for index, key in enumerate(SCHEMA)}
    return dict(sorted(tree.items(), key=lambda item: rank.get(item[0], len(rank))))


def release(draft: Draft, name: str, force: bool) -> None:
    """Nobody may refer to a profile that goes; forced, those who do let go of it."""
    users = [
        (section, each)
        for section in (PROFILES, NODES)
        for each in draft.names(section)
        if name in ((draft.source.trees[section].get(each) or {}).get("profiles") or ())
    ]
    if users and not force:
        raise ConfigError(
            f"profile '{name}' is used by {', '.join(each for _, each in users[:5])}{' ...' if len(users) > 5 else ''}",
            hint="--force also takes it out of them",
        )
    for section, each in users:
        tree = draft.get(section, each)
        tree["profiles"] = [word for word in tree["profiles"] if word.lstrip("~") != name]


def header(section: str) -> str:
    keys = "\n".join(
        f"#   {'.'.join(step.key or '<name>' for step in flag.path)}: {flag.doc.help}"
        for flag in flags()
        if section == NODES or not flag.doc.node_only
    )
    return f"# {NOUN[section]}s by name. Saving without a change does nothing. Keys:\n{keys}\n"


def edited(
    app: App, text: str, head: str, section: str, check: Callable[[dict[str, Any], Place], None]
) -> tuple[dict[str, Any], bytes]:
    """What is left after $EDITOR, and its text; asks to try again when it is no YAML, or `check` raises ConfigError."""
    from wwfast.system import work

    with work.directory(app.paths.run) as room:  # 0700, and in memory: it may hold passwords
        path = room / "edit.yaml"
        path.write_text(head + text)
        while True:
            opened(path)
            try:
                data = path.read_bytes()
                after = entries(data, path.name, section)
                check(after, places(data, path.name))
                return after, data
            except ConfigError as error:
                click.echo(f"error: {error.message}", err=True)
                if not answer("Edit again?"):
                    raise
