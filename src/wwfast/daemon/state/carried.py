"""What rack caches carried: bytes that we sent to each, and bytes that nodes say they had from it."""

from __future__ import annotations

from collections.abc import Iterable
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
        """By stage-1: `URL*BYTES,...`."""
        for each in text.split(","):
            url, _, count = each.partition("*")
            if url in self._given and count.isascii() and count.isdigit() and len(count) <= DIGITS:
                self._given[url] += int(count)

    @property
    def figures(self) -> dict[str, dict[str, int]]:
        """For /status."""
        return {url: {"fetched": self._fetched[url], "given": self._given[url]} for url in self._fetched}
