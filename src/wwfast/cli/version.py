"""wwfast version."""

from __future__ import annotations

import click

import wwfast


@click.command(epilog="Example: wwfast version")
def version() -> None:
    """Print the version."""
    click.echo(f"wwfast {wwfast.__version__}")
