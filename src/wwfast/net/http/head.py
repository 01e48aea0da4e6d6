"""Request heads: bytes in, `Head` out (RFC 9112). Knows no sockets and no clock.

Strict where leniency is dangerous (line ends, header names, lengths), lenient where boot firmware is sloppy: a
missing or portless Host is fine because no URL is ever built from it, `//` is collapsed because shim sends it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import unquote, unquote_plus

MAX_FIELDS = 64
MAX_TARGET = 8192
METHODS = {b"GET": "GET", b"HEAD": "HEAD", b"POST": "GET"}  # scripts post for what they get; without a body
CONDITIONS = frozenset({"range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range"})
KEPT = 16384  # whole heads kept parsed: a node that is up sends the same one every interval
KEPT_BYTES = 512  # of a head that is kept
KNOWN = 256  # blocks of header lines kept parsed: all nodes of one firmware send the same

_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}) ([\x21-\x7e\x80-\xff]+) HTTP/1\.([01])")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\x00\r\n]*)")  # no part can match what the next one can
_known: dict[bytes, Fields] = {}
_heads: dict[bytes, Head] = {}
_PLAIN = re.compile(
    r"(?:/[\w:~-][\w:.~-]*)+", re.ASCII
)  # nothing to decode, collapse or refuse: no segment begins with a dot
_SLASHES = re.compile(r"//+")


class HeadError(ValueError):
    """The request cannot be understood; `status` is the answer, after which the connection closes."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Fields(NamedTuple):
    """What follows the request line. `conditional`: there is something for conditions.choose() to look at."""

    headers: Mapping[str, str]
    connection: str
    conditional: bool


class Head(NamedTuple):
    """One request head, shared by all who send the same bytes; `path` is decoded and cleaned, `query` keeps first
    values, header names are lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    keep_alive: bool
    conditional: bool


class HeadReader:
    """Collects bytes until a head is complete; what follows it stays for the next one."""

    __slots__ = ("_buffer", "_limit", "_searched")

    def __init__(self, limit: int) -> None:
        self._buffer = bytearray()
        self._limit = limit
        self._searched = 0

    def __len__(self) -> int:
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def clear(self) -> None:
        self._buffer.clear()
        self._searched = 0

    def take(self, data: bytes) -> Head | None:
        """feed() and next() in one; the usual case, one whole head at a time, is not buffered at all."""
        if not self._buffer:
            head = _heads.get(data)
            if head is not None:
                return head
            end = data.find(b"\r\n\r\n")
            if end > 0 and end + 4 == len(data) and not data.startswith(b"\r\n"):
                if end > self._limit:
                    raise HeadError(431, "request head too large")
                head = parse(data[:end])
                if end <= KEPT_BYTES:
                    if len(_heads) >= KEPT:
                        _heads.clear()
                    _heads[data] = head
                return head
        self._buffer += data
        return self.next()

    def next(self) -> Head | None:
        """The next head, or None when more bytes are needed. Raises HeadError (400, 405, 413, 414, 431)."""
        buffer = self._buffer
        while not self._searched and buffer[:2] == b"\r\n":  # RFC 9112 2.2: empty lines before a request
            del buffer[:2]
        end = buffer.find(b"\r\n\r\n", self._searched)
        if end < 0:
            self._searched = max(0, len(buffer) - 3)
            if self._searched > self._limit:  # where it can end at the earliest
                raise HeadError(431, "request head too large")
            return None
        if end > self._limit:
            raise HeadError(431, "request head too large")
        head = bytes(buffer[:end])
        del buffer[: end + 4]
        self._searched = 0
        return parse(head)


def parse(data: bytes) -> Head:
    """A head without its final empty line. Raises HeadError."""
    first, _, block = data.partition(b"\r\n")
    match = _LINE.fullmatch(first)
    if match is None:
        raise HeadError(400, "malformed request line")
    method, target, minor = match.groups()
    if len(target) > MAX_TARGET:
        raise HeadError(414, "request target too long")
    word = METHODS.get(method)
    if word is None:
        raise HeadError(405, f"method {method.decode('ascii')} is not offered")
    fields = _known.get(block)
    if fields is None:
        fields = parse_fields(block)
        if len(_known) >= KNOWN:
            _known.clear()
        _known[block] = fields
    path, query = split_target(target.decode("latin-1"))
    keep_alive = "close" not in fields.connection if minor == b"1" else "keep-alive" in fields.connection
    return Head(word, path, query, fields.headers, keep_alive, fields.conditional)


def parse_fields(block: bytes) -> Fields:
    """The header lines of a head. Raises HeadError."""
    lines = block.split(b"\r\n") if block else []
    if len(lines) > MAX_FIELDS:
        raise HeadError(431, "too many header fields")
    headers: dict[str, str] = {}
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise HeadError(400, "malformed header field")
        name, value = field[1].decode("ascii").lower(), field[2].strip(b" \t").decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
        raise HeadError(413, "no request body is taken")
    conditional = not CONDITIONS.isdisjoint(headers)
    return Fields(MappingProxyType(headers), headers.get("connection", "").lower(), conditional)


def split_target(target: str) -> tuple[str, dict[str, str]]:
    """Path and query of a request target (origin or absolute form). Raises HeadError for traversal."""
    if _PLAIN.fullmatch(target):
        return target, {}
    if not target.startswith("/"):
        scheme, separator, rest = target.partition("://")
        if not separator or scheme.lower() not in ("http", "https"):
            raise HeadError(400, "request target is not a path")
        target = "/" + rest.partition("/")[2]
    raw, _, text = target.partition("#")[0].partition("?")
    path = unquote(raw, errors="replace") if "%" in raw else _utf8(raw)
    if "//" in path:
        path = _SLASHES.sub("/", path)
    if "\0" in path or "/../" in f"{path}/":
        raise HeadError(400, "path leaves the tree")
    query: dict[str, str] = {}
    if text:
        for pair in text.split("&"):
            key, _, value = pair.partition("=")
            if "%" in pair or "+" in pair:
                key, value = unquote_plus(key, errors="replace"), unquote_plus(value, errors="replace")
            if key:
                query.setdefault(key, value)
    return path, query


def _utf8(raw: str) -> str:
    return raw if raw.isascii() else raw.encode("latin-1").decode("utf-8", "replace")
