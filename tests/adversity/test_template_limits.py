"""Templates that never end, take everything, or kill what runs them: their own node keeps what it had and is told why;
others notice nothing."""

from __future__ import annotations

import gc
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from support.everycommand import in_child
from support.overlays import Site, body
from wwfast.config.settings import load
from wwfast.errors import WwfastError
from wwfast.overlays.making import crew
from wwfast.overlays.making.crew import Hand
from wwfast.overlays.making.messages import Answer
from wwfast.overlays.making.orders import Job, Tried
from wwfast.overlays.making.service import OverlayService
from wwfast.paths import Paths

LIMITS = "wwfast: {template seconds: 1, template memory: 100, template output: 4}\n"
BAD = {
    "loops": ("{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}", "1 s of CPU time"),
    "backtracks": ("{{ ('a' * 60 ~ 'b') | regex_findall('^(a+)+$') }}", "1 s of CPU time"),
    "counts": ("{% set n = (id | length) + 7 %}{{ n ** (n ** n) }}", "1 s of CPU time"),
    "prints": ("{% for a in range(9000) %}{{ 'x' * 1000 }}{% endfor %}", "more than 4 MiB for this node"),
    "prints for ever": (
        "{% for a in range(90000) %}{% for b in range(90000) %}{{ 'x' * 1000 }}{% endfor %}{% endfor %}",
        "(100 MiB of memory|1 s of CPU time)",
    ),
    "allocates": ("{{ ('x' * 999999999) | length }}", "100 MiB of memory"),
    "recurses": ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "endless recursion"),
}


@pytest.fixture
def site(paths: Paths) -> Site:
    nodes = "nodes:\n" + "".join(f"  n{n}: {{system overlay: [base]}}\n" for n in range(1, 7))
    made = Site(paths, nodes=nodes, conf=f"ipaddr: 10.0.0.1/16\n{LIMITS}")
    made.put("base", "etc/name.j2", "{{ id }}\n")
    made.put("base", "etc/bad.j2", "good {{ id }}\n")
    return made


@pytest.mark.parametrize("kind", BAD)
def test_template_that_takes_too_much_is_told_and_costs_others_nothing(site: Site, kind: str) -> None:
    good = {name: body(site.ask(name)) for name in site.snapshot.nodes}
    source, limit = BAD[kind]
    site.put("base", "etc/bad.j2", f"{{% if id == 'n3' %}}\n{source}\n{{% endif %}}\ngood, {{{{ id }}}}\n")
    start = time.monotonic()
    with ThreadPoolExecutor(6) as pool:
        asked = dict(zip(good, pool.map(lambda name: body(site.ask(name)), good), strict=True))
    assert time.monotonic() - start < 60
    for name, raw in asked.items():
        assert raw == good[name] if name == "n3" else f"good, {name}\n".encode() in raw, name
    assert set(site.service.failures) == {("n3", "system")}
    message = site.service.failures["n3", "system"].message
    assert "overlay base, etc/bad.j2" in message
    assert "node n3" in message
    assert re.search(limit, message), message
    # While a number is computed nothing can be asked: there the kernel ends the worker.
    if kind in ("loops", "backtracks", "allocates", "recurses"):
        assert "line 2" in message
    site.put("base", "etc/bad.j2", "mended {{ id }}\n")
    assert b"mended n3\n" in body(site.ask("n3"))
    assert not site.service.failures


def test_templates_that_never_end_are_not_run_again_until_something_changes(site: Site) -> None:
    """Who is asked for again and again would have a worker, and its share of a core, nearly all the time."""
    good = {name: body(site.ask(name)) for name in site.snapshot.nodes}
    never = "{% if id in ('n2', 'n3', 'n4') %}" + BAD["loops"][0] + "{% endif %}"
    site.put("base", "etc/bad.j2", never + "new {{ id }}\n")
    bad = ("n2", "n3", "n4")
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(lambda name: body(site.ask(name)), bad)) == [good[name] for name in bad]
    runs, serve = [], site.service.orders.serve

    def served(*given: Any) -> list[Job]:
        runs.append(given)
        return serve(*given)

    site.service.orders.serve = served  # type: ignore[method-assign]
    for _ in range(20):
        assert [body(site.ask(name)) for name in bad] == [good[name] for name in bad]
    assert not runs
    assert all(f"new {name}\n".encode() in body(site.ask(name)) for name in good if name not in bad)
    assert set(site.service.failures) == {(name, "system") for name in bad}
    site.put("base", "etc/bad.j2", "mended {{ id }}\n")
    assert all(f"mended {name}\n".encode() in body(site.ask(name)) for name in good)
    assert not site.service.failures


def test_template_that_rested_is_run_behind_all_others_and_rests_longer(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.put("base", "etc/bad.j2", "{% if id == 'n3' %}" + BAD["loops"][0] + "{% endif %}")
    site.ask("n1")
    orders = site.service.orders
    lows: list[bool] = []
    ask = Hand.ask

    def asked(hand: Hand, *given: Any, **how: bool) -> list[Answer]:
        lows.append(hand.lowered and os.getpriority(os.PRIO_PROCESS, hand.pid) == 19)
        return ask(hand, *given, **how)

    def failed() -> Tried:
        lows.clear()
        with pytest.raises(WwfastError, match="CPU time"):
            site.ask("n3")
        made = orders.tried["n3", "system"]
        made.until = 0.0
        return made

    monkeypatch.setattr(Hand, "ask", asked)
    first, again = failed(), failed()
    while again.generation != first.generation:  # what is news, of others' mounts too, has it tried as if never before
        first, again = again, failed()
    assert lows == [True]
    assert again.rest >= 2 * first.rest
    # Where all who are tried again are at work already, one more holds no worker.
    while orders.again.acquire(blocking=False):
        pass
    told = []
    for _ in range(2):
        with pytest.raises(WwfastError, match="CPU time") as caught:
            site.ask("n3")
        told.append(caught.value)
    assert told[0] is not told[1], "frames of all who were told would gather in one"
    assert lows == [True]
    site.ask("n2")
    assert lows == [True, False]


def test_node_that_stalls_in_a_batch_keeps_none_of_those_who_were_asked_for_with_it(paths: Paths) -> None:
    nodes = "nodes:\n" + "".join(f"  n{n:03d}: {{system overlay: [base]}}\n" for n in range(120))
    site = Site(paths, nodes=nodes, conf="ipaddr: 10.0.0.1/16\nwwfast: {template seconds: 4}\n")
    site.put("base", "etc/name.j2", "{{ id }}\n")
    site.ask("n000")
    bad = {"n005", "n050", "n055"}
    site.put("base", "etc/bad.j2", f"{{% if id in {sorted(bad)} %}}{BAD['loops'][0]}{{% endif %}}new {{{{ id }}}}\n")
    waits: dict[str, float] = {}
    start = time.monotonic()

    def ask(name: str) -> None:
        try:
            assert f"new {name}\n".encode() in body(site.ask(name))
            waits[name] = time.monotonic() - start
        except WwfastError:
            assert name in bad

    with ThreadPoolExecutor(40) as pool:
        list(pool.map(ask, site.snapshot.nodes))
    assert waits.keys() == set(site.snapshot.nodes) - bad
    assert max(waits.values()) < 4  # before the first of them was over
    assert {name for name, _ in site.service.failures} == bad


def test_template_limits_hold_for_the_command_too(site: Site) -> None:
    site.put("base", "etc/bad.j2", "{% if id == 'n3' %}" + BAD["loops"][0] + "{% endif %}{{ id }}\n")
    service = OverlayService(site.paths, load(site.paths), alone=True)
    try:
        report = service.build(site.snapshot, processes=2)
    finally:
        service.close()
    assert set(report.failures) == {("n3", "system")}
    assert "line 1" in report.failures["n3", "system"].message
    assert (report.asked, report.changed) == (12, 11)


def test_template_is_not_computed_while_it_is_compiled(site: Site) -> None:
    """An expression of constants that never ends is the trouble of the node that gets there, not of all."""
    site.put(
        "base", "etc/bad.j2", "{% if id == 'n3' %}" + BAD["backtracks"][0] + "{% set x = 9 ** 9 ** 9 %}{% endif %}\n"
    )
    assert b"n1\n" in body(site.ask("n1"))


def test_template_that_never_ends_in_the_shared_part_fails_every_node_with_its_reason(site: Site) -> None:
    site.put("base", "etc/bad.j2", BAD["loops"][0])
    for name in ("n1", "n2"):
        with pytest.raises(WwfastError, match=rf"etc/bad\.j2, line 1, node {name}: .*1 s of CPU time"):
            site.ask(name)


def helper() -> int:
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return next(int(pid) for pid in children if b"making.crew" in Path(f"/proc/{pid}/cmdline").read_bytes())


def test_overlay_workers_killed_again_and_again_in_a_storm_lose_no_node(paths: Paths) -> None:
    count = 200
    nodes = "nodes:\n" + "".join(f"  n{n:03d}: {{system overlay: [base]}}\n" for n in range(count))
    site = Site(paths, nodes=nodes)
    site.put("base", "etc/name.j2", "{{ id }}{% for n in range(3000) %}{% endfor %}\n")
    site.ask("n000")
    stop, killed, chance = threading.Event(), [0], random.Random(3)
    mine = helper()

    def kill() -> None:
        while not stop.is_set() and killed[0] < 100:
            there = Path(f"/proc/{mine}/task/{mine}/children").read_text().split()
            with suppress(IndexError, ProcessLookupError):  # there is none just now, or no longer
                os.kill(int(chance.choice(there)), signal.SIGKILL)
                killed[0] += 1
            time.sleep(chance.uniform(0.02, 0.15))

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        version = 0
        with ThreadPoolExecutor(8) as pool:
            while killed[0] < 100:
                version += 1
                site.put("base", "etc/version.j2", f"{version} {{{{ id }}}}\n")
                for name, raw in zip(
                    site.snapshot.nodes, pool.map(lambda n: body(site.ask(n)), site.snapshot.nodes), strict=True
                ):
                    assert f"{version} {name}\n".encode() in raw or (name, "system") in site.service.failures
    finally:
        stop.set()
        killer.join()
    assert all(f"{version} {name}\n".encode() in body(site.ask(name)) for name in site.snapshot.nodes)
    assert not site.service.failures


def test_overlay_helper_killed_is_started_anew(site: Site) -> None:
    site.ask("n1")
    os.kill(helper(), signal.SIGKILL)
    for n in range(2):
        site.put("base", "etc/name.j2", f"{n} {{{{ id }}}}\n")
        assert f"{n} n2\n".encode() in body(site.ask("n2"))


def test_overlay_helper_of_its_parent_is_let_go_by_a_copy_without_a_word(site: Site) -> None:
    """Python warned of a process that still runs, where warnings are errors."""
    site.ask("n1")

    def copy() -> list[str]:
        said: list[str] = []
        sys.unraisablehook = lambda it: said.append(repr(it.exc_value))
        warnings.simplefilter("error")
        crew.Helper._gone()
        gc.collect()
        return said

    first = helper()
    assert in_child(copy) == []
    site.put("base", "etc/name.j2", "1 {{ id }}\n")
    assert b"1 n1\n" in body(site.ask("n1"))
    assert helper() == first


def test_overlay_worker_of_a_helper_that_was_killed_costs_the_next_helper_nothing(site: Site) -> None:
    """It is ended through whoever is the helper then, which never heard of it; who has that one goes on."""
    old = site.service
    site.ask("n1")
    os.kill(helper(), signal.SIGKILL)
    site.new_service()
    site.put("base", "etc/name.j2", "0 {{ id }}\n")
    assert b"0 n1\n" in body(site.ask("n1"))
    second = helper()
    old.close()
    assert helper() == second
    site.put("base", "etc/name.j2", "1 {{ id }}\n")
    assert b"1 n2\n" in body(site.ask("n2"))


PROGRAM = """
import sys
from contextlib import closing
from pathlib import Path
from support.overlays import Site
from wwfast.paths import Paths

site = Site(Paths.at(Path(sys.argv[1])))
site.put("base", "etc/name.j2", "{{ id }}")
site.nodes("nodes: {n1: {system overlay: [base]}}")
with closing(site.service):
    site.ask()
    print(*(child for task in Path("/proc/self/task").iterdir() for child in (task / "children").read_text().split()))
"""


def test_template_workers_end_before_whoever_started_them(tmp_path: Path) -> None:
    """A network namespace, a chroot or a file system that the server had can be taken away as soon as it has ended."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        stdout=subprocess.PIPE,
        timeout=60,
        check=True,
    )
    children = done.stdout.split()
    assert children
    assert not [child for child in children if Path("/proc", child.decode()).exists()]
