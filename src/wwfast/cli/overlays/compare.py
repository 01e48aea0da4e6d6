"""Differences: a site overlay against the shipped one, and what nodes have against what they would get."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator, Sequence

from wwfast.errors import NotFoundError, WwfastError
from wwfast.nodes.model import Node
from wwfast.nodes.registry import Snapshot
from wwfast.overlays.files import model
from wwfast.overlays.files.model import DIRECTORY, LINK, Item
from wwfast.overlays.making.formats import File
from wwfast.overlays.making.service import OverlayService
from wwfast.paths import Paths


def overlays(paths: Paths, name: str) -> Iterator[str]:
    """Lines of a unified diff from the shipped overlay to the one in use."""
    shipped, used = model.distribution(paths, name), model.find(paths, name)
    if shipped is None:
        raise NotFoundError(f"there is no shipped overlay {name} to compare with")
    if used.distribution:
        return
    before = {item.path: item for item in shipped.items()}
    after = {item.path: item for item in used.items()}
    for path in sorted({*before, *after}):
        old, new = before.get(path), after.get(path)
        if old is None or new is None:
            kind = "only here" if old is None else "only in the shipped overlay"
            yield f"{name}: {path}: {kind}"
        elif (old.kind, old.mode, old.uid, old.gid) != (new.kind, new.mode, new.uid, new.gid):
            yield f"{name}: {path}: {_facts(old)} became {_facts(new)}"
        if old and new and old.kind != DIRECTORY and old.digest != new.digest:
            yield from lines(_content(old), _content(new), f"shipped/{name}/{path}", f"site/{name}/{path}")


def pending(
    service: OverlayService, snapshot: Snapshot, nodes: Iterable[Node], contexts: Sequence[str], *, with_diff: bool
) -> Iterator[str]:
    """Per file how many nodes would get another one, and one of them."""
    changed: dict[tuple[str, str], tuple[list[str], File | None, File | None]] = {}
    failed: list[str] = []
    for node in nodes:
        for context in contexts:
            try:
                before, after = service.pending(snapshot, node, context)
            except WwfastError as error:
                failed.append(f"{node.id}, {context}: {error.message}")
                continue
            for path in before.keys() | after.keys():
                old, new = before.get(path), after.get(path)
                if old != new:
                    changed.setdefault((context, path), ([], old, new))[0].append(node.id)
    for (context, path), (who, old, new) in sorted(changed.items()):
        what = "new" if old is None else "gone" if new is None else "changed"
        yield f"{context}: /{path}: {what} on {len(who)} node{'s' * (len(who) > 1)}, for example {who[0]}"
        if with_diff:
            yield from lines(_data(old), _data(new), f"{who[0]}:/{path} (now)", f"{who[0]}:/{path} (after)")
    if not changed and not failed:
        yield "nothing would change"
    yield from (f"failed: {line}" for line in failed)


def lines(old: bytes, new: bytes, old_name: str, new_name: str) -> Iterator[str]:
    """A unified diff of texts; one line for anything else."""
    try:
        before, after = old.decode().splitlines(), new.decode().splitlines()
    except UnicodeDecodeError:
        yield f"{new_name}: {len(old)} bytes became {len(new)} others"
        return
    yield from difflib.unified_diff(before, after, old_name, new_name, lineterm="")


def _facts(item: Item) -> str:
    return f"{item.kind} {item.mode:04o} {item.uid}:{item.gid}"


def _content(item: Item) -> bytes:
    return os.fsencode(item.target) if item.kind == LINK else item.read()


def _data(file: File | None) -> bytes:
    return file.data if file is not None else b""
