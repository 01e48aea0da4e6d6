"""What the rest of the program asks of overlays: the artefact of a node, and building for many.

Templates run in workers. The lock is held while it is looked at what there is, never while a worker is at work; who
asks for what is being made waits for that. While nothing changes, `peek` answers from memory alone.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import xxhash

from wwfast._ext import calls
from wwfast.archive.artefact import FORMATS, SUFFIX, Artefact, Extent
from wwfast.config.settings import Settings
from wwfast.errors import NotFoundError, UsageError, WwfastError
from wwfast.nodes.model import Node
from wwfast.nodes.registry import Snapshot, uncollected
from wwfast.overlays.files.model import FILE, Item
from wwfast.overlays.files.stack import Output, Stack
from wwfast.overlays.making import formats
from wwfast.overlays.making.builder import Builder, Memo
from wwfast.overlays.making.messages import Answer, Ask, Laid, Lay, Render, Rendered, Write
from wwfast.overlays.making.orders import CONTEXTS, RUNTIME, Orders, Work
from wwfast.overlays.making.plan import SYSTEM, Changed, overlays_of
from wwfast.overlays.making.results import Results
from wwfast.overlays.making.store import Damaged
from wwfast.paths import Paths

__all__ = ["CONTEXTS", "RUNTIME", "SYSTEM", "OverlayService", "Report", "overlays_of"]

log = logging.getLogger(__name__)

TAR = "tar"
ASIDE = 2.0  # seconds; with 10,000 nodes and one core an edit took 0.7 to 1.4 s beside builds, alone 0.4
TRIES = 20  # times that is looked again, where files change and what was kept is damaged

Progress = Callable[[int, int], None]
A = TypeVar("A", bound=Answer)
T = TypeVar("T")


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
    """Thread-safe. `failures` maps (node, context) to what is wrong now.

    With `alone` workers are forked from this process, which must have no threads: for a command. Without `writing`
    nothing is ever written: what is made stands in memory, as far as that goes. `frozen`: nothing is made.
    """

    def __init__(
        self,
        paths: Paths,
        settings: Settings,
        *,
        ignore_go_templates: bool | None = None,
        alone: bool = False,
        writing: bool = True,
    ) -> None:
        absolute = {
            it.name: value.absolute() for it in fields(paths) if isinstance(value := getattr(paths, it.name), Path)
        }
        paths = paths.with_(**absolute)  # for workers: the helper may be elsewhere
        ignore = settings.wwfast.ignore_go_templates if ignore_go_templates is None else ignore_go_templates
        self.builder = Builder(paths, settings, ignore_go_templates=ignore, writing=writing)
        self._heard = False
        self.frozen = frozen(paths, settings)
        self._lock = threading.RLock()
        self.results = Results(self.builder, self._lock)
        self.orders = Orders(self.builder, self._lock, ignore_go_templates=ignore, alone=alone)
        self._aside = threading.Condition()
        self._asides, self._resume = 0, 0.0  # who wants nothing to be begun, and until when (monotonic seconds)
        self.failures: dict[tuple[str, str], Failure] = {}

    def reconfigure(self, settings: Settings) -> None:
        """Take over another warewulf.conf."""
        with self._lock:
            self.frozen = frozen(self.builder.paths, settings)
            self.builder.reconfigure(settings)

    def close(self) -> None:
        self.orders.close()
        with self._lock:
            self.builder.index.flush()
            self.builder.store.close()
            self.builder.watch.close()

    def trouble(self) -> str:
        """What is wrong with the cache now, or nothing: nodes are served from memory meanwhile, as far as that goes."""
        return self.builder.store.trouble()

    # -- one node ------------------------------------------------------------------------------------------------

    def peek(self, snapshot: Snapshot, node: Node, context: str, fmt: str) -> Artefact | None:
        """The artefact if it is known to be fresh; None when `artefact` has to be asked. Nothing but memory, and one
        question whether inotify has something to tell; whether its files are there who opens them finds out."""
        generation = None if self._heard or self.frozen else self.builder.current(snapshot)
        memo = self.builder.memo(generation, node, context) if generation is not None else None
        return memo.artefacts.get(fmt) if memo is not None else None

    def state(self, snapshot: Snapshot) -> object | None:
        """Equal to a former one while all nodes would get the same; None where that has to be found out."""
        if self.frozen:
            return self.results.state()
        generation = self.builder.current(snapshot) if not self._heard else None
        return generation and generation.number

    def fileno(self) -> int:
        """Readable when something happened that was not looked at; -1 where only look() can find out."""
        return self.builder.watch.fileno()

    def heard(self) -> None:
        """Something happened: nothing is known to be fresh until look()."""
        self._heard = True

    def look(self) -> None:
        """Find out what happened, in a thread. To be called now and then where inotify does not work."""
        self._heard = False  # first: what happens from now on is heard of
        with self._lock:
            self.builder.look()

    def images_changed(self) -> None:
        """Another build of an image is served, or the like: what rests on images is not known to be fresh."""
        with self._lock:
            self.builder.look_again()

    def artefact(self, snapshot: Snapshot, node: Node, context: str, fmt: str) -> Artefact:
        """The fresh artefact, built if need be; the last good one when that fails (see `failures`).

        `fmt` is raw, zst, gz or tar. With `autobuild overlays: false` always the last one that was built. Raises
        WwfastError when there is nothing to serve.
        """
        if fmt not in (*FORMATS, TAR):
            raise UsageError(f"overlays have no format {fmt!r}", hint=f"one of: {', '.join((*FORMATS, TAR))}")
        if self.frozen:
            last = self._last(node, context, fmt)
            if last is None:
                raise _never_built(node, context)
            return last
        try:
            return self._of_fresh(snapshot, node, context, lambda memo: self._handed(memo, node, context, fmt), there)
        except (WwfastError, OSError) as error:
            self._fail(node, context, error)
            last = self._last(node, context, fmt)
            if last is None:
                raise _said(error) from error
            return last

    def _of_fresh(
        self, snapshot: Snapshot, node: Node, context: str, use: Callable[[Memo], T], right: Callable[[T], bool]
    ) -> T:
        """What `use` makes of what is fresh, with the lock held; where parts are damaged or it is not `right`, which is
        asked without the lock, of those made anew. Raises WwfastError, OSError."""
        for _ in range(TRIES):
            memo = self._memo(snapshot, node, context)
            with suppress(Damaged):
                with self._lock:
                    made = use(memo)
                if right(made):
                    return made
            with self._lock:
                self.builder.anew()
        raise Damaged

    def _memo(self, snapshot: Snapshot, node: Node, context: str) -> Memo:
        """What is fresh, made if need be: by one who asks, while the others wait. Raises WwfastError, OSError."""
        memo = None
        for _ in range(TRIES):
            self._stand_aside()
            with self._lock:
                snapshot, node = self._newest(snapshot, node)
                self.builder.prepare(snapshot)
                memo = self._known(node, context)
                settled = self.builder.settled
                if memo is not None and settled:
                    return memo
            if memo is None and settled:
                made = self.orders.make(snapshot, node, context)
                if made is not None:
                    generation = self.builder.current(snapshot)
                    if generation is None:  # edited again: it was right when asked
                        return Memo(node, node, None, made)
                    memo = self.builder.memo(generation, node, context)
                    if memo is not None and not self.builder.sources.news:  # all it rests on is watched
                        return memo
        if memo is not None:
            return memo
        raise _restless(f"node {node.id}")

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Nothing more is begun meanwhile, for ASIDE seconds at most: an edit that is taken in comes first, and what is
        made until then is made in vain. Any thread."""
        with self._aside:
            self._asides += 1
            self._resume = time.monotonic() + ASIDE
        try:
            yield
        finally:
            with self._aside:
                self._asides -= 1
                self._aside.notify_all()

    def _stand_aside(self) -> None:
        if self._asides:
            with self._aside:
                while self._asides and (left := self._resume - time.monotonic()) > 0:
                    self._aside.wait(left)

    def _newest(self, snapshot: Snapshot, node: Node) -> tuple[Snapshot, Node]:
        """Who asked before an edit gets what holds after it: workers would be told of all nodes to and fro."""
        generation = self.builder.generation
        if generation is not None and generation.snapshot.number > snapshot.number:
            there = generation.snapshot.nodes.get(node.id)
            if there is not None:
                return generation.snapshot, there
        return snapshot, node

    def _known(self, node: Node, context: str) -> Memo | None:
        try:
            return self.builder.known(node, context)
        except Changed:
            self.builder.look_again()
            return None
        finally:  # also when it failed: what is missing may come
            self.builder.follow()

    def _fail(self, node: Node, context: str, error: Exception) -> None:
        failure = failure_of(error)
        known = self.failures.get((node.id, context))
        if known is None or known.message != failure.message:
            log.error("node %s, %s overlays: %s", node.id, context, failure.message)
            self.failures[node.id, context] = failure

    def _last(self, node: Node, context: str, fmt: str) -> Artefact | None:
        """What the node was given last, in this process or another one."""
        with self._lock:
            record = self.builder.given(node, context)
            for _ in range(2 if record is not None else 0):
                with suppress(WwfastError, OSError):
                    if there(found := self._assemble(record.contents, node, context, fmt)):  # type: ignore[union-attr]
                        return found
                self.builder.store.forget()
            return None

    def _handed(self, memo: Memo, node: Node, context: str, fmt: str) -> Artefact:
        """Raises Damaged, WwfastError, OSError."""
        found = memo.artefacts.get(fmt)
        if found is None:
            found = memo.artefacts[fmt] = self._assemble(memo.record.contents, node, context, fmt)
        self.failures.pop((node.id, context), None)
        if not self.orders.making:  # in a storm once, by the last one
            self.builder.index.flush()
        return found

    def _assemble(self, contents: Sequence[bytes], node: Node, context: str, fmt: str) -> Artefact:
        segments = formats.segments(self.builder.store, contents, fmt)
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

        A node that fails keeps what it had. Raises only what concerns all nodes.
        """
        builder, before = self.builder, self.builder.changed
        with uncollected():  # it would walk all nodes again and again
            chosen = list(snapshot.nodes.values() if nodes is None else nodes)
            report = Report(asked=len(chosen) * len(contexts))
            work = [(node, context) for node in chosen for context in contexts]
            begun = False
            for _ in range(TRIES):
                with self._lock:
                    builder.prepare(snapshot)
                    # What nodes share comes first: with it many may be right as they are.
                    firsts = [] if begun else builder.firsts(work)
                    left = work if firsts else self._lacking(work, report)
                    if builder.follow():  # then all is looked at once more: what is watched now may have changed before
                        continue
                work, begun = left, True
                if not work:
                    break
                told = partial(self._tell, progress, report.asked - len(work), report.asked)
                for (node, context), error in self.orders.make_all(snapshot, firsts or work, processes, told):
                    self._note(node, context, error, report)
            for node, context in work:
                self._note(node, context, _restless(f"node {node.id}"), report)
        with self._lock:
            builder.store.flush(anyway=True)
            builder.index.flush()
            builder.store.sync()
        report.changed = builder.changed - before
        return report

    @staticmethod
    def _tell(progress: Progress | None, before: int, asked: int, done: int) -> None:
        if progress is not None:
            progress(before + done, asked)

    def _lacking(self, work: list[Work], report: Report) -> list[Work]:
        """Those for which something has to be made."""
        some = work if self.failures else self.builder.doubtful(work)
        return [each for each in some if not self._have(each, report)]

    def _have(self, work: Work, report: Report) -> bool:
        node, context = work
        if (node.id, context) in report.failures:
            return True
        try:
            if self._known(node, context) is None:
                return False
        except (WwfastError, OSError) as error:
            self._note(node, context, error, report)
            return True
        self.failures.pop((node.id, context), None)
        return True

    def _note(self, node: Node, context: str, error: Exception, report: Report) -> None:
        self.failures[node.id, context] = report.failures[node.id, context] = failure_of(error)

    # -- looking -------------------------------------------------------------------------------------------------

    def render(self, snapshot: Snapshot, node: Node, overlay: str, path: str) -> tuple[Item, Sequence[Output]]:
        """One template of an overlay for one node, without building anything. Raises WwfastError."""
        for _ in range(TRIES):
            with self._lock:
                self.builder.prepare(snapshot)
                items = {item.path: item for item in self.builder.overlays.items(overlay)}
            made = self._asked(snapshot, node, Render(node.id, overlay, path), Rendered)
            if made.path in items:
                return items[made.path], tuple(made.outputs)
        raise _restless(f"overlay {overlay}")

    def render_file(self, snapshot: Snapshot, node: Node, path: str) -> bytes:
        """A template of /files/ for one node, behind all that nodes wait for. Raises WwfastError."""
        made = self._asked(snapshot, node, Render(node.id, "", path), Rendered, low=True)
        return next((it.content for it in made.outputs if it.path == made.path and it.kind == FILE), b"")

    def _asked(self, snapshot: Snapshot, node: Node, question: Ask, kind: type[A], *, low: bool = False) -> A:
        for _ in range(TRIES):
            with self._lock:
                snapshot, node = self._newest(snapshot, node)
                self.builder.prepare(snapshot)
            made = self.orders.ask(snapshot, node, question, low=low)
            if isinstance(made, kind):
                return made
        raise _restless(f"node {node.id}")

    def write(self, script: Write) -> str:
        """A script of a site's iPXE template. Raises WwfastError."""
        return self.orders.write(script)

    def rehearse(self, snapshot: Snapshot, node: Node, context: str) -> None:
        """Go the way of `artefact` as far as something can fail, and hand nothing out. Raises WwfastError where a node
        would get nothing, and where it would only get the last good one."""
        if self.frozen:
            with self._lock:
                last = self.builder.given(node, context)
                if last is None or not all(map(self.builder.store.has, last.contents)):
                    raise _never_built(node, context)
            return
        try:
            self._memo(snapshot, node, context)
        except OSError as error:
            raise _said(error) from error

    def laid(self, snapshot: Snapshot, node: Node, context: str) -> Stack:
        """What the overlays of a node lay over its image now, made for it alone. Raises WwfastError."""
        for _ in range(TRIES):
            with self._lock, suppress(Changed):
                self.builder.prepare(snapshot)
                plan = self.builder.ground(node, context).plan
            made = self._asked(snapshot, node, Lay(node.id, context), Laid)
            if made.plan == plan.identity:
                return plan.stack(range(len(made.outputs)), dict(enumerate(made.outputs)))
        raise _restless(f"node {node.id}")

    def pending(self, snapshot: Snapshot, node: Node, context: str) -> tuple[formats.Files, formats.Files]:
        """The files the node was given last, and those it would be given now. Raises WwfastError."""
        store = self.builder.store
        with self._lock:
            last = self.builder.given(node, context)
            contents = last.contents if last is not None else ()
            before = formats.files(store, contents if all(map(store.has, contents)) else ())
        return before, self._of_fresh(
            snapshot, node, context, lambda it: formats.files(store, it.record.contents), lambda it: True
        )

    def tend(self, *, anyway: bool = False) -> int:
        """Remove what no node has; bytes given back. `anyway`: also what was needed a moment ago.

        For the one process that serves: extents that were handed out stay readable for store.GRACE seconds.
        """
        with self._lock:
            builder = self.builder
            builder.index.flush()
            builder.store.flush()  # what stands in memory comes back to the disk
            if builder.generation is None and not self.results.nodes:
                return 0
            given = self.results.nodes
            if builder.generation is not None:
                nodes = list(builder.generation.snapshot.nodes)
                builder.forget_others(nodes)
                given = [(node, context) for node in nodes for context in CONTEXTS]
            contents = builder.index.sweep(given)
            freed = builder.store.sweep(contents, anyway=anyway)
            if freed:
                builder.anew()
            return freed


def frozen(paths: Paths, settings: Settings) -> bool:
    """Whether nodes get what was built last, and nothing is made for them: so it is on a head that follows another."""
    return paths.mirror is not None or not settings.warewulf.autobuild_overlays


def there(artefact: Artefact) -> bool:
    """Whether nobody removed its files. Every answer asks: 1 us for each of three or four."""
    return calls.there([os.fsencode(path) for path in {extent.path for extent in artefact.extents}])


def failure_of(error: Exception) -> Failure:
    known = _said(error)
    return Failure(known.message, known.hint, time.time())


def _never_built(node: Node, context: str) -> NotFoundError:
    return NotFoundError(
        f"the {context} overlays of node {node.id} were never built, and autobuild is off",
        hint=f"wwfast overlay build {node.id}",
    )


def _restless(what: str) -> WwfastError:
    return WwfastError(f"{what}: files of overlays keep changing while they are packed")


def _said(error: Exception) -> WwfastError:
    return error if isinstance(error, WwfastError) else WwfastError(str(error))
