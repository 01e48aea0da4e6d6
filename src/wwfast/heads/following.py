"""Following another head: what it has is fetched, verified, and served from one moment on. For one thread.

A turn asks what the other head has now, fetches what is lacking here, and switches. Whatever goes wrong, what was
served before goes on being served.
"""

from __future__ import annotations

import http.client
import re
import ssl
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from wwfast import __version__
from wwfast.errors import UsageError, WwfastError, of_system
from wwfast.heads import key, manifest, words
from wwfast.heads.closings import Closings
from wwfast.heads.mirror import Mirror
from wwfast.heads.words import Answer, Report
from wwfast.overlays.making.results import Given

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wwfast.heads.closings import Closed
    from wwfast.heads.manifest import Entry, Manifest
    from wwfast.overlays.making.results import Results
    from wwfast.paths import Paths

SECONDS = 10.0  # without a byte
PIECE = 1 << 20
LARGEST = 256 << 20  # bytes of an answer that is kept in memory


def address(url: str, port: int) -> tuple[str, int]:
    """Of the other head: ADDRESS, ADDRESS:PORT, or https:// before it. Raises UsageError."""
    parts = urlsplit(url if "://" in url else f"https://{url}")
    try:
        found = parts.hostname, parts.port or port
    except ValueError:
        found = None, 0
    if parts.scheme != "https" or not found[0] or parts.path.strip("/") or parts.query:
        raise UsageError(f"{url} is no head", hint=f"its address: https://ADDRESS, with port {port} or :PORT behind it")
    return found[0], found[1]


@dataclass
class Following:
    """Of the head at `url`; `results` are the overlays that nodes get here, `ended` says that nobody waits any more."""

    paths: Paths
    url: str
    port: int
    name: str
    results: Results
    ended: Callable[[], bool] = lambda: False
    closings: Closings = field(default_factory=Closings)
    said: str = ""  # what is wrong, if something is
    revision: str = ""  # that is served
    missing: int = 0  # bytes that are still to come
    unheard: bool = False  # the other head did not answer the last time
    _told: int = 0  # the last of our closings that the other head was told of
    _heard: int = 0  # of its closings

    def __post_init__(self) -> None:
        self._at = address(self.url, self.port)
        self._context = key.context(key.place(self.paths), ssl.PROTOCOL_TLS_CLIENT)
        assert self.paths.mirror is not None
        self._mirror = Mirror(self.paths.mirror)

    @property
    def head(self) -> str:
        """Address of the other one."""
        return self._at[0]

    @property
    def whose(self) -> str:
        return f"the head {self._at[0]}:{self._at[1]}"

    def resume(self) -> bool:
        """Serve what was mirrored last; whether there is something."""
        known = self._mirror.manifest()
        if known is not None:
            self._adopt(known)
        return known is not None

    def turn(self) -> tuple[bool, list[Closed]]:
        """One look at the other head: whether another revision is served now, and boots that ended there. Raises
        WwfastError that says what is wrong."""
        try:
            switched, closed = self._turn()
        except (OSError, http.client.HTTPException, WwfastError, msgspec.MsgspecError, struct.error) as error:
            raised = self._words(error)
            self.said, self.unheard = raised.message, "does not answer" in raised.message
            raise raised from error
        self.said, self.unheard = "", False
        return switched, closed

    def _turn(self) -> tuple[bool, list[Closed]]:
        connection = http.client.HTTPSConnection(*self._at, timeout=SECONDS, context=self._context)
        try:
            known = self._mirror.manifest()
            told, last = self.closings.after(self._told)
            answer = self._poll(connection, told)
            self._told, self._heard = last, answer.last
            if known is not None and known.revision == answer.revision and self._mirror.holds(known):
                self.revision, self.missing = known.revision, 0
                return False, answer.closed
            text = self._get(connection, "GET", "/manifest")
            wanted = manifest.read(text, self.whose)
            self._fetch(connection, wanted)
            self._overlays(connection, wanted)
            self._mirror.switch(wanted, text)
            self._adopt(wanted)
            self._mirror.sweep(known.revision if known else "")
            self._poll(connection, [])
            return True, answer.closed
        finally:
            connection.close()

    def _poll(self, connection: http.client.HTTPSConnection, closed: list[Closed]) -> Answer:
        report = Report(
            version=__version__,
            name=self.name,
            revision=self.revision,
            missing=self.missing,
            said=self.said,
            closed=closed,
            heard=self._heard,
        )
        body = self._get(connection, "POST", "/poll", msgspec.json.encode(report))
        manifest.require_format(body, self.whose)
        return msgspec.json.decode(body, type=Answer)

    def _fetch(self, connection: http.client.HTTPSConnection, wanted: Manifest) -> None:
        lacking = self._mirror.lacking(wanted)
        self._mirror.require_room(lacking)
        self.missing = sum(entry.size - self._mirror.begun(entry) for entry in lacking)
        for entry in lacking:
            start = self._mirror.begun(entry)
            headers = {"Range": f"bytes={start}-"} if 0 < start < entry.size else {}
            body: Iterable[bytes] = ()
            if start < entry.size or not entry.size:
                body = self._pieces(self._ask(connection, "GET", f"/object/{entry.sha256}", None, headers), entry)
            self._mirror.take(entry, body)

    def _pieces(self, answer: http.client.HTTPResponse, entry: Entry) -> Iterator[bytes]:
        while data := answer.read(PIECE):
            if self.ended():
                raise WwfastError("the server ends")
            self.missing -= len(data)
            yield data
        if answer.length:
            raise WwfastError(f"{entry.path} ended early; it goes on where it stopped")

    def _overlays(self, connection: http.client.HTTPSConnection, wanted: Manifest) -> None:
        contents = [content for each in self._given(wanted).values() for content in each]
        lacking = self.results.lacks(contents)
        for at in range(0, len(lacking), words.PARTS):
            asked = lacking[at : at + words.PARTS]
            body = memoryview(self._get(connection, "POST", "/parts", b"".join(asked)))
            for content in asked:
                size, length = words.PART.unpack_from(body)
                frame, body = body[words.PART.size :][:size], body[words.PART.size + size :]
                self.results.take(content, bytes(frame), length)

    def _given(self, wanted: Manifest) -> Mapping[Given, Sequence[bytes]]:
        """What nodes get of overlays by this manifest, whose files are here."""
        [entry] = [entry for entry in wanted.entries if entry.path == manifest.OVERLAYS]
        try:
            found = msgspec.msgpack.decode(self._mirror.path(entry).read_bytes(), type=list[tuple[Given, list[bytes]]])
        except msgspec.DecodeError as error:
            raise WwfastError(f"the overlays of {self.whose} cannot be read: {error}") from error
        return dict(found)

    def _adopt(self, known: Manifest) -> None:
        self.results.adopt(self._given(known))
        self.revision, self.missing = known.revision, 0

    def _get(self, connection: http.client.HTTPSConnection, method: str, path: str, body: bytes | None = None) -> bytes:
        answer = self._ask(connection, method, path, body, {})
        if answer.length is None or answer.length > LARGEST:
            raise WwfastError(f"{self.whose} answers without a length, or with {answer.length} bytes")
        return answer.read()

    def _ask(
        self,
        connection: http.client.HTTPSConnection,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
    ) -> http.client.HTTPResponse:
        connection.request(method, words.ROOT + path, body, dict(headers))
        answer = connection.getresponse()
        if answer.status not in (200, 206):
            said = answer.read(4096).decode(errors="replace").strip()
            raise WwfastError(f"{self.whose} answers {answer.status}: {said}")
        return answer

    def _words(self, error: Exception) -> WwfastError:
        if isinstance(error, WwfastError):
            return error
        if isinstance(error, ssl.SSLError):
            why = re.sub(r"^\[[^]]*\] | \(_ssl\.c:\d+\)$", "", error.strerror or str(error))
            return WwfastError(
                f"{self.whose} and this one do not have the same key: {why}",
                hint=f"copy {key.place(self.paths)} from there, mode 0600",
            )
        if isinstance(error, OSError) and error.filename is not None:
            return of_system(error, "mirroring")
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return WwfastError(
            f"{self.whose} does not answer: {why}",
            hint="is its server running, with a key (wwfast follow key), and the port open?",
        )
