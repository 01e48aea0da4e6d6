"""What each node was given last, and on what that rests: small files, each of some nodes, written whole and renamed.

A record answers two questions: what a node has (served when making it anew fails or is switched off), and whether
that is still what it should have (then nothing is made).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple, TypeVar

import msgspec
import xxhash

from wwfast.overlays.making.store import Store, load
from wwfast.overlays.templates.data import Rests, digest

BITS = 10  # 1024 files: of 20 records each for 10,000 nodes
Signature = tuple[int, int, int]


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
_bucket = msgspec.msgpack.Decoder(dict[bytes, bytes])
_encode = msgspec.msgpack.Encoder().encode


class Index:
    """Not thread-safe, as the store that it writes by."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._base = f"{store.directory}/index"
        self._buckets: dict[str, tuple[Signature, dict[bytes, bytes]]] = {}
        self._fresh: dict[str, dict[bytes, bytes]] = {}  # what is to be written
        self._known: dict[bytes, Rests] = {}

    # -- records -------------------------------------------------------------------------------------------------

    def record(self, node: str, context: str) -> Record | None:
        return self._decoded(key_of(node, context), _record)

    def keep(self, node: str, context: str, record: Record) -> bool:
        """Whether the node has other contents now."""
        before = self.record(node, context)
        self._put(key_of(node, context), _encode(record))
        return before is None or before.contents != record.contents

    def restore(self, node: str, context: str, record: Record | None) -> None:
        """As if `keep` had not been called since it was `record`, if there was no `flush`."""
        key = key_of(node, context)
        for known in (self._bucket(bucket_of(key)), self._fresh.get(bucket_of(key), {})):
            known.pop(key, None)
            if record is not None:
                known[key] = _encode(record)

    def shared(self, plan: bytes) -> Shared | None:
        return self._decoded(digest(["shared", plan]), _shared)

    def keep_shared(self, plan: bytes, shared: Shared) -> None:
        self._put(digest(["shared", plan]), _encode(shared))

    def rests(self, name: bytes) -> Rests | None:
        found = self._known.get(name) or self._decoded(name, _rests)
        if found is not None:
            self._known[name] = found
        return found

    def keep_rests(self, encoded: bytes) -> bytes:
        """The name under which they are found."""
        name = xxhash.xxh3_128_digest(encoded)
        if name not in self._known:
            self._known[name] = _rests.decode(encoded)
            self._put(name, encoded)
        return name

    def _decoded(self, key: bytes, decoder: msgspec.msgpack.Decoder[T]) -> T | None:
        try:
            found = self._bucket(bucket_of(key)).get(key)
            return None if found is None else decoder.decode(found)
        except msgspec.DecodeError:
            return None

    # -- files ---------------------------------------------------------------------------------------------------

    def _bucket(self, name: str) -> dict[bytes, bytes]:
        """As it is on the disk now, with what is to be written over it."""
        path = f"{self._base}/{name}"
        signature = _signature(path)
        known = self._buckets.get(name)
        if known is None or known[0] != signature:
            found = self._read(path)
            found.update(self._fresh.get(name, {}))
            known = self._buckets[name] = (signature, found)
        return known[1]

    @staticmethod
    def _read(path: str) -> dict[bytes, bytes]:
        data = load(path)
        try:
            return _bucket.decode(data[16:]) if data[:16] == xxhash.xxh3_128_digest(data[16:]) else {}
        except msgspec.DecodeError:
            return {}

    def _put(self, key: bytes, value: bytes) -> bool:
        name = bucket_of(key)
        bucket = self._bucket(name)
        if bucket.get(key) == value:
            return False
        bucket[key] = value
        self._fresh.setdefault(name, {})[key] = value
        return True

    def flush(self) -> None:
        """Write what is new. Raises OSError when neither disk nor memory takes it."""
        if self._fresh and self._store.writing:
            with self._alone():
                for name, fresh in list(self._fresh.items()):
                    path = f"{self._base}/{name}"
                    found = {**self._read(path), **fresh}
                    self._write(path, found)
                    self._buckets[name] = (_signature(path), found)
                    del self._fresh[name]

    def _write(self, path: str, records: dict[bytes, bytes]) -> bool:
        data = _encode(records)
        return self._store.write(path, xxhash.xxh3_128_digest(data) + data)

    def sweep(self, nodes: Collection[tuple[str, str]]) -> set[bytes]:
        """Drop the records of other nodes, and what no record rests on any more; the contents that the others name."""
        keys = {key_of(*each): None for each in nodes}
        contents: set[bytes] = set()
        wanted: set[bytes] = set()
        with self._alone():
            names = self._names()
            for name in names:
                for key, value in self._bucket(name).items():
                    if key in keys:
                        with suppress(msgspec.DecodeError):
                            record = _record.decode(value)
                            contents |= set(record.contents)
                            wanted |= {key, record.rests, digest(["shared", record.plan])}
            for name in names:
                found = self._bucket(name)
                kept = {key: value for key, value in found.items() if key in wanted}
                path = f"{self._base}/{name}"
                if not kept:
                    with suppress(OSError):
                        os.unlink(path)  # noqa: PTH108 - a string
                elif len(kept) < len(found):
                    self._write(path, kept)
                self._buckets[name] = (_signature(path), kept)
        self._known = {name: rests for name, rests in self._known.items() if name in wanted}
        return contents

    def _names(self) -> list[str]:
        with suppress(OSError):
            return sorted(name for name in os.listdir(self._base) if len(name) == 3)  # noqa: PTH208 - strings
        return []

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


def key_of(node: str, context: str) -> bytes:
    return xxhash.xxh3_128_digest(f"{context}\0{node}".encode())


def bucket_of(key: bytes) -> str:
    return f"{int.from_bytes(key[:2], 'big') >> 16 - BITS:03x}"


def _signature(path: str) -> Signature:
    try:
        st = os.stat(path)  # noqa: PTH116 - a string, many times
    except OSError:
        return (0, 0, 0)
    return (st.st_ino, st.st_mtime_ns, st.st_size)
