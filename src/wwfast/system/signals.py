"""The signals that ask a command to end: raised as exceptions, and lost nowhere.

CPython prints and forgets what a handler raises while a callback of os.register_at_fork runs (logging has one) or a
finalizer (Modules/posixmodule.c, run_at_forkers; PyErr_WriteUnraisable); and where one raises amid the start of a
child, nobody knows that child.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
AGAIN_SECONDS = 0.01  # after which one that was forgotten is raised again, elsewhere


class Ended(SystemExit):
    """A signal asks us to end: what was begun is taken back on the way out."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


_depth = 0
_came: list[int] = []


def take() -> None:
    """From now on SIGINT raises KeyboardInterrupt, and SIGTERM and SIGHUP raise Ended; what is ignored stays so, as a
    hangup is under nohup."""
    for number in ENDING:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _end)
    sys.unraisablehook = _unraisable


def _end(number: int, _frame: object) -> None:
    if _depth:
        _came.append(number)
    else:
        raise KeyboardInterrupt if number == signal.SIGINT else Ended(number)


@contextmanager
def held() -> Iterator[None]:
    """What comes during the body is raised at its end: for the start of a child, until somebody knows it."""
    global _depth
    if threading.current_thread() is not threading.main_thread():  # handlers run in that one alone
        yield
        return
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        if _came and not _depth:
            number = _came[0]
            _came.clear()
            _end(number, None)


def free() -> None:
    """In a new copy of this process: what came was for who made it."""
    global _depth
    _depth = 0
    _came.clear()


def _unraisable(lost: sys.UnraisableHookArgs) -> None:
    match lost.exc_value:
        case KeyboardInterrupt():
            number = int(signal.SIGINT)
        case Ended(number=number):
            pass
        case _:
            sys.__unraisablehook__(lost)
            return
    signal.signal(signal.SIGALRM, lambda _, frame: _end(number, frame))
    signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)
