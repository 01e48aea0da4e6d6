"""Open files of artefacts: opened once, shared by all transfers, kept open for those under way."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from itertools import islice

from wwfast.pack.artefact import Artefact, Extent

KEPT = 32 << 20  # bytes of small bodies in memory


class OpenFile:
    """One open file; closed when neither the cache nor a transfer holds it any more."""

    __slots__ = ("fd", "identity", "size", "users")

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        found = os.fstat(self.fd)
        self.identity = (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)
        self.size = found.st_size
        self.users = 1  # the cache

    def release(self) -> None:
        self.users -= 1
        if not self.users:
            os.close(self.fd)


def _identity(path: str) -> tuple[int, int, int, int] | None:
    """What is at `path` now; None when there is nothing."""
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


class FileCache:
    """At most `limit` idle descriptors, least recently used first out.

    A path is looked at again on every use: when a rebuild put another file there, new transfers get the new one
    and those under way keep the old one. Whenever a file is opened, two others are looked at, in turns, and let go if
    their path has gone or is another file: the disk gets the space of a removed build back, after a few openings.
    """

    def __init__(self, limit: int = 512) -> None:
        self._limit = limit
        self._files: OrderedDict[str, OpenFile] = OrderedDict()
        self._round: Iterator[str] = iter(())  # over paths, to find those that have gone
        self._bodies: dict[tuple[str, tuple[Extent, ...]], bytes] = {}
        self._kept = 0

    def __len__(self) -> int:
        return len(self._files)

    def open(self, path: str) -> OpenFile:
        """The file at `path`, held for the caller, who must release() it. Raises OSError."""
        found = os.stat(path)  # noqa: PTH116 (a request's path; Path costs more than the system call)
        held = self._files.get(path)
        if held is None or held.identity != (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size):
            fresh = OpenFile(path)
            if held is not None:
                held.release()
            held = self._files[path] = fresh
            if len(self._files) > self._limit:
                self._files.popitem(last=False)[1].release()
            self._look_at_two(path)
        self._files.move_to_end(path)
        held.users += 1
        return held

    def _look_at_two(self, fresh: str) -> None:
        looked_at = list(islice(self._round, 2))
        if len(looked_at) < 2:
            self._round = iter(list(self._files))
        for path in looked_at:
            held = self._files.get(path)
            if held is not None and path != fresh and held.identity != _identity(path):
                self._files.pop(path).release()

    def spans(self, extents: Iterable[Extent]) -> tuple[list[OpenFile], list[tuple[int, int, int]]]:
        """Held files and (fd, offset, length) of each extent. Raises OSError, also when a file is too short."""
        files: list[OpenFile] = []
        spans: list[tuple[int, int, int]] = []
        try:
            for path, offset, length in extents:
                file = self.open(path)
                files.append(file)
                if offset + length > file.size:
                    raise OSError(0, f"shorter than the {offset + length} bytes that were published", path)
                spans.append((file.fd, offset, length))
        except OSError:
            for file in files:
                file.release()
            raise
        return files, spans

    def whole(self, artefact: Artefact) -> bytes:
        """The body of a small artefact, kept in memory with at most KEPT bytes of others. Raises OSError.

        An artefact never changes: its digest and its extents say which bytes are meant.
        """
        key = (artefact.digest, artefact.extents)
        body = self._bodies.get(key)
        if body is None:
            files, spans = self.spans(artefact.extents)
            body = b"".join([os.pread(fd, length, offset) for fd, offset, length in spans])
            for file in files:
                file.release()
            if len(body) != artefact.size:
                raise OSError(0, "became shorter while it was read", artefact.name)
            if self._kept + len(body) > KEPT:
                self._bodies.clear()
                self._kept = 0
            self._bodies[key] = body
            self._kept += len(body)
        return body

    def close(self) -> None:
        while self._files:
            self._files.popitem()[1].release()
