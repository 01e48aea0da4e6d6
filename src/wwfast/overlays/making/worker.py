"""The process in which templates run: it is told of nodes and settings, makes parts of archives, and writes nothing.

It reads messages of a closed set and answers each question with one message. A template that takes more than it may
ends with an error that names it; one that cannot be stopped so ends the process, by limits that the kernel keeps.
Started as a command it is the helper of a server: without threads, it forks a worker whenever it is asked to.
"""

from __future__ import annotations

import gc
import marshal
import os
import resource
import signal
import time
import traceback
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from mmap import mmap
from pathlib import Path
from typing import Any

import xxhash

from wwfast.archive import frames, newc
from wwfast.errors import NotFoundError, WwfastError
from wwfast.nodes.model import Node
from wwfast.overlays.files import model
from wwfast.overlays.files.images import Images
from wwfast.overlays.files.model import DIRECTORY, Item
from wwfast.overlays.files.scan import Overlays
from wwfast.overlays.files.stack import Entry, Output
from wwfast.overlays.making.index import Shared
from wwfast.overlays.making.messages import (
    Answer,
    Ask,
    Asked,
    Begin,
    Failed,
    Know,
    Laid,
    Lay,
    Look,
    Made,
    Make,
    Part,
    Render,
    Rendered,
    Write,
    Written,
    encode,
    framed,
    marked,
    questions,
    received,
)
from wwfast.overlays.making.plan import LEVEL, Changed, Key, Layout, Plan, Plans, key_of, listing, over_directory
from wwfast.overlays.templates import environment
from wwfast.overlays.templates import shared as runs
from wwfast.overlays.templates.data import Cluster, Names, Rests, Seen, Server, digest
from wwfast.overlays.templates.faults import Exceeded
from wwfast.overlays.templates.ipxe import Writer
from wwfast.overlays.templates.render import Code, Template
from wwfast.overlays.templates.sources import Sources
from wwfast.paths import Paths
from wwfast.system import records
from wwfast.system.files import fill
from wwfast.system.run import forked

KEPT = 64  # parts that several nodes have: outputs that are the same for them are the very objects
HOLD = 1 << 16  # bytes of answers from which on no more are made with them
SHARE = 0.05  # seconds of work for one list of answers: the next to ask waits no longer than that


class Worker:
    """What one process knows. What it made is thrown away when it is told of a change; where only files changed, what
    templates answered stays with those that read none of these."""

    def __init__(self, begin: Begin, mark: mmap | bytearray, cluster: Cluster | None = None) -> None:
        places: dict[str, Any] = {key: Path(it) for key, it in begin.paths.items()}
        paths = Paths(**places, overlays_aside=tuple(begin.conf.wwfast.overlays_aside))
        self._mark = mark  # which template runs: seen by whoever asks why this process ended
        self._nodes = dict(cluster.nodes) if cluster is not None else {}
        self._conf = begin.conf
        self._room = runs.ROOM if cluster is None else 0  # who forked with what it knows sees no edit
        self._files = paths.warewulf_files
        self._images = Images(paths)
        self._sources = Sources(paths, tuple(begin.conf.wwfast.include), self._images.rootfs)
        self._overlays = Overlays(paths, None, ignore_go_templates=begin.ignore_go_templates)
        self._plans = Plans(self._overlays, self._sources, self._images)
        self._env = environment.make(self._sources)
        self.cluster = cluster or Cluster({}, self._images.kernel_version)
        self._templates: dict[tuple[str, str], Template | WwfastError] = {}
        self.output = begin.conf.wwfast.template_output << 20
        self._limited = Limited(begin.conf.wwfast.template_seconds)
        self.memory = begin.conf.wwfast.template_memory
        self._encoded: dict[Rests, bytes] = {}
        self._writer = Writer()
        self._script = lru_cache(KEPT)(self._writer.compiled)
        self._begin()

    def _begin(self) -> None:
        self.cluster = Cluster(self._nodes, self._images.kernel_version, self.cluster)
        self._names = Names(self._env.globals, self._env.reader, Server(self._conf), self.cluster)
        self._runs: dict[Template, runs.Shared] = {}
        self._turn()

    def _turn(self) -> None:
        """From here on other files may be there, for the same nodes."""
        self._sound: set[Template] = set()  # those of which it is known that `runs` hold
        self._shared: dict[bytes, Shared] = {}
        self._planned: dict[Key, Plan] = {}
        self._own: dict[Plan, dict[int, runs.Shared]] = {}  # templates of nodes' own parts, by number
        self._layouts: dict[tuple[object, ...], tuple[Layout | None, bytes, Seen]] = {}
        self._parts: dict[tuple[Plan, tuple[int, ...]], tuple[object, bytes, Part, Seen]] = {}

    def compile(self, keys: Iterable[Key]) -> None:
        """The templates of these plans, before this process is forked, by two processes; what is wrong with one is
        said when it runs."""
        chosen: dict[tuple[str, str], tuple[str, Item]] = {}
        for key in keys:
            with suppress(WwfastError, Changed, OSError):
                for each in self._plans.get(*key).templates:
                    chosen[each[0], each[1].path] = each
        largest = sorted(chosen.values(), key=lambda it: it[1].signature.size, reverse=True)
        others = [it for it in largest[1::2] if not it[1].path.endswith(model.GO_TEMPLATE)]  # those are objects
        if len(others) < 2:  # a process of its own takes longer
            for each in largest:
                self._code(*each)
            return
        with forked(lambda: marshal.dumps([tuple(self._code(*each) or ()) for each in others])) as received:
            for each in largest:
                if each not in others:
                    self._code(*each)
            found = received()
        with suppress(EOFError, ValueError, TypeError):  # of a process that was killed amid it
            for each, code in zip(others, marshal.loads(found), strict=True):
                self._code(*each, Code(*code) if code else None)

    def _code(self, overlay: str, item: Item, code: Code | None = None) -> Code | None:
        with suppress(WwfastError, Changed, OSError):
            return self._template(overlay, item, code).code
        return None

    def marking(self, mark: mmap | bytearray) -> Worker:
        self._mark = mark
        return self

    def know(self, message: Know) -> None:
        for node in message.nodes:
            self._nodes[node.id] = node
        if message.order:
            self._nodes = {name: self._nodes[name] for name in message.order}
        if message.last:
            self._begin()

    def look(self) -> None:
        self._sources.forget_checks()
        self._overlays.rescan()
        if self.cluster.stands():
            self._turn()
        else:
            self._begin()

    def use(self, made: dict[bytes, Shared]) -> None:
        """Shared parts by plan; what was made here instead of one of them is not the server's."""
        for plan, shared in made.items():
            known = self._shared.get(plan)
            if known is not None and known.content != shared.content:
                self._own, self._parts, self._layouts = {}, {}, {}
            self._shared[plan] = shared

    # -- making --------------------------------------------------------------------------------------------------

    def make(self, ask: Make) -> Made:
        """Raises WwfastError, Changed, Exceeded."""
        node = self._nodes[ask.node]
        plan = self._plan(key_of(node, ask.context))
        self._names.begin(node)
        shared, common = self._shared.get(plan.identity), None
        outputs: dict[int, Sequence[Output]] = {}
        if shared is None:
            shared, common = self._survey(plan, node, outputs)
            self._shared[plan.identity] = shared
        own = self._own.get(plan)
        if own is None:
            numbers = [number for number in range(len(plan.templates)) if number not in shared.common]
            own = self._own[plan] = {
                number: self._shares(self._template(*plan.templates[number])) for number in numbers
            }
        with self._sources.recording() as seen:
            for number, each in own.items():  # those that the survey ran are run twice: once per plan and generation
                self._says(each.said)
                outputs[number] = each.run(node.id, self.memory, self.output)
            note = self._names.taken()
            made = [outputs[number] for number in own]
            key = plan, tuple(map(id, made))
            known = self._parts.get(key)
            if known is None:
                with self._sources.recording() as looked:
                    below, part = self._own_part(plan, shared, own, outputs, node)
                if len(self._parts) >= KEPT:
                    self._parts.clear()
                known = self._parts[key] = made, below, part, looked()
            else:
                self._sources.record(known[3])
            _, below, part, _ = known
            rests = self._names.rests(note, seen())
        encoded = self._encoded.get(rests)
        if encoded is None:
            encoded = self._encoded[rests] = encode(rests)
        values = self.cluster.values(node, rests.node)
        return Made(plan.identity, shared if common else None, common, part, below, values, encoded)

    def _plan(self, key: Key) -> Plan:
        """Raises WwfastError, Changed."""
        found = self._planned.get(key)
        if found is None:
            found = self._planned[key] = self._plans.get(*key)
        return found

    def _own_part(
        self, plan: Plan, shared: Shared, own: Collection[int], outputs: dict[int, Sequence[Output]], node: Node
    ) -> tuple[bytes, Part]:
        """On what it rests below, and the part."""
        made = [output for number in own for output in outputs[number]]
        name = plan, tuple([it.path for it in made]), tuple([it.kind for it in made]), tuple([it[4] for it in made])
        found = self._layouts.get(name)
        if found is None:
            with self._sources.recording() as looked:
                entries = plan.quick(own, outputs, frozenset(shared.paths))
                layout = Layout(self._listed(plan, entries), made) if entries is not None else None
            if len(self._layouts) >= KEPT:
                self._layouts.clear()
            found = self._layouts[name] = layout, shared.shape, looked()
        layout, below, seen = found
        if layout is not None:
            self._sources.record(seen)
            return below, _part(layout.archive(made))
        outputs.update((number, self._run(self._template(*plan.templates[number]), node)) for number in shared.common)
        entries = plan.full(shared.common, own, outputs)
        return digest(["full", shared.content]), _part(newc.archive(self._listed(plan, entries)))

    def _survey(self, plan: Plan, node: Node, outputs: dict[int, Sequence[Output]]) -> tuple[Shared, Part]:
        """Which templates look at nothing of this node, so at nothing of any; and the part that they make."""
        common: list[int] = []
        with self._sources.recording() as seen:
            for number, template in enumerate([self._template(*each) for each in plan.templates]):
                with self._sources.recording(apart=True) as looked:
                    before = self._names.taken()
                    made = self._run(template, node)
                    note = self._names.taken()
                    self._names.note(before)
                if not note[0]:
                    outputs[number] = made
                    self._names.note(note)
                    self._sources.record(looked())
                    common.append(number)
            entries = plan.quick(common, outputs, ())
            if entries is None:
                entries = plan.full((), common, outputs)
            part = _part(newc.archive(self._listed(plan, entries), trailer=False) if entries else b"")
            rests = self._names.rests(self._names.taken(), seen())
        return Shared(tuple(common), tuple(path for path, _ in entries), b"", part.content, rests), part

    def _listed(self, plan: Plan, entries: list[tuple[str, Entry]]) -> list[newc.Entry]:
        image = plan.image
        if image:
            for path, entry in entries:
                if entry.kind != DIRECTORY and self._sources.kind(image, path, record=False) == "dir":
                    raise over_directory(path, image)

        def skip(path: str) -> bool:
            if path in plan.static:
                return path in plan.skipped
            return bool(image) and (path in plan.links or self._sources.kind(image, path) == "link")

        return listing(entries, skip)

    def _template(self, overlay: str, item: Item, code: Code | None = None) -> Template:
        found = self._templates.get((overlay, item.path))
        if not isinstance(found, Template) or found.item is not item:
            self._says(marked(f"overlay {overlay}, {item.path}"))
            if isinstance(found, Template):
                self._runs.pop(found, None)
            try:
                found = Template(self._env, overlay, item, code)
                if found.content != item.digest:
                    raise Changed
            except (FileNotFoundError, NotADirectoryError) as error:
                raise Changed from error
            self._templates[overlay, item.path] = found
        return found

    def _run(self, template: Template, node: Node) -> tuple[Output, ...]:
        shares = self._shares(template)
        self._says(shares.said)
        return shares.run(node.id, self.memory, self.output)

    def _shares(self, template: Template) -> runs.Shared:
        found = self._runs.get(template)
        if found is None or (template not in self._sound and not found.stands()):
            said = marked(template.where)
            found = self._runs[template] = runs.Shared(template, self._names, self._sources, said, self._room)
        self._sound.add(template)
        return found

    def _says(self, said: bytes) -> None:
        self._mark[: len(said)] = said

    def render(self, ask: Render) -> Rendered:
        wanted = model.clean(ask.path)
        if not ask.overlay:
            return self._render_alone(Item.alone(self._files, wanted), ask.node)
        for item in self._overlays.items(ask.overlay):
            if item.template and wanted in (item.path, item.output):
                node = self._nodes[ask.node]
                self._names.begin(node)
                return Rendered(item.path, list(self._run(self._template(ask.overlay, item), node)))
        raise NotFoundError(
            f"overlay {ask.overlay} has no template {wanted}",
            hint=f"wwfast overlay list -a {ask.overlay} shows its files",
        )

    def _render_alone(self, item: Item, node: str) -> Rendered:
        """Read anew each time, with all that it reads, and kept nowhere: nobody tells when it changes."""
        self._sources.forget_checks()
        self._says(marked(str(item.source)))
        template = Template(self._env, "", item)
        self._names.begin(self._nodes[node])
        return Rendered(item.output, list(template.run(self._names, node, memory=self.memory, output=self.output)))

    def lay(self, ask: Lay) -> Laid:
        node = self._nodes[ask.node]
        plan = self._plan(key_of(node, ask.context))
        self._names.begin(node)
        return Laid(plan.identity, [list(self._run(self._template(*each), node)) for each in plan.templates])

    def write(self, ask: Write) -> Written:
        self._says(marked(f"iPXE template {ask.path}"))
        program = self._script(ask.path, ask.source, "")
        text = self._writer.run(program, ask.variables, ask.node, self.memory)
        if len(text) > self.output:
            raise Exceeded("output", self.output >> 20)
        return Written(text)

    def answers(self, asked: Asked) -> list[Answer]:
        self.use(asked.shared)
        made: list[Answer] = []
        size, end = 0, time.monotonic() + SHARE
        for ask in asked.asks:
            made.append(found := self.answer(ask))
            size += len(found.own.frame) if isinstance(found, Made) else 0
            if size > HOLD or time.monotonic() > end:
                break
        return made

    def answer(self, ask: Ask) -> Answer:
        try:
            with self._limited:
                match ask:
                    case Make():
                        return self.make(ask)
                    case Render():
                        return self.render(ask)
                    case Lay():
                        return self.lay(ask)
                    case Write():
                        return self.write(ask)
        except WwfastError as error:
            return Failed(error.message, error.hint, seen=self._sources.looked())
        except Exceeded as error:
            return Failed(f"node {ask.node}: {error}", error.hint, seen=self._sources.looked())
        except Changed:
            return Failed("its files keep changing", None, again=True)
        except OSError as error:
            return Failed(f"{error.strerror}: {error.filename}", None, again=isinstance(error, FileNotFoundError))
        except Exception as error:  # ours, not the template's: this node fails, others do not
            traceback.print_exc()
            return Failed(f"node {ask.node}: {type(error).__name__}, see the log of the server", None)


def _part(raw: bytes) -> Part:
    return Part(xxhash.xxh3_128_digest(raw), frames.zstd_frame(raw, LEVEL), len(raw)) if raw else Part(b"", b"", 0)


class Limited:
    """Within it this much CPU time may be used: then Exceeded is raised, once and again; three or four seconds later
    the kernel kills."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._within, self._renew = seconds, False, 0.0
        signal.signal(signal.SIGPROF, self._end)

    def __enter__(self) -> None:
        now = time.process_time()
        if now >= self._renew:  # system calls are a tenth of what a node takes
            limit(resource.RLIMIT_CPU, int(now + self._seconds) + 4)
            self._renew = now + 1
        self._within = True
        signal.setitimer(signal.ITIMER_PROF, self._seconds, 0.5)

    def __exit__(self, *_: object) -> None:
        self._within = False

    def _end(self, *_: object) -> None:
        if self._within:
            raise Exceeded("seconds", self._seconds)


def limit_memory(mib: int) -> None:
    """From now on the process may grow by this much."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit(resource.RLIMIT_AS, now + (mib << 20))


def limit(what: int, amount: int) -> None:
    """So much, or what whoever started us left: that limit cannot be raised."""
    most = resource.getrlimit(what)[1]
    resource.setrlimit(what, (amount if most == resource.RLIM_INFINITY else min(amount, most), most))


def serve(source: int, sink: int, mark: mmap | bytearray, worker: Worker | None = None) -> None:
    """Answer what comes, until there is nobody any more."""
    fresh = True
    with open(source, "rb") as asked:
        while data := received(asked.read):
            message = records.unpacked(data, questions)
            if isinstance(message, Begin):
                worker = Worker(message, mark, worker.cluster if worker else None)
            assert worker is not None
            match message:
                case Know():
                    worker.know(message)
                case Look():
                    worker.look()
                case Asked():
                    if fresh:
                        gc.freeze()
                        limit_memory(worker.memory)
                    fill(sink, framed(worker.answers(message)))
            fresh = not isinstance(message, Asked)


def settle() -> None:
    """What a process in which templates run does first."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN if number == signal.SIGINT else signal.SIG_DFL)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.close(nothing)
    gc.set_threshold(50_000, 20, 100)
