"""Every error in words: what failed, on which object, why, and what to do next. Nowhere else is one translated."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path

from wwfast import _ext
from wwfast.cli.standard import OUTPUT
from wwfast.errors import WwfastError, of_system
from wwfast.system.work import PREFIX

BUILD = "run `make setup` in the checkout, as after each update of it"
FULL = (errno.ENOSPC, errno.EDQUOT)


def worded(error: BaseException, places: Iterable[Path] = ()) -> WwfastError:
    """The error as one for people; `places` are where a write may have failed that names no file."""
    if isinstance(error, WwfastError):
        return error
    if isinstance(error, OSError):
        if error.filename == OUTPUT:
            return WwfastError(f"{OUTPUT}: {error.strerror}", hint="what was changed until then stays changed")
        if error.filename is None:
            error.filename = culprit(error.errno, places) or None
        for name in ("filename", "filename2"):
            if getattr(error, name) is not None:
                setattr(error, name, _shown(getattr(error, name)))
        return of_system(error)
    if isinstance(error, RecursionError):
        return WwfastError("the input is nested too deeply", hint="-d in front of the command shows where")
    if isinstance(error, MemoryError):
        return WwfastError("this machine has no memory left for that")
    if isinstance(error, UnicodeError):
        return WwfastError(f"a text is not UTF-8: {error}", hint="convert it, for example: iconv -f LATIN1 -t UTF-8")
    if isinstance(error, ImportError) and (error.name or "").startswith(_ext.__name__):
        return WwfastError(f"the native extensions do not fit this version: {error}", hint=BUILD)
    report = "the same command with -d in front (`wwfast -d ...`) shows where: please report that with it"
    if old := unbuilt():
        report = f"{old} is older than its source: {BUILD}; if that does not help, {report}"
    return WwfastError(f"unexpected {type(error).__name__}: {error}; this is a bug of wwfast", hint=report)


def unbuilt() -> str:
    """An extension that was built before its source changed, as after an update of a checkout; empty when none is."""
    folder = Path(_ext.__file__).parent
    for source in sorted(folder.glob("*.pyx")):
        for built in folder.glob(f"{source.stem}.*.so"):
            if built.stat().st_mtime_ns < source.stat().st_mtime_ns:
                return built.name
    return ""


def _shown(name: object) -> str:
    """A file's name; of something unfinished, the directory it was to stand in."""
    text = os.fsdecode(name) if isinstance(name, str | bytes) else str(name)
    return text.partition(f"/{PREFIX}")[0] or text


def culprit(code: int | None, places: Iterable[Path]) -> str:
    """Which of our places a write failed at that has no name: write(2) knows only its descriptor."""
    for place in places:
        while not place.exists() and place != place.parent:
            place = place.parent
        try:
            facts = os.statvfs(place)
        except OSError:
            continue
        if (code in FULL and 0 in (facts.f_bavail, facts.f_favail)) or (
            code == errno.EROFS and facts.f_flag & os.ST_RDONLY
        ):
            return str(place)
    return ""


def told(error: BaseException, *, debug: bool, places: Iterable[Path] = ()) -> int:
    """Print it, with `debug` also where it came from; the exit status."""
    if debug:
        traceback.print_exception(error)
    said = worded(error, places)
    print(f"error: {said.message}", file=sys.stderr)
    if said.hint:
        print(f"hint: {said.hint}", file=sys.stderr)
    return said.exit_code
