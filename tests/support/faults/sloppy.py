"""Writers that do it wrong, each in one way: the tool must find that."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from support.faults.trial import Fault, GarbageError, Writer
from wwfast.errors import WwfastError, of_system


@contextmanager
def worded() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise of_system(error, "cannot write") from error


OLD, NEW = "old " * 1000, "new " * 1000


def _prepare(root: Path) -> None:
    (root / "file").write_text(OLD)


def _read(root: Path) -> Any:
    text = (root / "file").read_text()
    assert text in (OLD, NEW), f"{len(text)} bytes"
    return text


def _safely(root: Path, text: str = NEW) -> None:
    """As it should be."""
    new = root / "new"
    with worded():
        try:
            with new.open("w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            new.rename(root / "file")
            directory = os.open(root, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except BaseException:
            with suppress(OSError):
                new.unlink(missing_ok=True)
            raise


def _in_place(root: Path) -> None:
    with worded():
        (root / "file").write_text(NEW)


def _leaving(root: Path) -> None:
    with worded():
        new = root / "left by somebody"
        new.write_text(NEW)
        new.rename(root / "file")


def _raising(root: Path) -> None:
    try:
        _safely(root)
    except WwfastError as error:
        raise OSError(str(error)) from error


def _claiming(root: Path) -> None:
    with suppress(WwfastError):
        _safely(root)


def _unsynced(root: Path) -> None:
    with worded():
        try:
            (root / "new").write_text(NEW)
            (root / "new").rename(root / "file")
        finally:
            (root / "new").unlink(missing_ok=True)


def _linked(root: Path) -> None:
    """Keeps it in a cache, where it need not be safe, and gives it a name elsewhere."""
    with worded():
        cache = root / "var/cache"
        cache.mkdir(parents=True, exist_ok=True)
        (cache / "new").write_text(NEW)
        try:
            (root / "file").unlink()
            (root / "file").hardlink_to(cache / "new")
        finally:
            (cache / "new").unlink()


def _one_write(root: Path) -> None:
    """Believes that a write takes all it is given."""
    with worded():
        fd = os.open(root / "new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.write(fd, NEW.encode())
        os.fsync(fd)
        os.close(fd)
        (root / "new").rename(root / "file")


def _stuck(root: Path) -> None:
    _safely(root)
    (root / "lock").touch()
    (root / "lock").unlink()


def _unlocked(root: Path) -> None:
    if (root / "lock").exists():
        raise WwfastError("it is locked")
    _safely(root)


def _serving(root: Path) -> None:
    try:
        _safely(root)
    except WwfastError as error:
        raise GarbageError("half of it was served") from error


def sloppy() -> list[Writer]:
    """By the promise that each breaks; "none" breaks none."""
    wrong: dict[str, Callable[[Path], None]] = {
        "none": _safely,
        "torn": _in_place,
        "torn by a short write": _one_write,
        "garbage": _serving,
        "stuck": _stuck,
        "left": _leaving,
        "mute": _raising,
        "lied": _claiming,
        "unsafe": _unsynced,
        "unsafe under a second name": _linked,
    }
    return [
        Writer(f"sloppy: {name}", _prepare, _faulty(run), _read, _unlocked if name == "stuck" else _safely)
        for name, run in wrong.items()
    ]


def _faulty(run: Callable[[Path], None]) -> Callable[[Path, Fault], None]:
    def doing(root: Path, fault: Fault) -> None:
        with fault:
            run(root)

    return doing
