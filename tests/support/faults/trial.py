"""One writer, one fault, one oracle: what was readable is readable and whole, what is served has its digest, the next
command works, nothing is left behind, and whoever fails says so in words.

Every step runs in a forked child of this (preloaded) program: nothing in memory helps, and a start costs milliseconds.
"""

from __future__ import annotations

import os
import pickle
import re
import select
import signal
import subprocess
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from support.faults.shim import CUT, EIO, ENOSPC, KILLED, KINDS, WRITE, Call, Kind, Shim
from wwfast.errors import WwfastError

PATIENCE = 60.0  # seconds for one command; more is a stuck one
BROKEN = 70  # exit status of an exception nobody put into words

Fault = AbstractContextManager[None]


class GarbageError(AssertionError):
    """Something wrong was served."""


@dataclass(frozen=True)
class Writer:
    """A command that writes below a root directory.

    `prepare` makes the installation that it finds; `run` does it, with the disk failing inside of `fault`; `whole`
    reads all there is to read, raises when some of it is not whole, and returns what may be compared. `again` is the
    next command: on any state that `run` may leave behind, it must work.
    """

    name: str
    prepare: Callable[[Path], None]
    run: Callable[[Path, Fault], None]
    whole: Callable[[Path], Any]
    again: Callable[[Path], None]
    below: str = "."
    stays: frozenset[str] = frozenset()


class Ended(NamedTuple):
    status: int | None  # None: it did not end; negative: by a signal
    said: str
    value: Any


class Finding(NamedTuple):
    """A broken promise: which (a column of the table), where, and what shows it."""

    promise: str
    writer: str
    kind: str
    at: int
    call: str
    told: str

    def __str__(self) -> str:
        return f"{self.promise}: {self.writer}, {self.kind} at {self.at} ({self.call}): {self.told}"


PROMISES = {
    "torn": "what was readable is not, or is neither the old nor the new",
    "garbage": "something wrong was served",
    "stuck": "it did not end, or the next command did not work",
    "left": "files were left behind",
    "mute": "a traceback, or a failure without a word",
    "lied": "done was said and it was not",
    "unsafe": "done was said, and a power failure would have taken it",
}


@dataclass
class Row:
    """What became of one writer: calls it makes, points tried, trials by fault, broken promises."""

    writer: str
    calls: int = 0
    points: int = 0
    trials: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)


def in_child(call: Callable[[], Any], work: Path) -> Ended:
    """Run it in a process group of its own, its output in a file, to its end or the end of patience."""
    said, value = work / "said", work / "value"
    value.unlink(missing_ok=True)
    pid = os.fork()
    if pid == 0:
        _child(call, said, value)
    watched = os.pidfd_open(pid)
    ended = bool(select.select([watched], [], [], PATIENCE)[0])
    os.close(watched)
    try:
        os.killpg(pid, signal.SIGKILL)  # the rest of it; all of it when it did not end
    except ProcessLookupError:
        pass
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    text = said.read_text(errors="replace")
    return Ended(status if ended else None, text, pickle.loads(value.read_bytes()) if value.exists() else None)


def _child(call: Callable[[], Any], said: Path, value: Path) -> None:
    status = 0
    try:
        os.setpgid(0, 0)
        output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        value.write_bytes(pickle.dumps(call()))
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except WwfastError as error:
        os.write(2, f"error: {error.message}\n".encode())
        status = error.exit_code
    except BaseException:
        os.write(2, traceback.format_exc().encode(errors="replace"))
        status = BROKEN
    finally:
        os._exit(status)


class Laboratory:
    """Tries one writer: in a copy of what was prepared, at the same place each time."""

    def __init__(self, writer: Writer, shim: Shim, work: Path) -> None:
        self.writer, self.shim, self.work = writer, shim, work
        self.root, self.pristine = work / "root", work / "pristine"
        self.disk = self.root / writer.below
        self.root.mkdir(parents=True)
        made = in_child(lambda: writer.prepare(self.root), work)
        assert made.status == 0, f"{writer.name} cannot be prepared:\n{made.said}"
        self.before = self._read()  # may fill caches: that is part of what is prepared
        self.root.rename(self.pristine)
        self.restore()
        self.names = self.listed() | writer.stays
        self.calls = self._record()
        self.after = self._read()
        self.names |= self.listed()
        self._again()
        self.names |= self.listed()
        self.restore()
        self._again()
        self.names |= self.listed()

    def _record(self) -> list[Call]:
        clean = self._run(self.shim.armed(self.disk))
        assert clean.status == 0, f"{self.writer.name} does not work:\n{clean.said}"
        return self.shim.calls()

    def _again(self) -> None:
        again = in_child(lambda: self.writer.again(self.root), self.work)
        assert again.status == 0, f"the next command after {self.writer.name} does not work:\n{again.said}"

    def restore(self) -> None:
        subprocess.run(["rm", "-rf", "--", self.root], check=True)
        subprocess.run(["cp", "-a", "--", self.pristine, self.root], check=True)

    def _run(self, fault: Fault) -> Ended:
        try:
            return in_child(lambda: self.writer.run(self.root, fault), self.work)
        finally:
            self.shim.disarm()

    def _read(self) -> Any:
        seen = in_child(lambda: self.writer.whole(self.root), self.work)
        assert seen.status == 0, f"{self.writer.name} has nothing whole to begin with:\n{seen.said}"
        return seen.value

    def listed(self) -> set[str]:
        """The kinds of names there are: a rest is one of a kind that no clean run leaves."""
        return {shape(str(path.relative_to(self.root))) for path in self.root.rglob("*")}

    def points(self, kind: Kind, most: int | None) -> list[int]:
        """Numbers of the calls to hit: all, or at most so many that differ, spread over the whole run."""
        counted = [call for call in self.calls if MASK[call.op] & kind.ops]
        numbers = range(1, len(counted) + 1)
        if most is None or len(numbers) <= most:
            return list(numbers)
        first: dict[tuple[str, ...], int] = {}
        for number, call in zip(numbers, counted, strict=True):
            first.setdefault((call.op, shape(call.path), shape(call.other)), number)
        chosen = list(first.values())[:most]
        rest = sorted(set(numbers) - set(chosen))
        more = most - len(chosen)
        return sorted({*chosen, *(rest[at * len(rest) // more] for at in range(more))})

    def trial(self, kind: Kind, at: int) -> list[Finding]:
        self.restore()
        ran = self._run(self.shim.armed(self.disk, kind, at))
        hits = [call for call in self.shim.calls() if call.hit]
        if not hits:
            return []  # threads: this time it made fewer calls
        where = f"{hits[0].op} {hits[0].path.removeprefix(str(self.root))}"
        return [
            Finding(promise, self.writer.name, kind.name, at, where, told)
            for promise, told in (*self._judge_run(ran, kind), *self._judge_next())
        ]

    def _judge_run(self, ran: Ended, kind: Kind) -> Iterator[tuple[str, str]]:
        if ran.status is None:
            yield "stuck", f"it did not end in {PATIENCE:g} s"
        elif "GarbageError" in ran.said:
            yield "garbage", last_line(ran.said)
        elif kind is KILLED:
            if ran.status not in (0, -signal.SIGKILL):
                yield "mute", last_line(ran.said)
        elif "Traceback" in ran.said or (ran.status and "error: " not in ran.said):
            yield "mute", f"status {ran.status}: {last_line(ran.said)}"
        elif ran.status and kind is CUT:
            yield "lied", f"a short write is no failure, but: {last_line(ran.said)}"
        seen = in_child(lambda: self.writer.whole(self.root), self.work)
        if seen.status != 0:
            yield "torn", last_line(seen.said)
        elif seen.value not in (self.before, self.after):
            yield "torn", "neither the old nor the new is there"
        elif ran.status == 0 and seen.value != self.after:
            yield "lied", "done was said, and the old is there"
        if kind in (ENOSPC, EIO, CUT) and (left := self.listed() - self.names):
            yield "left", ", ".join(sorted(left)[:4])

    def _judge_next(self) -> Iterator[tuple[str, str]]:
        again = in_child(lambda: self.writer.again(self.root), self.work)
        if again.status != 0:
            yield "stuck", f"the next command, status {again.status}: {last_line(again.said)}"
            return
        seen = in_child(lambda: self.writer.whole(self.root), self.work)
        if seen.status != 0:
            yield "torn", f"after the next command: {last_line(seen.said)}"
        if left := self.listed() - self.names:
            yield "left", "after the next command: " + ", ".join(sorted(left)[:4])


def undurable(calls: list[Call]) -> list[str]:
    """What a power failure right after the last call could take: files that got their names before they were on the
    disk, and directories whose names were changed and never brought to the disk. Caches and work rooms may lose all."""
    dirty: set[str] = set()
    names: dict[str, str] = {}  # directory: a name in it that is not on the disk
    wrong: list[str] = []
    for call in calls:
        if call.op in ("open", "write", "truncate"):
            dirty.add(call.path)
        elif call.op == "sync":
            dirty.discard(call.path)
            names.pop(call.path, None)
        elif call.op == "syncfs":
            dirty.clear()
            names.clear()
        elif call.op == "link" and call.path in dirty:
            if passing(call.other):
                dirty.add(call.other)
            else:
                wrong.append(f"{call.path} got the name {call.other} before it was on the disk")
        elif call.op == "rename":
            moved = {path for path in dirty if Path(path).is_relative_to(call.path)}
            dirty -= moved
            if passing(call.other):
                dirty |= {call.other + path.removeprefix(call.path) for path in moved}
            else:
                wrong += [f"{path} was renamed to {call.other} before it was on the disk" for path in moved]
            names |= {str(Path(path).parent): path for path in (call.path, call.other) if not passing(path)}
    return wrong + [f"the name {name} is not on the disk" for name in names.values()]


def passing(path: str) -> bool:
    """Whether nobody misses it after a power failure."""
    return "/var/cache/" in path or "/.wwfast-" in path


MASK = {"open": 1, "write": WRITE, "truncate": 4, "sync": 8, "syncfs": 8, "rename": 16, "link": 32, "symlink": 32}
MASK |= {"mkdir": 64, "remove": 128}


def shape(path: str) -> str:
    """A path without numbers, times and digests, or pieces of one: files of one kind have one shape."""
    return re.sub(r"#([.-]#)+", "#", re.sub(r"(?<=/)[0-9a-f]{2,3}(?=/|$)|[0-9a-f]{6,}|[0-9]+", "#", path))


def last_line(said: str) -> str:
    return (said.strip().splitlines() or ["(nothing)"])[-1][:300]


def attempt(writer: Writer, shim: Shim, work: Path, *, most: int | None) -> Row:
    """Try a writer with all kinds of faults at all its calls; or at `most` of them, killed at each, and at each one of
    the other faults in turn."""
    lab = Laboratory(writer, shim, work)
    row = Row(writer.name, len(lab.calls))
    row.findings += [Finding("unsafe", writer.name, "power failure", 0, "", told) for told in undurable(lab.calls)]
    tried: set[int] = set()
    for number, kind in enumerate(KINDS):
        for turn, at in enumerate(lab.points(kind, most)):
            if most is None or kind in (CUT, KILLED) or turn % 3 == number:
                row.findings += lab.trial(kind, at)
                row.trials[kind.name] += 1
                tried.add(at)
    row.points = len(tried)
    return row
