"""Fetching the layers of one image: a few at a time, each readable while it arrives.

A layer goes to a file of ours and gets its place in the cache when skopeo has found its digest right. Whoever unpacks
reads behind the writer and checks the digest again.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

import msgspec

from wwfast.errors import NotFoundError, WwfastError
from wwfast.images.sources import oci
from wwfast.images.sources.options import Options
from wwfast.images.sources.proxy import Proxy, RefusedError
from wwfast.system.run import Argv

AT_ONCE = 3  # layers; the first of them is being unpacked meanwhile
TRIES = 3


class Arrival:
    """A layer that is being fetched: a file that grows up to its end or to a failure."""

    def __init__(self, file: Path, descriptor: oci.Descriptor, place: Path) -> None:
        self.file = file
        self.descriptor = descriptor
        self.place = place  # in the cache, when complete
        self.have = 0
        self.ended = False
        self.failure: BaseException | None = None
        self.moved = threading.Condition()
        file.touch()

    def open(self) -> IO[bytes]:
        with self.moved:
            return cast(IO[bytes], Reader(self, self.file.open("rb", buffering=0)))

    def grow(self, count: int) -> None:
        with self.moved:
            self.have += count
            self.moved.notify_all()

    def complete(self) -> None:
        """Give the file its place in the cache."""
        with self.moved:
            self.file = self.file.rename(self.place)
            self.ended = True
            self.moved.notify_all()

    def fail(self, failure: BaseException) -> None:
        with self.moved:
            self.ended, self.failure = True, failure
            self.moved.notify_all()


class Reader(io.RawIOBase):
    """Reads an arrival from its beginning; waits for what is not there yet, raises what ended it."""

    def __init__(self, arrival: Arrival, file: io.FileIO) -> None:
        self._arrival = arrival
        self._file = file

    def read(self, size: int = -1) -> bytes:
        at = self._file.tell()
        with self._arrival.moved:
            self._arrival.moved.wait_for(lambda: self._arrival.have > at or self._arrival.ended)
            if self._arrival.have <= at and self._arrival.failure is not None:
                raise self._arrival.failure
        # What is written but not counted yet may be read as well: it is the same file.
        return self._file.read(size) or b""

    def seek(self, to: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(to, whence)

    def close(self) -> None:
        self._file.close()
        super().close()


class Fetch:
    """The image behind a reference: `layers` to apply, those not in the cache arriving while the block lasts."""

    def __init__(self, command: Argv, reference: str, room: Path, blobs: Path, options: Options) -> None:
        self._command = command
        self._reference = reference
        self._room = room
        self._blobs = blobs
        self._options = options
        self._proxies: list[Proxy] = []
        self._threads: list[threading.Thread] = []
        self._done = 0
        self._lock = threading.Lock()
        self.layers: list[oci.Layer] = []

    def __enter__(self) -> Fetch:
        try:
            self._begin()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        for proxy in self._proxies:
            proxy.end()
        for thread in self._threads:
            thread.join()
        for proxy in self._proxies:
            proxy.close()

    def _begin(self) -> None:
        try:
            first = self._proxy()
            descriptors = self._described(first)
            arrivals: dict[str, Arrival] = {}
            for number, descriptor in enumerate(descriptors):
                place = oci.blob_path(self._blobs, descriptor.digest)
                arrival = arrivals.get(descriptor.digest)
                if arrival is None and place.exists():
                    os.utime(place)
                elif arrival is None:
                    arrival = Arrival(self._room / f"layer{number}", descriptor, place)
                    arrivals[descriptor.digest] = arrival
                opener = arrival.open if arrival else None
                self.layers.append(oci.Layer(place, descriptor.digest, descriptor.size, opener))
            for _ in range(min(AT_ONCE, len(arrivals)) - 1):
                self._proxy()
        except RefusedError as error:
            raise self._failed(error) from error
        except msgspec.DecodeError as error:
            raise WwfastError(f"{self._reference} is no container image: {error}") from error
        todo = iter(arrivals.values())
        total = sum(arrival.descriptor.size for arrival in arrivals.values())
        for proxy in self._proxies if arrivals else ():
            thread = threading.Thread(target=self._work, args=(proxy, todo, total), daemon=True)
            thread.start()
            self._threads.append(thread)

    def _proxy(self) -> Proxy:
        said = self._room / f"skopeo{len(self._proxies)}"
        made = Proxy(self._command, self._reference, said, self._options.stall)
        self._proxies.append(made)
        made.open()
        return made

    def _described(self, proxy: Proxy) -> list[oci.Descriptor]:
        """The layers by the manifest, which skopeo has chosen by platform; a lone image may still be for another."""
        manifest = msgspec.json.decode(proxy.document("GetManifest"), type=oci.Manifest)
        if self._options.platform:
            wanted = oci.platform(self._options.platform)
            is_for = msgspec.json.decode(proxy.document("GetFullConfig"), type=oci.Platform)
            if not is_for.suits(wanted):
                raise NotFoundError(f"the image is for {is_for}, not for {wanted}")
        return manifest.layers or []

    def _work(self, proxy: Proxy, todo: Iterator[Arrival], total: int) -> None:
        while True:
            with self._lock:
                arrival = next(todo, None)
            if arrival is None:
                return
            try:
                self._fetch(proxy, arrival, total)
                arrival.complete()
            except RefusedError as error:
                arrival.fail(self._failed(error))
            except BaseException as error:
                arrival.fail(error)

    def _fetch(self, proxy: Proxy, arrival: Arrival, total: int) -> None:
        with arrival.file.open("r+b", buffering=0) as out:
            for attempt in range(TRIES):
                try:
                    self._receive(proxy, arrival, out, total)
                    return
                except RefusedError:
                    # What came is kept and read already: the next try skips as much.
                    if attempt == TRIES - 1:
                        raise

    def _receive(self, proxy: Proxy, arrival: Arrival, out: IO[bytes], total: int) -> None:
        skip = arrival.have
        for data in proxy.blob(arrival.descriptor.digest, arrival.descriptor.size):
            fresh = data[skip:]
            skip = max(skip - len(data), 0)
            view = memoryview(fresh)
            while view:
                view = view[out.write(view) :]
            if fresh:
                arrival.grow(len(fresh))
                with self._lock:
                    self._done += len(fresh)
                self._options.progress("fetching", self._done, total)

    def _failed(self, error: RefusedError) -> WwfastError:
        return WwfastError(f"cannot fetch {self._reference}: {error}", hint=hint(str(error)))


def hint(reason: str) -> str:
    """What to do about a failure that skopeo told."""
    text = reason.lower()
    if "unauthorized" in text or "authentication required" in text:
        return "give --username and --password-stdin, or log in with: skopeo login"
    if "server gave http response" in text or "certificate" in text:
        return "for a registry without TLS use --nohttps"
    if "manifest unknown" in text or "not found" in text:
        return "check the name and the tag; see: skopeo list-tags docker://NAME"
    if "connection refused" in text or "no such host" in text:
        return "check the registry's address and port, and the network"
    if "invalid reference" in text:
        return "an image is docker://REGISTRY/NAME:TAG, in small letters"
    if "no image found" in text:
        return "see --platform"
    if "unrecognized command" in text:
        return "this skopeo is older than 1.5; elsewhere: skopeo copy docker://NAME oci:DIR, then import oci:DIR here"
    return "try again: layers that were complete are kept"
