"""Command-line options of nodes and profiles, made from the model's flags, and back into a change request."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click

from wwfast.cli.completion import completer
from wwfast.config import words
from wwfast.config.schema import Kind
from wwfast.errors import UsageError
from wwfast.nodes.edit.change import Request
from wwfast.nodes.edit.flags import FAMILY_NOUN, Flag, families, flags

Function = Callable[..., Any]


# What may follow a flag with an optional truth value as a word of its own; the letters of Go's ParseBool may not.
TRUTHS = frozenset(("true", "false", "yes", "no", "on", "off", "0", "1", "undef", "unset"))
LETTERS = frozenset(("t", "f", "y", "n"))


class FieldCommand(click.Command):
    """Lets flags with an optional truth value stand alone (`--onboot`), and short ones use `=` (`-I=10.0.0.1`).

    `--onboot false n1` means what it says, `--onboot=false`: a truth value behind such a flag is no name.
    """

    empty_clears = True  # `--image ""`, as Warewulf has it

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        params = {name: param for param in self.params for name in param.opts if isinstance(param, click.Option)}
        optional = {name for flag in flags() if flag.takes_bool for name in spelled(flag)[:-1]}
        fixed: list[str] = []
        rest = list(reversed(args))
        while rest:
            word = rest.pop()
            name, equals, value = word.partition("=")
            param = params.get(name)
            if word == "--":
                fixed += [word, *reversed(rest)]
                break
            if param is not None and not param.is_flag and name in optional:
                word = f"{param.opts[0]}={value if equals else truth(name, rest)}"
            elif param is not None and not param.is_flag and not equals and rest:
                fixed.append(word)
                word = rest.pop()  # its value, whatever it looks like
            elif equals and re.fullmatch(r"-[A-Za-z]", name):
                word = name + value
            fixed.append(word)
        return super().parse_args(ctx, fixed)


def truth(option: str, rest: list[str]) -> str:
    """The value of an option without `=`: the next word (the last of `rest`) if it is a truth value, else true."""
    low = rest[-1].lower() if rest else ""
    if low in LETTERS:
        raise UsageError(f"{option} {rest[-1]}: is that a value or a name?", hint=f"write {option}={rest[-1]}")
    return rest.pop() if low in TRUTHS else "true"


def chosen(profile: bool) -> list[Flag]:
    return [flag for flag in flags() if not (profile and flag.doc.node_only)]


def spelled(flag: Flag) -> list[str]:
    return [f"--{flag.name}", *([f"-{flag.doc.short}"] if flag.doc.short else []), f"field_{flag.variable}"]


def removing(name: str, flag: Flag) -> Callable[[Function], Function]:
    """The option that takes keys out of a map of tags."""
    return click.option(
        name, f"del_{flag.variable}", multiple=True, metavar="K,...", help=f"Remove from: {flag.doc.help}"
    )


def set_options(*, profile: bool, adding: bool) -> Callable[[Function], Function]:
    """The options of add and set."""

    def decorate(function: Function) -> Function:
        made: list[Callable[[Function], Function]] = []
        for flag in chosen(profile):
            if flag.kind is Kind.TAGS:
                made.append(
                    click.option(
                        f"--{flag.name}add",
                        f"add_{flag.variable}",
                        multiple=True,
                        metavar="K=V,...",
                        help=f"Add or change: {flag.doc.help}",
                    )
                )
                if not adding:
                    made.append(removing(f"--{flag.name}del", flag))
                continue
            many = flag.kind is Kind.LIST
            metavar = "A,B,..." if many else "[=BOOL]" if flag.takes_bool else "TEXT"
            complete = completer(flag.doc.complete) if flag.doc.complete else None
            made.append(
                click.option(
                    *spelled(flag), multiple=True, metavar=metavar, help=flag.doc.help, shell_complete=complete
                )
            )
            for old in flag.doc.hidden:
                dashes = "--" if len(old) > 1 else "-"
                made.append(click.option(dashes + old, f"old_{old}", multiple=True, hidden=True))
        for family, noun in ((each, FAMILY_NOUN[each]) for each in families()):
            note = " [default: default]" if family == "net" else ""
            made.append(
                click.option(
                    f"--{family}name",
                    f"name_{family}",
                    multiple=True,
                    metavar="NAME",
                    help=f"The {noun} these flags are about.{note}",
                )
            )
            if not adding:
                made.append(
                    click.option(
                        f"--{family}del", f"remove_{family}", multiple=True, metavar="NAME", help=f"Remove a {noun}."
                    )
                )
        for option in reversed(made):
            function = option(function)
        return function

    return decorate


def unset_options(*, profile: bool) -> Callable[[Function], Function]:
    """The options of unset: every field as a plain flag."""

    def decorate(function: Function) -> Function:
        made: list[Callable[[Function], Function]] = []
        for flag in chosen(profile):
            if flag.kind is Kind.TAGS:
                made.append(removing(f"--{flag.name}", flag))
            else:
                made.append(click.option(*spelled(flag), is_flag=True, help=f"Clear: {flag.doc.help}"))
        for family in families():
            made.append(
                click.option(
                    f"--{family}name",
                    f"name_{family}",
                    multiple=True,
                    metavar="NAME",
                    help=f"The {FAMILY_NOUN[family]} these flags are about; alone: remove it.",
                )
            )
        for option in reversed(made):
            function = option(function)
        return function

    return decorate


def set_request(given: dict[str, Any]) -> Request:
    """What the options of add or set ask for. Consumes them from `given`."""
    request = Request()
    for flag in flags():
        values = list(given.pop(f"field_{flag.variable}", ()))
        for old in flag.doc.hidden:
            values += given.pop(f"old_{old}", ())
        if values:
            request.values[flag.name] = listed(flag, values) if flag.kind is Kind.LIST else once(flag.name, values)
        if flag.kind is Kind.TAGS:
            if added := given.pop(f"add_{flag.variable}", ()):
                request.add[flag.name] = tagged(f"{flag.name}add", added)
            take_keys(flag, given, request, f"{flag.name}del")
    take_families(given, request)
    return request


def unset_request(given: dict[str, Any]) -> Request:
    """What the options of unset ask for: fields, tags, and whole entities whose selector stands alone."""
    request = Request()
    for flag in flags():
        if flag.kind is Kind.TAGS:
            take_keys(flag, given, request, flag.name)
        elif given.pop(f"field_{flag.variable}", False):
            request.values[flag.name] = True
    take_families(given, request)
    used = {flag.family for flag in request.given()}
    if "nettag" in request.delete:
        used.add("net")
    for family in ("disk", "part", "fs"):
        if family in used and family not in request.names:
            raise UsageError(f"which {FAMILY_NOUN[family]}? name it with --{family}name")
    if "part" in used and "disk" not in request.names:
        raise UsageError("a partition needs --diskname")
    inner = {"disk"} if "part" in request.names else set()
    for family, name in request.names.items():
        if family not in used | inner:
            request.remove[family] = name
    return request


def take_keys(flag: Flag, given: dict[str, Any], request: Request, option: str) -> None:
    if keys := parsed(option, given.pop(f"del_{flag.variable}", ()), words.items):
        request.delete[flag.name] = keys


def take_families(given: dict[str, Any], request: Request) -> None:
    for family in families():
        for option, wanted in ((f"{family}name", request.names), (f"{family}del", request.remove)):
            field = f"{'name' if wanted is request.names else 'remove'}_{family}"
            if values := given.pop(field, ()):
                wanted[family] = once(option, values)


def once(option: str, values: Sequence[str]) -> str:
    """The one value of an option, which may be repeated but not contradicted."""
    if len(set(values)) > 1:
        raise UsageError(f"--{option} is given twice: {' and '.join(repr(value) for value in dict.fromkeys(values))}")
    return values[0]


def parsed(option: str, values: Iterable[str], split: Callable[[str], list[Any]]) -> list[Any]:
    """What the texts of an option that may repeat say, together. Raises UsageError."""
    try:
        return [item for value in values for item in split(value)]
    except ValueError as error:
        raise UsageError(f"--{option}: {error}") from None


def listed(flag: Flag, values: Sequence[str]) -> list[str]:
    """The list that an option means, which may repeat; a note where commas may have torn one item in two."""
    found = parsed(flag.name, values, flag.doc.split or words.items)
    for value in values if flag.doc.split else ():
        if pair := words.torn(found, value):
            first, second = pair
            click.echo(
                f"note: --{flag.name}: a comma separates, so '{first}' and '{second}' are two; "
                f"""for one write --{flag.name} '"{first},{second}"'""",
                err=True,
            )
    return found


def tagged(option: str, values: Iterable[str]) -> dict[str, str]:
    """The tags that the texts of an option give."""
    found: dict[str, str] = {}
    for key, value in parsed(option, values, words.pairs):
        if found.setdefault(key, value) != value:
            raise UsageError(f"--{option}: '{key}' is given twice: {found[key]!r} and {value!r}")
    return found
