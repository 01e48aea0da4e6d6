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

from wwfast.errors import WwfastError

CHUNK = 1 << 20
GzipError: type[Exception] = cast(Any, igzip_lib).error  # declared as a value in the library's types
LARGEST_HEADER = 16 << 20  # names and attributes of one entry; more would only fill memory
AHEAD = 8  # chunks the thread may be ahead of the parser


class DamagedError(WwfastError):
    """A file that is not what it should be: another digest, or compressed data that does not decompress."""


class Digested:
    """A raw file that hashes what is read from it."""

    def __init__(self, raw: IO[bytes], algorithm: str | None, progress: Callable[[int], None] | None) -> None:
        self.raw = raw
        self.hash = hashlib.new(algorithm) if algorithm else None
        self.progress = progress

    def read(self, size: int = -1) -> bytes:
        data = self.raw.read(CHUNK if size < 0 else size)
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
    """What tarfile needs of a file object, over a source of chunks: read, tell, and seeking forward."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._buffer = memoryview(b"")
        self._at = 0
        self.last = b""

    def tell(self) -> int:
        return self._at

    def read(self, size: int) -> bytes:
        if size > LARGEST_HEADER:
            raise WwfastError(f"the archive is damaged: a header of {size} bytes")
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

    def unread(self, data: bytes) -> None:
        """Put back what was read last."""
        self._buffer = memoryview(data + bytes(self._buffer))
        self._at -= len(data)

    def seek(self, to: int) -> int:
        if to < self._at:
            raise OSError("an archive is read forwards only")
        while self._at < to and self.read(min(CHUNK, to - self._at)):
            pass
        return self._at

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


def plain_chunks(file: Digested, head: bytes) -> Iterator[bytes]:
    """The decompressed content of `file`, whose first bytes are `head`, in pieces of at most CHUNK bytes."""
    if head.startswith(b"\x1f\x8b"):
        yield from _gunzip(file)
        return
    plain: Any = file
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        plain = zstandard.ZstdDecompressor().stream_reader(cast(Any, file), read_across_frames=True, read_size=CHUNK)
    elif head.startswith(b"\xfd7zXZ\0"):
        plain = lzma.LZMAFile(cast(Any, file))  # noqa: SIM115 - the file is its opener's to close
    elif head.startswith(b"BZh"):
        plain = bz2.BZ2File(cast(Any, file))
    while data := plain.read(CHUNK):
        yield data


def _gunzip(file: Digested) -> Iterator[bytes]:
    """All members of a gzip file (RFC 1952); zeros after the last one are padding."""
    data = file.read(CHUNK)
    while data:
        member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        while not member.eof:
            if member.needs_input and not data:
                data = file.read(CHUNK)
                if not data:
                    raise EOFError("the compressed data ends too early")
            yield member.decompress(data, CHUNK)
            data = b""
        data = member.unused_data.lstrip(b"\0") or file.read(CHUNK).lstrip(b"\0")


@contextmanager
def opened(
    path: Path,
    *,
    digest: str | None = None,
    progress: Callable[[int], None] | None = None,
    raw: IO[bytes] | None = None,
) -> Iterator[Forward]:
    """The plain bytes of a file, compressed or not, read ahead by a thread.

    `digest` (`sha256:hex`) is that of the file itself; leaving the block normally with another one raises
    WwfastError, as do damaged or truncated data. `progress` gets counts of bytes read from the file. `raw` is read
    instead of the file where that is still arriving.
    """
    algorithm, _, expected = (digest or "").partition(":")
    if algorithm not in ("", "sha256", "sha512"):
        raise WwfastError(f"{path.name}: digest algorithm {algorithm} is not supported")
    chunks: queue.Queue[bytes | BaseException] = queue.Queue(AHEAD)
    stop = threading.Event()

    def put(item: bytes | BaseException) -> None:
        while not stop.is_set():
            try:
                chunks.put(item, timeout=0.2)
                return
            except queue.Full:
                continue

    def work(raw: IO[bytes]) -> None:
        try:
            source = Digested(raw, algorithm or None, progress)
            head = raw.read(8)
            raw.seek(0)
            for data in plain_chunks(source, head):
                if stop.is_set():
                    return
                if data:
                    put(data)
            source.drain()
            if source.hash is not None and (actual := source.hash.hexdigest()) != expected:
                raise DamagedError(
                    f"{path.name} is damaged: its {algorithm} is {actual[:16]}..., expected {expected[:16]}...",
                    hint="the download or the copy was incomplete; fetch it again",
                )
            put(b"")
        except (OSError, EOFError, ValueError, lzma.LZMAError, zstandard.ZstdError, GzipError) as error:
            put(DamagedError(f"{path} is damaged or cut short: {error}"))
        except BaseException as error:
            put(error)

    ended = False

    def take() -> Iterator[bytes]:
        nonlocal ended
        while not ended:
            item = chunks.get()
            if isinstance(item, BaseException):
                ended = True
                raise item
            if not item:
                ended = True
                return
            yield item

    with raw or path.open("rb") as file:
        thread = threading.Thread(target=work, args=(file,), daemon=True)
        thread.start()
        source = take()
        try:
            yield Forward(source)
            for _ in source:  # what follows the archive still counts for digest and checksums
                pass
        finally:
            stop.set()
            thread.join()
