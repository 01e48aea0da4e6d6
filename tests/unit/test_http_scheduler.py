"""The wave scheduler on a virtual clock: a link of fixed rate, nodes that behave as their firmware does."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count, groupby

import pytest

from wwfast.daemon.traffic.scheduler import GAP, HELD_AT_MOST, HOLD, REST, SHORT_WAIT, SMALL, STALL, WaveScheduler
from wwfast.daemon.traffic.width import EPOCH, NARROWEST, Width
from wwfast.net.http.admission import GO, WAIT, Patience, Verdict

MIB = 1 << 20


class Link:
    """Serves admitted transfers alike at `rate` bytes/s in all, at most `each` per node; ticks every 50 ms."""

    def __init__(self, scheduler: WaveScheduler, rate: float, each: float = 1e18) -> None:
        self.scheduler, self.rate, self.each = scheduler, rate, each
        self.now = 0.0
        self.sent = 0.0
        self.left: dict[str, float] = {}
        self.size: dict[str, int] = {}
        self.stalled: set[str] = set()
        self.done: dict[str, float] = {}
        self.more: dict[str, list[tuple[float, int]]] = {}  # what a node asks for next: seconds later, bytes
        self.admitted: list[str] = []
        self.held: dict[str, float] = {}
        self.refused: dict[str, int] = {}
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.order = count()
        self.most = 0

    def at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self.events, (when, next(self.order), what))

    def ask(self, key: str, size: int, patience: Patience = Patience.RETRIES, share: str = "") -> None:
        self.size[key] = size
        self.obey(key, self.scheduler.ask(key, share, size, patience, self.now), patience, share)

    def obey(self, key: str, verdict: Verdict, patience: Patience, share: str) -> None:
        if verdict.go:
            self.held.pop(key, None)
            self.left[key] = self.size[key]
            self.admitted.append(key)
        elif verdict.retry_after:
            assert patience is Patience.RETRIES
            self.held.pop(key, None)
            self.refused[key] = self.refused.get(key, 0) + 1
            self.at(self.now + verdict.retry_after, lambda: self.ask(key, self.size[key], patience, share))
        else:
            self.held.setdefault(key, self.now)

    def run(self, until: float, step: float = 0.05) -> None:
        while self.now < until:
            self.now += step
            while self.events and self.events[0][0] <= self.now:
                heapq.heappop(self.events)[2]()
            self.most = max(self.most, len(self.left))
            budget = self.rate * step
            while budget >= 1 and (moving := [key for key in self.left if key not in self.stalled]):
                share = min(budget / len(moving), self.each * step, min(self.left[key] for key in moving))
                budget -= share * len(moving) if share < self.each * step else budget
                for key in moving:
                    self.left[key] -= share
                    self.sent += share
                    self.scheduler.progress(key, int(share), self.now)
                    if self.left[key] < 1:
                        self.finish(key)
                self.tick()
            self.tick()

    def finish(self, key: str) -> None:
        del self.left[key]
        more = self.more.get(key)
        self.scheduler.finished(key, not more, self.now)
        if more:
            pause, size = more.pop(0)
            self.at(self.now + pause, lambda: self.ask(key, size, Patience.LONG))
        else:
            self.done[key] = self.now

    def tick(self) -> None:
        for key, verdict in self.scheduler.tick(int(self.sent), self.now):
            self.obey(key, verdict, Patience.RETRIES, "")


def test_a_storm_is_served_in_order_at_half_the_mean_and_nobody_is_lost() -> None:
    link = Link(WaveScheduler(), 300e6)
    nodes = [f"n{index:03}" for index in range(500)]
    for node in nodes:
        link.ask(node, 32 * MIB)
    floor = 500 * 32 * MIB / 300e6
    link.run(floor * 1.2)
    assert sorted(link.done) == nodes
    assert max(link.done.values()) <= floor * 1.05
    assert sum(link.done.values()) / 500 <= 1.10 * floor * 501 / 1000
    assert link.admitted == sorted(link.admitted, key=nodes.index)
    assert link.refused, "beyond the work held open, iPXE is told to come again"


def crowded(more: int, size: int, patience: Patience) -> WaveScheduler:
    """n0, n1 and so on: as many as are served at a time, and `more` that wait."""
    scheduler = WaveScheduler(NARROWEST)
    for index in range(NARROWEST + more):
        scheduler.ask(f"n{index}", "", size, patience, 0.0)
    return scheduler


@pytest.mark.parametrize("boots", [4.0, 40.0], ids=["soon", "slow hardware"])
def test_a_storm_in_two_stages_is_served_as_if_it_were_in_one(boots: float) -> None:
    """Kernel and stage-1; `boots` seconds later the image in pieces, at once and each a moment after the former."""
    link = Link(WaveScheduler(), 300e6)
    nodes = [f"n{index:03}" for index in range(500)]
    piece = 8 * MIB
    for node in nodes:
        link.more[node] = [(boots, piece), *[(0.02, piece)] * 3]
        link.ask(node, 12 * MIB)
    first, image = 12 * MIB / 300e6, 4 * piece / 300e6
    one = first + image
    ends = [max(one * place, first + boots + image * place) for place in range(1, 501)]
    link.run(500 * one * 1.1 + boots, 0.01)
    assert len(link.done) == 500
    assert max(link.done.values()) <= 1.03 * ends[-1]  # 1.08 where those who come back go at once
    assert sum(link.done.values()) <= 1.08 * sum(ends)  # 1.18
    assert not link.scheduler.tickets


def test_who_comes_back_after_a_pause_waits_again_before_others() -> None:
    scheduler = WaveScheduler(1)
    assert scheduler.ask("a", "", 16 * MIB, Patience.RETRIES, 0.0) == GO
    for index in range(NARROWEST + 3):
        scheduler.ask(f"n{index}", "", 16 * MIB, Patience.LONG, 0.0)
    scheduler.finished("a", False, 1.0)
    went = [key for key, _ in scheduler.tick(0, 1.0 + GAP)]
    assert went
    assert scheduler.ask("a", "", SMALL, Patience.LONG, 1.2) == GO
    assert scheduler.ask("a", "", 16 * MIB, Patience.LONG, 1.2) == WAIT
    assert scheduler.standing("a") == (1, pytest.approx(16 * MIB * NARROWEST / 1.25e9))
    scheduler.finished(went[0], True, 1.5)
    assert scheduler.tick(0, 1.5) == [("a", GO)]


def test_small_objects_never_wait() -> None:
    scheduler = WaveScheduler()
    for index in range(100):
        scheduler.ask(f"n{index}", "", 64 * MIB, Patience.RETRIES, 0.0)
    assert scheduler.ask("late", "", SMALL, Patience.RETRIES, 0.0) == GO


def test_small_objects_that_end_take_no_place_away() -> None:
    scheduler = crowded(1, 16 * MIB, Patience.LONG)
    scheduler.finished("nobody", True, 0.1)
    late = f"n{NARROWEST}"
    scheduler.finished(late, True, 0.1)  # what it had in one go beside what it waits for
    assert scheduler.standing(late) is not None
    scheduler.finished("n0", True, 0.2)
    assert scheduler.tick(0, 0.2) == [(late, GO)]


def test_a_ticket_covers_the_whole_set() -> None:
    scheduler = WaveScheduler()
    assert scheduler.ask("a", "", 16 * MIB, Patience.RETRIES, 0.0) == GO
    for index in range(50):
        scheduler.ask(f"n{index}", "", 16 * MIB, Patience.RETRIES, 0.0)
    scheduler.finished("a", False, 1.0)
    assert scheduler.ask("a", "", 64 * MIB, Patience.RETRIES, 1.0 + GAP / 2) == GO
    assert scheduler.standing("a") == (0, 0.0)
    scheduler.finished("a", True, 2.0)
    assert scheduler.standing("a") is None


@pytest.mark.parametrize("patience", [Patience.SHORT, Patience.LONG])
def test_grub_uefi_and_curl_never_get_a_503(patience: Patience) -> None:
    link = Link(WaveScheduler(), 100e6)
    for index in range(200):
        link.ask(f"n{index}", 32 * MIB, patience)
    link.run(3.2)
    assert not link.refused
    if patience is Patience.SHORT:
        assert not link.held, "their headers are due within 4 s, whatever the queue"
    else:
        assert link.held


def test_grub_and_uefi_wait_until_headers_may_be_no_later_and_not_less() -> None:
    scheduler = WaveScheduler()
    for index in range(NARROWEST + 1):
        scheduler.ask(f"n{index}", "", 32 * MIB, Patience.SHORT, 1000.0)
    for now in (1001.0, 1000.0 + SHORT_WAIT - 0.1, 1000.0 + SHORT_WAIT):
        for index in range(NARROWEST):
            scheduler.progress(f"n{index}", 1, now)
        went = scheduler.tick(0, now)
        assert went == ([(f"n{NARROWEST}", GO)] if now == 1000.0 + SHORT_WAIT else [])


def test_a_stalled_node_gives_up_its_slot_and_keeps_its_transfer() -> None:
    link = Link(WaveScheduler(NARROWEST), 100e6)
    for index in range(NARROWEST):
        link.ask(f"stuck{index}", 32 * MIB)
        link.stalled.add(f"stuck{index}")
    link.ask("next", 32 * MIB)
    link.run(STALL - 0.2)
    assert "next" not in link.admitted
    link.run(STALL + 0.2)
    assert "next" in link.admitted
    link.stalled.clear()
    link.run(10)
    assert len(link.done) == NARROWEST + 1


def test_a_node_told_to_come_again_keeps_its_place() -> None:
    link = Link(WaveScheduler(), 100e6)
    for index in range(600):
        link.ask(f"n{index:03}", 32 * MIB)
    assert link.refused.get("n599")
    assert not link.refused.get("n010")
    link.run(5)
    link.ask("late", 32 * MIB)
    link.run(230)
    assert len(link.done) == 601
    order = sorted(link.size, key=lambda key: (key == "late", key))
    assert max(abs(at - order.index(key)) for at, key in enumerate(link.admitted)) <= 30, "no more than a second off"


def test_the_link_is_not_idle_while_nodes_are_away() -> None:
    """Retry-After has whole seconds; the work held open covers it, also before the rate is known."""
    link = Link(WaveScheduler(), 1.2e9)
    for index in range(1000):
        link.ask(f"n{index:03}", 32 * MIB)
    link.run(1000 * 32 * MIB / 1.2e9 * 1.05)
    assert len(link.done) == 1000


def test_shares_are_served_alike_whatever_their_size() -> None:
    link = Link(WaveScheduler(), 100e6)
    for index in range(90):
        link.ask(f"big{index}", 32 * MIB, Patience.LONG, "big")
    for index in range(10):
        link.ask(f"small{index}", 32 * MIB, Patience.LONG, "small")
    link.run(11.0)
    done = [key for key in link.done if key.startswith("small")]
    assert len(done) >= 9, "ten of each were to be had by now"


def test_place_and_eta_are_told() -> None:
    link = Link(WaveScheduler(), 100e6)
    for index in range(50):
        link.ask(f"n{index:03}", 25_000_000)
    link.run(2.05)
    first, last = link.scheduler.standing("n020"), link.scheduler.standing("n049")
    assert first is not None
    assert last is not None
    assert first.place < last.place == link.scheduler.figures["queued"]
    assert last.eta == pytest.approx((50 - 8) * 0.25, rel=0.3)
    assert first.eta < HOLD
    late = link.scheduler.outlook("n050")
    assert late.place == last.place + 1
    assert late.eta >= last.eta
    assert link.scheduler.outlook("n020") == first
    assert link.scheduler.standing("n050") is None, "to look is not to ask"
    assert WaveScheduler().outlook("n000") == (0, 0.0)


def test_a_closed_connection_keeps_its_place_for_a_while() -> None:
    scheduler = crowded(0, 2 * MIB, Patience.RETRIES)
    for name in ("first", "second"):
        scheduler.ask(name, "", 2 * MIB, Patience.RETRIES, 0.0)
    scheduler.left("first", 0.1)
    scheduler.finished("n0", True, 0.2)
    assert scheduler.tick(0, 0.2) == [("second", GO)]
    scheduler.finished("n1", True, 0.3)
    assert scheduler.tick(0, 0.3) == []
    assert scheduler.ask("first", "", 2 * MIB, Patience.RETRIES, 0.4) == GO


def test_a_place_outlives_its_connection_by_a_while_and_no_longer() -> None:
    scheduler = crowded(0, 2 * MIB, Patience.RETRIES)
    scheduler.ask("gone", "", 2 * MIB, Patience.RETRIES, 0.0)
    scheduler.left("gone", 0.1)
    scheduler.tick(0, REST)
    assert scheduler.standing("gone") is not None
    scheduler.tick(0, REST + 1.1)
    assert scheduler.standing("gone") is None


def test_a_place_outlives_the_longest_pause_of_stage_1() -> None:
    scheduler = crowded(0, 2 * MIB, Patience.LONG)
    scheduler.ask("cut", "", 2 * MIB, Patience.LONG, 0.0)
    scheduler.left("cut", 600.0)
    back = 600.0 + 48.0 + 10.0  # its pause, and that long it tries to connect
    for second in range(601, int(back)):
        scheduler.ask(f"later{second}", "", 2 * MIB, Patience.LONG, second)
        for index in range(NARROWEST):
            scheduler.progress(f"n{index}", 1, second)
        scheduler.tick(0, second)
    assert scheduler.ask("cut", "", 2 * MIB, Patience.LONG, back) == WAIT
    scheduler.finished("n0", True, back)
    assert scheduler.tick(0, back) == [("cut", GO)]


def test_what_is_ahead_of_a_node_is_whole_sets_as_they_turn_out_to_be() -> None:
    scheduler = crowded(4, 2 * MIB, Patience.LONG)
    scheduler.progress("n0", 100 * MIB, 0.5)
    scheduler.finished("n0", True, 0.5)
    scheduler.tick(0, 1.0)  # n8 is served
    ahead = (NARROWEST + 2) * 100 * MIB / 1.25e9
    assert scheduler.standing(f"n{NARROWEST + 3}") == (3, pytest.approx(ahead))
    scheduler.progress("n1", 40 * MIB, 1.5)
    scheduler.tick(0, 2.0)
    assert scheduler.standing(f"n{NARROWEST + 3}") == (3, pytest.approx(ahead - 40 * MIB / 1.25e9))
    late = scheduler.outlook("late")
    assert late == (4, pytest.approx(ahead + 60 * MIB / 1.25e9))


def test_curl_is_held_for_as_long_as_it_takes_and_never_sent_away() -> None:
    scheduler = crowded(3, 100 * MIB, Patience.LONG)
    scheduler.rate = 1e5
    for second in range(1, 200):
        for index in range(NARROWEST):
            scheduler.progress(f"n{index}", 1, float(second))
        assert scheduler.tick(0, float(second)) == []


def test_everything_is_forgotten_in_the_end() -> None:
    link = Link(WaveScheduler(), 100e6)
    for index in range(50):
        link.ask(f"n{index}", 4 * MIB)
    link.scheduler.left("n49", 0.0)
    link.run(2 * REST)
    assert len(link.done) == 49
    assert link.scheduler.tickets == {}
    assert link.scheduler.figures["queued"] == 0
    assert link.scheduler.figures["served"] == 0


def test_width_grows_when_each_node_is_slow_and_shrinks_when_few_suffice() -> None:
    slow = Link(WaveScheduler(), 1000e6, each=20e6)
    for index in range(1500):
        slow.ask(f"n{index}", 20 * MIB, Patience.LONG)
    slow.run(25)
    assert 40 <= slow.scheduler.width <= 110, "50 nodes of 20 MB/s fill a link of 1000 MB/s"
    fast = Width(64)
    now = 0.0
    for _ in range(400):
        now += EPOCH / 4
        fast.measure(int(now * 300e6), now, queued=True)
    assert fast.now <= 16


def test_ipxe_is_never_held_beyond_its_patience() -> None:
    """The link turns out slow after nodes were held open: they are told to come again long before they give up."""
    link = Link(WaveScheduler(), rate=1e5)
    for number in range(30):
        link.ask(f"n{number}", 100 * MIB)
    assert link.held
    for second in range(1, 200):
        link.run(float(second))
        assert all(link.now - since < HELD_AT_MOST + 2 for since in link.held.values())
    assert link.refused


def test_ipxe_is_not_held_on_by_a_forecast_that_never_comes_true() -> None:
    """Those in service have had all their bytes and do not end: `soon` is believed no longer than twice."""
    scheduler = WaveScheduler()
    now, busy = 0.0, 0
    while scheduler.ask(f"n{busy}", "", MIB * 10, Patience.RETRIES, now).go:
        scheduler.progress(f"n{busy}", MIB * 100, now)
        busy += 1
    answered = False
    while not answered and now < 2 * HELD_AT_MOST + 2:
        now += 0.5
        for number in range(busy):
            scheduler.progress(f"n{number}", 1, now)
        answered = any(key == f"n{busy}" for key, _ in scheduler.tick(0, now))
    assert answered


def test_scheduler_begins_as_narrow_as_it_gets() -> None:
    assert WaveScheduler().width == NARROWEST


def test_a_share_that_had_nothing_to_ask_for_has_earned_no_credit() -> None:
    """Of two that ask from now on, each has every other turn, whatever one of them had before."""
    scheduler = WaveScheduler(NARROWEST)
    for number in range(NARROWEST + 20):
        scheduler.ask(f"busy{number:02}", "busy", 2 * MIB, Patience.LONG, 0.0)
    now, turns = 0.0, list[str]()
    for number in range(NARROWEST + 12):
        if number == NARROWEST:
            for other in range(10):
                scheduler.ask(f"idle{other}", "idle", 2 * MIB, Patience.LONG, now)
        now += 0.1
        scheduler.finished((f"busy{number:02}" if number < NARROWEST else turns[-NARROWEST]), True, now)
        turns += [key for key, _ in scheduler.tick(0, now)]
    assert [turn[:4] for turn in turns[NARROWEST:]] in (["idle", "busy"] * 6, ["busy", "idle"] * 6)


def test_places_of_several_shares_are_those_in_which_they_will_be_served() -> None:
    """Shares whose nodes fetch other amounts, so that each has had another one when the places are told."""
    scheduler = WaveScheduler(NARROWEST)
    sizes = {"large": 8 * MIB, "small": 2 * MIB, "middle": 5 * MIB, "another": 3 * MIB}
    for number in range(10):
        for share, size in sizes.items():
            scheduler.ask(f"{share}{number}", share, size, Patience.LONG, 0.0)
    waiting = [key for key, ticket in scheduler.tickets.items() if ticket.queued]
    served = [key for key in scheduler.tickets if key not in waiting]

    def serve(many: int, now: float) -> None:
        for _ in range(many):
            scheduler.finished(served[-NARROWEST], True, now)
            served.extend(key for key, _ in scheduler.tick(0, now))

    serve(6, 0.5)
    scheduler.tick(0, 1.0)
    told = sorted(set(waiting) - set(served), key=lambda key: scheduler.standing(key) or (0, 0.0))
    serve(len(told), 1.1)
    assert served[-len(told) :] == told


def told_to_come_again(rate: float, many: int) -> int:
    """Seconds that the last of so many behind those in service is told, at a rate that was measured (0: none)."""
    scheduler = WaveScheduler(NARROWEST)
    scheduler.rate = rate
    for number in range(NARROWEST):
        scheduler.ask(f"served{number}", "", 2_000_000, Patience.RETRIES, 0.0)
    for number in range(many):
        verdict = scheduler.ask(f"n{number}", "", 11_000_000, Patience.RETRIES, 0.0)
    assert not verdict.go
    return verdict.retry_after


def test_who_was_told_to_come_again_has_no_turn_until_it_has_come_and_then_its_own() -> None:
    scheduler = WaveScheduler(NARROWEST)
    scheduler.rate = 10e6
    keys = [f"n{number:02}" for number in range(NARROWEST + 20)]
    away = {key for key in keys if scheduler.ask(key, "", 11_000_000, Patience.RETRIES, 0.0).retry_after}
    here = [key for key in keys if key not in away]
    assert away
    scheduler.ask("late", "", 11_000_000, Patience.LONG, 0.1)
    served = here[:NARROWEST]
    for key in served:
        scheduler.finished(key, True, 0.2)
    while went := [key for key, _ in scheduler.tick(0, 0.2)]:
        served += went
        for key in went:
            scheduler.finished(key, True, 0.2)
    assert served == [*here, "late"]
    assert all(scheduler.ask(key, "", 11_000_000, Patience.RETRIES, 0.3).go for key in sorted(away)[:NARROWEST])


def test_a_node_that_asks_by_two_connections_goes_by_both() -> None:
    """The second one comes just when there is room, before anybody has told the first one."""
    scheduler = WaveScheduler(NARROWEST)
    for number in range(NARROWEST):
        assert scheduler.ask(f"n{number}", "", 11_000_000, Patience.LONG, 0.0).go
    assert scheduler.ask("twice", "", 11_000_000, Patience.LONG, 0.0) == WAIT
    scheduler.finished("n0", True, 0.01)
    assert scheduler.ask("twice", "", 11_000_000, Patience.LONG, 0.02) == GO
    assert scheduler.tick(0, 0.05) == [("twice", GO)]
    assert scheduler.tick(0, 0.1) == []


def test_a_node_that_waits_by_one_connection_is_not_sent_away_by_another() -> None:
    """Its turn would be of who comes again, and the one that waits would never be told."""
    scheduler = WaveScheduler(NARROWEST)
    scheduler.rate = 10e6
    for number in range(NARROWEST + 20):
        scheduler.ask(f"n{number:02}", "", 11_000_000, Patience.RETRIES, 0.0)
    assert scheduler.ask("twice", "", 11_000_000, Patience.LONG, 0.1) == WAIT
    assert scheduler.ask("other", "", 11_000_000, Patience.RETRIES, 0.1).retry_after
    assert scheduler.ask("twice", "", 11_000_000, Patience.RETRIES, 0.1) == WAIT


def test_the_place_of_who_was_told_to_come_again_outlives_that_time_by_a_while() -> None:
    scheduler = WaveScheduler(NARROWEST)
    scheduler.rate = 10e6
    for number in range(NARROWEST + 20):
        verdict = scheduler.ask(
            "last" if number == NARROWEST + 19 else f"n{number}", "", 11_000_000, Patience.RETRIES, 0.0
        )
    assert verdict.retry_after
    scheduler.tick(0, verdict.retry_after + REST)
    assert scheduler.standing("last") is not None
    scheduler.tick(0, verdict.retry_after + REST + 1.1)
    assert scheduler.standing("last") is None


def test_to_come_again_is_half_the_way_to_the_turn_and_more_where_many_do() -> None:
    assert told_to_come_again(0.0, 2000) == 1 + 2000 // 500, "at once while nothing is known"
    assert told_to_come_again(10e6, 9) == 0, "less than 10 s of work: held open"
    assert told_to_come_again(10e6, 10) == 3, "8 * 0.2 + 10 * 1.1 s: less 5, by 2"
    assert told_to_come_again(10e6, 400) == 5
    assert told_to_come_again(10e6, 900) == 5 * 2


def test_width_pauses_between_trials_longer_after_each_that_failed_to_narrow() -> None:
    """A link that 48 fill and 47 do not, begun too wide; one epoch settles after each change."""
    width, sent, now, seen = Width(48), 0.0, 0.0, list[int]()
    width.measure(0, now, queued=True)
    for _ in range(80):
        now += EPOCH
        sent += EPOCH * 1e6 * min(width.now, 48)
        width.measure(int(sent), now, queued=True)
        seen.append(width.now)
    runs = [(key, len(list(group))) for key, group in groupby(seen)]
    up, down = (72, 2), (36, 2)
    assert runs[:8] == [up, (48, 6), down, (48, 10), up, (48, 10), down, (48, 18)], runs


def test_width_looks_the_other_way_at_its_ends() -> None:
    width, sent, now, seen = Width(NARROWEST), 0.0, 0.0, list[int]()
    width.measure(0, now, queued=True)
    for _ in range(40):
        now += EPOCH
        sent += EPOCH * 1e6
        width.measure(int(sent), now, queued=True)
        seen.append(width.now)
    runs = [(key, len(list(group))) for key, group in groupby(seen)]
    assert runs == [(12, 2), (8, 11), (12, 2), (8, 11), (12, 2), (8, 11), (12, 1)], runs


def test_a_node_between_two_objects_keeps_its_slot_for_a_moment() -> None:
    scheduler = WaveScheduler(1)
    scheduler.ask("a", "", 16 * MIB, Patience.RETRIES, 0.0)
    for index in range(NARROWEST + 3):
        scheduler.ask(f"n{index}", "", 16 * MIB, Patience.LONG, 0.0)
    scheduler.tick(0, 0.1)
    scheduler.finished("a", False, 1.0)
    assert scheduler.tick(0, 1.0 + GAP / 2) == []
    assert [verdict for _, verdict in scheduler.tick(0, 1.0 + GAP * 1.5)] == [GO]
