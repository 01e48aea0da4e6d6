"""What strangers call themselves and what they ask for, made fit for log, status and terminal."""

from __future__ import annotations

NAME = 128  # characters of a name
REASON = 300  # of a sentence that may quote names


def tame(text: str, most: int = NAME) -> str:
    """At most `most` characters on one line: what a terminal or a reader of the log would not take for text of one name
    (control characters, line and paragraph ends, marks of direction) becomes an escape as Python writes it."""
    if len(text) <= most and text.isprintable():
        return text
    shown = "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii")
        for letter in text[: most + 1]
    )
    return shown if len(shown) <= most else shown[: most - 3] + "..."
