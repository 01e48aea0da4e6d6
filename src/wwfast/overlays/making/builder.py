"""What nodes have and whether it is fresh; and taking in what workers made. No template runs here."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

import xxhash

from wwfast.archive import frames
from wwfast.archive.artefact import Artefact
from wwfast.config.settings import Settings
from wwfast.errors import WwfastError
from wwfast.nodes.model import Node
from wwfast.nodes.registry import Snapshot
from wwfast.overlays.files.images import Images
from wwfast.overlays.files.scan import Overlays
from wwfast.overlays.making.generation import Generation, Ground
from wwfast.overlays.making.index import Index, Record
from wwfast.overlays.making.messages import Made, Part
from wwfast.overlays.making.plan import LEVEL, Changed, Key, Plans, key_of
from wwfast.overlays.making.store import Piece, Store
from wwfast.overlays.templates.data import Cluster, Seen
from wwfast.overlays.templates.sources import Sources
from wwfast.paths import Paths
from wwfast.system.settled import UNSETTLED, changing
from wwfast.system.watch import Watch, existing


@dataclass(slots=True, eq=False, weakref_slot=True)
class Footing:
    """What many nodes' records stand on alike: looked at once in each generation, and not once for each node.

    `kernel` is the version that the image had. In `generation` it `holds`, or they all have `moved` to another one, or
    neither.
    """

    key: Key
    kernel: str
    record: Record  # one of them: what it says beside its own part and the values of its node
    generation: int = 0
    holds: bool = False
    moved: Footing | None = None


@dataclass(slots=True)
class Memo:
    """What a node has: fresh while its footing holds, if it has any. `seen` is the node as templates see it."""

    node: Node
    seen: Node
    footing: Footing | None
    record: Record
    artefacts: dict[str, Artefact] = field(default_factory=dict)


class Builder:
    """Not thread-safe: the service holds its lock around every call but `current`, `memo` and `bring`."""

    def __init__(self, paths: Paths, settings: Settings, *, ignore_go_templates: bool, writing: bool) -> None:
        self.paths = paths
        self.conf = settings.conf
        self.images = Images(paths)
        self.sources = Sources(paths, tuple(settings.wwfast.include), self.images.rootfs)
        self.watch = Watch()
        self.overlays = Overlays(paths, self.watch, ignore_go_templates=ignore_go_templates)
        self.plans = Plans(self.overlays, self.sources, self.images)
        self.store = Store(paths.overlay_cache, writing=writing)
        self.index = Index(self.store)
        self.generation: Generation | None = None
        self.runs = 0  # nodes for which templates were run
        self.changed = 0  # times that a node got something else
        self._memos: dict[tuple[str, str], Memo] = {}
        self._footings: WeakValueDictionary[tuple[object, ...], Footing] = WeakValueDictionary()
        self._elsewhere: Generation | None = None
        self._noticed, self._handled = 1, 0  # changes seen, and taken in
        self._lost = 0  # what the store had lost when each memo was looked at

    # -- circumstances -------------------------------------------------------------------------------------------

    def reconfigure(self, settings: Settings) -> None:
        self.conf = settings.conf
        self.sources.allow(tuple(settings.wwfast.include))
        self._noticed += 1

    def current(self, snapshot: Snapshot) -> Generation | None:
        """The generation if nothing happened since it began. Safe without the lock; opens and reads nothing."""
        if self.watch.waiting():  # first: what another thread takes meanwhile is noticed before
            return None
        generation = self.generation
        current = generation is not None and generation.snapshot is snapshot and self._noticed == self._handled
        return generation if current else None

    def look(self) -> None:
        """Whether something happened."""
        if self.watch.waiting():
            self._noticed += 1  # before it is taken: `current` must see one or the other
            self._noticed -= not self.watch.changed()  # something was mounted elsewhere

    def prepare(self, snapshot: Snapshot) -> Generation:
        """Take in a new snapshot, and changes of overlays, images and sources."""
        self.look()
        before = self.generation
        if before is not None and before.snapshot is snapshot and self._noticed == self._handled:
            return before
        noticed = self._noticed
        if noticed != self._handled:
            self._settle()
            self.sources.watch(self.watch)
            if before is not None:
                self.plans.keep(before.grounds)
        cluster = Cluster(snapshot.nodes, self._kernel_of, before.cluster if before else None)
        number = before.number + 1 if before else 1
        self.generation = Generation(number, noticed, snapshot, self.conf, cluster, self.sources)
        self._handled = noticed
        if self._lost != self.store.lost:  # from now on who stands on a footing has its own part
            self._lost = self.store.lost
            for memo in self._memos.values():
                memo.footing = None
        return self.generation

    def _settle(self) -> None:
        """Look at all files anew; once more while one was changed just now: it may be half of what it will be."""
        end = time.monotonic() + UNSETTLED
        while True:
            self.sources.forget_checks()
            self.overlays.rescan()
            if not changing(self.overlays.newest(), end):
                return

    @property
    def settled(self) -> bool:
        """Whether nothing was noticed since this generation began."""
        return self._noticed == self._handled

    def look_again(self) -> None:
        """Something is not as it was a moment ago."""
        self._noticed += 1

    def follow(self) -> bool:
        """Watch what was looked at; whether something was not watched yet: then all is looked at once more."""
        new = self.sources.news and self.sources.watch(self.watch)
        self._noticed += new
        return new

    # -- nodes ---------------------------------------------------------------------------------------------------

    def ground(self, node: Node, context: str) -> Ground:
        """Raises WwfastError: an overlay or the image is not there; and Changed."""
        assert self.generation is not None
        return self._ground(self.generation, key_of(node, context))

    def _ground(self, generation: Generation, key: Key) -> Ground:
        found = generation.ground(key)
        if found is None:
            try:
                found = generation.grounds[key] = self._stand(generation, key)
            except WwfastError as error:
                generation.grounds[key] = error
                raise
        return found

    def firsts(self, work: Iterable[tuple[Node, str]]) -> list[tuple[Node, str]]:
        """One node for each plan whose shared part has to be made. Once nodes have something, the plans of it count."""
        keys = {footing.key for footing in self._footings.values()}
        if keys and not any(map(self._lacks, keys)):
            return []
        chosen: dict[Key, tuple[Node, str]] = {}
        for each in work:
            chosen.setdefault(key_of(*each), each)
        return [each for key, each in chosen.items() if self._lacks(key)]

    def _lacks(self, key: Key) -> bool:
        assert self.generation is not None
        with suppress(WwfastError, Changed):  # told to each node that asks
            return self._ground(self.generation, key).shared is None
        return False

    def _stand(self, generation: Generation, key: Key) -> Ground:
        self._watch_image(key[1])
        plan = self.plans.get(*key)
        shared = self.index.shared(plan.identity)
        static = shared.static if shared is not None else None
        if static is None or not self.store.has(static):
            static = self.pack(plan.static_archive())
        ground = Ground(plan, static)
        if shared is not None and generation.holds(shared.rests) and self.store.has(shared.content):
            ground.stand_on(shared)
        return ground

    def _watch_image(self, name: str) -> None:
        """Another build of it, or its going, is noticed."""
        if name:
            places = (self.paths.chroots, self.paths.warewulf_chroots, self.paths.images)
            inner = [place / name.partition("@")[0] for place in places]
            new = self.watch.follow(inner)
            self._noticed += self.watch.add({*map(existing, places), *map(existing, inner)}, contents=False) or new

    def _kernel_of(self, image: str) -> str:
        self._watch_image(image)
        return self.images.kernel_version(image)

    def memo(self, generation: Generation, node: Node, context: str) -> Memo | None:
        """What is known to be fresh. Safe without the lock."""
        memo = self._memos.get((node.id, context))
        if memo is None or memo.node is not node or (footing := memo.footing) is None:
            return None
        return memo if footing.generation == generation.number and footing.holds else None

    def _footing(self, generation: Generation, key: Key, kernel: str, record: Record) -> Footing:
        """The one that is right in this generation."""
        name = (key, kernel, record.plan, record.below, record.rests, record.static, record.shared)
        found = self._footings.get(name)
        if found is None:
            found = self._footings[name] = Footing(key, kernel, record)
        found.generation, found.holds = generation.number, True
        return found

    def _standing(self, generation: Generation, footing: Footing) -> Footing | None:
        """What those stand on now who stood on this: the very same; another one where nothing but the parts below
        changed; or nothing, and each node must be looked at. Raises WwfastError, Changed."""
        if footing.generation != generation.number:
            ground, record = self._ground(generation, footing.key), footing.record
            if ground.shared is None:
                return None
            footing.generation, footing.holds, footing.moved = generation.number, False, None
            kernel = generation.cluster.kernel(footing.key[1])
            if kernel == footing.kernel and self._alike(generation, ground, record):
                fresh = record._replace(static=ground.static, shared=ground.shared.content)
                now = self._footing(generation, footing.key, kernel, fresh)
                footing.moved = now if now is not footing else None
        return footing if footing.holds else footing.moved

    def _stood(self, generation: Generation, memo: Memo | None, node: Node) -> Footing | None:
        """What the node stands on now, if nothing of its own changed. Raises WwfastError, Changed."""
        if memo is None or memo.node is not node or memo.footing is None or not self.store.has(memo.record.own):
            return None
        return self._standing(generation, memo.footing)

    def doubtful(self, work: Iterable[tuple[Node, str]]) -> list[tuple[Node, str]]:
        """Those of which it is not plain at once that they have what is right: fast, for most are not among them."""
        generation, memos = self.generation, self._memos
        assert generation is not None
        number, sure, found = generation.number, self.store.lost == self._lost, []
        for each in work:
            node, context = each
            memo = memos.get((node.id, context))
            if memo is not None and memo.node is node and (footing := memo.footing) is not None:
                if sure and footing.generation == number and footing.holds:
                    continue
                with suppress(WwfastError, Changed):
                    now = self._stood(generation, memo, node)
                    if now is not None:
                        if now is not footing:
                            self._remember(node, context, memo, memo.record, now)
                        continue
            found.append(each)
        return found

    def known(self, node: Node, context: str) -> Memo | None:
        """What the node has if that is fresh; None when a worker has to make it. Raises WwfastError, Changed."""
        generation = self.generation
        assert generation is not None
        old = self._memos.get((node.id, context))
        footing = self._stood(generation, old, node)
        if old is not None and footing is not None:
            return old if footing is old.footing else self._remember(node, context, old, old.record, footing)
        found = self._looked_up(generation, node, context, old)
        return None if found is None else self._remember(node, context, old, *found)

    def _remember(self, node: Node, context: str, old: Memo | None, record: Record, footing: Footing) -> Memo:
        """From now on the node has this own part upon what the footing has."""
        generation, below = self.generation, footing.record
        assert generation is not None
        fresh = Record(*record[:4], below.static, below.shared, record.own)
        self.changed += self.index.keep(node.id, context, fresh)
        memo = Memo(node, generation.cluster.see(node), footing, fresh)
        if old is not None and old.record[4:] == fresh[4:]:
            memo.artefacts = old.artefacts
        self._memos[node.id, context] = memo
        return memo

    def _looked_up(
        self, generation: Generation, node: Node, context: str, old: Memo | None
    ) -> tuple[Record, Footing] | None:
        """The record whose own part is right, and what it stands on now; None where there is none. Raises WwfastError,
        Changed."""
        ground = self.ground(node, context)
        if ground.shared is None:
            return None
        same = old is not None and old.seen is generation.cluster.see(node)
        record = old.record if old is not None else self.index.record(node.id, context)
        if record is None or not self._stands(ground, record, None if same else node):
            self.look_elsewhere()
            record = self.index.record(node.id, context)
            if record is None or not self._stands(ground, record, node):
                return None
        kernel = generation.cluster.kernel(node.image_name)
        now = record._replace(static=ground.static, shared=ground.shared.content)
        return record, self._footing(generation, key_of(node, context), kernel, now)

    def look_elsewhere(self) -> None:
        """Another process may have made it: looked for once in each generation, which files of that process end."""
        if self._elsewhere is not self.generation:
            self._elsewhere = self.generation
            self.index.refresh()

    def _stands(self, ground: Ground, record: Record, changed: Node | None) -> bool:
        """Whether the own part of a record is right; `changed` is the node if its values must be compared."""
        generation = self.generation
        assert generation is not None
        if not self._alike(generation, ground, record) or not self.store.has(record.own):
            return False
        rests = self.index.rests(record.rests)
        return changed is None or (
            rests is not None and generation.cluster.values(changed, rests.node) == record.values
        )

    def _alike(self, generation: Generation, ground: Ground, record: Record) -> bool:
        """Whether all that the own part of a record rests on is the same, but for the node itself."""
        if record.plan != ground.plan.identity or record.below not in ground.below:
            return False
        rests = self.index.rests(record.rests)
        return rests is not None and generation.holds(rests)

    # -- what was made -------------------------------------------------------------------------------------------

    def bring(self, made: Iterable[Made]) -> None:
        """Write what workers made, which is most of taking it in, and needs no lock."""
        self.store.bring(_piece(it.own) for it in made)

    def take_in(self, generation: Generation, node: Node, context: str, made: Made) -> Record | None:
        """What a worker made for the node; None when it saw other files than this generation: then it is asked again,
        by a worker that was told to look.

        Raises OSError when neither disk nor memory takes it.
        """
        self.runs += 1
        ground = generation.ground(key_of(node, context))
        if ground is None or ground.plan.identity != made.plan:
            self.look_again()
            return None
        if ground.shared is None and made.shared is not None and made.common is not None:
            self._put(made.common)
            shared = made.shared._replace(static=ground.static)
            self.index.keep_shared(made.plan, shared)
            ground.stand_on(shared)
            if not generation.holds(shared.rests):  # asked in any case: what is looked at is watched from then on
                self.look_again()
        if ground.shared is None or made.below not in ground.below:
            self.look_again()
            return None
        self._put(made.own)
        record = Record(
            made.plan, made.below, made.values, self.index.keep_rests(made.rests),
            ground.static, ground.shared.content, made.own.content,
        )  # fmt: skip
        self.changed += self.index.keep(node.id, context, record)
        footing = None
        if self._alike(generation, ground, record):  # else a template looked at something that is not the same here
            kernel = generation.cluster.kernel(node.image_name)
            footing = self._footing(generation, key_of(node, context), kernel, record)
        self._memos[node.id, context] = Memo(node, generation.cluster.see(node), footing, record)
        return record if footing is not None else None

    def heed(self, seen: Seen) -> None:
        """A template failed, maybe over what it saw: that is watched from now on, as if it had been made."""
        if not self.sources.same(seen):
            self.look_again()
        self.follow()

    def pack(self, raw: bytes) -> bytes:
        """Keep the bytes of an archive; their content."""
        content = xxhash.xxh3_128_digest(raw) if raw else b""
        if not self.store.has(content):
            self._put(Part(content, frames.zstd_frame(raw, LEVEL), len(raw)))
        return content

    def _put(self, part: Part) -> None:
        self.store.put(*_piece(part))

    def given(self, node: Node, context: str) -> Record | None:
        """What the node was given last, in this process or another one."""
        self.index.refresh()
        return self.index.record(node.id, context)

    def anew(self) -> None:
        """Something was damaged or removed: whatever is asked for next is looked for once more."""
        self.store.forget()
        for memo in self._memos.values():
            memo.artefacts, memo.footing = {}, None
        self.look_again()

    def forget_others(self, nodes: Iterable[str]) -> None:
        """Only these nodes are there any more."""
        there = set(nodes)
        for key in [key for key in self._memos if key[0] not in there]:
            del self._memos[key]


def _piece(part: Part) -> Piece:
    return Piece(part.content, "zst", part.frame, part.length)
