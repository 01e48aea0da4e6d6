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
from wwfast.overlays import environment, forms
from wwfast.overlays.data import ClusterData, ServerData, build_facts, digest
from wwfast.overlays.images import Images
from wwfast.overlays.model import DIRECTORY, Item
from wwfast.overlays.packs import Known, Packs, Seen
from wwfast.overlays.plan import CLUSTER, NODE, VARIANT, Changed, Part, Plan, archive, class_of, over_directory
from wwfast.overlays.render import Template
from wwfast.overlays.scan import Overlays
from wwfast.overlays.sources import Dependency, Sources
from wwfast.overlays.stack import Entry, Output, Rendered
from wwfast.pack import frames, newc
from wwfast.paths import Paths
from wwfast.watch import Watch

if TYPE_CHECKING:
    from wwfast.images.store import Image

SYSTEM, RUNTIME = "system", "runtime"
CONTEXTS = (SYSTEM, RUNTIME)
LEVEL = 3
SHARED_BYTES = 32 << 20  # outputs of templates that nodes share, kept in memory
EMPTY = Known(b"", (), b"")

T = TypeVar("T")

# Which template (by its key) made which outputs: path, kind, backup, make_parents.
Shape = list[tuple[bytes, list[tuple[str, str, bool, bool]]]]
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Shape).decode


@dataclass(slots=True)
class Memo:
    """What a node was found to need, and what that rests on.

    `basis` is what its own two parts rest on beside the node itself; `below` the contents under them if they had to be
    made from the whole stack, else empty.
    """

    node: Node
    image: Image | None
    plan: Plan
    generation: int
    basis: tuple[bytes, ...]
    below: tuple[bytes, ...]
    variant: Known
    own: Known
    contents: tuple[bytes, ...]
    artefacts: dict[str, Any] = field(default_factory=dict)


class Builder:
    """Not thread-safe: the service holds its lock around every call but `current` and `memo`."""

    def __init__(self, paths: Paths, settings: Settings, *, ignore_go_templates: bool = False) -> None:
        self.images = Images(paths)
        self.sources = Sources(paths, tuple(settings.wwfast.include), self.images.rootfs)
        self.env = environment.make(self.sources)
        self.packs = Packs(paths.overlay_cache)
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
        self._memos: dict[tuple[str, str], Memo] = {}
        # Valid for one generation:
        self._asked: dict[tuple[str, str], _Maker] = {}  # what has its keys, and was not to be made yet
        self._once: dict[tuple[Any, ...], Any] = {}
        self._seen_ok: dict[Seen, bool] = {}

    # -- circumstances -------------------------------------------------------------------------------------------

    def reconfigure(self, settings: Settings) -> None:
        self._server = ServerData(settings)
        self.sources.allow(tuple(settings.wwfast.include))
        self._noticed += 1

    def current(self, snapshot: Snapshot) -> bool:
        """Whether nothing happened since `prepare`: one comparison and one system call."""
        with self._looking:  # what one thread reads from inotify, no other one gets to see
            if self.watch.changed():
                self._noticed += 1
        return self._noticed == self._handled and snapshot is self._snapshot

    def prepare(self, snapshot: Snapshot) -> None:
        """Take in a new snapshot, and changes of overlays and sources.

        `current` and `memo` run in other threads meanwhile: only when everything is taken in do they say so.
        """
        if self.current(snapshot):
            return
        noticed = self._noticed
        if noticed != self._handled:
            self.sources.forget_checks()
            self.overlays.rescan()
            self.watch.add(self.sources.watched())
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
        """The memo of this node if all it rests on is as it was; no work."""
        memo = self._memos.get((context, node.id))
        if memo is None or memo.generation != self.generation or memo.node is not node:
            return None
        return memo if memo.image is self.images.get(node.image_name) else None

    def forget_artefacts(self) -> None:
        """Packs were replaced: what is handed out from now on lies in the new ones."""
        for memo in self._memos.values():
            memo.artefacts = {}

    def resolve(self, node: Node, context: str, *, make: bool = True) -> Memo | None:
        """The segments of a node; without `make` None when one would have to be made. Raises WwfastError."""
        for _ in range(8):
            try:
                return self.memo(node, context) or self._resolve(node, context, make)
            except Changed:
                self.sources.forget_checks()
                self.overlays.rescan()
                nodes = self._snapshot.nodes if self._snapshot is not None else {}
                self._cluster = ClusterData(nodes, self.images.kernel_version)
                self._begin()
        raise WwfastError(f"node {node.id}: files of its {context} overlays keep changing while they are packed")

    def _resolve(self, node: Node, context: str, make: bool) -> Memo | None:
        names = tuple(node.system_overlay if context == SYSTEM else node.runtime_overlay)
        plan = self.plan(names, node.image_name)
        static = self._static(plan, make)
        cluster = self._cluster_part(plan, node, static, make) if static else None
        if static is None or cluster is None:
            return None
        basis = (cluster.paths, self._outside(plan.parts[VARIANT]), self._outside(plan.parts[NODE]))
        below: tuple[bytes, ...] = (static.content, cluster.content)
        old = self._memos.get((context, node.id))
        if (
            old is not None
            and old.plan is plan
            and old.node == node
            and old.basis == basis
            and old.below in ((), below)
            and self.good(old.variant)
            and self.good(old.own)
        ):
            variant, own, below = old.variant, old.own, old.below
        else:
            maker = self._asked.pop((context, node.id), None)
            if maker is None or maker.node is not node or maker.plan is not plan:
                maker = _Maker(self, plan, node, old if old is not None and old.node == node else None)
            made = maker.part(VARIANT, (static, cluster), make)
            last = maker.part(NODE, (static, cluster, made), make) if made else None
            if made is None or last is None:
                self._asked[context, node.id] = maker
                return None
            variant, own = made, last
            below = below if maker.full else ()
        contents = tuple(part.content for part in (static, cluster, variant, own) if part.content)
        image = self.images.get(node.image_name)
        if self.sources.news and self.watch.add(self.sources.watched()):
            self._noticed += 1  # for what happened before it was watched
        memo = Memo(node, image, plan, self.generation, basis, below, variant, own, contents)
        if old is not None and old.contents == contents:
            memo.artefacts = old.artefacts
        self._memos[context, node.id] = memo
        return memo

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
        return self._per_generation(("cluster", plan), lambda: _Maker(self, plan, node).part(CLUSTER, (static,), make))

    def _outside(self, part: Part) -> bytes:
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
            return digest([template.identity, self._outside(self._part_of(template))])

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
            found = self.packs.segment(name, "literal")
            return _decode(self.packs.read(found)) if found is not None else []

        return self._per_generation(("shape", name), read)

    def _part_of(self, template: Template) -> Part:
        return self._per_generation(("part", template), lambda: Part((template,)))

    def values(self, node: Node, part: Part) -> bytes:
        return self._cluster.values(node, part.reads)


class _Maker:
    """Makes the parts of one node; `full` tells that outputs of templates met other files.

    It serves one generation: the keys it found do not change within.
    """

    def __init__(self, builder: Builder, plan: Plan, node: Node, old: Memo | None = None) -> None:
        self._builder = builder
        self.plan = plan
        self.node = node
        self._old = old  # what this very node had: outputs of templates that did not change are taken from there
        self._names: dict[str, Any] = {}
        self._keys: dict[int, bytes] = {}
        self.full = False

    def part(self, index: int, below: tuple[Known, ...], make: bool) -> Known | None:
        builder, plan, part = self._builder, self.plan, self.plan.parts[index]
        if not part.templates and index != NODE:
            return EMPTY
        key = self._keys.get(index)
        if key is None:
            key = self._keys[index] = digest(
                [
                    part.identity,
                    plan.shape,
                    builder._outside(part),
                    [known.paths for known in below],
                    builder.values(self.node, part),
                ]
            )
        known = builder.packs.known(key)
        if known is not None and builder.unchanged(known.seen):
            return known
        return self._new(index, key, below) if make else None

    def _new(self, index: int, key: bytes, below: tuple[Known, ...]) -> Known:
        builder, plan, part = self._builder, self.plan, self.plan.parts[index]
        if not self._names:
            everyone = any(each.cluster is not None for each in plan.parts)
            self._names = builder.names(self.node, all_nodes=everyone)
        with builder.sources.recording() as seen:
            kept = self._kept() if index == NODE else {}
            keys = builder.template_keys(part) if index == NODE else [b""] * len(part.templates)
            rendered = [
                Rendered(it.item, it.overlay, kept.get(template_key) or self._outputs(it))
                for it, template_key in zip(part.templates, keys, strict=True)
            ]
            taken = frozenset(path for known in below for path in known.paths.decode().split("\0") if path)
            entries = plan.quick(rendered, taken)
            if entries is None:
                self.full = True
                key = digest([key, [known.content for known in below]])
                known = builder.packs.known(key)
                if known is not None and builder.unchanged(known.seen):
                    return known
                here = {id(it): each.outputs for it, each in zip(part.templates, rendered, strict=True)}
                entries = plan.full(index, lambda it: here[id(it)] if id(it) in here else self._outputs(it))
            raw = archive(self._checked(entries), self._skip, trailer=index == NODE)
        if index != NODE:
            return builder.keep(key, raw, seen(), "\0".join(path for path, _ in entries).encode())
        shape = [
            (template_key, [(out.path, out.kind, out.backup, out.make_parents) for out in each.outputs])
            for template_key, each in zip(keys, rendered, strict=True)
        ]
        return builder.keep(key, raw, seen(), b"" if self.full else builder.keep_shape(_encode(shape)))

    def _kept(self) -> dict[bytes, tuple[Output, ...]]:
        """Outputs of the node's former segment by template key."""
        builder, old = self._builder, self._old
        image = builder.images.get(self.node.image_name)
        if old is None or old.image is not image or old.below or not old.own.paths or not builder.good(old.own):
            return {}
        builder.sources.record(old.own.seen)
        builder.packs.flush()
        contents = newc.contents(forms.raw(builder.packs, old.own.content))
        return {
            key: tuple(Output(path, kind, contents[path], backup, up) for path, kind, backup, up in outputs)
            for key, outputs in builder.shape(old.own.paths)
        }

    def _outputs(self, template: Template) -> tuple[Output, ...]:
        return self._builder.run(template, self._names, self.node)

    def _checked(self, entries: list[tuple[str, Entry]]) -> list[tuple[str, Entry]]:
        image = self.plan.image
        if image:
            for path, entry in entries:
                if entry.kind != DIRECTORY and self._builder.sources.kind(image, path, record=False) == "dir":
                    raise over_directory(path, image)
        return entries

    def _skip(self, path: str) -> bool:
        plan = self.plan
        if path in plan.static:
            return path in plan.skipped
        if not plan.image:
            return False
        return path in plan.symlinks or self._builder.sources.kind(plan.image, path) == "link"
