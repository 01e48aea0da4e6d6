"""What rack caches carried: bytes that we sent to each, and bytes that nodes say they had from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

DIGITS = 15  # of a number of bytes


class Carried:
    """Since the server's start, for the caches of warewulf.conf alone: others may say what they like."""

    def __init__(self, urls: Iterable[str]) -> None:
        self._fetched = dict.fromkeys(urls, 0)
        self._given = dict.fromkeys(self._fetched, 0)
        self._hosts = {urlsplit(url).hostname or "": url for url in self._fetched}

    def fetched(self, peer: str, sent: int) -> None:
        url = self._hosts.get(peer.removeprefix("::ffff:"))
        if url is not None:
            self._fetched[url] += sent

    def told(self, text: str) -> None:
        """By stage-1: see `came`."""
        for url, count in came(text).items():
            if url in self._given:
                self._given[url] += count

    @property
    def figures(self) -> dict[str, dict[str, int]]:
        """For /status."""
        return {url: {"fetched": self._fetched[url], "given": self._given[url]} for url in self._fetched}


def came(text: str) -> Mapping[str, int]:
    """Bytes by the URL that they came from, out of `URL*BYTES,...`; what is none of these is left out."""
    pairs = (each.partition("*") for each in text.split(","))
    return {url: int(count) for url, _, count in pairs if count.isascii() and count.isdigit() and len(count) <= DIGITS}
