"""An answer under way (sans-IO): which part of which body, its head, and what events tell about it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wwfast.archive.artefact import Artefact
from wwfast.net.http.conditions import choose, cut
from wwfast.net.http.message import render_head, validators
from wwfast.net.transfer import Outcome, Transfer

if TYPE_CHECKING:
    from wwfast.net.http.files import FileCache, OpenFile
    from wwfast.net.http.head import Head
    from wwfast.net.http.message import Response
    from wwfast.net.http.wire import Spans

NO_SPANS: Spans = []


@dataclass(slots=True)
class Answer:
    """What is sent for one request: `status` and `length` bytes from `start` of a body of `size` bytes."""

    response: Response
    head: Head
    status: int
    start: int
    length: int
    size: int
    keep_alive: bool
    began: float = 0.0
    told: float = 0.0
    sent: int = 0
    before: int = 0  # bytes of the body sent ahead of the pump; negative for what of the head was not
    files: Sequence[OpenFile] = ()
    key: str = ""  # of the scheduler, when this answer went through it

    @classmethod
    def to(cls, head: Head, response: Response) -> Answer:
        """The whole body, or what the conditions of the request leave of it."""
        size = response.size
        answer = cls(response, head, response.status, 0, size, size, head.keep_alive)
        if head.conditional and response.status == 200:
            body = response.body
            etag, mtime = (body.etag, body.mtime) if isinstance(body, Artefact) else (response.etag, None)
            answer.status, answer.start, answer.length = choose(head.headers, size, etag, mtime)
            if head.method == "HEAD" and answer.status in (206, 416):  # RFC 9110 14.2: Range is for GET alone
                answer.status, answer.start, answer.length = 200, 0, size
        return answer

    @classmethod
    def empty(cls, head: Head, response: Response, keep_alive: bool) -> Answer:
        """A status that nobody asked for: a fault of ours, or come again later."""
        return cls(response, head, response.status, 0, 0, 0, keep_alive)

    def head_bytes(self) -> bytes:
        response, fields, known = self.response, self.response.headers, ""
        if isinstance(response.body, Artefact):
            known = validators(response.body.etag, response.body.mtime)
        elif response.etag:
            known = f"ETag: {response.etag}\r\n"
        if self.status == 206:
            end = self.start + self.length - 1
            fields = {**fields, "Content-Range": f"bytes {self.start}-{end}/{self.size}"}
        elif self.status == 416:
            fields = {**fields, "Content-Range": f"bytes */{self.size}"}
        length = self.size if self.status == 304 else self.length  # RFC 9110 8.6
        return render_head(self.status, response.content_type, length, fields, known, keep_alive=self.keep_alive)

    def parts(self, files: FileCache, inline: int) -> tuple[bytes, Spans] | None:
        """What of the body goes out from memory, and the spans of files for the rest; None where a thread must open or
        read them first. `inline`: bytes of a body up to which it is kept in memory."""
        body, start, end = self.response.body, self.start, self.start + self.length
        if isinstance(body, bytes):
            return body[start:end], NO_SPANS
        if self.size <= inline:
            whole = files.whole(body)
            return (whole[start:end], NO_SPANS) if whole is not None else None
        opened = files.opened(body)
        if opened is None:
            return None
        opened.hold()
        self.files = opened.files
        return b"", opened.spans if self.status != 206 else cut(opened.spans, start, self.length)

    def release(self) -> None:
        for file in self.files:
            file.release()

    def count(self, sent: int) -> int:
        """The pump has sent so much; how much of the body is new among it."""
        body = max(0, self.before + sent)
        new = max(0, body - self.sent)
        self.sent += new
        return new

    def is_told(self, outcome: Outcome) -> bool:
        """Whether an event tells about it. A body that is fetched in many parts begins once and ends once."""
        if not self.response.stage or self.head.method == "HEAD":
            return False
        return outcome is not Outcome.STARTED or not self.start

    def event(self, outcome: Outcome, peer: str, detail: str) -> Transfer:
        response = self.response
        part = self.status == 206
        answered = self.sent if outcome in (Outcome.DONE, Outcome.FAILED) else 0
        if part and outcome is Outcome.DONE and self.start + self.length < self.size:
            outcome = Outcome.PROGRESS
        return Transfer(
            response.stage,
            outcome,
            time.time(),
            peer,
            response.wwid,
            response.node,
            response.sent or (response.body.name if isinstance(response.body, Artefact) else ""),
            self.start + self.sent if part else self.sent,
            self.size if part else self.length,
            0.0 if outcome is Outcome.STARTED else time.monotonic() - self.began,
            self.status,
            detail or response.detail,
            response.more,
            response.way,
            answered,
        )
