"""Open files of artefacts: opened by a thread, once, and shared by all transfers; small bodies are kept in memory.

The event loop has nothing but memory here: what is not open yet is opened by a thread, and who waits for it is told.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

from wwfast.archive.artefact import Artefact, Extent

KEPT = 32 << 20  # bytes of small bodies in memory
OPENED = 4096  # artefacts whose files are open; many may lie in the same file

Identity = tuple[int, int, int, int]
#: Runs the first in a thread, then calls the second with what it returned, where the cache is used.
Run = Callable[[Callable[[], Any], Callable[[Any], None]], None]
Key = tuple[str, tuple[Extent, ...]]
Then = Callable[["OSError | None"], None]


class OpenFile:
    """One open file; closed when neither the cache nor a transfer holds it any more."""

    __slots__ = ("fd", "identity", "kept", "path", "size", "users")

    def __init__(self, path: str) -> None:
        self.path = path
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        found = os.fstat(self.fd)
        self.identity: Identity = (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)
        self.size = found.st_size
        self.users = 0  # artefacts in the cache, and transfers
        self.kept = 0  # artefacts in the cache

    def hold(self) -> None:
        self.users += 1

    def release(self) -> None:
        self.users -= 1
        if self.users <= 0:
            os.close(self.fd)


class Opened:
    """The files of an artefact, and (fd, offset, length) of each of its extents."""

    __slots__ = ("files", "spans")

    def __init__(self, artefact: Artefact, files: dict[str, OpenFile]) -> None:
        self.files = tuple(files.values())
        self.spans = [(files[path].fd, offset, length) for path, offset, length in artefact.extents]

    def hold(self) -> None:
        for file in self.files:
            file.hold()

    def release(self) -> None:
        for file in self.files:
            file.release()


class FileCache:
    """At most `limit` files that no transfer needs, by artefact, least recently used first out.

    Where two artefacts lie at the same place, one after the other, each is served from its own file: transfers under
    way and those of an older artefact keep theirs. `tend` lets go of files that were removed or replaced: the disk gets
    the space of a removed build back. Not thread-safe.
    """

    def __init__(self, run: Run, limit: int = 512) -> None:
        self._run = run
        self._limit = limit
        self._files: dict[str, OpenFile] = {}  # by path, the latest
        self._held: set[OpenFile] = set()  # all that an artefact in the cache keeps
        self._opened: OrderedDict[str, Opened] = OrderedDict()  # by digest
        self._bodies: dict[Key, bytes] = {}
        self._kept = 0
        self._waiting: dict[Key, list[Then]] = {}
        self._tending = False

    def __len__(self) -> int:
        return len(self._held)

    def opened(self, artefact: Artefact) -> Opened | None:
        """Its files, to be held by whoever sends them; None where load() must open them."""
        found = self._opened.get(artefact.digest)
        if found is not None:
            self._opened.move_to_end(artefact.digest)
        return found

    def whole(self, artefact: Artefact) -> bytes | None:
        """The body of a small artefact, kept in memory with at most KEPT bytes of others; None before load()."""
        return self._bodies.get((artefact.digest, artefact.extents))

    def load(self, artefact: Artefact, then: Then, *, whole: bool = False) -> None:
        """Open its files, or read it `whole`; `then` is called with None, or with what went wrong."""
        key = (artefact.digest, artefact.extents)
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting.append(then)
            return
        self._waiting[key] = [then]
        if whole:
            self._run(lambda: _attempt(_read, artefact), lambda got: self._loaded(artefact, key, got))
        else:
            self._run(lambda: _attempt(_open, artefact), lambda got: self._loaded(artefact, key, got))

    def _loaded(self, artefact: Artefact, key: Key, got: bytes | dict[str, OpenFile] | OSError) -> None:
        error = None
        if isinstance(got, OSError):
            error = got
        elif isinstance(got, bytes):
            if self._kept + len(got) > KEPT:
                self._bodies.clear()
                self._kept = 0
            self._bodies[key] = got
            self._kept += len(got)
        else:
            self._keep(artefact, got)
        for then in self._waiting.pop(key, ()):
            then(error)

    def _keep(self, artefact: Artefact, fresh: dict[str, OpenFile]) -> None:
        files: dict[str, OpenFile] = {}
        for path, file in fresh.items():
            held = self._files.get(path)
            if held is not None and held.identity == file.identity:
                file.release()
                files[path] = held
            else:
                files[path] = self._files[path] = file
        made = Opened(artefact, files)
        made.hold()
        for file in made.files:
            file.kept += 1
            self._held.add(file)
        self._drop(artefact.digest)
        self._opened[artefact.digest] = made
        while len(self._opened) > 1 and (len(self._held) > self._limit or len(self._opened) > OPENED):
            self._drop(next(iter(self._opened)))

    def _drop(self, digest: str) -> None:
        opened = self._opened.pop(digest, None)
        if opened is None:
            return
        for file in opened.files:
            file.kept -= 1
            if not file.kept:
                self._held.discard(file)
                if self._files.get(file.path) is file:
                    del self._files[file.path]
            file.release()

    def tend(self) -> None:
        """Have a thread look whether the files are still at their places; those that are not are let go."""
        if self._tending or not self._held:
            return
        self._tending = True
        held = [(file.path, file.identity) for file in self._held]
        self._run(lambda: _gone(held), self._tended)

    def _tended(self, gone: set[tuple[str, Identity]]) -> None:
        self._tending = False
        for digest in [
            digest
            for digest, opened in (self._opened.items() if gone else ())
            if any((file.path, file.identity) in gone for file in opened.files)
        ]:
            self._drop(digest)

    def close(self) -> None:
        while self._opened:
            self._drop(next(iter(self._opened)))


def _attempt(work: Callable[[Artefact], Any], artefact: Artefact) -> Any:
    try:
        return work(artefact)
    except OSError as error:
        return error


def _open(artefact: Artefact) -> dict[str, OpenFile]:
    """In a thread: its files by path. Raises OSError, also when one is too short."""
    files: dict[str, OpenFile] = {}
    try:
        for path, offset, length in artefact.extents:
            file = files.get(path) or files.setdefault(path, OpenFile(path))
            if offset + length > file.size:
                raise OSError(0, f"shorter than the {offset + length} bytes that were published", path)
    except OSError:
        for file in files.values():
            file.release()
        raise
    return files


def _read(artefact: Artefact) -> bytes:
    """In a thread: the whole body. Raises OSError."""
    files = _open(artefact)
    try:
        body = b"".join([os.pread(files[path].fd, length, offset) for path, offset, length in artefact.extents])
    finally:
        for file in files.values():
            file.release()
    if len(body) != artefact.size:
        raise OSError(0, "became shorter while it was read", artefact.name)
    return body


def _gone(held: Iterable[tuple[str, Identity]]) -> set[tuple[str, Identity]]:
    """In a thread: those that are not at their path any more."""
    gone = set()
    for path, identity in held:
        try:
            found = os.stat(path)  # noqa: PTH116
            there = (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size) == identity
        except OSError:
            there = False
        if not there:
            gone.add((path, identity))
    return gone
