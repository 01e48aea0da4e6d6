"""$EDITOR, and what becomes of a text that was written in it and has no place any more."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from wwfast.cli.context import App
from wwfast.errors import WwfastError


def opened(path: Path) -> None:
    """Have `path` edited. Raises WwfastError when the editor says that it failed."""
    from wwfast.system.run import start

    editor = shlex.split(os.environ.get("EDITOR") or "vi")
    if status := start([*editor, path], stdin=None).wait():
        raise WwfastError(f"{editor[0]} failed with exit status {status}; nothing was changed")


def kept(app: App, name: str, data: bytes) -> str:
    """Keep a text whose file was changed by someone else meanwhile, for root only; where, in words for a hint."""
    from wwfast.system import files

    place = app.paths.state / "edited" / f"{os.getpid()}-{name}"
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    files.replace(place, data)
    return f"what you wrote is in {place}"
