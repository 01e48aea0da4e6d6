"""What is known of one state of nodes, settings and files: thrown away whole when any of them changes.

Nothing here asks whether something is newer than something else. What a part rests on was noted while it was made;
here it is looked at once more, each thing once per generation.
"""

from __future__ import annotations

from dataclasses import dataclass

from wwfast.config.settings import Conf
from wwfast.errors import WwfastError
from wwfast.nodes.registry import Snapshot
from wwfast.overlays.making.index import Shared
from wwfast.overlays.making.plan import Key, Plan
from wwfast.overlays.templates.data import Cluster, Rests, Server, digest
from wwfast.overlays.templates.sources import Sources


@dataclass(slots=True, eq=False)
class Ground:
    """What nodes with the same overlays and image have in common. `shared` is None until a worker made it."""

    plan: Plan
    static: bytes
    shared: Shared | None = None
    below: tuple[bytes, ...] = ()  # either of them may be what own parts rest on (see index.Record)

    def stand_on(self, shared: Shared) -> None:
        self.below = (shared.shape, digest(["full", shared.content]))
        self.shared = shared


class Generation:
    """Not thread-safe but for what never changes: number, snapshot, conf."""

    def __init__(
        self, number: int, looked: int, snapshot: Snapshot, conf: Conf, cluster: Cluster, sources: Sources
    ) -> None:
        """`looked` is another number for each time that files were looked at anew."""
        self.number, self.looked = number, looked
        self.snapshot = snapshot
        self.conf = conf
        self.cluster = cluster
        self.grounds: dict[Key, Ground | WwfastError] = {}
        self._server = Server(conf)
        self._sources = sources
        self._held: dict[Rests, bool] = {}

    def ground(self, key: Key) -> Ground | None:
        """None when nobody looked yet. Raises what is wrong with it."""
        found = self.grounds.get(key)
        if isinstance(found, WwfastError):
            raise found
        return found

    def holds(self, rests: Rests) -> bool:
        """Whether all that was looked at looks the same now; but for fields of the node itself."""
        found = self._held.get(rests)
        if found is None:
            found = self._held[rests] = self._look(rests)
        return found

    def _look(self, rests: Rests) -> bool:
        if rests.settings and self._server.digest(rests.settings) != rests.settings_digest:
            return False
        if rests.cluster is not None and self.cluster.digest(rests.cluster) != rests.cluster_digest:
            return False
        return self._sources.same(rests.seen)
