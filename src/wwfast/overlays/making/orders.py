"""Having parts made by workers: each is told what it does not know yet, asked, and believed only by what it rests on.

Who waits at the head of the queue takes a worker, as soon as there is one, for itself and those behind it: a crowd
costs few messages, not one for each node. A template that takes too much ends with an error, or with its worker; that
is the node's own failure, and it is not run again soon. A worker that somebody killed is replaced, and its node asked
for again.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from mmap import mmap
from pathlib import Path

from wwfast.config.settings import Conf
from wwfast.errors import WwfastError
from wwfast.nodes.model import Node
from wwfast.nodes.registry import Snapshot
from wwfast.overlays.making import worker
from wwfast.overlays.making.builder import Builder
from wwfast.overlays.making.crew import HELD_UP, Died, Direct, Hand, Stalled
from wwfast.overlays.making.generation import Generation, Ground
from wwfast.overlays.making.index import Record, Shared
from wwfast.overlays.making.messages import (
    Answer,
    Ask,
    Asked,
    Begin,
    Failed,
    Know,
    Look,
    Made,
    Make,
    Message,
    Write,
    Written,
)
from wwfast.overlays.making.plan import SYSTEM, key_of
from wwfast.overlays.templates.data import Cluster
from wwfast.overlays.templates.faults import Exceeded

RUNTIME = "runtime"
CONTEXTS = (SYSTEM, RUNTIME)
MOST = 3  # times as many workers as there are cores, with those that are held up
BATCH = 32  # nodes that a worker is asked for at once
CHUNK = 1000  # nodes that a worker is told of in one message
LIVES = 10  # workers that may be killed over one node, by whoever does
COSTLY = 0.1  # seconds of a failure of a node's overlays from which on it rests
REST = 5  # times as long as it took; a template of 10 s on a loaded core is run once in minutes
LONGEST_REST = 3600.0

Work = tuple[Node, str]
Key = tuple[str, str]  # node and context, or path and source of a script


class Bell:
    """What one thread waits for, and another one rings. Less than a Condition: who woke needs no lock to go on."""

    __slots__ = ("_silent",)

    def __init__(self) -> None:
        self._silent = threading.Lock()
        self._silent.acquire()

    def ring(self) -> None:
        with suppress(RuntimeError):  # it rings already
            self._silent.release()

    def wait(self, seconds: float = -1) -> None:
        """Until it rings, or has rung before; -1: for ever."""
        self._silent.acquire(timeout=seconds)


@dataclass(eq=False, slots=True)
class Job:
    """A question that somebody waits for. `snapshot` is None where no node has to be known; a failure that took
    `costly` seconds rests. An `alone` job is asked without others, a `low` one behind all others."""

    ask: Ask
    key: Key
    snapshot: Snapshot | None = None
    node: Node | None = None
    costly: float = COSTLY
    alone: bool = True
    low: bool = False
    lives: int = LIVES
    done: bool = False
    answer: Answer | None = None  # None: something changed meanwhile
    record: Record | None = None  # what was taken in
    error: Exception | None = None
    bell: Bell | None = None  # of who waits for it


@dataclass(slots=True)
class Tried:
    """A failure that took long."""

    generation: int
    rest: float
    until: float  # monotonic seconds
    error: WwfastError


class Orders:
    """Thread-safe; holds `lock` only while it takes in what was made."""

    def __init__(self, builder: Builder, lock: threading.RLock, *, ignore_go_templates: bool, alone: bool) -> None:
        self.builder = builder
        self._lock = lock
        self._ignore_go = ignore_go_templates
        self._model: tuple[Generation, worker.Worker] | None = None
        self._direct = Direct(self._inherit) if alone else None
        self._count = os.cpu_count() or 1
        self._hands: list[Hand] = []
        self._queue: deque[Job] = deque()
        self._mutex = threading.Lock()
        self._turn = threading.Condition(self._mutex)  # of who waits for many
        self._closed = False
        self.making: dict[Key, list[Bell]] = {}  # of who waits for what somebody else has made
        self.tried: dict[Key, Tried] = {}
        self.again = threading.Semaphore(self._count)  # fewer than there may be workers: others always find one

    def close(self) -> None:
        with self._turn:
            self._closed = True
            for hand in self._hands:
                if not hand.busy:
                    hand.end()

    # -- one question --------------------------------------------------------------------------------------------

    def make(self, snapshot: Snapshot, node: Node, context: str) -> Record | None:
        """Have the node's parts made, and take them in; None when something changed meanwhile, and when somebody else
        had them made.

        Raises WwfastError: the node's own failure.
        """
        key = (node.id, context)
        with self._mutex:
            if (waiting := self.making.get(key)) is None:
                self.making[key] = []
            else:
                waiting.append(bell := Bell())
        if waiting is not None:
            bell.wait()
            return None
        try:
            with self._again(key) as again:
                return self._done(Job(Make(*key), key, snapshot, node, alone=again, low=again)).record
        finally:
            with self._mutex:
                waiting = self.making.pop(key)
            for bell in waiting:
                bell.ring()

    def ask(self, snapshot: Snapshot, node: Node, question: Ask, *, low: bool = False) -> Answer | None:
        """None when something changed meanwhile. `low`: behind all others. Raises WwfastError."""
        return self._done(Job(question, (node.id, ""), snapshot, node, low=low)).answer

    def write(self, question: Write) -> str:
        """A script of a site's template. One that took too much for a node rests for all. Raises WwfastError."""
        key = (question.path, question.source)
        with self._again(key) as again:
            made = self._done(Job(question, key, costly=HELD_UP, low=again)).answer
        assert isinstance(made, Written)
        return made.text

    def _done(self, job: Job) -> Job:
        job.bell = Bell()
        with self._mutex:
            self._queue.append(job)
        try:
            while not job.done:
                with self._mutex:
                    served = job.done or self._step(self._queue, job, self._count)
                if not served:
                    job.bell.wait(HELD_UP / 2)
        except BaseException:
            with self._mutex:  # nobody would serve those behind a job that nobody waits for
                with suppress(ValueError):
                    self._queue.remove(job)
                self._call()
            raise
        if job.error is not None:
            raise job.error
        return job

    @contextmanager
    def _again(self, key: Key) -> Iterator[bool]:
        """Whether it failed before and took long: until something changes it is told again without being run, each time
        twice as long. Raises why, while it rests."""
        tried = self.tried.get(key)
        if tried is not None and tried.generation != self._number:
            tried = None
        if tried is not None and (time.monotonic() < tried.until or not self.again.acquire(blocking=False)):
            raise WwfastError(tried.error.message, hint=tried.error.hint)  # each its own: what is raised keeps frames
        try:
            yield tried is not None
        finally:
            if tried is not None:
                self.again.release()

    @property
    def _number(self) -> int:
        generation = self.builder.generation
        return generation.number if generation is not None else 0

    # -- the queue -----------------------------------------------------------------------------------------------

    def _step(self, queue: deque[Job], job: Job | None, workers: int) -> bool:
        """Serve those at the head of a queue (only where that is this `job`) if there is a worker; whether that was so,
        else wait a while. `workers` are at work at once, not counting those that are held up. Holds `_mutex` before
        and after."""
        if self._closed:
            raise WwfastError("the server ends")
        hand = self._free(workers) if queue and (job is None or queue[0] is job) else None
        if hand is None:
            return False
        batch = [queue.popleft()]
        most = min(BATCH, -(-len(queue) // self._count))
        while queue and len(batch) < most and not (batch[0].alone or queue[0].alone):
            batch.append(queue.popleft())
        hand.busy, hand.since = True, time.monotonic()
        self._call()
        self._mutex.release()
        try:
            generation = self.builder.generation
            answered = self.serve(hand, generation, batch)
            if not any(isinstance(it.answer, Made) and it.answer.shared is not None for it in answered):
                with self._mutex:  # another one asks it while this one takes in; what is shared it would not say again
                    self._give(hand)
                    self._call()
                hand = None
            self._take_in(generation, answered)
        finally:
            self._mutex.acquire()
            queue.extendleft(it for it in reversed(batch) if not it.done)
            if hand is not None:
                self._give(hand)
            self._call(*batch)
        return True

    def _call(self, *jobs: Job) -> None:
        """Who waits for these looks whether they are done, and who is the next whether there is a worker."""
        for job in (*jobs, *islice(self._queue, 1)):
            if job.bell is not None:
                job.bell.ring()

    def _free(self, workers: int) -> Hand | None:
        """One that nobody has, if there is any or may be one more."""
        now, busy = time.monotonic(), [hand for hand in self._hands if hand.busy]
        if len(busy) < len(self._hands):
            return min((hand for hand in self._hands if not hand.busy), key=lambda hand: hand.pid < 0)
        working = sum(not hand.lowered and now - hand.since < HELD_UP for hand in busy)
        if working >= workers or len(busy) >= MOST * self._count:
            return None
        self._hands.append(hand := Hand(self._direct))
        return hand

    def _give(self, hand: Hand) -> None:
        """Back, alive or not."""
        hand.busy = False
        hand.lift()
        if self._closed or sum(not each.busy for each in self._hands) > self._count:
            hand.end()
            self._hands.remove(hand)
        self._turn.notify_all()

    def serve(self, hand: Hand, generation: Generation | None, batch: Sequence[Job]) -> list[Job]:
        """Ask a worker: those that it answered. Of the others some are done, too: what cannot be asked for any more,
        what failed with its worker. The rest is asked for again, alone where the worker ended."""
        began, single = time.monotonic(), len(batch) == 1
        try:
            asked = [job for job in batch if job.snapshot is None or self._timely(generation, job)]
            if not asked:
                return []
            hand.start()
            if batch[0].low:
                hand.lower()
            answers = hand.ask(self._messages(hand, generation, asked), together=not single)
            for job, answer in zip(asked, answers, strict=False):
                job.answer = answer
                if isinstance(answer, Failed) and not answer.again:
                    self._fail(job, began if single else None, WwfastError(answer.message, hint=answer.hint))
            return asked[: len(answers)]
        except Stalled:
            pass
        except Died as died:
            job = batch[0]
            job.lives -= single
            if single and (not job.lives or died.number not in (0, signal.SIGKILL, signal.SIGTERM)):
                self._fail(job, began, self._death(died, job.ask.node))
                job.done = True
        except Exception as error:
            for job in batch:
                job.error, job.done = error, True
        for job in batch:
            job.alone = True
        return []

    @staticmethod
    def _timely(generation: Generation | None, job: Job) -> bool:
        job.done = generation is None or generation.snapshot is not job.snapshot
        return not job.done

    def _fail(self, job: Job, began: float | None, error: WwfastError) -> None:
        """`began` is when it was asked for, if it was alone."""
        job.error, now = error, time.monotonic()
        if began is None or now - began < job.costly:
            return
        with self._mutex:
            number, before = self._number, self.tried.get(job.key)
            rest = (now - began) * REST
            if before is not None and before.generation == number:
                rest = max(rest, 2 * before.rest)
            else:
                self.tried = {key: it for key, it in self.tried.items() if it.generation == number}
            rest = min(rest, LONGEST_REST)
            self.tried[job.key] = Tried(number, rest, now + rest, error)

    def _death(self, died: Died, node: str) -> WwfastError:
        where = f"{died.where}, node {node}: " if died.where else f"node {node}: "
        if died.number == signal.SIGXCPU:
            limit = Exceeded("seconds", self.builder.conf.wwfast.template_seconds)
            return WwfastError(f"{where}{limit}", hint=limit.hint)
        what = f"was ended by signal {died.number}" if died.number else "did not answer"
        return WwfastError(f"{where}the process that ran it {what}")

    def _take_in(self, generation: Generation | None, answered: Sequence[Job]) -> None:
        if not answered:
            return
        with suppress(Exception):  # it is tried again for each of them, and said of that one why not
            self.builder.bring(job.answer for job in answered if isinstance(job.answer, Made))
        with self._lock:
            for job in answered:
                made = job.answer
                try:
                    if isinstance(made, Failed):
                        self.builder.heed(made.seen) if job.error is not None else self.builder.look_again()
                        job.answer = None
                    elif isinstance(made, Made):
                        assert generation is not None
                        assert job.node is not None
                        job.record = self.builder.take_in(generation, job.node, job.key[1], made)
                except Exception as error:
                    job.error = error
                job.done = True

    # -- telling -------------------------------------------------------------------------------------------------

    def _messages(self, hand: Hand, generation: Generation | None, asked: Sequence[Job]) -> Iterator[Message]:
        """What a worker has to be told before it is asked for these, and the question."""
        conf = generation.conf if generation is not None else self.builder.conf
        if hand.conf is not conf:
            yield self._begin(conf)
            hand.conf = conf
        shared: dict[bytes, Shared] = {}
        if generation is not None and asked[0].snapshot is not None:
            if hand.generation != generation.number:
                yield from self._news(hand, generation)
            for ground in {generation.grounds.get(key_of(it.node, it.key[1])) for it in asked if it.node is not None}:
                if isinstance(ground, Ground) and ground.shared is not None:
                    plan = ground.plan.identity
                    if hand.shared.get(plan) is not ground.shared:
                        hand.shared[plan] = shared[plan] = ground.shared
        yield Asked([job.ask for job in asked], shared)

    def _news(self, hand: Hand, generation: Generation) -> Iterator[Message]:
        known, fresh = hand.nodes, dict(generation.snapshot.nodes.items())
        new = [each for name, each in fresh.items() if known.get(name) is not each]
        names = list(fresh)
        order = names if names != list(known) else []
        for at in range(0, len(new), CHUNK):
            yield Know(new[at : at + CHUNK])
        if new or order:
            yield Know([], order, last=True)
        if hand.looked != generation.looked:
            yield Look()
        hand.looked = generation.looked
        hand.nodes, hand.generation, hand.shared = fresh, generation.number, {}

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

    def make_all(
        self, snapshot: Snapshot, work: Sequence[Work], processes: int, progress: Callable[[int], object]
    ) -> Iterator[tuple[Work, Exception]]:
        """Have it all made by so many workers; what failed, and why."""
        jobs = [Job(Make(node.id, name), (node.id, name), snapshot, node, alone=False) for node, name in work]
        queue = deque(jobs)
        processes = min(processes, max(1, len(work) // BATCH))
        while self._direct is not None and len(self._hands) < processes:  # before there are threads
            self._hands.append(hand := Hand(self._direct))
            hand.start()

        def some() -> None:
            with self._turn:
                while queue:
                    if not self._step(queue, None, processes):
                        self._turn.wait(HELD_UP / 2)
                    progress(len(work) - len(queue))

        threads = [threading.Thread(target=some) for _ in range(processes)]
        for thread in threads:
            thread.start()
        some()
        for thread in threads:
            thread.join()
        for each, job in zip(work, jobs, strict=True):
            if job.error is not None:
                yield each, job.error
