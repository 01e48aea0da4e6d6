"""$EDITOR, and what becomes of a text that was written in it and has no place any more."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from wwfast.cli.context import App
from wwfast.errors import UsageError, WwfastError


def opened(path: Path) -> None:
    """Have `path` edited. Raises WwfastError when the editor says that it failed, or leaves no file."""
    from wwfast.system.run import start

    said = os.environ.get("EDITOR", "")
    try:
        editor = shlex.split(said) or ["vi"]
    except ValueError as error:
        raise UsageError(f"EDITOR is no command: {said}: {error}", hint="for example: export EDITOR=vi") from None
    if status := start([*editor, path], stdin=None).wait():
        raise WwfastError(f"{editor[0]} failed with exit status {status}; nothing was changed")
    if not path.is_file():
        raise WwfastError(f"{editor[0]} left no file where {path.name} was; nothing was changed")


def kept(app: App, name: str, data: bytes) -> str:
    """Keep a text whose file was changed by someone else meanwhile, for root only; where, in words for a hint."""
    from wwfast.system import files

    place = app.paths.state / "edited" / f"{os.getpid()}-{name}"
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    files.replace(place, data)
    return f"what you wrote is in {place}"
