"""Sharing a large build with forked children. Each appends to a pack of its own; what it made is found there by key."""

from __future__ import annotations

import gc
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from wwfast.errors import WwfastError
from wwfast.nodes.model import Node
from wwfast.overlays.builder import Builder, overlays_of

if TYPE_CHECKING:
    from wwfast.overlays.service import Failure

Work = Sequence[tuple[Node, str]]
Outcome = tuple[Node, str, "Failure"]


def split(work: Work, parts: int) -> list[list[tuple[Node, str]]]:
    """Equal shares; the contexts of a node stay together."""
    nodes = {node.id: at for at, node in enumerate({node.id: node for node, _ in work}.values())}
    shares: list[list[tuple[Node, str]]] = [[] for _ in range(parts)]
    for node, context in work:
        shares[nodes[node.id] % parts].append((node, context))
    return shares


def one_of_each(work: Work, context: str) -> Collection[Node]:
    """One node for each list of overlays and image."""
    chosen = {(overlays_of(node, context), node.image_name): node for node, at in work if at == context}
    return chosen.values()


@contextmanager
def uncollected() -> Iterator[None]:
    """No garbage collection: it would walk all nodes again and again, and copy the pages that forked children share."""
    collecting, frozen = gc.isenabled(), gc.get_freeze_count()
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        if not frozen:
            gc.unfreeze()
        if collecting:
            gc.enable()


@contextmanager
def run(builder: Builder, shares: Sequence[Work]) -> Iterator[list[Outcome]]:
    """Children work on `shares` while the body runs; at its end their failures are in the list."""
    failed: list[Outcome] = []
    children = [_start(builder, share) for share in shares]
    try:
        yield failed
        for (pid, pipe), share in zip(children, shares, strict=True):
            failed += _finish(pid, pipe, share)
        children = []
    finally:
        for pid, pipe in children:  # the body failed: the children's work is not wanted any more
            os.close(pipe)
            os.kill(pid, 9)
            os.waitpid(pid, 0)


def _start(builder: Builder, share: Work) -> tuple[int, int]:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return pid, reading
    status = 1
    try:
        os.close(reading)
        builder.packs.detach()
        with open(writing, "wb") as pipe:  # noqa: PTH123 - a descriptor
            pipe.write(msgspec.msgpack.encode(_work(builder, share)))
        status = 0
    finally:
        os._exit(status)


def _work(builder: Builder, share: Work) -> list[tuple[int, str, str | None]]:
    failures: list[tuple[int, str, str | None]] = []
    for at, (node, context) in enumerate(share):
        try:
            builder.resolve(node, context)
        except WwfastError as error:
            failures.append((at, error.message, error.hint))
        except OSError as error:
            failures.append((at, str(error), None))
        if at % 256 == 255:
            builder.packs.flush()
    builder.packs.flush(sync=True)
    return failures


def _finish(pid: int, pipe: int, share: Work) -> list[Outcome]:
    import time

    from wwfast.overlays.service import Failure

    with open(pipe, "rb") as file:
        said = file.read()
    _, status = os.waitpid(pid, 0)
    if status or not said:
        return []  # killed: what it did not make is made by the caller
    return [
        (*share[at], Failure(message, hint, time.time()))
        for at, message, hint in msgspec.msgpack.decode(said, type=list[tuple[int, str, str | None]])
    ]
