"""skopeo as a server for one image: it speaks to the registry, we get manifest and layers through pipes.

Protocol: `skopeo experimental-image-proxy`, version 0.2 (containers/skopeo, cmd/skopeo/proxy.go), one JSON request and
reply per packet of a SOCK_SEQPACKET socket; data come through a pipe whose descriptor is passed with the reply. The
pipe is closed when FinishPipe is answered, and that is answered when all is sent and, for a layer, its digest was
right. So the request goes out before the pipe is read, and the reply is taken at its end.
"""

from __future__ import annotations

import fcntl
import os
import re
import select
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from wwfast.errors import WwfastError
from wwfast.system.run import Argv, converse

PACKET = 32 << 10  # the protocol's largest
PIECE = 1 << 20
MESSAGE = re.compile(r'msg="((?:[^"\\]|\\.)*)"')  # what is for people in a line of skopeo's log


class Reply(msgspec.Struct, frozen=True):
    success: bool
    value: Any = None
    pipe: int = msgspec.field(default=0, name="pipeid")
    error: str = ""


class RefusedError(Exception):
    """What skopeo told when it could not do something."""


class Proxy:
    """One skopeo with one image open; for one thread at a time. It dies with the thread that made it."""

    def __init__(self, command: Argv, reference: str, said: Path, stall: float) -> None:
        self._reference = reference
        self._stall = stall
        self._said = said
        with said.open("wb") as stderr:
            self._process, self._packets = converse(command, stderr=stderr, timeout=stall, package="skopeo")
        self._image: int | None = None

    def open(self) -> None:
        self._call("Initialize")
        self._image = int(self._call("OpenImage", self._reference)[0].value)

    def end(self) -> None:
        """End skopeo, also from another thread: what that waits for then fails."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        self.end()
        self._packets.close()

    def document(self, method: str) -> bytes:
        """The bytes of the manifest (GetManifest) or the configuration (GetFullConfig)."""
        return b"".join(self._data(method, self._image))

    def blob(self, digest: str, size: int) -> Iterator[bytes]:
        """A layer in pieces. Raises RefusedError at its end when it was cut short or had another digest."""
        return self._data("GetBlob", self._image, digest, size)

    def _data(self, method: str, *arguments: object) -> Iterator[bytes]:
        reply, pipe = self._call(method, *arguments)
        if pipe is None:
            raise RefusedError(f"skopeo sent no pipe for {method}")
        try:
            with suppress(PermissionError):  # beyond what a user may have: the usual size does
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIECE)
            self._send("FinishPipe", reply.pipe)
            poll = select.poll()  # select() cannot take the descriptors of a process with many files open
            poll.register(pipe, select.POLLIN)
            while True:
                if not poll.poll(self._stall * 1000):
                    raise self._silent()
                data = os.read(pipe, PIECE)
                if not data:
                    break
                yield data
        finally:
            os.close(pipe)
        self._receive()

    def _call(self, method: str, *arguments: object) -> tuple[Reply, int | None]:
        self._send(method, *arguments)
        return self._receive()

    def _send(self, method: str, *arguments: object) -> None:
        try:
            self._packets.send(msgspec.json.encode({"method": method, "args": list(arguments)}))
        except OSError:
            raise self._dead() from None

    def _receive(self) -> tuple[Reply, int | None]:
        try:
            data, pipes = self._packets.receive(PACKET)
        except TimeoutError:
            raise self._silent() from None
        except OSError:
            raise self._dead() from None
        if not data:
            raise self._dead()
        reply = msgspec.json.decode(data, type=Reply)
        if not reply.success:
            raise RefusedError(reply.error)
        return reply, pipes[0] if pipes else None

    def _silent(self) -> WwfastError:
        return WwfastError(
            f"{self._reference}: the registry sent nothing for {self._stall:g} s",
            hint="try again: layers that were complete are kept",
        )

    def _dead(self) -> RefusedError:
        return RefusedError(told(self._said.read_bytes()) or "skopeo ended early")


def told(stderr: bytes) -> str:
    """The last that skopeo said, without the frame of its log."""
    last = (stderr.decode(errors="replace").strip().splitlines() or [""])[-1]
    found = MESSAGE.search(last)
    return found[1].partition(r"\n")[0].replace(r"\"", '"') if found else last
