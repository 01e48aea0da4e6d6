"""Manual pages from the declarations: commands from click, files from their schemas."""

from __future__ import annotations

from collections.abc import Iterator

import click
import msgspec

import wwfast
from wwfast.config.schema import Kind, fields
from wwfast.config.settings import Settings
from wwfast.nodes.model import Node

SHOWN = {
    Kind.TEXT: "text",
    Kind.BOOL: "true or false",
    Kind.INT: "number",
    Kind.LIST: "list",
    Kind.TAGS: "map of texts",
    Kind.FREE: "map of anything",
    Kind.ITEMS: "list of maps",
}


def pages() -> Iterator[tuple[str, str]]:
    """(file name, text) of every page."""
    from wwfast.cli.main import cli

    yield from command_pages(cli, "wwfast", None)
    yield "nodes.conf.5", file_page("nodes.conf", "nodes and profiles", Node, "nodes.NAME")
    yield "warewulf.conf.5", file_page("warewulf.conf", "settings of the server", Settings, "")


def command_pages(command: click.Command, name: str, parent: click.Context | None) -> Iterator[tuple[str, str]]:
    context = click.Context(command, info_name=name.rpartition(" ")[2], parent=parent)
    page = name.replace(" ", "-")
    lines = [head(page, 1), ".SH NAME", f"{roff(page)} \\- {roff(command.get_short_help_str(200))}"]
    lines += [".SH SYNOPSIS", f".B {roff(name)}", roff(" ".join(command.collect_usage_pieces(context)))]
    lines += [".SH DESCRIPTION", roff(command.help or "")]
    options = [
        record for param in command.get_params(context) if (record := param.get_help_record(context)) is not None
    ]
    if options:
        lines.append(".SH OPTIONS")
        for option, text in options:
            lines += [".TP", f".B {roff(option)}", roff(text)]
    children: list[tuple[str, click.Command]] = []
    if isinstance(command, click.Group):
        for each in command.list_commands(context):
            try:
                child = command.get_command(context, each)
            except ImportError:
                continue
            if child is not None and not child.hidden:
                children.append((each, child))
        lines.append(".SH COMMANDS")
        for each, child in children:
            lines += [".TP", f".B {roff(each)}", roff(child.get_short_help_str(200))]
    if command.epilog:
        lines += [".SH EXAMPLE", roff(command.epilog.removeprefix("Example: "))]
    yield f"{page}.1", "\n".join(lines) + "\n"
    for each, child in children:
        yield from command_pages(child, f"{name} {each}", context)


def reference() -> Iterator[tuple[str, str]]:
    """(file name, Markdown) of every command, from its own help."""
    from wwfast.cli.main import cli

    def of(command: click.Command, name: str, parent: click.Context | None) -> Iterator[tuple[str, str]]:
        context = click.Context(command, info_name=name.rpartition(" ")[2], parent=parent, max_content_width=100)
        yield f"{name.replace(' ', '_')}.md", f"# {name}\n\n```text\n{command.get_help(context)}\n```\n"
        group = command if isinstance(command, click.Group) else click.Group()
        for word in group.list_commands(context):
            child = group.get_command(context, word)
            if child is not None and not child.hidden:
                yield from of(child, f"{name} {word}", context)

    yield from of(cli, "wwfast", None)


def file_page(name: str, about: str, struct: type[msgspec.Struct], above: str) -> str:
    lines = [head(name, 5), ".SH NAME", f"{roff(name)} \\- {about}", ".SH KEYS"]
    for key, kind, text in keys(struct, above):
        lines += [".TP", f".B {roff(key)}", f"({kind}) {roff(text)}"]
    return "\n".join(lines) + "\n"


def keys(struct: type[msgspec.Struct], above: str) -> Iterator[tuple[str, str, str]]:
    """(path, kind, help) of every key of a schema."""
    for spec in fields(struct).values():
        here = f"{above}.{spec.key}" if above else spec.key
        if spec.struct is None:
            yield here, SHOWN[spec.kind], spec.doc.help + (f" But: {spec.doc.lacks}." if spec.doc.lacks else "")
            continue
        inner = {Kind.STRUCTS: f"{here}.NAME", Kind.ITEMS: f"{here}[]"}.get(spec.kind, here)
        yield from keys(spec.struct, inner)


def head(name: str, section: int) -> str:
    return f'.TH "{name.upper()}" "{section}" "" "wwfast {wwfast.__version__}" "wwfast"'


def roff(text: str) -> str:
    safe = text.replace("\\", "\\e").replace("-", "\\-")
    return "\n".join(f"\\&{line}" if line[:1] in ".'" else line for line in safe.splitlines())
