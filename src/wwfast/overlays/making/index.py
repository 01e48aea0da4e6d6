"""What each node was given last, and on what that rests: one file, to which records are appended.

A record answers two questions: what a node has (served when making it anew fails or is switched off), and whether
that is still what it should have (then nothing is made). The last one of a key counts. Each has its own checksum: what
is torn or damaged is passed over, and what was to be overwritten counts again, at worst.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple, TypeVar

import msgspec
import xxhash

from wwfast.overlays.making.store import Store
from wwfast.overlays.templates.data import Rests, digest
from wwfast.system import records
from wwfast.system.files import fill

MAGIC = b"\xf7rec"  # text of no encoding: where the next record begins is found behind damage, too
HEAD = struct.Struct("<4sI16sQ")  # magic, bytes of the value, key, checksum of key and value


class Shared(NamedTuple):
    """The part that nodes with one plan share: templates (by number) that say the same for all, and their paths.

    `static` is the content of the part before it.
    """

    common: tuple[int, ...]
    paths: tuple[str, ...]
    static: bytes
    content: bytes
    rests: Rests

    @property
    def shape(self) -> bytes:
        return digest([self.common, self.paths])


class Record(NamedTuple):
    """The parts of a node: `static`, `shared`, `own` are contents (b"" of none).

    The own part rests on the plan, on `below` (the shape of the shared part, or all contents under it), on `values` of
    the node's fields, and on `rests`.
    """

    plan: bytes
    below: bytes
    values: bytes
    rests: bytes  # the digest under which `Rests` are kept: few different ones, thousands of times
    static: bytes
    shared: bytes
    own: bytes

    @property
    def contents(self) -> tuple[bytes, ...]:
        return tuple(content for content in self[4:] if content)


T = TypeVar("T")

_rests = msgspec.msgpack.Decoder(Rests)
_shared = msgspec.msgpack.Decoder(Shared)
_record = msgspec.msgpack.Decoder(Record)
_encode = records.packer()


class Index:
    """Not thread-safe, as the store that it writes by."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._base = f"{store.directory}/index"
        self._path = f"{self._base}/records"
        self._ino, self._read_to, self._looked = 0, 0, False
        self._values: dict[bytes, bytes] = {}
        self._fresh: dict[bytes, bytes] = {}  # what is to be written
        self._rests: dict[bytes, Rests] = {}

    # -- records -------------------------------------------------------------------------------------------------

    def record(self, node: str, context: str) -> Record | None:
        return self._get(key_of(node, context), _record)

    def keep(self, node: str, context: str, record: Record) -> bool:
        """Whether the node has other contents now."""
        key, value = key_of(node, context), _encode(record)
        before = self._get(key, _record)
        if value != self._values.get(key):
            self._put(key, value)
        return before is None or before[4:] != record[4:]

    def shared(self, plan: bytes) -> Shared | None:
        return self._get(digest(["shared", plan]), _shared)

    def keep_shared(self, plan: bytes, shared: Shared) -> None:
        self._put(digest(["shared", plan]), _encode(shared))

    def rests(self, name: bytes) -> Rests | None:
        found = self._rests.get(name) or self._get(name, _rests)
        if found is not None:
            self._rests[name] = found
        return found

    def keep_rests(self, encoded: bytes) -> bytes:
        """The name under which they are found."""
        name = xxhash.xxh3_128_digest(encoded)
        if name not in self._rests:
            self._rests[name] = records.unpacked(encoded, _rests)
            self._put(name, encoded)
        return name

    def _get(self, key: bytes, decoder: msgspec.msgpack.Decoder[T]) -> T | None:
        value = self._values.get(key)
        if value is None and not self._looked:
            self.refresh()
            value = self._values.get(key)
        try:
            return None if value is None else records.unpacked(value, decoder)
        except msgspec.DecodeError:
            return None

    def _put(self, key: bytes, value: bytes) -> None:
        self._values[key] = self._fresh[key] = value

    @property
    def place(self) -> tuple[int, int]:
        """Which file was read, and how far: another one after each record."""
        return self._ino, self._read_to

    # -- the file ------------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Take in what other processes wrote."""
        self._looked = True
        with suppress(OSError), open(self._path, "rb") as file:  # noqa: PTH123 - a string
            st = os.fstat(file.fileno())
            if st.st_ino != self._ino or st.st_size < self._read_to:
                self._ino, self._read_to, self._values = st.st_ino, 0, {}
            if st.st_size > self._read_to:
                file.seek(self._read_to)
                data = file.read(st.st_size - self._read_to)
                end = 0
                for key, value, end in entries(data):  # noqa: B007 - the last end counts
                    self._values[key] = value
                self._read_to += end  # not behind one that is being written just now
                self._values.update(self._fresh)

    def flush(self) -> None:
        """Append what is new, all of it or nothing; what the disk does not take waits."""
        if not self._fresh or not self._store.writing:
            return
        data = b"".join([entry(*each) for each in self._fresh.items()])
        with self._alone(), suppress(OSError), self._store.attempt():
            self.refresh()  # what this process appends is behind all that it read
            fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                before = os.fstat(fd)
                try:
                    fill(fd, data)
                except BaseException:
                    os.ftruncate(fd, before.st_size)
                    raise
            finally:
                os.close(fd)
            self._ino, self._read_to = before.st_ino, before.st_size + len(data)
            self._fresh.clear()

    def sweep(self, nodes: Collection[tuple[str, str]]) -> set[bytes]:
        """Drop the records of other nodes, and what no record rests on any more; the contents that the others name."""
        contents: set[bytes] = set()
        kept: dict[bytes, bytes] = {}
        with self._alone():
            self.refresh()
            for node, context in nodes:
                record = self.record(node, context)
                if record is not None:
                    contents |= set(record.contents)
                    for key in (key_of(node, context), record.rests, digest(["shared", record.plan])):
                        if key in self._values:
                            kept[key] = self._values[key]
            data = b"".join([entry(*each) for each in kept.items()])
            if len(data) != self._read_to and self._store.writing:
                with suppress(OSError):
                    self._store.write(self._path, data)
                    self._fresh.clear()
        self._ino, self._values = 0, kept | self._fresh
        self._rests = {name: rests for name, rests in self._rests.items() if name in kept}
        return contents

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other process writes meanwhile; where there can be no lock, nothing can be written either."""
        fd = -1
        with suppress(OSError):
            os.makedirs(self._base, 0o700, exist_ok=True)  # noqa: PTH103 - a string
            fd = os.open(f"{self._base}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            if fd >= 0:
                os.close(fd)


def entry(key: bytes, value: bytes) -> bytes:
    return HEAD.pack(MAGIC, len(value), key, xxhash.xxh3_64_intdigest(key + value)) + value


def entries(data: bytes) -> Iterator[tuple[bytes, bytes, int]]:
    """Keys and values of the records that are whole, in their order, and where they end."""
    at = 0
    while 0 <= at <= len(data) - HEAD.size:
        magic, length, key, check = HEAD.unpack_from(data, at)
        value = data[at + HEAD.size : at + HEAD.size + length]
        if magic == MAGIC and xxhash.xxh3_64_intdigest(key + value) == check:
            at += HEAD.size + length
            yield key, value, at
        else:
            at = data.find(MAGIC, at + 1)


def key_of(node: str, context: str) -> bytes:
    return xxhash.xxh3_128_digest(f"{context}\0{node}".encode())
