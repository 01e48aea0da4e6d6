"""One packet's, one connection's, one transfer's fault stays its own: it is told, and the next one is served.

Told means: to the event loop's exception handler, which in the daemon counts by `part`, logs once a minute and shows it
in /status (`daemon.life.supervision`). A stranger who found a packet that fails cannot fill the log with it.
"""

from __future__ import annotations

from typing import Any, Protocol


class Loop(Protocol):
    def call_exception_handler(self, context: dict[str, Any], /) -> None: ...


def isolated(loop: Loop, part: str, error: Exception) -> None:
    """Tell of an unexpected `error`; `part` is one of a few words that name what goes on without it."""
    message = f"{part}: unexpected {type(error).__name__}"
    loop.call_exception_handler({"message": message, "exception": error, "part": part})
