"""Whose turn it is at a cache in a rack, and that nobody waits for one that is dead or fails."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.daemon import serving, tiny_site, write_conf
from support.patience import until
from wwfast.config.settings import Cache
from wwfast.daemon.traffic import racks as module
from wwfast.daemon.traffic.racks import Racks
from wwfast.daemon.traffic.turns import FAILING, SHORTEST, TIMES, UNKNOWN, Place, Turns
from wwfast.daemon.traffic.width import NARROWEST
from wwfast.paths import Paths

RATE = 5e6  # bytes/s: 40 Mbit/s
IMAGE = 6 << 20
URL, OTHER = "http://10.1.0.1:9880", "http://10.2.0.1:9880"


def names(count: int, first: int = 0) -> list[str]:
    return [f"n{number}" for number in range(first, first + count)]


def asked(turns: Turns, nodes: list[str], now: float = 0.0) -> list[str]:
    """Those that go at once."""
    return [node for node in nodes if turns.ask(node, now) or turns.admitted(now) == [node]]


def test_rack_turns_let_a_few_go_and_the_next_when_one_is_over() -> None:
    turns = Turns(RATE)
    assert asked(turns, names(12)) == names(NARROWEST)
    assert turns.place("n0") is None
    assert turns.place("n8") == Place(1, 0.0)
    turns.over("n3", IMAGE, 10.0)
    assert turns.admitted(10.0) == ["n8"]
    assert turns.place("n9") == Place(1, 10.0)
    assert turns.figures == {"width": NARROWEST, "served": NARROWEST, "queued": 3}


def test_rack_turns_are_kept_by_who_asks_again() -> None:
    turns = Turns(RATE)
    asked(turns, names(12))
    assert turns.ask("n0", 1.0), "its list was cut off"
    assert not turns.ask("n9", 1.0)
    assert turns.place("n9") == Place(2, 0.0)


def test_rack_turns_count_places_once_a_second() -> None:
    """Each of thousands that wait is asked for its place by whoever looks at the nodes."""
    turns = Turns(RATE)
    asked(turns, names(12), now=100.0)
    turns.left("n9")
    assert turns.place("n9") is None
    assert not turns.ask("late", 100.5)
    assert turns.place("n11") == Place(4, 0.0), "as it was counted when it came"
    assert turns.place("late") == Place(4, 0.0)
    assert turns.admitted(101.5) == []
    assert [turns.place(node) for node in ("n8", "n10", "n11", "late")] == [Place(n, 0.0) for n in (1, 2, 3, 4)]


def test_rack_turns_widen_where_nodes_take_less_than_their_part() -> None:
    """Nodes that unpack at a twentieth of the link's rate: twenty of them fill it."""
    turns = Turns(RATE)
    asked(turns, names(50))
    turns.over("n0", IMAGE, IMAGE / RATE * 20)
    assert turns.width == 20
    assert len(turns.admitted(30.0)) == 20 - (NARROWEST - 1)
    turns.over("n1", IMAGE, 0.001)  # the first one may have been alone
    assert turns.width >= NARROWEST


def test_rack_turns_of_the_dead_end() -> None:
    turns = Turns(RATE)
    asked(turns, names(2 * NARROWEST))
    assert turns.admitted(UNKNOWN) == []
    assert turns.admitted(UNKNOWN + 1) == names(NARROWEST, NARROWEST)
    turns.over(names(1, NARROWEST)[0], int(40 * RATE / NARROWEST), UNKNOWN + 41)
    asked(turns, names(NARROWEST, 100), UNKNOWN + 41)
    assert turns.admitted(UNKNOWN + 1 + TIMES * 40 + 1) == names(NARROWEST - 1, 101)
    assert TIMES * 40 > SHORTEST


def test_rack_turns_of_a_cache_that_fails_are_nobodys() -> None:
    turns = Turns(RATE)
    asked(turns, names(20))
    turns.lost("n19", 5.0)
    assert turns.admitted(5.0) == [], "a node that had no turn says nothing of the cache"
    turns.lost("n0", 5.0)
    assert turns.admitted(5.0) == names(12, NARROWEST)
    assert turns.ask("late", 5.0 + FAILING - 1)
    assert not turns.ask("later", 5.0 + FAILING + 1), "those before still have theirs"


def test_rack_turns_learn_nothing_of_who_had_nothing_from_there() -> None:
    turns = Turns(RATE)
    asked(turns, names(9))
    turns.over("n0", 0, 1000.0)
    assert turns.width == NARROWEST
    assert turns.admitted(1000.0)[:1] == ["n8"]


def cache(url: str, rate: int) -> Cache:
    return Cache(url=url, networks=[], tags={}, rate=rate)


def test_rack_turn_is_waited_for_and_told_to_who_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three that wait one goes away, one asks by two connections; a cache without a rate has no turns."""

    async def play() -> None:
        racks = Racks([cache(URL, 40), cache(OTHER, 0)])
        for node in names(NARROWEST):
            await racks.turn(URL, node)
        await racks.turn(OTHER, "anybody")
        await racks.turn("http://10.9.9.9", "anybody")
        gone, twice, again, last = (
            asyncio.ensure_future(racks.turn(URL, node)) for node in ("gone", "twice", "twice", "last")
        )
        await asyncio.sleep(0)
        assert racks.place("twice") == Place(2, 0.0)
        gone.cancel()
        await asyncio.wait([gone])
        racks.heard("n0", {"carried": f"{URL}*{IMAGE}"})
        await asyncio.wait([twice, again], timeout=10)
        assert twice.done()
        assert again.done()
        assert not last.done()
        racks.heard("n1", {"carried": ""})  # all of it came from elsewhere
        await asyncio.wait_for(last, 10)
        assert racks.figures[URL] == {"fetched": 0, "given": IMAGE, "width": NARROWEST, "served": 8, "queued": 0}
        assert racks.figures[OTHER] == {"fetched": 0, "given": 0}

    asyncio.run(play())


def test_rack_turns_of_the_dead_end_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(module, "LOOK_SECONDS", 0)

    async def play() -> None:
        racks = Racks([cache(URL, 40)])
        for node in names(NARROWEST):
            await racks.turn(URL, node)
        waiting = asyncio.ensure_future(racks.turn(URL, "n8"))
        await racks.look()
        assert not waiting.done()
        now[0] = UNKNOWN + 1
        await racks.look()
        assert await asyncio.wait({waiting}, timeout=10) == ({waiting}, set())

    asyncio.run(play())


def test_rack_turn_that_ended_between_two_looks_is_the_next_ones_and_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks just then finds it ended; those who waited before it are told, too."""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])

    async def play() -> None:
        racks = Racks([cache(URL, 40)])
        for node in names(NARROWEST):
            await racks.turn(URL, node)
        first = asyncio.ensure_future(racks.turn(URL, "n8"))
        await asyncio.sleep(0)
        now[0] = UNKNOWN + 1
        await asyncio.wait_for(racks.turn(URL, "n9"), 10)
        await asyncio.wait_for(first, 10)

    asyncio.run(play())


def test_rack_turn_keeps_a_node_from_its_image_until_another_has_it(paths: Paths) -> None:
    """Its place is shown meanwhile; who asks in the name of a node from elsewhere is as one without a cache."""
    site = tiny_site(paths)
    write_conf(site, wwfast={"caches": [{"url": URL, "rate": 40}]})
    entry = 'profiles: [], image name: tiny, network devices: {{default: {{hwaddr: "{}", ipaddr: 10.0.1.{}}}}}'
    macs = [f"52:54:00:00:01:{number:02x}" for number in range(NARROWEST + 1)]
    nodes = [f"  n{at}: {{{entry.format(mac, at + 1)}}}\n" for at, mac in enumerate(macs)]
    site.nodes_conf.write_text("nodes:\n" + "".join(nodes))
    with serving(site) as running, ThreadPoolExecutor(1) as later:

        def fetch(mac: str) -> int:
            return running.get(f"/image/{mac}?image=tiny&from={URL}")[0]

        def place() -> object:
            told = running.get(f"/status?node=n{NARROWEST}")[1]
            return json.loads(told)["nodes"][f"n{NARROWEST}"].get("place")

        assert [fetch(mac) for mac in macs[:NARROWEST]] == [200] * NARROWEST
        assert running.get(f"/ipxe/{macs[NARROWEST]}")[0] == 200
        last = later.submit(fetch, macs[NARROWEST])
        until(lambda: place() == 1)
        assert not last.done()
        assert running.get(f"/image/{macs[NARROWEST]}?image=tiny")[0] == 200, "it goes to the server instead"
        assert running.get(f"/stage1/{macs[0]}?said=x&well=1&carried={URL}*1000")[0] == 200
        assert last.result(30) == 200
        assert place() is None
