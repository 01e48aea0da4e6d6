"""Conditional and range requests (RFC 9110 13 and 14.2): which part of a body, if any, a request gets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from email.utils import parsedate_to_datetime
from typing import NamedTuple, TypeVar

T = TypeVar("T")

_RANGE = re.compile(r"bytes=[ \t]*(\d*)-(\d*)[ \t]*", re.ASCII)
DIGITS = 18  # of a byte position; more can only be an attack


class Selection(NamedTuple):
    """`status` 200, 206, 304, 412 or 416, and the part of the body it is about."""

    status: int
    start: int
    length: int


def choose(headers: Mapping[str, str], size: int, etag: str, mtime: int | None) -> Selection:
    """Evaluate the preconditions in the order of RFC 9110 13.2.2, then the range."""
    if "if-match" in headers:
        if not _matches(headers["if-match"], etag, weak=False):
            return Selection(412, 0, 0)
    elif mtime is not None and "if-unmodified-since" in headers:
        since = _date(headers["if-unmodified-since"])
        if since is not None and mtime > since:
            return Selection(412, 0, 0)
    if "if-none-match" in headers:
        if _matches(headers["if-none-match"], etag, weak=True):
            return Selection(304, 0, 0)
    elif mtime is not None and "if-modified-since" in headers:
        since = _date(headers["if-modified-since"])
        if since is not None and mtime <= since:
            return Selection(304, 0, 0)
    if "range" in headers and _still_the_same(headers.get("if-range"), etag, mtime):
        return byte_range(headers["range"], size)
    return Selection(200, 0, size)


def byte_range(value: str, size: int) -> Selection:
    """One range; several or a malformed one are ignored, as the RFC allows: the whole body follows."""
    match = _RANGE.fullmatch(value)
    if match is None or match.groups() == ("", "") or any(len(number) > DIGITS for number in match.groups()):
        return Selection(200, 0, size)
    first, last = match.groups()
    if not first:
        length = min(int(last), size)
        return Selection(206, size - length, length) if length else Selection(416, 0, 0)
    start = int(first)
    end = min(int(last), size - 1) if last else size - 1
    if last and int(last) < start:
        return Selection(200, 0, size)
    return Selection(206, start, end - start + 1) if start < size else Selection(416, 0, 0)


def cut(parts: Iterable[tuple[T, int, int]], start: int, length: int) -> list[tuple[T, int, int]]:
    """The parts (of what, offset, length) of `length` bytes from `start` of the body."""
    left: list[tuple[T, int, int]] = []
    for part, offset, size in parts:
        if start >= size:
            start -= size
            continue
        if length <= 0:
            break
        take = min(size - start, length)
        left.append((part, offset + start, take))
        length -= take
        start = 0
    return left


def _matches(value: str, etag: str, *, weak: bool) -> bool:
    if not etag:
        return False
    tags = [tag.strip() for tag in value.split(",")]
    return "*" in tags or etag in tags or (weak and f"W/{etag}" in tags)


def _still_the_same(value: str | None, etag: str, mtime: int | None) -> bool:
    if value is None:
        return True
    if value.startswith('"'):
        return value.strip() == etag
    since = _date(value)
    return mtime is not None and since is not None and since == mtime


def _date(value: str) -> int | None:
    try:
        return int(parsedate_to_datetime(value).timestamp())
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
