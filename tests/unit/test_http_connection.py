"""The connection as a state machine, without a socket, a loop or a clock: bytes in, answers out."""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Awaitable, Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from support.httpserver import artefact
from wwfast.net.http.admission import GO, WAIT, Verdict
from wwfast.net.http.connection import LINGER, TRANSITIONS, Connection, State
from wwfast.net.http.message import Request, Response
from wwfast.net.http.serving import Limits, Serving
from wwfast.net.transfer import Outcome, Transfer

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
LIMITS = Limits(head_bytes=1024, inline_bytes=4096)


class Passing:
    """A body on its way by the pump."""

    def __init__(self) -> None:
        self.sent = self.error = 0


class Line:
    """A Wire that takes `room` bytes at once."""

    def __init__(self) -> None:
        self.taken = bytearray()
        self.room = 1 << 20
        self.watched = self.finished = self.closed = self.gone = False
        self.passing: Passing | None = None

    def receive(self, limit: int) -> bytes | None:
        raise AssertionError("the test says what has come")

    def send(self, data: bytes) -> int:
        if self.gone:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")
        part = data[: self.room]
        self.room -= len(part)
        self.taken += part
        return len(part)

    def pump(self, memory: bytes, part: bytes, spans: list[tuple[int, int, int]], context: object) -> Passing:
        self.taken += memory + part
        self.passing = Passing()
        self.passing.sent = len(memory) + len(part)
        return self.passing

    def watch(self, wanted: bool) -> None:
        self.watched = wanted

    def finish(self) -> None:
        self.finished = True

    def cut(self) -> None:
        self.gone = True

    def close(self) -> None:
        self.closed = True


class Later:
    """What an asynchronous handler waits for."""

    def __init__(self, response: Response) -> None:
        self.response = response

    def __await__(self) -> Generator[None, None, Response]:
        yield
        return self.response


class Task:
    def __init__(self, coroutine: Any) -> None:
        self.coroutine = coroutine
        coroutine.send(None)

    def resume(self) -> None:
        with pytest.raises(StopIteration):
            self.coroutine.send(None)

    def cancel(self) -> None:
        self.coroutine.close()


class Loop:
    def __init__(self) -> None:
        self.soon: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self.tasks: list[Task] = []
        self.faults: list[dict[str, Any]] = []

    def call_soon(self, callback: Callable[..., object], /, *args: Any) -> None:
        self.soon.append((callback, args))

    def create_task(self, coroutine: Any, /) -> Task:
        self.tasks.append(Task(coroutine))
        return self.tasks[-1]

    def call_exception_handler(self, context: dict[str, Any], /) -> None:
        self.faults.append(context)

    def run(self) -> None:
        while self.soon:
            callback, args = self.soon.pop(0)
            callback(*args)


class Turns:
    """A scheduler that says what the test wants, and hears who left."""

    def __init__(self) -> None:
        self.says: Verdict = GO
        self.over: list[str] = []
        self.moved: list[tuple[str, int]] = []

    def ask(self, key: str, *_: object) -> Verdict:
        return self.says

    def tick(self, sent: int, now: float) -> list[tuple[str, Verdict]]:
        return []

    def progress(self, key: str, sent: int, now: float) -> None:
        self.moved.append((key, sent))

    def finished(self, key: str, last: bool, now: float) -> None:
        self.over.append(f"finished {key}{' for good' if last else ''}")

    def left(self, key: str, now: float) -> None:
        self.over.append(f"left {key}")


class Peer:
    """One connection and all around it; `seen` are the ways from state to state that it took."""

    def __init__(self, answer: Callable[[Request], Response | Awaitable[Response]], limits: Limits = LIMITS) -> None:
        self.now = 100.0
        self.events: list[Transfer] = []
        self.turns, self.loop, self.line = Turns(), Loop(), Line()
        self.serving = Serving(answer, limits, self.events.append, self.turns, clock=lambda: self.now)
        self.work: list[tuple[Callable[[], Any], Callable[[Any], None]]] = []
        self.serving.begin(self.loop, lambda work, then: self.work.append((work, then)))
        self.over: list[Connection] = []
        self.connection = Connection(self.serving, self.line, "10.0.0.2", 1234, self.over.append)
        self.seen: set[tuple[State, State]] = set()

    @property
    def state(self) -> State:
        return self.connection.state

    def do(self, step: Callable[..., None], *given: object) -> Peer:
        before = self.state
        self.serving.step(self.connection, step, *given)
        if self.state is not before:
            self.seen.add((before, self.state))
        return self

    def get(self, data: bytes = GET) -> Peer:
        return self.do(self.connection.received, data)

    def open_files(self) -> Peer:
        for work, then in self.work:
            self.do(then, work())
        self.work.clear()
        return self

    def pumped(self, error: int = 0) -> Peer:
        passing = self.line.passing
        assert passing is not None
        passing.error = error
        return self.do(self.connection.reported, passing)

    def wait(self, seconds: float) -> Peer:
        self.now += seconds
        return self.do(self.connection.look_after, self.now)

    def answers(self) -> list[int]:
        return [int(part[:3]) for part in bytes(self.line.taken).split(b"HTTP/1.1 ")[1:]]


def small(_: Request) -> Response:
    return Response(body=b"hello", stage="kernel")


def large(_: Request) -> Response:
    return Response(body=bytes(10_000), stage="image")


def later(_: Request) -> Awaitable[Response]:
    return Later(Response(body=b"late"))


def on_disk(folder: Path) -> Callable[[Request], Response]:
    stored = artefact(folder, bytes(2000))
    return lambda _: Response(body=stored, wwid="n1", stage="image")


def sending() -> Peer:
    return Peer(large).get()


def waiting(folder: Path) -> Peer:
    peer = Peer(on_disk(folder))
    peer.turns.says = WAIT
    return peer.get()


def refused() -> Peer:
    return Peer(small).get(b"nonsense\r\n\r\n")


def test_http_connection_takes_every_way_of_the_table_and_no_other(tmp_path: Path) -> None:
    gone = b""
    peers = [
        Peer(small).get().get(gone),
        sending().pumped(),
        sending().do(lambda: None).pumped(errno.EPIPE),
        Peer(later).get().get(gone),
        Peer(on_disk(tmp_path / "a")).get().open_files(),
        waiting(tmp_path / "b").get(gone),
        refused().get(gone),
    ]
    for verdict in (GO, Verdict(False, 5)):
        peer = waiting(tmp_path / f"c{verdict.retry_after}")
        peers.append(peer.open_files().do(peer.connection.admitted, verdict))
    seen = {way for peer in peers for way in peer.seen}
    # With its files not open a node that may go is in HANDLING at once, by way of READING.
    seen.discard((State.WAITING, State.HANDLING))
    assert seen == {(before, after) for before, ways in TRANSITIONS.items() for after in ways}
    assert not [fault for peer in peers for fault in peer.loop.faults]


def test_http_connection_answers_a_head_in_any_two_pieces() -> None:
    for cut in range(1, len(GET)):
        peer = Peer(small).get(GET[:cut]).get(GET[cut:])
        assert peer.answers() == [200]
        assert bytes(peer.line.taken).endswith(b"hello")
        assert [event.outcome for event in peer.events] == [Outcome.DONE]


def test_http_connection_answers_one_request_a_turn() -> None:
    peer = Peer(small).get(GET * 3)
    assert peer.answers() == [200]
    peer.loop.run()
    assert peer.answers() == [200, 200, 200]
    assert peer.serving.held == 0


def test_http_connection_sends_later_what_the_peer_does_not_take() -> None:
    peer = Peer(small)
    peer.line.room = 40
    peer.get()
    assert peer.state is State.SENDING
    peer.pumped()
    assert (peer.state, peer.answers(), peer.line.taken[-5:]) == (State.READING, [200], b"hello")
    assert [event.outcome for event in peer.events] == [Outcome.STARTED, Outcome.DONE]


def test_http_connection_keeps_what_comes_while_it_answers() -> None:
    peer = Peer(later).get().get(GET)
    assert (peer.answers(), peer.serving.held) == ([], len(GET))
    peer.loop.tasks[0].resume()
    assert (peer.answers(), peer.state, len(peer.loop.tasks)) == ([200], State.HANDLING, 2)


def test_http_connection_says_why_it_refuses_and_lets_it_be_read() -> None:
    peer = refused()
    assert (peer.answers(), peer.line.finished, peer.state) == ([400], True, State.LINGERING)
    assert b"\r\nAllow:" not in peer.line.taken
    assert b"\r\nConnection: close\r\n" in peer.line.taken
    peer.get(b"more that nobody reads").wait(LINGER / 2)
    assert peer.over == []
    peer.wait(LINGER)
    assert (peer.over, peer.line.closed) == ([peer.connection], True)


def test_http_connection_that_refuses_a_method_says_which_there_are() -> None:
    peer = Peer(small).get(b"PUT / HTTP/1.1\r\n\r\n")
    assert peer.answers() == [405]
    assert b"\r\nAllow: GET, HEAD, POST\r\n" in peer.line.taken


@pytest.mark.parametrize(
    ("data", "seconds", "status"),
    [(b"GET /a", LIMITS.head_seconds, [408]), (b"", LIMITS.head_seconds, []), (GET, LIMITS.idle_seconds, [200])],
    ids=["slow", "silent", "idle"],
)
def test_http_connection_does_not_wait_for_ever(data: bytes, seconds: float, status: list[int]) -> None:
    peer = Peer(small)
    if data:
        peer.get(data)
    peer.wait(seconds - 0.1)
    assert peer.answers() == [200][: len(status) if data == GET else 0]
    peer.wait(0.2).wait(LINGER + 0.1)
    assert (peer.answers(), peer.over) == (status, [peer.connection])


def test_http_connection_without_progress_is_cut_and_told() -> None:
    peer = sending().wait(1.0).wait(LIMITS.stall_seconds + 1)
    assert (peer.line.gone, peer.over) == (True, [])  # the pump has its descriptor still
    peer.pumped(errno.EPIPE)
    assert peer.over == [peer.connection]
    assert (peer.events[-1].outcome, peer.events[-1].detail) == (Outcome.FAILED, "no progress")


@pytest.mark.parametrize("make", [sending, refused, lambda: Peer(later).get(), lambda: Peer(small).get(GET * 2)])
def test_http_connection_that_ends_leaves_nothing(make: Callable[[], Peer]) -> None:
    peer = make()
    peer.do(peer.connection.close, "the server stopped")
    if peer.line.passing is not None:
        peer.pumped(errno.EPIPE)
    peer.loop.run()
    assert (peer.state, peer.over, peer.line.closed) == (State.CLOSED, [peer.connection], True)
    assert (peer.serving.held, peer.connection.answer, peer.connection.task) == (0, None, None)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("change", "alone"),
    [({}, False), ({"wwid": ""}, False), ({"waits": False}, False), ({"body": b"text"}, False), ({}, True)],
    ids=["a node's", "nobody's", "at once", "from memory", "no scheduler"],
)
def test_http_connection_only_what_nodes_fetch_from_disk_waits_for_its_turn(
    tmp_path: Path, change: dict[str, Any], alone: bool, method: str
) -> None:
    response = dataclasses.replace(Response(body=artefact(tmp_path, bytes(2000)), wwid="n1", stage="image"), **change)
    peer = Peer(lambda _: response)
    peer.turns.says = WAIT
    if alone:
        peer.serving.scheduler = None
    peer.get(GET.replace(b"GET", method.encode()))
    waits = method == "GET" and not change and not alone
    assert (peer.state is State.WAITING, list(peer.serving.waiting)) == (waits, ["n1"] * waits)


@pytest.mark.parametrize(("last", "sent"), [(True, 200_000), (True, 1000), (False, 200_000)])
def test_http_connection_turn_is_over_with_the_whole_of_the_last_object(tmp_path: Path, last: bool, sent: int) -> None:
    stored = artefact(tmp_path, bytes(200_000))
    peer = Peer(lambda _: Response(body=stored, wwid="n1", stage="system", last=last)).get().open_files()
    assert peer.line.passing is not None
    peer.line.passing.sent += sent
    peer.pumped(0 if sent == 200_000 else errno.EPIPE)
    peer.serving.files.close()
    assert peer.turns.over == [f"finished n1{' for good' if last and sent == 200_000 else ''}"]


def test_http_connection_of_a_server_that_stops_says_that_it_closes() -> None:
    peer = Peer(small)
    peer.serving.draining = True
    peer.get()
    assert b"\r\nConnection: close\r\n" in peer.line.taken
    assert peer.over == [peer.connection]


@pytest.mark.parametrize("wwid", ["n1", ""])
def test_http_connection_tells_the_scheduler_what_its_nodes_were_sent(tmp_path: Path, wwid: str) -> None:
    stored = artefact(tmp_path, bytes(200_000))
    peer = Peer(lambda _: Response(body=stored, wwid=wwid, stage="image")).get().open_files()
    assert peer.line.passing is not None
    peer.line.passing.sent += 200_000
    peer.pumped()
    peer.serving.files.close()
    assert (peer.turns.moved, peer.turns.over) == (([("n1", 200_000)], ["finished n1"]) if wwid else ([], []))


def test_http_connection_tells_its_progress_once_a_second() -> None:
    peer = sending()
    assert peer.line.passing is not None
    told = []
    for second in (0.25, 0.5, 1.0, 1.5, 2.0, 2.25):
        peer.line.passing.sent += 1000
        peer.wait(100.0 + second - peer.now)
        told.append((second, [event.outcome for event in peer.events].count(Outcome.PROGRESS)))
    assert told == [(0.25, 0), (0.5, 0), (1.0, 1), (1.5, 1), (2.0, 2), (2.25, 2)]
    peer.pumped()
    began, *_, done = peer.events
    assert (began.outcome, began.seconds, done.outcome) == (Outcome.STARTED, 0.0, Outcome.DONE)


@pytest.mark.parametrize("part", ["0-9", "5-", "10000-", "-0"])
def test_http_connection_a_head_is_never_that_of_a_part(part: str) -> None:
    """RFC 9110 14.2: a range is for GET alone."""
    peer = Peer(large).get(GET.replace(b"GET", b"HEAD").replace(b"Host: x", f"Range: bytes={part}".encode()))
    assert peer.answers() == [200]
    assert b"\r\nContent-Length: 10000\r\n" in peer.line.taken


@pytest.mark.parametrize(
    ("part", "error", "told"),
    [
        ("0-3999", 0, [(Outcome.STARTED, 0), (Outcome.PROGRESS, 4000)]),
        ("4000-7999", 0, [(Outcome.PROGRESS, 8000)]),
        ("8000-9999", 0, [(Outcome.DONE, 10_000)]),
        ("0-9999", 0, [(Outcome.STARTED, 0), (Outcome.DONE, 10_000)]),
        ("4000-7999", errno.EPIPE, [(Outcome.FAILED, 8000)]),
    ],
)
def test_http_connection_a_body_in_parts_begins_once_and_ends_with_its_last_byte(
    part: str, error: int, told: list[tuple[Outcome, int]]
) -> None:
    peer = Peer(large)
    peer.line.room = 0
    peer.get(GET.replace(b"Host: x", f"Range: bytes={part}".encode())).pumped(error)
    assert [(event.outcome, event.sent_bytes) for event in peer.events] == told
    assert {event.total_bytes for event in peer.events} == {10_000}


def test_http_connection_that_waited_gives_its_place_in_the_line_back(tmp_path: Path) -> None:
    peer = waiting(tmp_path)
    assert list(peer.serving.waiting) == ["n1"]
    peer.get(b"")
    assert (peer.serving.waiting, peer.turns.over) == ({}, ["left n1"])


def test_http_connection_ends_alone_when_a_handler_fails() -> None:
    def broken(_: Request) -> Response:
        raise ZeroDivisionError

    peer = Peer(broken).get()
    assert (peer.answers(), peer.state, len(peer.loop.faults)) == ([500], State.READING, 1)
