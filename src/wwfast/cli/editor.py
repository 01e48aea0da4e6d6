"""$EDITOR, and what becomes of a text that was written in it and has no place any more."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import click

from wwfast.cli.context import App
from wwfast.errors import UsageError, WwfastError

LONGEST = 64  # bytes of a name that are kept with a text: with the number in front, and its last part tells what it is


def opened(path: Path) -> None:
    """Have `path` edited. Raises WwfastError when the editor says that it failed, or leaves no file."""
    from wwfast.system.run import attached

    said = os.environ.get("EDITOR", "")
    try:
        editor = shlex.split(said) or ["vi"]
    except ValueError as error:
        raise UsageError(f"EDITOR is no command: {said}: {error}", hint="for example: export EDITOR=vi") from None
    if status := attached([*editor, path]):
        raise WwfastError(f"{editor[0]} failed with exit status {status}; nothing was changed")
    if not path.is_file():
        raise WwfastError(f"{editor[0]} left no file where {path.name} was; nothing was changed")


@contextmanager
def keeping(app: App, name: str, data: bytes) -> Iterator[None]:
    """A text that was written in the editor is kept, for root only, where the block that is to write it fails. An empty
    one is none."""
    from wwfast.system import files

    try:
        yield
    except BaseException:
        if not data:
            raise
        short = os.fsencode(name)[-LONGEST:].decode(errors="replace")
        place = app.paths.state / "edited" / f"{os.getpid()}-{short}"
        with suppress(OSError):  # what failed first is told
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            files.replace(place, data)
            click.echo(f"what you wrote is in {place}", err=True)
        raise
