"""Groups of commands: other names for them, a guess at a mistyped one, and commands imported when they run."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable
from typing import Any, ClassVar

import click
from click.core import ParameterSource

TRUTH = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}


def booleans(command: click.Command, words: list[str]) -> list[str]:
    """The words with boolean options as click wants them: wwctl takes `--flag`, `--flag=true` and `--flag=false`."""
    known = {opt: p for p in command.params if isinstance(p, click.Option) for opt in (*p.opts, *p.secondary_opts)}
    done: list[str] = []
    for at, word in enumerate(words):
        if word == "--":
            return done + words[at:]
        name, equals, text = word.partition("=")
        option, value = known.get(name) if name.startswith("--") else None, TRUTH.get(text.lower())
        if option is None or not isinstance(option.type, click.types.BoolParamType) or option.count:
            done.append(word)
        elif not option.is_flag:  # takes a value, which wwctl never takes from the next word
            follows = words[at + 1].lower() if at + 1 < len(words) else ""
            done.append(word if equals or follows in TRUTH else f"{name}=true")
        elif not equals or value is None:
            done.append(word)
        elif value:
            done.append(name)
        elif name in option.opts and option.secondary_opts:
            done.append(option.secondary_opts[0])
    return done


def globals_anywhere(command: click.Command) -> click.Command:
    """wwctl takes its global flags before and after the verb: every command has them, hidden but at the root."""
    if "invoke" not in vars(command) and not isinstance(command, click.Group):
        command.invoke = functools.partial(_allowed, command.invoke)  # type: ignore[method-assign]
    taken = {name for param in command.params for name in (*param.opts, *param.secondary_opts)}
    settings = command.context_settings
    if (
        "--emptyconf" in taken
        or settings.get("ignore_unknown_options")
        or not settings.get("allow_interspersed_args", 1)
    ):
        return command  # has them, or the words after its own are another program's
    for param in command.params:
        if isinstance(param, click.Argument) or not getattr(command, "empty_clears", False):
            param.type_cast_value = functools.partial(_said, param, param.type_cast_value)  # type: ignore[method-assign]
    for flags, how in GLOBALS:
        if free := [flag for flag in flags if flag not in taken]:
            name = flags[-1].strip("-")
            command.params.append(click.Option([*free, name], expose_value=False, hidden=True, callback=_take, **how))
    return command


#: The root's own are in cli.main; `--loglevel` and `--emptyconf` are Warewulf's, which hides them as well.
GLOBALS: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (("-v", "--verbose"), {"is_flag": True}),
    (("-d", "--debug"), {"is_flag": True}),
    (("--warewulfconf",), {"metavar": "PATH"}),
    (("--loglevel",), {"type": int, "metavar": "N"}),
    (("--emptyconf",), {"is_flag": True}),
)


#: What may be done on a server that follows another: it looks, or concerns this machine alone. All else is an edit.
READS = """
cache nginx, cache status, cache warm, completion, config show, configure dhcp, configure hostfile, configure nfs,
configure tftp, configure tls, configure undo, configure warewulfd, doctor, follow end, follow key, genconfig
completion, genconfig man, genconfig reference, genconfig warewulfconf print, genconfig wwctl, group list, help, image
history, image kernels, image list, image show, image verify, kernel list, node console, node export, node list, node
sensors, node status, power cycle, power off, power on, power reset, power soft, power status, profile export, profile
list, server, server peers, ssh, storm, version
"""


def _allowed(invoke: Callable[[click.Context], Any], ctx: click.Context) -> Any:
    """Raises WwfastError for an edit where nodes get what another server has."""
    from wwfast.cli.context import App

    app = ctx.find_object(App)
    if app is not None and ctx.command_path.partition(" ")[2] not in READS.replace("\n", " ").strip().split(", "):
        app.given.require_edits()
    return invoke(ctx)


def _take(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    from wwfast.cli.context import App

    app = ctx.find_object(App)
    if app is not None and param.name and value not in (None, False) and not ctx.resilient_parsing:
        app.take(param.name, value)
    return value


def _said(param: click.Parameter, cast: Callable[..., Any], ctx: click.Context, value: Any) -> Any:
    """A word that is empty is a variable of a shell that is not set: no name, and no place either. Looked at before it
    has its type: an empty path is the current directory."""
    empty = "" in (value if isinstance(value, list | tuple) else (value,)) and not ctx.resilient_parsing
    if empty and ctx.get_parameter_source(param.name or "") is ParameterSource.COMMANDLINE:
        name = param.make_metavar(ctx) if isinstance(param, click.Argument) else max(param.opts, key=len)
        raise click.UsageError(f"{name} is given, but empty.", ctx)
    return cast(ctx, value)


class AliasGroup(click.Group):
    """A group whose commands have aliases, and may live in modules that are imported only when asked for."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.aliases: dict[str, str] = {}
        self.lazy: dict[str, tuple[str, str]] = {}  # name: (module:object, summary)

    def add(self, command: click.Command, *aliases: str) -> None:
        self.add_command(command)
        assert command.name is not None
        for alias in aliases:
            self.aliases[alias] = command.name

    def add_lazy(self, name: str, where: str, summary: str) -> None:
        """`where` is `module:object`; the command is there only if the module is."""
        if importlib.util.find_spec(where.partition(":")[0]) is not None:
            self.lazy[name] = (where, summary)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*self.commands, *self.lazy})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        name = self.aliases.get(cmd_name, cmd_name)
        if name in self.lazy:
            module, _, attribute = self.lazy[name][0].partition(":")
            command = getattr(importlib.import_module(module), attribute)
            assert isinstance(command, click.Command)
            return globals_anywhere(command)
        found = super().get_command(ctx, name)
        return globals_anywhere(found) if found is not None else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and self.get_command(ctx, args[0]) is None and not ctx.resilient_parsing:
            import difflib

            close = difflib.get_close_matches(args[0], [*self.list_commands(ctx), *self.aliases], n=1)
            also = f" Did you mean '{close[0]}'?" if close else ""
            ctx.fail(f"No such command '{args[0]}'.{also}")
        name, command, rest = super().resolve_command(ctx, args)
        return name, command, booleans(command, rest) if command is not None else rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = []
        for name in self.list_commands(ctx):
            others = [alias for alias, target in self.aliases.items() if target == name]
            summary = self.lazy[name][1] if name in self.lazy else self.commands[name].get_short_help_str(80)
            rows.append((name, summary + (f" ({', '.join(others)})" if others else "")))
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)


class EntryGroup(AliasGroup):
    """The commands on one section of nodes.conf; those that write are made when one of them is asked for."""

    WRITERS: ClassVar = {
        "add": ("Add {}s.", ("new", "create")),
        "set": ("Change {}s.", ("modify",)),
        "unset": ("Clear own values of {}s.", ()),
        "delete": ("Delete {}s.", ("rm", "del", "remove")),
        "edit": ("Edit {}s as YAML in $EDITOR.", ()),
        "export": ("Print {}s as they are written.", ()),
        "import": ("Take {}s from a YAML file.", ()),
    }

    def __init__(self, *args: Any, section: str, noun: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section
        for name, (summary, aliases) in self.WRITERS.items():
            self.lazy[name] = ("wwfast.cli.nodes.edits:commands", summary.format(noun))
            self.aliases |= dict.fromkeys(aliases, name)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        name = self.aliases.get(cmd_name, cmd_name)
        if name in self.WRITERS:
            from wwfast.cli.nodes.edits import commands

            return globals_anywhere(commands(self.section)[name])
        return super().get_command(ctx, name)
