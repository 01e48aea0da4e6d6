"""Every flag and argument of every command is used by it."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator

import click
import pytest

from wwfast.cli.groups import booleans
from wwfast.cli.images import inside
from wwfast.cli.main import cli
from wwfast.cli.nodes import entries
from wwfast.cli.server import configure

#: The options that commands share as `how`, and the function that reads them.
SHARED = {entries.How: entries.write, configure.How: configure.write_files}


def commands(command: click.Command, path: str, context: click.Context) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from commands(inner, f"{path} {name}", context)
    else:
        yield path, command


ALL = dict(commands(cli, "wwfast", click.Context(cli)))


def names_used(command: click.Command) -> tuple[set[str], bool]:
    """Names the callback reads, and whether it takes and reads any further ones by `**`."""
    callback = inspect.unwrap(command.callback)  # type: ignore[arg-type]
    tree = ast.parse(textwrap.dedent(inspect.getsource(callback)))
    function = next(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    used = {
        node.id
        for statement in function.body
        for node in ast.walk(statement)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }
    shared = callback.__globals__.get("How")
    if "how" in used and shared in SHARED:
        reader = ast.parse(inspect.getsource(SHARED[shared]))
        used |= set(shared._fields) & {node.attr for node in ast.walk(reader) if isinstance(node, ast.Attribute)}
    rest = function.args.kwarg
    return used, rest is not None and rest.arg in used


@pytest.mark.parametrize("path", sorted(ALL))
def test_cli_every_flag_has_an_effect(path: str) -> None:
    command = ALL[path]
    used, rest = names_used(command)
    given = {param.name for param in command.params if param.expose_value}
    assert rest or given <= used, f"{path}: {sorted(str(name) for name in given - used)}"


def test_cli_the_check_sees_an_idle_flag() -> None:
    @click.command()
    @click.option("--idle")
    @click.option("--busy")
    def command(idle: str, busy: str) -> None:
        print(busy)

    assert names_used(command) == ({"print", "busy"}, False)


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["--write=false", "deb"], ["--no-write", "deb"]),
        (["--write=TRUE", "deb"], ["--write", "deb"]),
        (["--build=false"], []),
        (["--write=maybe"], ["--write=maybe"]),
        (["--", "--write=false"], ["--", "--write=false"]),
    ],
)
def test_booleans_are_taken_as_wwctl_takes_them(words: list[str], meant: list[str]) -> None:
    assert booleans(inside.syncuser, words) == meant


def test_a_boolean_with_a_value_never_takes_it_from_the_next_word() -> None:
    assert booleans(inside.shell, ["--build", "deb"]) == ["--build=true", "deb"]
    assert booleans(inside.shell, ["--build", "false", "deb"]) == ["--build", "false", "deb"]


@pytest.mark.parametrize("text", ["1_0", "\uff14", " 4", "+4", "nan", "inf", "0x4", "\u00b2"])
def test_cli_a_number_is_digits_alone(text: str) -> None:
    """Whatever else int() and float() take: a slip of the finger, or a paste, would be a number nobody meant."""
    numbers = (type(click.INT), type(click.FLOAT))
    given = [it for each in ALL.values() for it in each.params if it.expose_value and not getattr(it, "count", False)]
    found = [it for it in given if isinstance(it.type, numbers)]
    assert len(found) > 10
    for param in found:
        with pytest.raises(click.BadParameter):
            param.type_cast_value(click.Context(cli), text)
