"""The three standard streams: there from the start, and known by name where writing to one fails."""

from __future__ import annotations

import io
import os
import sys
from typing import Any

OUTPUT = "standard output"


class Output(io.FileIO):
    """Standard output as a file whose errors have its name: write(2) knows only a descriptor, and an error without a
    file is looked for where we write ourselves."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            error.filename = OUTPUT
            raise


def stand() -> None:
    """Nothing in place of what was closed (`wwfast ... >&-`): whoever closes a stream wants nothing of it, and the next
    file that is opened would take its number, for us and for our children."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, f"__{name}__") is None and getattr(sys, name) is None:
            empty = os.open(os.devnull, os.O_RDWR)
            os.dup2(empty, number)  # which children inherit
            if empty != number:
                os.close(empty)
            setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8", closefd=False))  # noqa: SIM115
    was = sys.stdout
    if isinstance(was, io.TextIOWrapper) and was is sys.__stdout__:
        raw = io.BufferedWriter(Output(was.fileno(), "w", closefd=False))
        # A name of a file that is no text costs no command what it has to say; in JSON this is how it is written.
        sys.stdout = io.TextIOWrapper(raw, was.encoding, "backslashreplace", line_buffering=was.line_buffering)


def drop() -> None:
    """What is still to be written to standard output goes nowhere: the end of the process would try once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
