"""Reading archives: decompression and digest in a thread of their own, a forward-only file for the parser."""

from __future__ import annotations

import bz2
import hashlib
import lzma
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import zstandard
from isal import igzip_lib

from wwfast.archive.limits import LIMITS, exceeded
from wwfast.errors import WwfastError

CHUNK = 1 << 20
GzipError: type[Exception] = cast(Any, igzip_lib).error  # declared as a value in the library's types
AHEAD = 8  # chunks the thread may be ahead of the parser
MAGIC = 8  # bytes that tell the compression
UNTOLD = 1 << 30  # bytes a file may unpack to whatever its ratio
LARGEST_WINDOW = 128 << 20  # bytes zstd may look back, as its own program without --memory
GZIP, XZ, BZIP2 = b"\x1f\x8b", b"\xfd7zXZ\0", b"BZh"  # what their streams begin with
LARGEST_XZ = 2 << 30  # bytes of memory for xz: `xz -9` takes 65 MiB
LEAVE = 2.0  # seconds for a thread that waits for a pipe or a registry, when the block is left early


class DamagedError(WwfastError):
    """A file that is not what it should be: another digest, or compressed data that does not decompress."""


class Digested:
    """A raw file that hashes and counts what is read from it."""

    def __init__(self, raw: IO[bytes], algorithm: str | None, progress: Callable[[int], None] | None) -> None:
        self.raw = raw
        self.hash = hashlib.new(algorithm) if algorithm else None
        self.progress = progress
        self.count = 0
        self._head = b""

    def head(self, size: int) -> bytes:
        """The first `size` bytes, fewer only of a shorter file, however few come at a time; read() gives them again."""
        while len(self._head) < size and (data := self.read(size - len(self._head), fresh=True)):
            self._head += data
        return self._head

    def read(self, size: int = -1, *, fresh: bool = False) -> bytes:
        if self._head and not fresh:
            data, self._head = self._head, b""
            return data
        data = self.raw.read(CHUNK if size < 0 else size)
        self.count += len(data)
        if self.hash is not None:
            self.hash.update(data)
        if self.progress is not None:
            self.progress(len(data))
        return data

    def drain(self) -> None:
        """Read the rest, so that the digest covers the whole file."""
        while self.read(CHUNK):
            pass


class Forward:
    """The plain bytes of a file, read once and forwards, from a source of chunks."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._buffer = memoryview(b"")
        self._at = 0
        self.last = b""

    def tell(self) -> int:
        return self._at

    def read(self, size: int) -> bytes:
        if len(self._buffer) >= size:
            data = bytes(self._buffer[:size])
            self._buffer = self._buffer[size:]
        else:
            parts = []
            need = size
            while need:
                if not self._buffer:
                    chunk = next(self._chunks, b"")
                    if not chunk:
                        break
                    self._buffer = memoryview(chunk)
                piece = self._buffer[:need]
                parts.append(piece)
                self._buffer = self._buffer[len(piece) :]
                need -= len(piece)
            data = b"".join(parts)
        self._at += len(data)
        self.last = data
        return data

    def peek(self, size: int) -> bytes:
        """What the next read of so many bytes gives, which gives it again."""
        at, last = self._at, self.last
        data = self.read(size)
        self._buffer = memoryview(data + bytes(self._buffer))
        self._at, self.last = at, last
        return data

    def skip(self, size: int) -> None:
        """Pass over so many bytes, or as many as there are."""
        for _ in self.pieces(size):
            pass

    def pieces(self, size: int) -> Iterator[memoryview]:
        """The next `size` bytes without copying them; fewer when the source ends."""
        while size:
            if not self._buffer:
                chunk = next(self._chunks, b"")
                if not chunk:
                    return
                self._buffer = memoryview(chunk)
            piece = self._buffer[:size]
            self._buffer = self._buffer[len(piece) :]
            self._at += len(piece)
            size -= len(piece)
            yield piece


def plain_chunks(file: Digested) -> Iterator[bytes]:
    """The decompressed content of a file in pieces of at most CHUNK bytes."""
    head = file.head(MAGIC)
    if head.startswith(GZIP):
        yield from _streams(file, GZIP, lambda: igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP))
    elif head.startswith(XZ):
        yield from _streams(file, XZ, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=LARGEST_XZ))
    elif head.startswith(BZIP2):
        yield from _streams(file, BZIP2, bz2.BZ2Decompressor)
    elif head.startswith(b"\x28\xb5\x2f\xfd") or (head[1:4] == b"\x2a\x4d\x18" and head[0] >> 4 == 5):
        # Of zstd also with a frame in front that carries no data, as pzstd and zstd:chunked write (RFC 8878, 3.1.2).
        frames = zstandard.ZstdDecompressor(max_window_size=LARGEST_WINDOW)
        plain = frames.stream_reader(cast(Any, file), read_across_frames=True, read_size=CHUNK)
        while data := plain.read(CHUNK):
            yield data
    else:
        while data := file.read(CHUNK):
            yield data


def _streams(file: Digested, magic: bytes, make: Callable[[], Any]) -> Iterator[bytes]:
    """All streams of a file, as gzip (RFC 1952), xz and bzip2 allow several; zeros after the last one are padding."""
    data = file.read(CHUNK)
    while data:
        if not data.startswith(magic[: len(data)]):
            raise ValueError("something else follows its compressed data")
        stream = make()
        while not stream.eof:
            if stream.needs_input and not data:
                data = file.read(CHUNK)
                if not data:
                    raise EOFError("the compressed data ends too early")
            yield stream.decompress(data, CHUNK)
            data = b""
        data = stream.unused_data.lstrip(b"\0")
        while not data and (more := file.read(CHUNK)):
            data = more.lstrip(b"\0")


def _bounded(file: Digested, ratio: int) -> Iterator[bytes]:
    """The decompressed content, refused when it becomes more than a file of that size can honestly hold."""
    plain = 0
    for data in plain_chunks(file):
        plain += len(data)
        if plain > UNTOLD and plain > ratio * file.count:
            raise exceeded(f"{file.count:,} bytes unpack to {plain:,} and more", "image ratio", ratio)
        yield data


def _damaged(path: Path, error: Exception) -> DamagedError:
    if isinstance(error, zstandard.ZstdError) and "too much memory" in str(error):
        return DamagedError(
            f"{path} was compressed by zstd with a window of more than {LARGEST_WINDOW >> 20} MiB",
            hint="compress it again with --long=27 at most",
        )
    if isinstance(error, lzma.LZMAError) and "Memory" in str(error):
        return DamagedError(
            f"{path} takes more than {LARGEST_XZ >> 30} GiB of memory to unpack", hint="xz -9 takes 65 MiB"
        )
    return DamagedError(f"{path} is damaged or cut short: {error}")


class _Ahead:
    """A thread that reads ahead, and the few chunks that nobody has taken yet."""

    def __init__(self, path: Path, source: Digested, expected: str, ratio: int) -> None:
        self._path, self._source, self._expected, self._ratio = path, source, expected, ratio
        self._chunks: queue.Queue[bytes | BaseException] = queue.Queue(AHEAD)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def take(self) -> Iterator[bytes]:
        while True:
            item = self._chunks.get()
            if isinstance(item, BaseException):
                raise item
            if not item:
                return
            yield item

    def leave(self) -> None:
        self._stop.set()
        self._thread.join(LEAVE)

    def _put(self, item: bytes | BaseException) -> None:
        while not self._stop.is_set():
            try:
                self._chunks.put(item, timeout=0.2)
                return
            except queue.Full:
                continue

    def _work(self) -> None:
        try:
            for data in _bounded(self._source, self._ratio):
                if self._stop.is_set():
                    return
                if data:
                    self._put(data)
            self._source.drain()
            self._compare()
            self._put(b"")
        except (OSError, EOFError, ValueError, lzma.LZMAError, zstandard.ZstdError, GzipError) as error:
            self._put(_damaged(self._path, error))
        except BaseException as error:
            self._put(error)

    def _compare(self) -> None:
        done = self._source.hash
        if done is not None and (actual := done.hexdigest()) != self._expected:
            raise DamagedError(
                f"{self._path.name} is damaged: its {done.name} is {actual[:16]}..., expected {self._expected[:16]}...",
                hint="the download or the copy was incomplete; fetch it again",
            )


@contextmanager
def opened(
    path: Path,
    *,
    digest: str | None = None,
    progress: Callable[[int], None] | None = None,
    raw: IO[bytes] | None = None,
    ratio: int = LIMITS.ratio,
) -> Iterator[Forward]:
    """The plain bytes of a file, compressed or not, read ahead by a thread.

    `digest` (`sha256:hex`) is that of the file itself; leaving the block normally with another one raises
    WwfastError, as do damaged or truncated data. `progress` gets counts of bytes read from the file. `raw` is read
    instead of the file where that is still arriving. `ratio`: of plain to compressed bytes beyond the first GiB.
    """
    algorithm, _, expected = (digest or "").partition(":")
    if algorithm not in ("", "sha256", "sha512"):
        raise WwfastError(f"{path.name}: digest algorithm {algorithm} is not supported")
    with raw or path.open("rb", buffering=0) as file:
        ahead = _Ahead(path, Digested(file, algorithm or None, progress), expected, ratio)
        source = ahead.take()
        try:
            yield Forward(source)
            for _ in source:  # what follows the archive still counts for digest and checksums
                pass
        finally:
            ahead.leave()
