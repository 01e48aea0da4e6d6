"""wwfast config and wwfast genconfig."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from wwfast.cli.context import App, pass_app
from wwfast.cli.groups import AliasGroup

WWCTL = """\
#!/bin/sh
# wwctl for scripts written for Warewulf: the same nouns, verbs and flags. Exit status 1 is a failure, 2 wrong usage.
exec wwfast "$@"
"""


@click.group(cls=AliasGroup, epilog="Example: wwfast config show --effective")
def config() -> None:
    """warewulf.conf as it is understood."""


@config.command("show", epilog="Example: wwfast config show --effective --json")
@click.option("-e", "--effective", is_flag=True, help="Every key, with defaults and derived addresses.")
@click.option("-j", "--json", "as_json", is_flag=True, help="As JSON.")
@pass_app
def show(app: App, effective: bool, as_json: bool) -> None:
    """Print warewulf.conf as it is understood: what it says, or every key."""
    tree = settings_tree(app, effective)
    if as_json:
        sys.stdout.write(json.dumps(tree, indent=2, ensure_ascii=False) + "\n")
    else:
        from wwfast.config import yaml

        sys.stdout.write(yaml.printed(tree))


def settings_tree(app: App, effective: bool) -> dict[str, Any]:
    """Settings by key, in file order; without `effective` only keys the file says."""
    import msgspec

    from wwfast.config.schema import fields
    from wwfast.config.settings import Settings

    settings = app.settings
    tree: dict[str, Any] = {}
    for key, spec in fields(Settings).items():
        value = msgspec.to_builtins(getattr(settings, spec.attr))
        if not effective:
            if not settings.is_written(key):
                continue
            if isinstance(value, dict) and spec.struct is not None:
                value = {inner: item for inner, item in value.items() if settings.is_written(f"{key}.{inner}")}
        tree[key] = value
    return tree


@click.group(cls=AliasGroup, epilog="Example: wwfast genconfig completion bash > /etc/bash_completion.d/wwfast")
def genconfig() -> None:
    """Print configuration, man pages and completion scripts."""


@genconfig.group("warewulfconf", cls=AliasGroup, epilog="Example: wwfast genconfig warewulfconf print")
def warewulfconf() -> None:
    """warewulf.conf with every key."""


genconfig.aliases["cnf"] = "warewulfconf"


@warewulfconf.command("print", epilog="Example: wwfast genconfig warewulfconf print > warewulf.conf")
@pass_app
def print_(app: App) -> None:
    """Print the effective warewulf.conf as YAML."""
    from wwfast.config import yaml

    sys.stdout.write(yaml.printed(settings_tree(app, effective=True)))


@genconfig.command("completion", epilog="Example: wwfast genconfig completion zsh > ~/.zfunc/_wwfast")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell."""
    from click.shell_completion import get_completion_class

    from wwfast.cli.main import cli

    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(cli, {}, "wwfast", "_WWFAST_COMPLETE").source())


@genconfig.command("man", epilog="Example: wwfast genconfig man /usr/local/share/man")
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
def man(directory: Path) -> None:
    """Write the manual pages below DIRECTORY: commands in man1, nodes.conf and warewulf.conf in man5."""
    from wwfast.cli.manual import pages
    from wwfast.system import work
    from wwfast.system.folders import new_folder

    with new_folder(directory), work.directory(directory) as room:
        made = []
        for name, text in pages():
            (room / name).write_text(text)
            made.append(name)
        for name in made:  # all of them are there: what is left needs next to no room
            (directory / f"man{name[-1]}").mkdir(exist_ok=True)
            (room / name).rename(directory / f"man{name[-1]}" / name)
    click.echo(f"wrote {len(made)} pages below {directory}")


genconfig.aliases["man_pages"] = "man"


@genconfig.command("reference", epilog="Example: wwfast genconfig reference /tmp/reference")
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
def reference(directory: Path) -> None:
    """Write the help of every command below DIRECTORY, as one Markdown file each."""
    from wwfast.cli.manual import reference as pages
    from wwfast.system import files
    from wwfast.system.folders import new_folder

    with new_folder(directory):
        count = 0
        for count, (name, text) in enumerate(pages(), 1):  # noqa: B007
            files.replace(directory / name, text.encode(), mode=0o644, durable=False)
    click.echo(f"wrote {count} files below {directory}")


@genconfig.command(
    "wwctl", epilog="Example: wwfast genconfig wwctl > /usr/local/bin/wwctl; chmod +x /usr/local/bin/wwctl"
)
def wwctl() -> None:
    """Print a script that lets wwctl mean wwfast, for scripts written for Warewulf."""
    click.echo(WWCTL, nl=False)
