"""Where parts of archives are kept: plain files named by content, written whole and renamed.

A cache that several processes write and nobody trusts: what is read is compared with the digest before it. Where the
disk takes nothing, memory stands in until it does.
"""

from __future__ import annotations

import errno
import logging
import os
import struct
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import xxhash

from wwfast.errors import WwfastError
from wwfast.system import libc, work

log = logging.getLogger(__name__)

MEMORY = 64 << 20  # bytes that stand in for the disk
RETRY = 2.0  # seconds between two attempts to come back to the disk
GRACE = 900.0  # seconds a file nobody needs stays: transfers under way, and processes that have not noticed yet
# magic, length before compression, crc32 of that, checksum of all that precedes and follows
HEAD = struct.Struct("<4sQIQ")
MAGIC = b"wwS1"


class Damaged(WwfastError):
    """A part of an overlay is gone, or not what was written: it is made anew for whoever asks again."""

    def __init__(self) -> None:
        super().__init__("a part of an overlay was damaged on disk", hint="ask again: it is made anew")


class Segment(NamedTuple):
    """Bytes of one content in one form: where they are, and what a gzip tail needs of them."""

    path: str
    offset: int
    length: int
    raw_length: int
    crc: int


class Piece(NamedTuple):
    """What is to be kept: the bytes of one content in one form."""

    content: bytes
    form: str
    data: bytes
    raw_length: int = 0
    crc: int = 0

    def framed(self) -> bytes:
        """As it lies in its file."""
        head = HEAD.pack(MAGIC, self.raw_length, self.crc, 0)[: HEAD.size - 8]
        return head + _check(head, self.data).to_bytes(8, "little") + self.data


class Store:
    """Not thread-safe: the caller holds a lock for everything but `bring` and `trouble`.

    Without `writing` the disk is only read, and memory takes all.
    """

    def __init__(self, directory: Path, *, writing: bool = True) -> None:
        self.directory = directory
        self.writing = writing
        self._base = str(directory)
        # Written, or read back and found right; only seen (True); found damaged (False).
        self._known: dict[tuple[bytes, str], Segment | bool] = {}
        self._memory: dict[tuple[bytes, str], Segment] = {}  # what the disk did not take
        self._arena, self._size = -1, 0
        self._former: list[tuple[int, float]] = []  # full ones, and since when: no number is used twice meanwhile
        self._failure: OSError | None = None
        self._retry = 0.0  # monotonic seconds
        self._unneeded: dict[str, float] = {}  # files, and since when nobody needs them (monotonic seconds)
        self._room = work.Room(directory)
        self.lost = 0  # times that something may have gone

    def _place(self, content: bytes, form: str) -> str:
        name = content.hex()
        return f"{self._base}/{name[:2]}/{name[2:]}.{form}"

    # -- reading -------------------------------------------------------------------------------------------------

    def has(self, content: bytes, form: str = "zst") -> bool:
        """Whether it is there (of no content, always); what is damaged is found when it is read."""
        key = (content, form)
        if not content or key in self._memory:
            return True
        if key not in self._known and os.access(self._place(content, form), os.F_OK):
            self._known.setdefault(key, True)  # it may just have been found damaged
        return bool(self._known.get(key))

    def segment(self, content: bytes, form: str) -> Segment | None:
        """Where the bytes are, read back and compared once; None when absent or damaged."""
        key = (content, form)
        if key not in self._memory and not isinstance(self._known.get(key), Segment):
            self._load(content, form)
        found = self._memory.get(key) or self._known.get(key)
        return found if isinstance(found, Segment) else None

    def read(self, content: bytes, form: str = "zst") -> bytes:
        """The bytes themselves, compared. Raises Damaged."""
        if (place := self._memory.get((content, form))) is not None:
            return os.pread(self._arena, place.length, place.offset)
        data = self._load(content, form)
        if data is None:
            raise Damaged
        return data

    def _load(self, content: bytes, form: str) -> bytes | None:
        path, whole = self._place(content, form), b""
        with suppress(OSError), open(path, "rb", buffering=0) as file:  # noqa: PTH123 - a string
            whole = file.read()
        fields = HEAD.unpack_from(whole) if len(whole) >= HEAD.size else (b"", 0, 0, 0)
        data = whole[HEAD.size :]
        if fields[0] != MAGIC or fields[3] != _check(whole[: HEAD.size - 8], data):
            if whole:
                log.warning("overlay cache %s: damaged, made anew", path)
            self.drop(content, form)
            return None
        self._known[content, form] = Segment(path, HEAD.size, len(data), fields[1], fields[2])
        return data

    def drop(self, content: bytes, form: str) -> None:
        """These bytes turned out wrong: they are not there until they are written again."""
        self._known[content, form] = False
        self.lost += 1

    def forget(self) -> None:
        """Believe nothing that is not looked at once more."""
        self.lost += 1
        self._known = {key: False for key, known in self._known.copy().items() if not known}

    # -- writing -------------------------------------------------------------------------------------------------

    def put(self, content: bytes, form: str, data: bytes, raw_length: int = 0, crc: int = 0) -> None:
        """Keep it. Raises OSError when neither disk nor memory takes it."""
        self.bring([piece := Piece(content, form, data, raw_length, crc)])
        if not self.has(content, form):
            self._remember(piece)

    def bring(self, pieces: Iterable[Piece]) -> None:
        """Write what is not there, if the disk takes it. Thread-safe: most of what `put` takes, before a lock is taken
        for the rest."""
        fresh = [it for it in pieces if not self.has(it.content, it.form)]
        if not fresh or not self.writing:
            return
        paths = [self._place(it.content, it.form) for it in fresh]
        with suppress(OSError), self.attempt():
            errors = self._room.put([(path, it.framed()) for path, it in zip(paths, fresh, strict=True)])
            for path, it, error in zip(paths, fresh, errors, strict=True):
                if error is None:  # what would come back from the page cache is what was written: it is not read back
                    self._known[it.content, it.form] = Segment(path, HEAD.size, len(it.data), it.raw_length, it.crc)
            _check_all(errors)

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Write something. Raises OSError where the disk does not take it, and RETRY seconds after it did not."""
        failure = self._failure  # another thread may find out that it is over
        if failure is not None and time.monotonic() < self._retry:
            raise failure
        try:
            yield
        except OSError as error:
            if self._failure is None:
                log.error("overlay cache %s cannot be written, memory stands in: %s", self.directory, error)
            self._failure, self._retry = error, time.monotonic() + RETRY
            raise
        if self._failure is not None:
            log.info("overlay cache %s can be written again", self.directory)
            self._failure = None

    def write(self, path: str, data: bytes) -> None:
        """A file whole. Raises OSError."""
        with self.attempt():
            _check_all(self._room.put([(path, data)]))

    def flush(self, *, anyway: bool = False) -> None:
        """Bring what stands in memory to the disk, if that takes it again; `anyway`: ask it at once."""
        if anyway:
            self._retry = 0.0
        if self.writing and self._memory:
            with suppress(OSError):
                for (content, form), place in self._memory.items():
                    data = os.pread(self._arena, place.length, place.offset)
                    piece = Piece(content, form, data, place.raw_length, place.crc)
                    self.write(self._place(content, form), piece.framed())
                self._turn_over()
        self._room.leave()

    def sync(self) -> None:
        """All is on the disk afterwards. Raises WwfastError when it is not."""
        try:
            if self._failure is not None:
                raise self._failure
            if (folder := self.directory / "index").is_dir():
                with self.attempt():
                    sync_file_system(str(folder))
        except OSError as error:
            self.forget()
            raise self._unwritable(error) from error

    def trouble(self) -> str:
        """Why the disk does not take what is written, or nothing."""
        failure = self._failure
        return self._unwritable(failure).message if failure is not None else ""

    def _unwritable(self, error: OSError) -> WwfastError:
        return WwfastError(
            f"the overlay cache {self.directory} cannot be written: {error.strerror}",
            hint="make room or repair the file system; what the server makes meanwhile it serves from memory",
        )

    def _remember(self, piece: Piece) -> None:
        """Keep it in memory. Who was told of an extent reads that or nothing: no place is used twice."""
        content, form, data, raw_length, crc = piece
        if len(data) > MEMORY:
            raise self._failure or OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self._arena >= 0 and self._size + len(data) > MEMORY:
            self._turn_over()
        if self._arena < 0:
            self._arena, self._size = os.memfd_create("overlays", os.MFD_CLOEXEC), 0
        os.pwrite(self._arena, data, self._size)
        self._memory[content, form] = Segment(f"/proc/self/fd/{self._arena}", self._size, len(data), raw_length, crc)
        self._size += len(data)

    def _turn_over(self) -> None:
        """It is full: what it holds stays for transfers under way, until the next one is full."""
        for fd, since in list(self._former):
            os.ftruncate(fd, 0)
            if time.monotonic() - since > GRACE:
                os.close(fd)
                self._former.remove((fd, since))
        self._former.append((self._arena, time.monotonic()))
        self._arena = -1
        self._memory.clear()
        self.lost += 1

    def close(self) -> None:
        self._room.leave()
        if self._arena >= 0:
            self._former.append((self._arena, 0.0))
            self._arena = -1
        while self._former:
            os.close(self._former.pop()[0])

    # -- space ---------------------------------------------------------------------------------------------------

    def sweep(self, wanted: set[bytes], *, anyway: bool = False) -> int:
        """Remove what is not `wanted`, GRACE seconds after that was seen first (or `anyway`); bytes given back."""
        now, freed = time.monotonic(), 0
        unneeded = {}
        for path, content, form in self._files():
            if content in wanted:
                continue
            since = unneeded[path] = self._unneeded.get(path, now)
            with suppress(OSError):
                st = os.stat(path)  # noqa: PTH116 - a string, many times
                # By its own time, too: another process may have made it just now.
                if anyway or (now - since >= GRACE and time.time() - st.st_mtime >= GRACE):
                    os.unlink(path)  # noqa: PTH108
                    freed += st.st_size
                    del unneeded[path]
                    self._known.pop((content, form), None)
                    self.lost += 1
        self._unneeded = unneeded
        return freed

    def _files(self) -> Iterator[tuple[str, bytes, str]]:
        """Files, their content and form; what is not ours has no content. Unfinished ones are `system.work`'s."""
        with suppress(OSError):
            for entry in os.scandir(self._base):
                if entry.is_file():
                    if not entry.name.startswith(work.PREFIX):
                        yield entry.path, b"\0", ""
                    continue
                for file in os.scandir(entry.path):
                    name, _, form = file.name.partition(".")
                    if len(entry.name) == 2:
                        yield file.path, bytes.fromhex(entry.name + name), form


def _check(head: bytes, data: bytes) -> int:
    state = xxhash.xxh3_64(head)
    state.update(data)
    return state.intdigest()


def _check_all(errors: Iterable[OSError | None]) -> None:
    for error in errors:
        if error is not None:
            raise error


def sync_file_system(directory: str) -> None:
    """All that was written there is on the disk: syncfs(2) for the data, fsync for the directory. Raises OSError."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        libc.syncfs(fd, directory)
        os.fsync(fd)
    finally:
        os.close(fd)
