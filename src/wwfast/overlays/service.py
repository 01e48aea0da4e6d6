"""What the rest of the program asks of overlays: the artefact of a node, and building for many.

One lock guards the making: whoever waits for it finds the segment made when its turn comes, so nothing is made twice.
While nothing changes, `peek` answers without the lock.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import NamedTuple

import xxhash

from wwfast.config.settings import Settings
from wwfast.errors import NotFoundError, UsageError, WwfastError
from wwfast.nodes.model import Node
from wwfast.nodes.registry import Snapshot
from wwfast.overlays import forms, model, workers
from wwfast.overlays.builder import ALL, CONTEXTS, SHARED, Builder, Memo
from wwfast.overlays.model import Item
from wwfast.overlays.packindex import Damaged
from wwfast.overlays.packs import Packs, Unwritten
from wwfast.overlays.stack import Output, Stack
from wwfast.pack.artefact import FORMATS, SUFFIX, Artefact, Extent
from wwfast.paths import Paths

log = logging.getLogger(__name__)

TAR = "tar"
PATIENCE = 60.0  # seconds a request waits for others to be built
WASTE = 64 << 20  # bytes of packs below which nothing is compacted
BATCH = 256  # nodes between two writes of a large build
TRIES = 3  # times that what is damaged is made anew for one who asks

Progress = Callable[[int, int], None]


class Failure(NamedTuple):
    """The last build of a node's overlays failed: why, and since when (seconds since the epoch)."""

    message: str
    hint: str | None
    since: float


@dataclass
class Report:
    """What a build did, counted in nodes times contexts."""

    asked: int = 0
    changed: int = 0
    failures: dict[tuple[str, str], Failure] = field(default_factory=dict)


class OverlayService:
    """Thread-safe. `failures` maps (node, context) to what is wrong now."""

    def __init__(
        self, paths: Paths, settings: Settings, *, ignore_go_templates: bool | None = None, writing: bool = True
    ) -> None:
        """Without `writing` nothing is ever written, and only `rehearse`, `laid` and `render` are for use."""
        ignore = settings.wwfast.ignore_go_templates if ignore_go_templates is None else ignore_go_templates
        packs = Packs if writing else Unwritten
        self._builder = Builder(paths, settings, ignore_go_templates=ignore, packs=packs)
        self._paths = paths
        self._frozen = not settings.warewulf.autobuild_overlays
        self._lock = threading.RLock()
        self._refreshed = 0.0
        self._heard = False
        self.failures: dict[tuple[str, str], Failure] = {}

    def reconfigure(self, settings: Settings) -> None:
        """Take over another warewulf.conf."""
        with self._lock:
            self._frozen = not settings.warewulf.autobuild_overlays
            self._builder.reconfigure(settings)

    def close(self) -> None:
        with self._lock:
            self._builder.packs.close()
            self._builder.watch.close()

    def trouble(self) -> str:
        """What is wrong with the cache now, or nothing: nodes are served from memory meanwhile, as far as that goes."""
        return self._builder.packs.trouble()

    # -- one node ------------------------------------------------------------------------------------------------

    def peek(self, snapshot: Snapshot, node: Node, context: str, fmt: str) -> Artefact | None:
        """The artefact if it is known to be fresh; None when `artefact` has to be asked. Nothing but memory: of changes
        it knows by heard() and look(), of images by images_changed(), and whether its files are there who opens them
        finds out."""
        builder = self._builder
        if self._frozen or self._heard or not builder.known(snapshot):
            return None
        memo = builder.memo(node, context)
        found: Artefact | None = memo.artefacts.get(fmt) if memo is not None else None
        return found

    def fileno(self) -> int:
        """Readable when something happened that peek() does not know of; -1 where only look() can find out."""
        return self._builder.watch.fileno()

    def heard(self) -> None:
        """Something happened: nothing is known to be fresh until look()."""
        self._heard = True

    def look(self) -> None:
        """Find out what happened, in a thread. To be called now and then where inotify does not work."""
        self._heard = False  # first: what happens from now on is heard of
        self._builder.look()

    def images_changed(self) -> None:
        """Another build of an image is served, or the like: what rests on images is not known to be fresh."""
        self._builder.notice()

    def artefact(self, snapshot: Snapshot, node: Node, context: str, fmt: str) -> Artefact:
        """The fresh artefact, built if need be; the last good one when that fails (see `failures`).

        `fmt` is raw, zst, gz or tar. With `autobuild overlays: false` always the last one that was built. Raises
        WwfastError when there is nothing to serve.
        """
        if fmt not in (*FORMATS, TAR):
            raise UsageError(f"overlays have no format {fmt!r}", hint=f"one of: {', '.join((*FORMATS, TAR))}")
        with self._turn(node, context):
            if self._frozen:
                last = self._last(node, context, fmt)
                if last is None:
                    raise self._never_built(node, context)
                return last
            try:
                return self._fresh(snapshot, node, context, fmt)
            except (WwfastError, OSError) as error:
                self._fail(node, context, error)
                last = self._last(node, context, fmt)
                if last is None:
                    raise self._said(error) from error
                return last

    def _fresh(self, snapshot: Snapshot, node: Node, context: str, fmt: str) -> Artefact:
        builder = self._builder
        for left in reversed(range(TRIES)):
            builder.prepare(snapshot)
            try:
                memo = builder.resolve(node, context)
                assert memo is not None
                found = self._of_memo(memo, node, context, fmt)
                assert found is not None
            except Damaged:
                builder.anew()
                if not left:
                    raise
                continue
            self.failures.pop((node.id, context), None)
            if builder.packs.add_last(name_of(node.id, context), memo.contents):  # not before it can be served
                with suppress(OSError):  # then it is written with what comes next
                    builder.packs.flush()
            return found
        raise AssertionError

    @staticmethod
    def _never_built(node: Node, context: str) -> NotFoundError:
        return NotFoundError(
            f"the {context} overlays of node {node.id} were never built, and autobuild is off",
            hint=f"wwfast overlay build {node.id}",
        )

    @staticmethod
    def _said(error: Exception) -> WwfastError:
        return error if isinstance(error, WwfastError) else WwfastError(str(error))

    @contextmanager
    def _turn(self, node: Node, context: str) -> Iterator[None]:
        if not self._lock.acquire(timeout=PATIENCE):
            raise WwfastError(
                f"the {context} overlays of node {node.id} still wait for other builds after {PATIENCE:g} s",
                hint="build ahead of a boot: wwfast overlay build",
            )
        try:
            yield
        finally:
            self._lock.release()

    def _fail(self, node: Node, context: str, error: Exception) -> None:
        failure = failure_of(error)
        known = self.failures.get((node.id, context))
        if known is None or known.message != failure.message:
            log.error("node %s, %s overlays: %s", node.id, context, failure.message)
            self.failures[node.id, context] = failure

    def _last(self, node: Node, context: str, fmt: str) -> Artefact | None:
        """What the node was given last, in this process or another one."""
        packs = self._builder.packs
        if time.monotonic() - self._refreshed > 0.2:
            packs.refresh()
            self._refreshed = time.monotonic()
        contents = packs.last(name_of(node.id, context))
        if contents is None:
            return None
        for _ in range(TRIES):
            with suppress(WwfastError, OSError):
                if not all(packs.usable(content) for content in contents):
                    return None
                if there(found := self._assemble(contents, node, context, fmt)):
                    return found
            packs.forget_missing()
        return None

    def _of_memo(self, memo: Memo, node: Node, context: str, fmt: str, *, make: bool = True) -> Artefact | None:
        """None when its form would have to be made, without `make`. Raises Damaged, WwfastError, OSError."""
        found: Artefact | None = memo.artefacts.get(fmt)
        if found is None and (make or all(self._builder.packs.has(content, fmt) for content in memo.contents)):
            found = memo.artefacts[fmt] = self._assemble(memo.contents, node, context, fmt)
        if found is not None and not there(found):
            raise Damaged
        return found

    def _assemble(self, contents: Sequence[bytes], node: Node, context: str, fmt: str) -> Artefact:
        segments = forms.segments(self._builder.packs, contents, fmt)
        suffix = ".tar" if fmt == TAR else ".img" + SUFFIX[fmt]
        return Artefact(
            name=f"{node.id}.{context}{suffix}",
            format=fmt,
            extents=tuple(Extent(it.path, it.offset, it.length) for it in segments if it.length),
            digest=xxhash.xxh3_128_hexdigest(b"".join([fmt.encode(), *contents])),
            formats=FORMATS,
            mtime=int(time.time()),
        )

    # -- many nodes ----------------------------------------------------------------------------------------------

    def build(
        self,
        snapshot: Snapshot,
        nodes: Iterable[Node] | None = None,
        contexts: Sequence[str] = CONTEXTS,
        *,
        processes: int = 1,
        progress: Progress | None = None,
    ) -> Report:
        """Make what is missing for these nodes (None: all), and let them have it even where autobuild is off.

        With `processes` > 1 the work is shared with forked children: for a process without threads only. A node
        that fails keeps what it had. Raises only what concerns all nodes.
        """
        with self._lock:
            builder = self._builder
            builder.prepare(snapshot)
            chosen = list(snapshot.nodes.values() if nodes is None else nodes)
            report = Report(asked=len(chosen) * len(contexts))
            missing: list[tuple[Node, str]] = []
            for node in chosen:
                for context in contexts:
                    if not self._publish(node, context, report, make=SHARED):
                        missing.append((node, context))
            done = report.asked - len(missing)
            with workers.uncollected() if len(missing) > BATCH else nullcontext():
                self._all(missing, contexts, processes, report, done, progress)
            builder.packs.flush(sync=True)
            return report

    def _all(
        self,
        missing: Sequence[tuple[Node, str]],
        contexts: Sequence[str],
        processes: int,
        report: Report,
        done: int,
        progress: Progress | None,
    ) -> None:
        builder = self._builder
        if missing and processes > 1 and len(missing) > BATCH:
            for context in contexts:  # what nodes share is made before the work is split
                for node in workers.one_of_each(missing, context):
                    self._publish(node, context, report, make=ALL)
            builder.packs.flush()
            parts = workers.split(missing, processes)
            with workers.run(builder, parts[1:]) as others:
                self._make(parts[0], report, lambda n: progress and progress(done + n * len(parts), report.asked))
            for node, context, failure in others:
                self._note(node, context, failure, report)
            builder.packs.require_disk()
            builder.packs.refresh()
            for part in parts[1:]:
                for node, context in part:
                    if (node.id, context) not in report.failures:
                        self._publish(node, context, report, make=ALL)
        else:
            self._make(missing, report, lambda n: progress and progress(done + n, report.asked))

    def _make(self, work: Sequence[tuple[Node, str]], report: Report, progress: Callable[[int], object]) -> None:
        for at, (node, context) in enumerate(work):
            self._publish(node, context, report, make=ALL)
            if at % BATCH == BATCH - 1:
                self._builder.packs.flush()
                self._builder.packs.require_disk()
                progress(at)

    def _publish(self, node: Node, context: str, report: Report, *, make: int) -> bool:
        try:
            memo = self._builder.resolve(node, context, make=make)
        except (WwfastError, OSError) as error:
            self._note(node, context, failure_of(error), report)
            return True
        if memo is None:
            return False
        self.failures.pop((node.id, context), None)
        if self._builder.packs.add_last(name_of(node.id, context), memo.contents):
            report.changed += 1
        return True

    def _note(self, node: Node, context: str, failure: Failure, report: Report) -> None:
        self.failures[node.id, context] = report.failures[node.id, context] = failure

    # -- looking -------------------------------------------------------------------------------------------------

    def render(self, snapshot: Snapshot, node: Node, overlay: str, path: str) -> tuple[Item, tuple[Output, ...]]:
        """One template of an overlay for one node, without building anything. Raises WwfastError."""
        with self._lock:
            builder = self._builder
            builder.prepare(snapshot)
            wanted = model.clean(path)
            for item in builder.overlays.items(overlay):
                if item.template and wanted in (item.path, item.output):
                    template = builder.template(overlay, item)
                    return item, template.run(builder.names(node, all_nodes=True), node.id)
        raise NotFoundError(
            f"overlay {overlay} has no template {wanted}", hint=f"wwfast overlay list -a {overlay} shows its files"
        )

    def rehearse(self, snapshot: Snapshot, node: Node, context: str) -> None:
        """Go the way of `artefact` as far as something can fail, and hand nothing out. Raises WwfastError where a node
        would get nothing, and where it would only get the last good one."""
        with self._lock:
            builder = self._builder
            builder.prepare(snapshot)
            if self._frozen:
                last = builder.packs.last(name_of(node.id, context))
                if last is None or not all(map(builder.packs.usable, last)):
                    raise self._never_built(node, context)
                return
            try:
                builder.resolve(node, context)
            except OSError as error:
                raise self._said(error) from error

    def laid(self, snapshot: Snapshot, node: Node, context: str) -> Stack:
        """What the overlays of a node lay over its image now, made for it alone. Raises WwfastError."""
        with self._lock:
            self._builder.prepare(snapshot)
            return self._builder.stack(node, context)

    def pending(self, snapshot: Snapshot, node: Node, context: str) -> tuple[forms.Files, forms.Files]:
        """The files the node was given last, and those it would be given now. Raises WwfastError."""
        with self._lock:
            builder = self._builder
            builder.prepare(snapshot)
            memo = self._builder.resolve(node, context)
            assert memo is not None
            last = builder.packs.last(name_of(node.id, context)) or ()
            before = forms.files(builder.packs, last if all(map(builder.packs.usable, last)) else ())
            return before, forms.files(builder.packs, memo.contents)

    def tend(self, *, anyway: bool = False) -> int:
        """Give back space of segments that no node has, when most of it is waste or `anyway`; bytes given back.

        For the one process that serves, more often than every packs.GRACE seconds: until then extents that were handed
        out stay readable. Raises OSError and WwfastError where the disk does not take it; then nothing is lost.
        """
        with self._lock:
            packs = self._builder.packs
            packs.flush()  # what stands in memory comes back to the disk
            freed = 0
            try:
                freed = packs.compact() if anyway or packs.size() > WASTE + 3 * packs.live() else 0
            finally:
                if packs.tidy() or freed:
                    self._builder.forget_artefacts()
            return freed


def there(artefact: Artefact) -> bool:
    """Whether nobody removed its files. Every answer asks: 1 us for a pack, and its extents lie in one or two."""
    former = ""
    for path, _, _ in artefact.extents:
        if path != former:
            if not os.access(path, os.F_OK):
                return False
            former = path
    return True


def name_of(node: str, context: str) -> bytes:
    return xxhash.xxh3_128_digest(f"{context}\0{node}".encode())


def failure_of(error: Exception) -> Failure:
    if isinstance(error, WwfastError):
        return Failure(error.message, error.hint, time.time())
    return Failure(str(error), None, time.time())
