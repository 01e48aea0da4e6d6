"""What templates made, without them: given to another server, and taken from one."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence

import xxhash
import zstandard

from wwfast.errors import WwfastError
from wwfast.overlays.making.builder import Builder
from wwfast.overlays.making.index import Record
from wwfast.overlays.making.store import Damaged

Given = tuple[str, str]  # node and context
SLOTS = 3  # parts of a record


class Results:
    """Thread-safe, by the lock of the service whose they are."""

    def __init__(self, builder: Builder, lock: threading.RLock) -> None:
        self._builder = builder
        self._lock = lock
        self.nodes: list[Given] = []  # whose results were taken from another server

    # -- given ---------------------------------------------------------------------------------------------------

    def of(self, nodes: Iterable[Given]) -> Iterator[tuple[Given, Sequence[bytes]]]:
        """The parts of each that was given something, as their contents."""
        with self._lock:
            self._builder.index.refresh()
        for node in nodes:
            with self._lock:
                record = self._builder.index.record(*node)
            if record is not None:
                yield node, record.contents

    def state(self) -> object:
        """Another one after each build, in this process or another."""
        with self._lock:
            self._builder.index.refresh()
            return self._builder.index.place

    def part(self, content: bytes) -> tuple[bytes, int]:
        """Its zstd frame, and the bytes of what is in it. Raises Damaged where it is there no more: it is made anew
        for the next edition."""
        with self._lock:
            try:
                data = self._builder.store.read(content)
            except Damaged:
                self._builder.anew()
                raise
            place = self._builder.store.segment(content, "zst")
            return data, place.raw_length if place is not None else 0

    # -- taken ---------------------------------------------------------------------------------------------------

    def lacks(self, contents: Iterable[bytes]) -> list[bytes]:
        with self._lock:
            return [content for content in dict.fromkeys(contents) if not self._builder.store.has(content)]

    def take(self, content: bytes, frame: bytes, length: int) -> None:
        """Keep a part, if it is that. Raises WwfastError, OSError."""
        try:
            raw = zstandard.ZstdDecompressor().decompress(frame, max_output_size=length)
        except zstandard.ZstdError as error:
            raise WwfastError(f"a part of an overlay is damaged: {error}") from error
        if len(raw) != length or xxhash.xxh3_128_digest(raw) != content:
            raise WwfastError("a part of an overlay is not what the other head said it is")
        with self._lock:
            self._builder.store.put(content, "zst", frame, length)

    def adopt(self, given: Mapping[Given, Sequence[bytes]]) -> None:
        """From now on nodes have these. Raises WwfastError for a record of another form."""
        if any(len(contents) > SLOTS for contents in given.values()):
            raise WwfastError("the other head has overlays of more parts than this version of wwfast knows")
        with self._lock:
            self.nodes = list(given)
            for (node, context), contents in given.items():
                slots = [*contents, *([b""] * (SLOTS - len(contents)))]
                self._builder.index.keep(node, context, Record(b"", b"", b"", b"", *slots))
            self._builder.index.flush()
            self._builder.store.flush()
