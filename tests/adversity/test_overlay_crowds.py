"""Many nodes at once: bad ones among them, edits while they poll, and commands beside the server."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.overlays import Site
from wwfast.paths import Paths


def crowd(count: int, tag: str = "1") -> str:
    """nodes.conf; every hundredth node lacks the tag that its template asks for."""
    racks = ["" if n % 100 == 0 else f"rack: r{n % 40}, " for n in range(count)]
    lines = [f"  n{n}: {{system overlay: [base], tags: {{{rack}v: '{tag}'}}}}" for n, rack in enumerate(racks)]
    return "nodes:\n" + "\n".join(lines) + "\n"


@pytest.mark.parametrize("count", [2000, pytest.param(50_000, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
def test_overlay_bad_nodes_of_a_crowd_are_named_and_the_others_have_theirs(paths: Paths, count: int) -> None:
    site = Site(paths, nodes=crowd(count))
    site.put("base", "etc/rack.j2", "{{ id }} in {{ tags.rack }}\n")
    report = site.service.build(site.snapshot, contexts=("system",), processes=2)
    bad = {f"n{n}" for n in range(0, count, 100)}
    assert {node for node, _ in report.failures} == bad
    assert report.changed == count - len(bad)
    for (node, _), failure in report.failures.items():
        assert f"overlay base, etc/rack.j2, line 1, node {node}: " in failure.message
    assert site.text("etc/rack", f"n{count - 1}") == f"n{count - 1} in r{(count - 1) % 40}\n"


def test_overlay_edits_while_nodes_poll_are_what_the_next_poll_gets(paths: Paths) -> None:
    """2,000 nodes ask on 8 threads without pause; each edit is there for whoever asks after it."""
    count = 2000
    site = Site(paths, nodes=crowd(count))
    site.put("base", "etc/v.j2", "{{ tags.v }} of {{ id }}\n")
    site.service.build(site.snapshot, contexts=("system",), processes=2)
    ends = threading.Event()
    wrong: list[str] = []

    def poll(first: int) -> int:
        asked = 0
        while not ends.is_set():
            for n in range(first, count, 8):
                snapshot = site.snapshot
                node = snapshot.nodes[f"n{n}"]
                found = site.service.artefact(snapshot, node, "system", "raw")
                if not found.size:
                    wrong.append(node.id)
                asked += 1
                if ends.is_set():
                    break
        return asked

    with ThreadPoolExecutor(8) as pool:
        polls = [pool.submit(poll, at) for at in range(8)]
        try:
            for edit in range(2, 6):
                site.nodes(crowd(count, str(edit)))
                for n in (1, 777, count - 1):
                    assert site.text("etc/v", f"n{n}") == f"{edit} of n{n}\n"
        finally:
            ends.set()
        assert all(each.result() for each in polls)
    assert not wrong
    assert not site.service.failures


def test_overlay_build_commands_beside_the_server_agree_with_it(paths: Paths) -> None:
    site = Site(paths, nodes=crowd(300))
    site.put("base", "etc/v.j2", "{{ tags.v }} of {{ id }}\n")
    command = [sys.executable, "-m", "wwfast", "--root", str(paths.root), "overlay", "build"]
    commands = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for _ in range(2)]
    etags = {f"n{n}": site.ask(f"n{n}").etag for n in range(300)}
    for each in commands:
        said, _ = each.communicate(timeout=60)
        assert each.returncode == 0, said
    site.new_service()
    assert {name: site.ask(name).etag for name in etags} == etags
    assert site.service.builder.runs == 0, "what any of them made is found"
