"""Folders nobody else looks into, and errors that name the place."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """A system error of the block that names no file names `path`: write(2) and fsync(2) know only descriptors."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def folder(path: Path) -> Path:
    """A directory and those above it; new ones are 0700. What we keep holds passwords and the images' /etc/shadow."""
    if not path.is_dir():
        if path.parent != path:
            folder(path.parent)
        with suppress(FileExistsError):
            path.mkdir(mode=0o700)
        if not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    return path


def tighten(*paths: Path) -> None:
    """Take from others what they can do with our folders, as far as they are ours."""
    for path in paths:
        with suppress(OSError):
            status = path.lstat()
            if status.st_mode & 0o077 and status.st_uid == os.geteuid() and path.is_dir() and not path.is_symlink():
                path.chmod(status.st_mode & 0o7700)


@contextmanager
def new_folder(path: Path, mode: int = 0o755) -> Iterator[None]:
    """The directory is there in the block; one that was made for it goes again, empty, when the block fails."""
    made = not path.is_dir()
    path.mkdir(mode=mode, parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        if made:
            with suppress(OSError):
                path.rmdir()
        raise
