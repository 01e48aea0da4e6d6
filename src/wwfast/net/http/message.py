"""What a handler gets and gives: Request and Response, and the bytes of a response head.

Heads are written for the pickiest reader: GRUB matches header names by case, OVMF needs Content-Length on HEAD
and GET alike, UEFI's HTTP driver fails for good after a reply without Content-Type. So every response has both,
in canonical case, and is never chunked.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import NamedTuple

from wwfast.archive.artefact import Artefact

REASON = {status.value: status.phrase for status in HTTPStatus}
NOTHING: Mapping[str, str] = {}


class Request(NamedTuple):
    """One request. `query` holds first values, `headers` have lower-case names; addresses are of the connection."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    peer_ip: str = ""
    peer_port: int = 0

    @property
    def is_head(self) -> bool:
        return self.method == "HEAD"


@dataclass(slots=True)
class Response:
    """What to answer.

    `body` is bytes or an Artefact; its digest and mtime give ETag and Last-Modified (for bytes: `etag`, if given,
    with its quotes). `wwid`, `node`, `stage` and `sent` name the transfer in events; without `stage` there are no
    events. With a scheduler, an Artefact for a `wwid` may have to wait for the turn of its node; `share` is the
    name whose nodes share alike (the cluster) and `waits=False` is for what must never wait (boot binaries). `again` is
    asked, once, where a file of the Artefact is not there any more.
    """

    status: int = 200
    body: bytes | Artefact = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)
    wwid: str = ""
    node: str = ""
    stage: str = ""
    sent: str = ""
    detail: str = ""  # for events only: why it is what it is
    share: str = ""
    waits: bool = True
    last: bool = False  # the node needs nothing large after this: its turn ends with it
    more: bool = False  # for events only: see Transfer
    way: str = ""  # for events only: see Transfer
    etag: str = ""
    again: Callable[[], Awaitable[Response]] | None = None

    @property
    def size(self) -> int:
        return len(self.body) if isinstance(self.body, bytes) else self.body.size


def render_head(
    status: int,
    content_type: str,
    length: int,
    fields: Mapping[str, str] = NOTHING,
    known: str = "",
    *,
    keep_alive: bool,
) -> bytes:
    """The bytes of a response head. `length` is what Content-Length says, also when no body follows; `known` are
    lines that were rendered before."""
    if fields:
        known += "".join([f"{name}: {value}\r\n" for name, value in fields.items()])
    return _head(status, content_type, length, known, keep_alive, int(time.time()))


@lru_cache(1024)
def _head(status: int, content_type: str, length: int, known: str, keep_alive: bool, second: int) -> bytes:
    return (
        f"HTTP/1.1 {status} {REASON.get(status, 'Unknown')}\r\nDate: {http_date(second)}\r\n"
        f"Content-Type: {content_type}\r\nContent-Length: {length}\r\n{known}"
        f"Connection: {'keep-alive' if keep_alive else 'close'}\r\n\r\n"
    ).encode("latin-1", "replace")


@lru_cache(1024)
def validators(etag: str, mtime: int) -> str:
    """The header lines by which a client can ask for the rest, or whether it changed."""
    return f"ETag: {etag}\r\nLast-Modified: {http_date(mtime)}\r\nAccept-Ranges: bytes\r\n"


@lru_cache(256)
def http_date(second: int) -> str:
    """RFC 9110 5.6.7."""
    return formatdate(second, usegmt=True)
