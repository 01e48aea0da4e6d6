"""Having parts made by workers: each is told what it does not know yet, asked, and believed only by what it rests on.

A template that takes too much ends with an error, or with its worker; that is the node's own failure, and it is not
run again soon. A worker that somebody killed is replaced, and its node asked for again.
"""

from __future__ import annotations

import dataclasses
import gc
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from mmap import mmap
from pathlib import Path

from wwfast.config.settings import Conf
from wwfast.errors import WwfastError
from wwfast.nodes.model import Node
from wwfast.nodes.registry import Snapshot
from wwfast.overlays.making import worker
from wwfast.overlays.making.builder import Builder
from wwfast.overlays.making.crew import HELD_UP, Crew, Died, Direct, Hand
from wwfast.overlays.making.crowd import COSTLY, Costly, Crowd, Wanted
from wwfast.overlays.making.generation import Generation, Ground
from wwfast.overlays.making.index import Record
from wwfast.overlays.making.messages import (
    Answer,
    Ask,
    Begin,
    Failed,
    Know,
    Look,
    Made,
    Make,
    Message,
    Use,
    Write,
    Written,
)
from wwfast.overlays.making.plan import SYSTEM, key_of
from wwfast.overlays.templates.data import Cluster
from wwfast.overlays.templates.faults import Exceeded

RUNTIME = "runtime"
CONTEXTS = (SYSTEM, RUNTIME)
BATCH = 32  # nodes that a worker is asked for at once: they fit into a pipe
CHUNK = 1000  # nodes that a worker is told of in one message
LIVES = 10  # workers that may be killed over one node, by whoever does
FIRST = 0.5  # seconds that others wait for the first node of a plan, whose worker makes what they share

Work = tuple[Node, str]


class Stalled(Exception):
    """Several nodes were asked for, and one of them keeps the others."""


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


class Orders:
    """Thread-safe; holds `lock` only while it takes in what was made."""

    def __init__(self, builder: Builder, lock: threading.RLock, *, ignore_go_templates: bool, alone: bool) -> None:
        self.builder = builder
        self._lock = lock
        self._ignore_go = ignore_go_templates
        self._model: tuple[Generation, worker.Worker] | None = None
        count = os.cpu_count() or 1
        self.crew = Crew(count, Direct(self._inherit) if alone else None)
        self._crowd = Crowd(count, BATCH)
        self.costly = Costly()
        self.again = threading.Semaphore(count)  # fewer than there may be workers: others always find one

    def close(self) -> None:
        self.crew.close()

    # -- one node ------------------------------------------------------------------------------------------------

    def make(self, snapshot: Snapshot, node: Node, context: str) -> Record | None:
        """Have the node's parts made, and take them in; None when something changed meanwhile.

        Raises WwfastError: the node's own failure.
        """
        with self._lock:
            generation = self.builder.generation
            if generation is None or generation.snapshot is not snapshot:
                return None
            ground = generation.ground(node, context)
        if ground is None:
            return None
        with self._first(ground), self._again((node.id, context)) as again:
            if not again:
                return self._in_turn(Wanted(snapshot, node, context))
            made = self.ask(snapshot, Make(node.id, context), node, context, low=True)
            return self._take_in(generation, node, context, made)

    @contextmanager
    def _again(self, key: tuple[str, str]) -> Iterator[bool]:
        """Whether it failed before and took long. Raises why, while it rests."""
        tried = self.costly.before(self._number, key)
        if tried is not None and (time.monotonic() < tried.until or not self.again.acquire(blocking=False)):
            raise tried.error()
        try:
            yield tried is not None
        finally:
            if tried is not None:
                self.again.release()

    @property
    def _number(self) -> int:
        generation = self.builder.generation
        return generation.number if generation is not None else 0

    @contextmanager
    def _first(self, ground: Ground) -> Iterator[None]:
        """One has what the plan's nodes share made, others wait for it a while."""
        first = ground.shared is None and ground.first.acquire(timeout=FIRST)
        if first and ground.shared is not None:  # made meanwhile: the others need not come one by one
            ground.first.release()
            first = False
        try:
            yield
        finally:
            if first:
                ground.first.release()

    def _in_turn(self, wanted: Wanted) -> Record | None:
        self._crowd.join(wanted)
        while not wanted.answered:
            if batch := wanted.turn():
                self._lead(batch)
        if wanted.error is not None:
            raise wanted.error
        return wanted.record

    def _lead(self, batch: Sequence[Wanted]) -> None:
        """Have each answered; those that are not, since one of them stalls, are asked for alone."""
        leading = [True]

        def stalls() -> None:
            if len(batch) > 1:
                raise Stalled
            leading.clear()
            self._crowd.hand_on()

        try:
            if len(batch) > 1:
                self._together(batch, stalls)
            else:
                self._single(batch[0], stalls)
        except Exception as error:
            for each in batch:
                if not each.answered:
                    each.answer(None, error)
        finally:
            if leading:
                self._crowd.hand_on(each for each in reversed(batch) if not each.answered)

    def _single(self, wanted: Wanted, stalls: Callable[[], None]) -> None:
        generation, made = self.builder.generation, None
        if generation is not None and generation.snapshot is wanted.snapshot:
            node, context = wanted.node, wanted.context
            made = self.ask(wanted.snapshot, Make(node.id, context), node, context, stalls)
            wanted.answer(self._take_in(generation, node, context, made))
        else:
            wanted.answer(None)

    def _together(self, batch: Sequence[Wanted], stalls: Callable[[], None] | None = None) -> None:
        """Ask one worker for all of them; those are not answered that it left when it ended."""
        hand = self.crew.take()
        try:
            generation, began = self.builder.generation, time.monotonic()
            if generation is None:
                return
            asked = [each for each in batch if each.snapshot is generation.snapshot]
            for each in batch:
                if each not in asked:
                    each.answer(None)
            news = [message for each in asked for message in self._news(hand, generation, each.node, each.context)]
            hand.tell(*news, *(Make(each.node.id, each.context) for each in asked))
            for each in asked:
                made = hand.hear(stalls)
                if isinstance(made, Failed) and not made.again:
                    self._heed(made)
                    each.answer(None, WwfastError(made.message, hint=made.hint))
                else:
                    each.answer(self._take_in(generation, each.node, each.context, made))
            self._crowd.took(time.monotonic() - began, len(batch))
        except (Died, Stalled):
            hand.end()
        finally:
            self.crew.give(hand)

    def _take_in(self, generation: Generation, node: Node, context: str, made: Answer) -> Record | None:
        with self._lock:
            if isinstance(made, Made):
                return self.builder.take_in(generation, node, context, made)
            self.builder.look_again()
            return None

    def _heed(self, made: Failed) -> None:
        with self._lock:
            self.builder.heed(made.seen)

    def ask(
        self,
        snapshot: Snapshot,
        question: Ask,
        node: Node,
        context: str,
        stalls: Callable[[], None] | None = None,
        *,
        low: bool = False,
    ) -> Answer:
        """`stalls` is called once when it takes long; `low`: behind all others. Raises WwfastError."""

        def news(hand: Hand, generation: Generation | None) -> Iterable[Message] | None:
            there = generation is not None and generation.snapshot is snapshot
            return self._news(hand, generation, node, context) if there else None  # type: ignore[arg-type]

        return self._asked(question, (node.id, context), COSTLY, news, stalls, low=low)

    def write(self, question: Write) -> str:
        """A script of a site's template. One that took too much for a node rests for all. Raises WwfastError."""

        def news(hand: Hand, _: Generation | None) -> Iterable[Message]:
            if hand.conf is None:
                hand.conf = self.builder.conf
                yield self._begin(self.builder.conf)

        key = (question.path, question.source)
        with self._again(key) as again:
            made = self._asked(question, key, HELD_UP, news, low=again)
        assert isinstance(made, Written)
        return made.text

    def _asked(
        self,
        question: Ask,
        key: tuple[str, str],
        costly: float,
        news: Callable[[Hand, Generation | None], Iterable[Message] | None],
        stalls: Callable[[], None] | None = None,
        *,
        low: bool,
    ) -> Answer:
        """`news` are what a worker has to be told before (None: it is too late for that); a failure that takes `costly`
        seconds is kept under `key`."""
        for left in reversed(range(LIVES)):
            hand = self.crew.take(low=low)
            began = time.monotonic()
            generation, number = self.builder.generation, self._number
            try:
                told = news(hand, generation)
                if told is None:
                    return Failed("", None, again=True)
                hand.tell(*told, question)
                tell, stalls = stalls, None
                made = hand.hear(tell)
                if not isinstance(made, Failed) or made.again:
                    return made
                self._heed(made)
                error = WwfastError(made.message, hint=made.hint)
            except Died as died:
                if died.number in (0, signal.SIGKILL, signal.SIGTERM) and left:
                    continue
                error = self._death(died, question.node)
            finally:
                self.crew.give(hand)
            if (took := time.monotonic() - began) >= costly:
                self.costly.failed(number, key, took, error)
            raise error
        raise AssertionError

    def _death(self, error: Died, node: str) -> WwfastError:
        where = f"{error.where}, node {node}: " if error.where else f"node {node}: "
        if error.number == signal.SIGXCPU:
            limit = Exceeded("seconds", self.builder.conf.wwfast.template_seconds)
            return WwfastError(f"{where}{limit}", hint=limit.hint)
        what = f"was ended by signal {error.number}" if error.number else "did not answer"
        return WwfastError(f"{where}the process that ran it {what}")

    # -- telling -------------------------------------------------------------------------------------------------

    def _news(self, hand: Hand, generation: Generation, node: Node, context: str) -> Iterator[Message]:
        """What a worker has to be told before it is asked for this node."""
        if hand.generation != generation.number:
            if hand.conf is not generation.conf:
                yield self._begin(generation.conf)
                hand.conf = generation.conf
            nodes = generation.snapshot.nodes
            known = hand.nodes
            fresh = dict(nodes.items())
            new = [each for name, each in fresh.items() if known.get(name) is not each]
            for at in range(0, len(new) - CHUNK, CHUNK):
                yield Know(new[at : at + CHUNK], None)
            if new or len(fresh) != len(known) or list(fresh) != list(known):
                rest = new[(len(new) - 1) // CHUNK * CHUNK :] if new else []
                yield Know(rest, list(fresh))
            if hand.looked != generation.looked:
                yield Look()
            hand.looked = generation.looked
            hand.nodes, hand.generation, hand.shared = fresh, generation.number, {}
        ground = generation.grounds.get(key_of(node, context))
        if isinstance(ground, Ground) and ground.shared is not None:
            plan = ground.plan.identity
            if hand.shared.get(plan) is not ground.shared:
                hand.shared[plan] = ground.shared
                yield Use(plan, ground.shared)

    def _begin(self, conf: Conf) -> Begin:
        places = {it.name: getattr(self.builder.paths, it.name) for it in dataclasses.fields(self.builder.paths)}
        paths = {name: str(value) for name, value in places.items() if isinstance(value, Path)}
        return Begin(paths, conf, self._ignore_go)

    def _inherit(self, hand: Hand) -> Callable[[mmap], worker.Worker]:
        """A worker forked from here need not be told what is known here: what makes it."""
        generation = self.builder.generation
        assert generation is not None
        hand.nodes = dict(generation.snapshot.nodes.items())
        hand.conf, hand.generation, hand.looked = generation.conf, generation.number, generation.looked
        for node in hand.nodes.values():
            generation.cluster.see(node)  # once here, and not once in each of them
        if self._model is None or self._model[0] is not generation:
            cluster = Cluster(hand.nodes, self.builder.images.kernel_version, generation.cluster)
            model = worker.Worker(self._begin(generation.conf), bytearray(0), cluster)
            model.compile(generation.grounds)
            self._model = generation, model
        return self._model[1].marking

    # -- many nodes ----------------------------------------------------------------------------------------------

    def firsts(self, work: Sequence[Work]) -> list[Work]:
        """One for each plan whose shared part has to be made."""
        grounds = self.builder.generation.grounds if self.builder.generation is not None else {}
        chosen = {key_of(*each): each for each in reversed(work)}
        return [each for key, each in chosen.items() if getattr(grounds.get(key), "shared", None) is None]

    def make_all(
        self, snapshot: Snapshot, work: Sequence[Work], processes: int, progress: Callable[[int], object]
    ) -> Iterator[tuple[Work, Exception]]:
        """Have it all made by so many workers; what failed, and why."""
        failed: list[tuple[Work, Exception]] = []
        left: deque[Work] = deque(work)
        processes = min(processes, max(1, len(work) // BATCH))
        self.crew.start(processes)

        def some() -> None:
            while True:
                try:
                    size = min(BATCH, max(1, len(left) // processes))
                    batch = [Wanted(snapshot, *left.popleft()) for _ in range(size)]
                except IndexError:
                    return
                self._together(batch)
                for each in batch:
                    try:
                        if not each.answered:
                            self.make(snapshot, each.node, each.context)
                    except (WwfastError, OSError) as error:
                        each.error = error
                    if each.error is not None:
                        failed.append(((each.node, each.context), each.error))
                progress(len(work) - len(left))

        threads = [threading.Thread(target=some) for _ in range(processes - 1)]
        for thread in threads:
            thread.start()
        some()
        for thread in threads:
            thread.join()
        yield from failed
