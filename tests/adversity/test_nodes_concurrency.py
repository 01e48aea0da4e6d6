"""Many writers at once lose nothing; a writer killed at any moment leaves the old file or the new one."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wwfast.nodes.edit.store import Store
from wwfast.nodes.registry import Registry
from wwfast.nodes.text.source import NODES, Source
from wwfast.paths import Paths

WRITERS = 200

# Imports once, then forks: as many `wwfast node set` processes as names, all at the same time.
SWARM = """
import os, sys
from wwfast.cli.main import main
import wwfast.cli.nodes.edits
root, count = sys.argv[1], int(sys.argv[2])
children = []
for index in range(1, count + 1):
    child = os.fork()
    if child == 0:
        os.close(1)
        os.open(os.devnull, os.O_WRONLY)
        main(["--root", root, "node", "set", f"n{index:03d}", "--tagadd", f"by={index}", "--yes"])
    children.append(child)
sys.exit(sum(os.waitpid(child, 0)[1] != 0 for child in children))
"""

# Sets a counter in a node again and again, and says each number once it is written.
COUNTER = """
import sys
from pathlib import Path
from wwfast.nodes.edit.store import Store
from wwfast.paths import Paths
store = Store(Paths.at(sys.argv[1]), history=3)
for number in range(int(sys.argv[2]), 1 << 30):
    store.change(lambda draft: draft.get("nodes", "n001")["tags"].update(count=str(number)), why="count")
    print(number, flush=True)
"""


def fill(paths: Paths, count: int) -> None:
    paths.nodes_conf.write_text(
        "nodes:\n" + "".join(f"  n{index:03d}:   # keep\n    tags:\n      x: y\n" for index in range(1, count + 1))
    )


def python(code: str, *words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)


@pytest.mark.slow
def test_nodes_two_hundred_concurrent_sets_lose_nothing(paths: Paths) -> None:
    """W-3: there the last writer wins."""
    fill(paths, WRITERS)
    before = paths.nodes_conf.read_text()
    swarm = python(SWARM, str(paths.root), str(WRITERS))
    swarm.communicate(timeout=110)
    assert swarm.returncode == 0
    source = Source.read(paths.nodes_conf)
    found = {name: source.trees[NODES][name] for name in source.trees[NODES]}
    assert found == {f"n{index:03d}": {"tags": {"x": "y", "by": str(index)}} for index in range(1, WRITERS + 1)}
    assert [line for line in source.data.decode().splitlines() if "by:" not in line] == before.splitlines()


@pytest.mark.slow
def test_nodes_a_killed_writer_leaves_the_old_file_or_the_new_one(paths: Paths) -> None:
    """W-1: there a crash leaves an empty or partial registry."""
    fill(paths, 300)
    chance = random.Random(7)
    written = 0
    for _ in range(12):
        writer = python(COUNTER, str(paths.root), str(written + 1))
        assert writer.stdout is not None
        said = [writer.stdout.readline()]  # it is at work now
        time.sleep(chance.uniform(0, 0.08))
        os.kill(writer.pid, signal.SIGKILL)
        said += writer.stdout.readlines()  # `communicate` with a timeout reads beside what `readline` read ahead
        writer.wait(20)
        writer.stdout.close()
        last = max(int(line) for line in said if line.strip().isdigit())
        count = int(Source.read(paths.nodes_conf).trees[NODES]["n001"]["tags"]["count"])
        assert last <= count <= last + 1
        assert len(Registry(paths).snapshot().nodes) == 300
        written = count
    store = Store(paths)
    store.change(lambda draft: draft.get(NODES, "n002").update(comment="after"), why="after the crashes")
    assert [path.name for path in paths.etc.iterdir()] == ["nodes.conf"]
    store.undo(store.recall())
    assert Registry(paths).snapshot().nodes["n002"].comment == ""


def test_nodes_a_full_disk_leaves_the_old_file(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(paths, 3)
    before = paths.nodes_conf.read_bytes()

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(OSError, match="No space left"):  # `cli.failures` has the words
        Store(paths).change(lambda draft: draft.get(NODES, "n001").update(comment="x"), why="x")
    monkeypatch.undo()
    assert paths.nodes_conf.read_bytes() == before
    assert [path.name for path in paths.etc.iterdir()] == ["nodes.conf"]


def test_nodes_undo_knows_a_change_that_never_came_about(paths: Paths) -> None:
    """Its version was kept, and then it was killed: `undo` takes back the change before it."""
    fill(paths, 3)
    store = Store(paths)
    first = paths.nodes_conf.read_bytes()
    store.change(lambda draft: draft.get(NODES, "n001").update(comment="one"), why="one")
    second = paths.nodes_conf.read_bytes()
    store.change(lambda draft: draft.get(NODES, "n001").update(comment="two"), why="two")
    paths.nodes_conf.write_bytes(second)  # as if the last rename had never been
    assert store.recall().why == "one"
    store.undo(store.recall())
    assert paths.nodes_conf.read_bytes() == first
    assert store.versions() == []


def test_nodes_an_edit_meanwhile_is_not_lost_and_one_on_the_same_entry_is_refused(paths: Paths) -> None:
    fill(paths, 3)
    store = Store(paths)

    def elsewhere(name: str) -> bool:
        Store(paths).change(lambda draft: draft.get(NODES, name)["tags"].update(x="other"), why="other")
        return True

    store.change(
        lambda draft: draft.get(NODES, "n001")["tags"].update(a="b"), why="x", review=lambda *_: elsewhere("n002")
    )
    found = Source.read(paths.nodes_conf).trees[NODES]
    assert (found["n001"], found["n002"]) == ({"tags": {"x": "y", "a": "b"}}, {"tags": {"x": "other"}})
    with pytest.raises(Exception, match="changed by someone else"):
        store.change(
            lambda draft: draft.get(NODES, "n003")["tags"].update(a="b"), why="x", review=lambda *_: elsewhere("n003")
        )
    assert Source.read(paths.nodes_conf).trees[NODES]["n003"] == {"tags": {"x": "other"}}
