"""Making the parts of one node: keys first, rendering only for what no key finds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from wwfast.nodes.model import Node
from wwfast.overlays import forms
from wwfast.overlays.data import digest
from wwfast.overlays.model import DIRECTORY
from wwfast.overlays.packindex import Known
from wwfast.overlays.plan import NODE, Plan, archive, over_directory
from wwfast.overlays.render import Template
from wwfast.overlays.stack import Entry, Output, Rendered
from wwfast.pack import newc

if TYPE_CHECKING:
    from wwfast.overlays.builder import Builder, Memo

EMPTY = Known(b"", (), b"")

_encode = msgspec.msgpack.Encoder().encode


class Maker:
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
                    builder.outside(part),
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
        if old is None or old.ground.image is not image or old.full or not old.own.paths or not builder.good(old.own):
            return {}
        builder.sources.record(old.own.seen)
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
