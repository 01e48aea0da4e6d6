"""The window state machine against peers and networks of every temper, on a virtual clock."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.tftp import Line, awful, fetch, perfect
from wwfast._ext.transfers import Transfers
from wwfast.net.tftp import packet
from wwfast.net.tftp.packet import Terms, negotiate, parse_request
from wwfast.net.tftp.transfer import GIVE_UP, Receiver, Sender


def pair(data: bytes, **options: str) -> tuple[Sender, Receiver]:
    receiver = Receiver("x", options)
    terms = negotiate(parse_request(receiver.start(0.0)[0]), len(data))
    return Sender(data, terms, 0.0), receiver


def content(size: int) -> bytes:
    return (b"0123456789abcdef" * (size // 16 + 1))[:size]


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 1024, 100_000])
@pytest.mark.parametrize("options", [{}, {"blksize": "1432", "tsize": "0"}, {"blksize": "1468", "windowsize": "4"}])
def test_tftp_transfers_arrive_whole(size: int, options: dict[str, str]) -> None:
    sender, receiver = pair(content(size), **options)
    line = Line(perfect)
    fetch(sender, receiver, line)
    assert sender.done
    assert receiver.data == content(size)
    blocks = size // int(options.get("blksize", 512)) + 1
    assert sum(1 for to, data in line.carried if to == "receiver" and data[1] == 3) == blocks, "no block goes twice"


def test_tftp_block_numbers_roll_over() -> None:
    sender, receiver = pair(content(8 * 70_000), blksize="8", windowsize="16")
    fetch(sender, receiver, Line(perfect))
    assert sender.done
    assert receiver.data == content(8 * 70_000)


@given(seed=st.integers(0, 1 << 32), window=st.sampled_from([1, 2, 4, 16]), size=st.integers(0, 30_000))
def test_tftp_survives_loss_repetition_and_disorder(seed: int, window: int, size: int) -> None:
    sender, receiver = pair(content(size), blksize="512", windowsize=str(window))
    fetch(sender, receiver, Line(awful(seed, lose=0.05, repeat=0.05, jitter=0.004)))
    assert receiver.data == content(size)


@pytest.mark.parametrize("window", [1, 4])
def test_tftp_one_duplicate_does_not_breed(window: int) -> None:
    """The sorcerer's apprentice: every packet arrives twice, yet what is sent does not grow."""
    sender, receiver = pair(content(200 * 512), blksize="512", windowsize=str(window))
    line = Line(lambda data, index: [0.001, 0.0011])
    fetch(sender, receiver, line)
    sent = sum(1 for to, data in line.carried if to == "receiver" and data[1] == 3)
    assert sender.done
    assert sent == 201


def test_tftp_lost_first_block_of_a_window_is_repeated_before_the_timeout() -> None:
    sender, receiver = pair(content(40 * 512), blksize="512", windowsize="4")
    lost = iter([True])
    seconds = fetch(
        sender, receiver, Line(lambda data, index: [] if data[:4] == b"\0\3\0\x09" and next(lost, False) else [0.001])
    )
    assert receiver.data == content(40 * 512)
    assert seconds < 0.09, "by the repeated ACK, not by a timeout"


def test_tftp_timeouts_double_and_end() -> None:
    sender = Sender(content(5000), Terms(), 0.0)
    times = []
    now = 0.0
    sender.start(now)
    while not sender.failed:
        now = sender.deadline
        if sender.tick(now):
            times.append(now)
    gaps = [later - earlier for earlier, later in zip([0.0, *times], times, strict=False)]
    assert gaps[:4] == [1.0, 2.0, 4.0, 4.0]
    assert now >= GIVE_UP
    assert sender.error == (0, "the peer stopped answering")


def test_tftp_asked_timeout_is_kept() -> None:
    sender = Sender(content(5000), Terms(timeout=5, oack={"timeout": "5"}), 0.0)
    sender.start(0.0)
    assert sender.deadline == 5.0
    sender.receive(packet.ack(0), 0.001)
    assert sender.deadline == pytest.approx(5.001)


def test_tftp_size_probe_ends_after_the_oack() -> None:
    sender, _ = pair(content(5000), tsize="0")
    assert packet.parse_oack(sender.start(0.0)[0]) == {"tsize": "5000"}
    assert sender.receive(packet.error(8, "User aborted the transfer"), 0.001) == []
    assert sender.failed
    assert sender.acked == 0


@given(st.lists(st.binary(max_size=40), max_size=30))
def test_tftp_noise_never_breaks_a_transfer(noise: list[bytes]) -> None:
    sender, receiver = pair(content(3000), windowsize="4")
    sender.start(0.0)
    for data in noise:
        if data[:2] != b"\0\5":
            sender.receive(data, 0.001)
            receiver.receive(data, 0.001)
    assert not sender.failed


class Both:
    """A Sender and the native engine side by side: every step must give the same packets."""

    def __init__(self, sender: Sender) -> None:
        self.sender = sender
        self.engine = Transfers()

    def _same(self, expected: list[bytes]) -> list[bytes]:
        assert [data for _, _, _, data in self.engine.take()] == expected
        return expected

    def start(self, now: float) -> list[bytes]:
        terms = self.sender.terms
        oack = packet.oack(terms.oack) if terms.oack else b""
        self.engine.start(0, 1, 2, self.sender.data, terms.blksize, terms.windowsize, terms.timeout, oack=oack, now=now)
        return self._same(self.sender.start(now))

    def receive(self, data: bytes, now: float) -> list[bytes]:
        self.engine.feed(0, 1, 2, data, now)
        if self.sender.done or self.sender.failed:
            self.engine.take()  # nothing, or later "unknown transfer", which the specification leaves to the server
            return []
        return self._same(self.sender.receive(data, now))

    def tick(self, now: float) -> list[bytes]:
        self.engine.tick(now)
        return self._same(self.sender.tick(now))

    def __getattr__(self, name: str):
        return getattr(self.sender, name)


@given(
    seed=st.integers(0, 1 << 32),
    window=st.sampled_from([1, 2, 4, 16]),
    size=st.integers(0, 30_000),
    timeout=st.sampled_from([None, "1", "3"]),
    lose=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
)
def test_tftp_native_engine_sends_what_the_specification_says(seed, window, size, timeout, lose) -> None:
    options = {"blksize": "512", "windowsize": str(window)} | ({"timeout": timeout} if timeout else {})
    sender, receiver = pair(content(size), **options)
    both = Both(sender)
    fetch(both, receiver, Line(awful(seed, lose=lose, repeat=0.05, jitter=0.004)))
    told = {what: (sent, code) for _, what, sent, code, _ in both.engine.drain()}
    assert ("done" in told) == sender.done
    assert ("failed" in told) == sender.failed
    if sender.done:
        assert told["done"] == (size, 0)


def test_tftp_engine_refuses_strangers_and_forgives_the_late() -> None:
    engine = Transfers()
    engine.start(0, 1, 2, b"x" * 100, 512, 1, now=0.0)
    assert engine.take() == [(0, 1, 2, packet.data(1, b"x" * 100))]
    engine.feed(0, 1, 3, packet.ack(1), 0.001)
    assert engine.take() == [(0, 1, 3, packet.error(5, "unknown transfer"))]
    engine.feed(0, 1, 3, packet.error(5, "no"), 0.001)
    assert engine.take() == [], "an error is never answered with an error"
    engine.feed(0, 1, 2, packet.ack(1), 0.002)
    engine.feed(0, 1, 2, packet.ack(1), 0.003)
    assert engine.take() == []
    assert [what for _, what, *_ in engine.drain()] == ["begun", "done"]
    engine.tick(10.0)
    engine.feed(0, 1, 2, packet.ack(1), 10.0)
    assert [data for *_, data in engine.take()] == [packet.error(5, "unknown transfer")]


def test_tftp_abort_that_is_read_after_the_same_request_anew_leaves_it_its_answer() -> None:
    """They come by two sockets and are read by two threads: seen with a size probe on a busy machine."""
    engine, now, oack = Transfers(), time.monotonic(), packet.oack({"tsize": "100"})
    abort = packet.error(8, "User aborted the transfer")
    for peer in (1, 2, 3, 4, 5):
        engine.start(0, peer, 2, b"x" * (2000 if peer == 4 else 100), 512, 1, oack=oack, now=now)
        assert engine.again(0, peer, 2)
        engine.take()
        engine.feed(0, peer, 2, abort, now)
        assert engine.take() == [(0, peer, 2, oack)]
    engine.feed(0, 1, 2, packet.ack(0), now)
    assert engine.take() == [(0, 1, 2, packet.data(1, b"x" * 100))]
    engine.feed(0, 1, 2, packet.ack(1), now)
    engine.feed(0, 2, 2, abort, now)
    assert engine.live == 3, "a copy of the request answers for one abort"
    engine.feed(0, 4, 2, packet.ack(0), now)
    assert engine.again(0, 5, 2)
    engine.feed(0, 5, 2, abort, now + 1.5)
    assert engine.live == 2, "and not for one of its own, later"
    while engine.live:
        now += 0.5
        engine.tick(now)
        engine.take()
    ends = {(number, what): (sent, code) for number, what, sent, code, _ in engine.drain()}
    assert ends == {
        (1, "begun"): (0, 0),
        (1, "done"): (100, 0),
        (2, "failed"): (0, 8),
        (3, "failed"): (0, 8),
        (4, "begun"): (0, 0),
        (4, "failed"): (0, 0),  # no probe: it was there, and went
        (5, "failed"): (0, 8),
    }


@given(st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=200)), max_size=60))
def test_tftp_engine_takes_any_bytes(noise: list[tuple[int, bytes]]) -> None:
    engine = Transfers()
    data = content(5000)
    for peer in range(3):
        engine.start(0, peer, 69, data, 512, 4, now=0.0)
    for index, (peer, junk) in enumerate(noise):
        engine.feed(0, peer, 69, junk, index / 10)
        engine.tick(index / 10)
        engine.take()
    assert engine.live <= 3


def test_tftp_engine_runs_many_transfers_through_its_wheel() -> None:
    engine = Transfers()
    data = content(100)
    for peer in range(2000):
        engine.start(0, peer, 69, data, 512, 1, now=peer / 100)
        engine.take()
    now = 0.0
    while engine.live:
        now += 0.5
        engine.tick(now)
        engine.take()
        assert now < 60
    # Everything was sent, only its acknowledgement is missing: these count as done after five seconds.
    assert {what for _, what, *_ in engine.drain()} == {"done"}
    assert 24.5 <= now <= 30.0
