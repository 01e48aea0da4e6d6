"""Command-line options of nodes and profiles, made from the model's flags, and back into a change request."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from typing import Any

import click

from wwfast.cli.completion import completer
from wwfast.config.schema import Kind
from wwfast.errors import UsageError
from wwfast.nodes.change import Request
from wwfast.nodes.flags import FAMILY_NOUN, Flag, families, flags

Function = Callable[..., Any]


class FieldCommand(click.Command):
    """Lets flags with an optional value stand alone (`--onboot`), and short ones use `=` (`-I=10.0.0.1`)."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        alone: dict[str, str] = {}
        for flag in flags():
            if flag.takes_bool:
                alone[f"--{flag.name}"] = f"--{flag.name}"
                if flag.doc.short:
                    alone[f"-{flag.doc.short}"] = f"--{flag.name}"
        fixed: list[str] = []
        for index, word in enumerate(args):
            if word == "--":
                fixed += args[index:]
                break
            name, equals, value = word.partition("=")
            if name in alone and any(
                name in param.opts for param in self.params if not getattr(param, "is_flag", False)
            ):
                word = f"{alone[name]}={value if equals else 'true'}"
            elif equals and re.fullmatch(r"-[A-Za-z]", name):
                word = name + value
            fixed.append(word)
        return super().parse_args(ctx, fixed)


def chosen(profile: bool) -> list[Flag]:
    return [flag for flag in flags() if not (profile and flag.doc.node_only)]


def spelled(flag: Flag) -> list[str]:
    return [f"--{flag.name}", *([f"-{flag.doc.short}"] if flag.doc.short else []), f"field_{flag.variable}"]


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
                    made.append(
                        click.option(
                            f"--{flag.name}del",
                            f"del_{flag.variable}",
                            multiple=True,
                            metavar="K,...",
                            help=f"Remove from: {flag.doc.help}",
                        )
                    )
                continue
            many = flag.kind is Kind.LIST
            metavar = "A,B,..." if many else "[=BOOL]" if flag.takes_bool else "TEXT"
            complete = completer(flag.doc.complete) if flag.doc.complete else None
            made.append(
                click.option(
                    *spelled(flag), multiple=many, metavar=metavar, help=flag.doc.help, shell_complete=complete
                )
            )
            for old in flag.doc.hidden:
                dashes = "--" if len(old) > 1 else "-"
                made.append(click.option(dashes + old, f"old_{old}", multiple=many, hidden=True))
        for family, noun in ((each, FAMILY_NOUN[each]) for each in families()):
            note = " [default: default]" if family == "net" else ""
            made.append(
                click.option(
                    f"--{family}name", f"name_{family}", metavar="NAME", help=f"The {noun} these flags are about.{note}"
                )
            )
            if not adding:
                made.append(
                    click.option(f"--{family}del", f"remove_{family}", metavar="NAME", help=f"Remove a {noun}.")
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
                made.append(
                    click.option(
                        f"--{flag.name}",
                        f"del_{flag.variable}",
                        multiple=True,
                        metavar="K,...",
                        help=f"Remove from: {flag.doc.help}",
                    )
                )
            else:
                made.append(click.option(*spelled(flag), is_flag=True, help=f"Clear: {flag.doc.help}"))
        for family in families():
            made.append(
                click.option(
                    f"--{family}name",
                    f"name_{family}",
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
        value = given.pop(f"field_{flag.variable}", None)
        for old in flag.doc.hidden:
            value = given.pop(f"old_{old}", None) or value
        if value not in (None, ()):
            request.values[flag.name] = words(value) if flag.kind is Kind.LIST else value
        if flag.kind is Kind.TAGS:
            pairs = words(given.pop(f"add_{flag.variable}", ()))
            if pairs:
                request.add[flag.name] = dict(pair(item, f"--{flag.name}add") for item in pairs)
            keys = words(given.pop(f"del_{flag.variable}", ()))
            if keys:
                request.delete[flag.name] = keys
    take_families(given, request)
    return request


def unset_request(given: dict[str, Any]) -> Request:
    """What the options of unset ask for: fields, tags, and whole entities whose selector stands alone."""
    request = Request()
    for flag in flags():
        if flag.kind is Kind.TAGS:
            keys = words(given.pop(f"del_{flag.variable}", ()))
            if keys:
                request.delete[flag.name] = keys
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


def take_families(given: dict[str, Any], request: Request) -> None:
    for family in families():
        name, gone = given.pop(f"name_{family}", None), given.pop(f"remove_{family}", None)
        if name:
            request.names[family] = name
        if gone:
            request.remove[family] = gone


def words(values: Any) -> list[str]:
    """`a,b` and `"a,b"` (quotes protect commas), from options that may repeat."""
    return [word for value in values for row in csv.reader([value], skipinitialspace=True) for word in row if word]


def pair(text: str, option: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(f"{option}: '{text}' is not KEY=VALUE")
    return key, value
