"""What this head has for those who follow it: the last edition, made anew when something changed. Thread-safe."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

from wwfast.errors import NotFoundError
from wwfast.heads.collecting import Collector, Edition
from wwfast.overlays.making.service import CONTEXTS, OverlayService

if TYPE_CHECKING:
    from wwfast.boot.standing import Standing
    from wwfast.nodes.registry import Snapshot
    from wwfast.paths import Paths

LOOK_SECONDS = 300.0  # after which files are looked at though nothing was heard


class Editions:
    """Of the daemon whose nodes, images and overlays these are."""

    def __init__(
        self,
        paths: Paths,
        snapshot: Callable[[], Snapshot],
        standing: Callable[[], Standing],
        overlays: OverlayService,
    ) -> None:
        self._snapshot, self._standing, self._overlays = snapshot, standing, overlays
        self._collector = Collector(paths)
        self._lock = threading.Lock()
        self._state: tuple[object, ...] = ()
        self._looked = 0.0
        self._editions: list[Edition] = []  # the last, and the one before: of that some are still fetched

    @property
    def revision(self) -> str:
        """That was made last; "" before."""
        return self._editions[0].manifest.revision if self._editions else ""

    def latest(self) -> Edition:
        """Raises WwfastError, OSError."""
        with self._lock:
            snapshot, standing = self._snapshot(), self._standing()
            state = (snapshot, standing, self._overlays.state(snapshot))
            late = time.monotonic() - self._looked > LOOK_SECONDS
            if state != self._state or None in state or late or not self._editions:
                self._state = ()
                self._make(snapshot, standing)
                self._state, self._looked = (snapshot, standing, self._overlays.state(snapshot)), time.monotonic()
            return self._editions[0]

    def _make(self, snapshot: Snapshot, standing: Standing) -> None:
        """With the overlays of all nodes, also of those that never asked. One whose overlays fail has the last ones."""
        if not self._overlays.frozen:
            self._overlays.build(snapshot)
        given = [(node, context) for node in snapshot.nodes for context in CONTEXTS]
        edition = self._collector.collect(snapshot, standing, dict(self._overlays.results.of(given)))
        if edition.manifest.revision != self.revision:
            self._editions = [edition, *self._editions[:1]]

    def read(self, sha256: str, start: int) -> tuple[int, Generator[bytes, None, None]]:
        """As Edition.read, of any that somebody may be fetching."""
        for edition in self._editions:
            if sha256 in edition.bodies:
                return edition.read(sha256, start)
        raise NotFoundError(f"no file of this head has the content {sha256} any more")
