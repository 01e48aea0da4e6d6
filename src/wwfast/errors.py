"""Errors for people: what failed, on which object, why, and what to do next."""

from __future__ import annotations


class WwfastError(Exception):
    """A failure an admin can act on; the CLI prints it without a traceback and exits with `exit_code`.

    `message` is one or two lines that name the object and the cause; `hint` is the next step.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(WwfastError):
    """The command line itself was wrong (exit status 2)."""

    exit_code = 2


class NotFoundError(WwfastError):
    """A node, profile, image, kernel, overlay or file that was named does not exist."""


class ConfigError(WwfastError):
    """warewulf.conf, nodes.conf or an overlay says something that cannot be right."""
