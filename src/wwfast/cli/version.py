"""wwfast version and wwfast help."""

from __future__ import annotations

import click

import wwfast


@click.command(epilog="Example: wwfast version --full")
@click.option("-f", "--full", is_flag=True, help="With Python and the libraries that carry the work.")
def version(full: bool) -> None:
    """Print the version."""
    click.echo(f"wwfast {wwfast.__version__}")
    if full:
        import platform
        from importlib.metadata import version as of

        click.echo(f"python {platform.python_version()} {platform.machine()}")
        for name in ("click", "jinja2", "msgspec", "uvloop", "xxhash", "zstandard"):
            click.echo(f"{name} {of(name)}")


@click.command("help", epilog="Example: wwfast help node set")
@click.argument("words", nargs=-1, metavar="[COMMAND...]")
@click.pass_context
def help_(ctx: click.Context, words: tuple[str, ...]) -> None:
    """Print the help of a command."""
    at = ctx.find_root()
    for word in words:
        found = at.command.get_command(at, word) if isinstance(at.command, click.Group) else None
        if found is None:
            ctx.fail(f"No such command '{' '.join(words)}'.")
        at = click.Context(found, info_name=word, parent=at)
    click.echo(at.get_help())
