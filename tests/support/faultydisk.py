"""A disk that goes bad under one directory: the system calls of this process that write there fail as told."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wwfast._ext import calls
from wwfast.system.files import fill

WRITES = ("write", "pwrite", "writev", "copy_file_range", "ftruncate")
SYNCS = ("fsync", "fdatasync")
NAMES = ("rename", "replace", "link", "symlink", "mkdir")


def put_all(files: list[tuple[bytes, bytes, bytes]]) -> list[int]:
    """`calls.put_all`, by the calls that can be made to fail."""
    return [put(os.fsdecode(fresh), os.fsdecode(path), data) for fresh, path, data in files]


def put(fresh: str, path: str, data: bytes) -> int:
    try:
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            fill(fd, data)
            os.rename(fresh, path)  # noqa: PTH104 - what `NAMES` replaces
        except OSError:
            Path(fresh).unlink()
            raise
        finally:
            os.close(fd)
    except OSError as error:
        return error.errno or errno.EIO
    return 0


class FaultyDisk:
    """`fail` names the error (of `errno`) and what it strikes; `heal` ends it. `struck` counts what failed.

    `after`: so many bytes are written first, so that a record is torn; `skip`: so many calls pass before the first one
    fails. Everything outside the directory works.
    """

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = os.path.realpath(directory)
        self.code = 0
        self.after = self.skip = 0
        self.writes = self.syncs = self.creates = False
        self.struck = 0
        self._open, self._write = os.open, os.write
        for name in (*WRITES, *SYNCS):
            if name == "write":
                monkeypatch.setattr(os, name, self._torn)
            else:
                monkeypatch.setattr(os, name, self._by_fd(name, getattr(os, name)))
        for name in NAMES:
            monkeypatch.setattr(os, name, self._by_path(getattr(os, name)))
        monkeypatch.setattr(os, "open", self._opened)
        monkeypatch.setattr(calls, "put_all", put_all)

    def fail(
        self, code: int, *, writes: bool = True, syncs: bool = True, creates: bool = True, after: int = 0, skip: int = 0
    ) -> None:
        self.code, self.writes, self.syncs, self.creates = code, writes, syncs, creates
        self.after, self.skip, self.struck = after, skip, 0

    def heal(self) -> None:
        self.code = 0

    def _due(self) -> bool:
        self.skip -= 1
        return self.skip < 0

    def _error(self, what: object) -> OSError:
        self.struck += 1
        return OSError(self.code, os.strerror(self.code), str(what))

    def _inside(self, path: Any) -> bool:
        return str(path).startswith(self.directory + os.sep) or str(path) == self.directory

    def _here(self, fd: int) -> bool:
        return bool(self.code) and self._inside(str(Path(f"/proc/self/fd/{fd}").readlink()))

    def _by_fd(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def struck(fd: int, *rest: Any, **more: Any) -> Any:
            at = rest[0] if name == "copy_file_range" else fd
            if (self.writes if name in WRITES else self.syncs) and self._here(at) and self._due():
                raise self._error(name)
            return call(fd, *rest, **more)

        return struck

    def _torn(self, fd: int, data: Any) -> int:
        if not (self.writes and self._here(fd)):
            return self._write(fd, data)
        if self.after <= 0:
            if not self._due():
                return self._write(fd, data)
            raise self._error("write")
        done = self._write(fd, memoryview(data)[: self.after])
        self.after -= done
        return done

    def _by_path(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def struck(*rest: Any, **more: Any) -> Any:
            inside = any(self._inside(path) for path in rest[:2])
            if self.code and self.creates and inside and self._due():
                raise self._error(rest[0])
            return call(*rest, **more)

        return struck

    def _opened(self, path: Any, flags: int, *rest: Any, **more: Any) -> int:
        making = self.code and self.creates and flags & os.O_CREAT
        if making and self._inside(path) and self._due():
            raise self._error(path)
        return self._open(path, flags, *rest, **more)


FULL, BROKEN, READ_ONLY = errno.ENOSPC, errno.EIO, errno.EROFS
