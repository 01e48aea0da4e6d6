"""An iPXE script as a node gets it, without a worker: one of the site's goes through the same messages."""

from __future__ import annotations

from collections.abc import Mapping

from wwfast.boot.script import Scripts
from wwfast.overlays.making.messages import Write, encode, questions


def render(scripts: Scripts, name: str, variables: Mapping[str, object]) -> str:
    """Raises WwfastError."""
    made = scripts.script(name, variables)
    if isinstance(made, str):
        return made
    told = questions.decode(encode(made))
    assert isinstance(told, Write)
    program = scripts.writer.compiled(told.path, told.source, "")
    return scripts.writer.run(program, told.variables, told.node)
