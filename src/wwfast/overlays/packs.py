"""Where rendered segments are kept: append-only files, read by several processes, trusted by nobody.

Packs are a cache. Each process writes its own, so no lock is needed; a record torn by a crash ends its pack. Whatever
is read back is checked against its checksum first, also what this process wrote: what does not fit is as good as
absent. A record is indexed when it is written. Where the disk takes nothing, a pack in memory stands in until it does.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import msgspec

from wwfast.errors import WwfastError
from wwfast.overlays.packfile import BODY, DATA, FORMATS, KEY, LAST, Record, Segment, Writer, encode
from wwfast.overlays.packindex import RETIRED, Damaged, Index, Known, changed, size_of

log = logging.getLogger(__name__)

LIMIT = 256 << 20  # a new pack is begun beyond
MEMORY = 64 << 20  # bytes of a pack in memory; at most half of it waits for a place
RETRY = 2.0  # seconds between two attempts to come back to the disk
GRACE = 900.0  # seconds a replaced pack stays, for transfers under way and for processes that have not noticed yet
BATCH = 4096  # records copied between two writes

_encode = msgspec.msgpack.encode


class Packs(Index):
    """All packs of one directory. Not thread-safe: the caller holds a lock for everything.

    `moved` is called when extents that were handed out are not to be handed out again.
    """

    def __init__(self, directory: Path, moved: Callable[[], None] = lambda: None) -> None:
        super().__init__(directory)
        self._moved = moved
        self._written: set[str] = set()  # packs of this process
        self._pending: list[Record] = []
        self._coming: set[tuple[bytes, int]] = set()  # contents among them, and their formats
        self._own: Writer | None = None
        # In place of it, from where on it is (None: the disk takes what is written), why, when to try the disk again:
        self._memory: Writer | None = None
        self._since: int | None = None
        self._failure: OSError | None = None
        self._retry = 0.0  # monotonic seconds; or since when the memory is idle
        self._former: list[tuple[Writer, float]] = []  # full ones, and since when

    # -- reading -------------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Index what other processes appended."""
        packs, retired = self._listed()
        for name in packs:
            own = self._own is not None and name == self._own.path
            if own or (name in retired and name not in self._read):
                continue
            if size_of(name) > self._read.get(name, 0):
                self._index(name)

    def known(self, key: bytes) -> Known | None:
        found = self._keys.get(key)
        return found if found is not None and self.usable(found.content) else None

    def usable(self, content: bytes) -> bool:
        """Whether the canonical bytes of a content are there and intact (of no content, always)."""
        return not content or self.has(content, "zst")

    def has(self, content: bytes, fmt: str) -> bool:
        at = (content, FORMATS.index(fmt))
        if at in self._coming:
            return True
        found = self._data.get(at)
        return found is not None and (found.path in self._believed or self.segment(content, fmt) is not None)

    def segment(self, content: bytes, fmt: str) -> Segment | None:
        """Where the bytes are, read back and checked once; None when absent or damaged. Raises OSError."""
        at = (content, FORMATS.index(fmt))
        if at in self._coming:
            self.flush()
        found = self._data.get(at)
        if found is None or (found.path, found.offset) in self._trusted:
            return found
        return found if self._block(found, at[1]) else None

    def read(self, content: bytes, fmt: str) -> bytes:
        """The bytes themselves, checked. Raises Damaged."""
        at = (content, FORMATS.index(fmt))
        if at in self._coming:
            self.flush()
        found = self._data.get(at)
        block = self._block(found, at[1]) if found is not None else b""
        if not block:
            raise Damaged
        return block[BODY:]

    # -- writing -------------------------------------------------------------------------------------------------

    def add_data(self, content: bytes, fmt: str, data: bytes, raw_length: int, crc: int) -> None:
        self._pending.append(Record(DATA, FORMATS.index(fmt), content, b"", data, raw_length, crc))
        self._coming.add((content, FORMATS.index(fmt)))

    def add_key(self, key: bytes, known: Known) -> None:
        self._keys[key] = self._shared(known)
        self._pending.append(Record(KEY, 0, key, _encode(known)))

    def add_last(self, name: bytes, contents: tuple[bytes, ...]) -> bool:
        """False when that is what it already was."""
        if self._last.get(name) == contents:
            return False
        self._last[name] = contents
        self._pending.append(Record(LAST, 0, name, _encode(contents)))
        return True

    def flush(self, *, sync: bool = False) -> None:
        """Append what is pending in one write. Raises OSError when neither disk nor memory takes it.

        With `sync` it is on the disk afterwards. Raises WwfastError when it is not.
        """
        if self._since is not None and (sync or time.monotonic() >= self._retry):
            self._come_back()
        if self._pending:
            records, self._pending = self._pending, []
            self._coming.clear()
            try:
                self._append(records)
            except OSError:
                self._put_back(records)
                raise
        if sync:
            self.require_disk()
            own = self._own
            try:
                if own is not None:
                    own.sync()
            except OSError as error:
                assert own is not None
                self._doubt(own, error)
                raise self._unwritable(error) from error

    def require_disk(self) -> None:
        """Raises WwfastError when what was written is in memory only."""
        if self._since is not None and self._failure is not None:
            raise self._unwritable(self._failure)

    def trouble(self) -> str:
        """Why the disk does not take what is written, or nothing. Safe without the lock."""
        failure = self._failure
        return self._unwritable(failure).message if failure is not None else ""

    def _unwritable(self, error: OSError) -> WwfastError:
        return WwfastError(
            f"the overlay cache {self.directory} cannot be written: {error.strerror}",
            hint="make room or repair the file system; what the server makes meanwhile it serves from memory",
        )

    def _put_back(self, records: list[Record]) -> None:
        """To be written with the next ones, as far as memory goes; the rest is made anew when it is asked for."""
        size = 0
        for record in records:
            size += record.size
            if size > MEMORY // 2:
                break
            self._pending.append(record)
            if record.kind == DATA:
                self._coming.add((record.name, record.format))

    def _append(self, records: list[Record]) -> None:
        blob = encode(records)
        if self._since is None:
            try:
                own = self._open()
                self._index_own(own, own.append(blob), records)
            except OSError as error:
                self._fail(error)
            else:
                self._failure = None
                if own.size > LIMIT:
                    self._end()
                return
        memory = self._in_memory(len(blob))
        try:
            self._index_own(memory, memory.append(blob), records)
        except OSError:
            self._retire_memory()
            raise

    def _index_own(self, writer: Writer, at: int, records: Iterable[Record]) -> None:
        for record in records:
            if record.kind == DATA:
                length = len(record.data)
                place = Segment(record.name, writer.path, at + BODY, length, record.raw_length, record.crc)
                self._data[record.name, record.format] = place
            at += record.size

    def _open(self) -> Writer:
        """This process's pack. Raises OSError."""
        if self._own is not None and self._own.gone():
            own, self._own = self._own, None
            own.close()
            self._leave({own.path})
            self._moved()
        if self._own is None:
            self._own = Writer.on_disk(self.directory)
            self._written.add(self._own.path)
            self._believed.add(self._own.path)
        return self._own

    def _fail(self, error: OSError) -> None:
        """After a failed write: the pack ends with its last whole record, and nothing in it is believed unread."""
        if self._failure is None:
            log.error("overlay cache %s cannot be written, memory stands in: %s", self.directory, error)
        self._failure, self._retry = error, time.monotonic() + RETRY
        own, self._own = self._own, None
        if own is None:
            return
        own.give_up()
        self._suspect(own.path)
        if own.size:
            self._read[own.path] = own.size
            self._moved()
        else:
            self._written.discard(own.path)

    def _doubt(self, own: Writer, error: OSError) -> None:
        """After a failed fsync nobody knows what of a pack is on the disk: what nodes have is written once more."""
        self._fail(error)
        wanted, room = self._wanted(), MEMORY // 2
        for (content, fmt), segment in list(self._data.items()):
            fits = segment.path == own.path and content in wanted and segment.length + BODY <= room
            if fits and (block := self._block(segment, fmt)):
                room -= len(block)
                self.add_data(content, FORMATS[fmt], block[BODY:], segment.raw_length, segment.crc)
        self._pending += self._lasts()
        with suppress(OSError):
            Path(own.path + RETIRED).touch(0o600)
        self._leave({own.path})
        with suppress(OSError):
            self.flush()

    def _in_memory(self, size: int) -> Writer:
        """A pack in memory with room for `size` bytes. Raises OSError.

        No place in it is ever used twice: who was told of an extent reads that or nothing.
        """
        if size > MEMORY:
            raise self._failure or OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self._memory is not None and self._memory.size + size > MEMORY:
            self._retire_memory()
        if self._memory is None:
            self._memory = Writer.in_memory()
            self._since = None
        if self._since is None:
            self._since = self._memory.size
            self._believed.add(self._memory.path)
        return self._memory

    def _retire_memory(self) -> None:
        """It is full: what it holds stays for transfers under way, until the next one is full."""
        memory, self._memory, self._since = self._memory, None, None
        if memory is not None:
            self._leave({memory.path})
            for former, _ in self._former:
                former.empty()
            self._former.append((memory, time.monotonic()))
            self._moved()

    def _come_back(self) -> None:
        """Bring what is in memory to the disk, if that takes it again."""
        memory, since = self._memory, self._since
        assert memory is not None
        assert since is not None
        size = memory.size - since
        try:
            own = self._open()
            if shutil.disk_usage(self.directory).free < size:  # do not fill what others need, only to fail
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            shift = own.append(self._pread(memory.path, size, since)) - since
        except OSError as error:
            self._fail(error)
            return
        for key, segment in list(self._data.items()):
            if segment.path == memory.path:
                self._data[key] = segment._replace(path=own.path, offset=shift + segment.offset)
        self._failure, self._since, self._retry = None, None, time.monotonic()
        self._moved()
        log.info("overlay cache %s can be written again", self.directory)

    def detach(self) -> None:
        """In a forked child: leave the parent's pack alone, begin one of our own."""
        self._pending, self._own, self._memory, self._since = [], None, None, None
        self._coming.clear()

    def _end(self) -> None:
        """End this process's pack; another one begins with the next write."""
        own = self._own
        if own is None:
            return
        try:
            own.sync()
            own.close()
        except OSError as error:
            self._doubt(own, error)
            return
        self._read[own.path] = own.size
        self._own = None

    def close(self) -> None:
        """End this process's pack, and let go of all files."""
        for fd in self._files.values():
            os.close(fd)
        self._files.clear()
        self._end()
        self._retire_memory()
        while self._former:
            self._former.pop()[0].close()

    # -- space ---------------------------------------------------------------------------------------------------

    def compact(self) -> int:
        """Copy what the last builds use into a new pack and retire the others; their bytes.

        Nothing is removed: who was told of an extent can still open its file, for GRACE seconds (`tidy`). 0 and
        nothing done while another process writes: its pack would sort before the new one and lose to it. Raises
        OSError and WwfastError when the disk does not take the copy: then all is as it was.
        """
        self.flush(sync=True)
        self.refresh()
        if self._others_write():
            return 0
        self._end()
        own = self._open()
        self.refresh()
        if self._others_write():  # begun just before ours
            return 0
        packs, retired = self._listed()
        old = [name for name in packs if name not in retired and name != own.path]
        names = {*old, *retired}
        try:
            self._copy(own, names)
        except BaseException:
            self._uncopy(own)
            raise
        for name in old:
            Path(name + RETIRED).touch(0o600)
        self._leave(names)
        return sum(map(size_of, old))

    def _copy(self, own: Writer, names: set[str]) -> None:
        """What is wanted of the packs `names`, straight to `own`: a copy has no need of a pack in memory."""
        wanted, records = self._wanted(), list[Record]()

        def write() -> None:
            self._index_own(own, own.append(encode(records)), records)
            records.clear()

        for (content, fmt), segment in list(self._data.items()):
            if segment.path in names and content in wanted and (block := self._block(segment, fmt)):
                records.append(Record(DATA, fmt, content, b"", block[BODY:], segment.raw_length, segment.crc))
                if len(records) >= BATCH:
                    write()
        self._keys = {key: known for key, known in self._keys.items() if known.content in wanted}
        records += [Record(KEY, 0, key, _encode(known)) for key, known in self._keys.items()]
        records += self._lasts()
        write()
        own.sync()

    def _uncopy(self, own: Writer) -> None:
        """The copy failed: it goes, and the former packs are looked into once more."""
        self._own, own.size = None, 0
        own.give_up()
        self._leave({own.path})
        self._read.clear()
        self.refresh()

    def _others_write(self) -> bool:
        packs, retired = self._listed()
        foreign = (name for name in packs if name not in retired and name not in self._written)
        return any(time.time() - changed(name) < GRACE for name in foreign)

    def tidy(self) -> bool:
        """Take in what other processes did; True when packs were retired since, so extents in them are not to be
        handed out any more. Removes the files of those that were retired long ago."""
        self.refresh()
        _, retired = self._listed()
        if self._own is not None and self._own.path in retired:
            self._end()
        known = {name for name in retired if name in self._read}
        self._leave(known)
        for name in retired:
            if time.time() - changed(name + RETIRED) > GRACE:
                Path(name).unlink(missing_ok=True)
                Path(name + RETIRED).unlink(missing_ok=True)
        if self._since is None and time.monotonic() - self._retry > GRACE:
            self._retire_memory()
        while self._former and time.monotonic() - self._former[0][1] > GRACE:
            self._former.pop(0)[0].close()
        return bool(known)


class Unwritten(Packs):
    """What is in the packs, and the names of what would be written: for those who only want to know whether it can be
    made. What was made is not kept, so nothing can be served from it."""

    def add_data(self, content: bytes, fmt: str, data: bytes, raw_length: int, crc: int) -> None:
        self._coming.add((content, FORMATS.index(fmt)))

    def add_key(self, key: bytes, known: Known) -> None:
        self._keys[key] = self._shared(known)

    def add_last(self, name: bytes, contents: tuple[bytes, ...]) -> bool:
        return False

    def flush(self, *, sync: bool = False) -> None:
        """There is nothing to write."""
