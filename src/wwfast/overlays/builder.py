"""From a node to the segments of its archive: keys first, rendering only for what no key finds.

A segment is found by a key made of everything it depends on. So the builder never asks whether something is newer than
something else; it computes the key and looks. What a template looked at while it ran (files of the server and of
images) is kept with the segment and compared again.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import xxhash

from wwfast.config.settings import Settings
from wwfast.errors import WwfastError
from wwfast.nodes.model import Node
from wwfast.nodes.registry import Snapshot
from wwfast.overlays import environment
from wwfast.overlays.data import ClusterData, ServerData, build_facts, digest, same
from wwfast.overlays.images import Images
from wwfast.overlays.maker import Maker
from wwfast.overlays.model import Item
from wwfast.overlays.packindex import Known, Seen
from wwfast.overlays.packs import Packs
from wwfast.overlays.plan import CLUSTER, NODE, VARIANT, Changed, Part, Plan, class_of
from wwfast.overlays.render import Template
from wwfast.overlays.scan import Overlays
from wwfast.overlays.sources import Dependency, Sources
from wwfast.overlays.stack import Output, Rendered, Stack, apply
from wwfast.pack import frames
from wwfast.paths import Paths
from wwfast.watch import Watch

if TYPE_CHECKING:
    from wwfast.images.store import Image

SYSTEM, RUNTIME = "system", "runtime"
CONTEXTS = (SYSTEM, RUNTIME)
LEVEL = 3
SHARED_BYTES = 32 << 20  # outputs of templates that nodes share, kept in memory
# What may be made: nothing, what nodes share by their lists of overlays, everything.
NOTHING, SHARED, ALL = range(3)

T = TypeVar("T")

# Which template (by its key) made which outputs: path, kind, backup, make_parents.
Shape = list[tuple[bytes, list[tuple[str, str, bool, bool]]]]
_decode = msgspec.msgpack.Decoder(Shape).decode


@dataclass(slots=True, eq=False)
class Ground:
    """What all nodes with the same overlays and image have in common, looked at once per generation.

    A ground that turns out as it was stays the same object: then its nodes need no second look. `basis` is what the
    two parts of a node's own rest on beside the node, `below` the contents under them.
    """

    image: Image | None
    plan: Plan
    static: Known
    cluster: Known
    basis: tuple[bytes, ...]
    below: tuple[bytes, ...]
    generation: int

    def carries(self, other: Ground, *, full: bool) -> bool:
        """Whether the parts that stand on `other` stand here, too; `full` ones rest on the contents below as well."""
        same = self.image is other.image and self.plan is other.plan and self.basis == other.basis
        return same and (not full or self.below == other.below)


@dataclass(slots=True)
class Memo:
    """What a node was found to need, and the ground it stands on.

    `full` if its own two parts had to be made from the whole stack: they rest on the contents below.
    """

    node: Node
    ground: Ground
    generation: int
    full: bool
    variant: Known
    own: Known
    contents: tuple[bytes, ...]
    artefacts: dict[str, Any] = field(default_factory=dict)


class Builder:
    """Not thread-safe: the service holds its lock around every call but `look`, `notice`, `known` and `memo`."""

    def __init__(
        self, paths: Paths, settings: Settings, *, ignore_go_templates: bool = False, packs: type[Packs] = Packs
    ) -> None:
        self.images = Images(paths)
        self.sources = Sources(paths, tuple(settings.wwfast.include), self.images.rootfs)
        self.env = environment.make(self.sources)
        self.packs = packs(paths.overlay_cache, self.forget_artefacts)
        self.watch = Watch()
        self.overlays = Overlays(paths, self.watch, ignore_go_templates=ignore_go_templates)
        self.generation = 0
        self.runs = 0  # templates run
        self.made = 0  # segments made
        self._server = ServerData(settings)
        self._cluster = ClusterData({}, self.images.kernel_version)
        self._snapshot: Snapshot | None = None
        self._looking = threading.Lock()
        self._noticed, self._handled = 1, 0  # changes seen, and taken in
        self._templates: dict[tuple[str, str], Template] = {}
        self._plans: dict[tuple[tuple[str, ...], str], tuple[list[list[Item]], Image | None, Plan]] = {}
        self._shared: OrderedDict[bytes, tuple[Seen, tuple[Output, ...]]] = OrderedDict()
        self._shared_bytes = 0
        self._grounds: dict[tuple[tuple[str, ...], str], Ground] = {}
        self._memos: dict[tuple[str, str], Memo] = {}
        # Valid for one generation:
        self._asked: dict[tuple[str, str], Maker] = {}  # what has its keys, and was not to be made yet
        self._once: dict[tuple[Any, ...], Any] = {}
        self._seen_ok: dict[Seen, bool] = {}

    # -- circumstances -------------------------------------------------------------------------------------------

    def reconfigure(self, settings: Settings) -> None:
        self._server = ServerData(settings)
        self.sources.allow(tuple(settings.wwfast.include))
        self._noticed += 1

    def look(self) -> None:
        """Whether something happened: one system call while nothing does."""
        with self._looking:  # what one thread reads from inotify, no other one gets to see
            if self.watch.changed():
                self._noticed += 1

    def notice(self) -> None:
        """Something happened that the watch does not see."""
        with self._looking:
            self._noticed += 1

    def known(self, snapshot: Snapshot) -> bool:
        """Whether nothing was noticed since `prepare`. No work."""
        return self._noticed == self._handled and snapshot is self._snapshot

    def prepare(self, snapshot: Snapshot) -> None:
        """Take in a new snapshot, and changes of overlays and sources.

        `known` and `memo` run in other threads meanwhile: only when everything is taken in do they say so.
        """
        self.look()
        if self.known(snapshot):
            return
        noticed = self._noticed
        if noticed != self._handled:
            self.sources.forget_checks()
            self.overlays.rescan()
            self.sources.watch(self.watch)
            self.packs.refresh()
        self._cluster = ClusterData(snapshot.nodes, self.images.kernel_version, self._cluster)
        self._begin()
        self._snapshot = snapshot
        self._handled = noticed

    def _begin(self) -> None:
        self.generation += 1
        self._asked = {}
        self._once = {}
        self._seen_ok = {}

    def _per_generation(self, key: tuple[Any, ...], make: Callable[[], T]) -> T:
        """What `make` returned or raised in this generation."""
        found = self._once.get(key)
        if found is None:
            try:
                found = make()
            except WwfastError as error:
                found = error
            self._once[key] = found
        if isinstance(found, WwfastError):
            raise found
        result: T = found
        return result

    def plan(self, names: tuple[str, ...], image_name: str) -> Plan:
        image = self.images.need(image_name)
        return self._per_generation(("plan", names, image_name, image), lambda: self._plan(names, image_name, image))

    def _plan(self, names: tuple[str, ...], image_name: str, image: Image | None) -> Plan:
        lists = [self.overlays.items(name) for name in names]
        found = self._plans.get((names, image_name))
        if found is not None:
            if found[1] is image and all(a is b for a, b in zip(found[0], lists, strict=True)):
                return found[2]
            if found[1] is not image:  # another build of the image: other links, another default kernel
                del self._plans[names, image_name]
                raise Changed
        templates: dict[tuple[str, str], Template] = {}
        for name, items in zip(names, lists, strict=True):
            for item in items:
                if item.template:
                    templates[name, item.path] = self.template(name, item)
        plan = Plan(
            list(zip(names, lists, strict=True)),
            templates,
            image_name,
            lambda path: self.sources.kind(image_name, path, record=False),
            self.images.symlinks(image_name),
        )
        self._plans[names, image_name] = (lists, image, plan)
        return plan

    def template(self, overlay: str, item: Item) -> Template:
        found = self._templates.get((overlay, item.path))
        if found is None or found.item is not item:
            found = self._templates[overlay, item.path] = Template(self.env, overlay, item)
        return found

    # -- nodes ---------------------------------------------------------------------------------------------------

    def memo(self, node: Node, context: str) -> Memo | None:
        """The memo of this node if it was found in this generation; no work."""
        memo = self._memos.get((context, node.id))
        return memo if memo is not None and memo.generation == self.generation and memo.node is node else None

    def _of_its_image(self, memo: Memo | None) -> Memo | None:
        """The memo, if the image of its node is as it was."""
        return memo if memo is not None and memo.ground.image is self.images.get(memo.node.image_name) else None

    def anew(self) -> None:
        """Something was damaged or removed: whatever is asked for next is looked for once more."""
        self.packs.forget_missing()
        self.forget_artefacts()
        self._begin()

    def forget_artefacts(self) -> None:
        """What is handed out from now on lies elsewhere, or is to be read back first."""
        for memo in self._memos.values():
            memo.artefacts = {}

    def resolve(self, node: Node, context: str, *, make: int = ALL) -> Memo | None:
        """The segments of a node; with `make` below ALL None when one would have to be made. Raises WwfastError."""
        for _ in range(8):
            try:
                return self._of_its_image(self.memo(node, context)) or self._resolve(node, context, make)
            except Changed:
                self.sources.forget_checks()
                self.overlays.rescan()
                nodes = self._snapshot.nodes if self._snapshot is not None else {}
                self._cluster = ClusterData(nodes, self.images.kernel_version)
                self._begin()
            finally:  # also when it failed: what is missing may come
                self._follow()
        raise WwfastError(f"node {node.id}: files of its {context} overlays keep changing while they are packed")

    def _follow(self) -> None:
        """Watch what was looked at, now or when what is in the cache was made."""
        if self.sources.news and self.sources.watch(self.watch):
            with self._looking:
                self._noticed += 1  # for what happened before it was watched

    def _resolve(self, node: Node, context: str, make: int) -> Memo | None:
        old = self._memos.get((context, node.id))
        ground = self._ground(node, context, old, make >= SHARED)
        if ground is None:
            return None
        known = old if old is not None and same(old.node, node) else None
        if (
            known is not None
            and (known.ground is ground or ground.carries(known.ground, full=known.full))
            and self.good(known.variant)
            and self.good(known.own)
        ):
            if known.ground is ground and known.node is node:
                known.generation = self.generation
                return known
            variant, own, full = known.variant, known.own, known.full
        else:
            maker = self._asked.pop((context, node.id), None)
            if maker is None or maker.node is not node or maker.plan is not ground.plan:
                maker = Maker(self, ground.plan, node, known)
            below = (ground.static, ground.cluster)
            made = maker.part(VARIANT, below, make == ALL)
            last = maker.part(NODE, (*below, made), make == ALL) if made else None
            if made is None or last is None:
                self._asked[context, node.id] = maker
                return None
            variant, own, full = made, last, maker.full
        contents = tuple(part for part in (*ground.below, variant.content, own.content) if part)
        memo = Memo(node, ground, self.generation, full, variant, own, contents)
        if old is not None and old.contents == contents:
            memo.artefacts = old.artefacts
        self._memos[context, node.id] = memo
        return memo

    def _ground(self, node: Node, context: str, old: Memo | None, make: bool) -> Ground | None:
        image = self.images.need(node.image_name)
        if old is not None and old.node is node:  # the very node: its lists are those it had
            found = old.ground
            if found.generation == self.generation and found.image is image:
                return found
        names = overlays_of(node, context)
        known = self._grounds.get((names, node.image_name))
        if known is not None and known.generation == self.generation and known.image is image:
            return known
        plan = self.plan(names, node.image_name)
        static = self._static(plan, make)
        cluster = self._cluster_part(plan, node, static, make) if static else None
        if static is None or cluster is None:
            return None
        basis = (cluster.paths, self.outside(plan.parts[VARIANT]), self.outside(plan.parts[NODE]))
        fresh = Ground(image, plan, static, cluster, basis, (static.content, cluster.content), self.generation)
        if known is not None and fresh.carries(known, full=True):
            known.generation = self.generation
            return known
        self._grounds[names, node.image_name] = fresh
        return fresh

    def _static(self, plan: Plan, make: bool) -> Known | None:
        def find() -> Known | None:
            key = digest(["static", plan.static_key])
            known = self.packs.known(key)
            if known is None and make:
                known = self.keep(key, plan.static_archive() if plan.static else b"", (), b"")
            return known

        return self._per_generation(("static", plan), find)

    def _cluster_part(self, plan: Plan, node: Node, static: Known, make: bool) -> Known | None:
        """The part that is the same for every node; its templates read nothing of `node`."""
        return self._per_generation(("cluster", plan), lambda: Maker(self, plan, node).part(CLUSTER, (static,), make))

    def outside(self, part: Part) -> bytes:
        """Digest of what a part reads beside the node: settings and the cluster."""

        def compute() -> bytes:
            cluster = self._cluster.cluster_digest(part.cluster) if part.cluster is not None else b""
            return digest([self._server.digest(part.names), cluster])

        return self._per_generation(("outside", part), compute)

    def good(self, known: Known) -> bool:
        return self.unchanged(known.seen) and self.packs.usable(known.content)

    def unchanged(self, seen: Seen) -> bool:
        """Whether everything that was looked at looks the same now."""
        found = self._seen_ok.get(seen)
        if found is None:
            found = all(self.sources.digest(Dependency(*what)) == was for what, was in seen)
            self._seen_ok[seen] = found
        return found

    def keep(self, key: bytes, raw: bytes, seen: Seen, paths: bytes) -> Known:
        """Put a segment into the packs; equal content is stored once."""
        content = xxhash.xxh3_128_digest(raw) if raw else b""
        if not self.packs.usable(content):
            self.packs.add_data(content, "zst", frames.zstd_frame(raw, LEVEL), len(raw), 0)
            self.made += 1
        known = Known(content, seen, paths)
        self.packs.add_key(key, known)
        return known

    # -- templates -----------------------------------------------------------------------------------------------

    def names(self, node: Node, *, all_nodes: bool) -> dict[str, Any]:
        """Everything a template can name."""
        names = {**self.env.globals, **self._cluster.names(node, self._server)}
        build_facts(names)
        if all_nodes:
            names["all_nodes"] = self._cluster.all_nodes()
        return names

    def run(self, template: Template, names: dict[str, Any], node: Node) -> tuple[Output, ...]:
        """The outputs of a template; those that several nodes can share are kept."""
        if class_of(template) == NODE:
            self.runs += 1
            return template.run(names, node.id)
        key = digest([self.template_key(template), self._cluster.values(node, self._part_of(template).reads)])
        found = self._shared.get(key)
        if found is not None and self.unchanged(found[0]):
            self.sources.record(found[0])
            return found[1]
        with self.sources.recording() as seen:
            outputs = template.run(names, node.id)
        self.runs += 1
        self._shared[key] = (seen(), outputs)
        self._shared_bytes += sum(len(output.content) for output in outputs) + 500
        while self._shared_bytes > SHARED_BYTES and len(self._shared) > 1:
            _, (_, old) = self._shared.popitem(last=False)
            self._shared_bytes -= sum(len(output.content) for output in old) + 500
        return outputs

    def template_key(self, template: Template) -> bytes:
        """Everything that decides the output of a template, but for the node."""

        def compute() -> bytes:
            return digest([template.identity, self.outside(self._part_of(template))])

        return self._per_generation(("key", template), compute)

    def template_keys(self, part: Part) -> list[bytes]:
        return self._per_generation(("keys", part), lambda: [self.template_key(it) for it in part.templates])

    def keep_shape(self, encoded: bytes) -> bytes:
        """Its name; few shapes serve thousands of nodes, so it is stored apart."""
        name = digest(["shape", encoded])
        if not self.packs.has(name, "literal"):
            self.packs.add_data(name, "literal", encoded, len(encoded), 0)
        return name

    def shape(self, name: bytes) -> Shape:
        def read() -> Shape:
            return _decode(self.packs.read(name, "literal")) if self.packs.has(name, "literal") else []

        return self._per_generation(("shape", name), read)

    def _part_of(self, template: Template) -> Part:
        return self._per_generation(("part", template), lambda: Part((template,)))

    def stack(self, node: Node, context: str) -> Stack:
        """All that the overlays of a node lay over its image, made for it alone. Raises WwfastError."""
        plan = self.plan(overlays_of(node, context), node.image_name)
        names = self.names(node, all_nodes=True)
        laid: list[tuple[str, Item] | Rendered] = [
            Rendered(each.item, each.overlay, each.run(names, node.id)) if isinstance(each, Template) else each
            for each in plan.sequence
        ]
        return apply({}, laid)

    def values(self, node: Node, part: Part) -> bytes:
        return self._cluster.values(node, part.reads)


def overlays_of(node: Node, context: str) -> tuple[str, ...]:
    return tuple(node.system_overlay if context == SYSTEM else node.runtime_overlay)
