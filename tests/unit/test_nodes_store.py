"""Edits of nodes.conf: only touched lines change, nothing is lost, the last change can be taken back."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from support.commands import runner
from support.faultydisk import FULL, FaultyDisk
from wwfast.errors import ConfigError, WwfastError
from wwfast.nodes.edit.store import Draft, Store
from wwfast.nodes.registry import Registry
from wwfast.nodes.text.source import NODES
from wwfast.paths import Paths

TEXT = """\
# the head
nodeprofiles:
  default:   # for all
    image name: rocky   # nightly
    unknown key: 5
    kernel:
      args:
        - quiet
        # about crash
        - crashkernel=no
nodes:
  # first rack
  n1:
    profiles:
    - default
    tags: {a: b}   # tags
    network devices:
      default:
        ipaddr: 10.0.0.1
  n2: {}

# the end
"""


def edit(paths: Paths, name: str, **values: object) -> None:
    def change(draft: Draft) -> None:
        draft.get(NODES, name).update({key.replace("_", " "): value for key, value in values.items()})

    Store(paths).change(change, why="test")


def test_only_the_touched_lines_change(paths: Paths) -> None:
    paths.nodes_conf.write_text(TEXT)
    edit(paths, "n1", tags={"a": "c", "d": "e, f"}, comment="it's", profiles=["default", "gpu"])
    expected = TEXT.replace("tags: {a: b}", "tags: {a: c, d: 'e, f'}").replace(
        "    - default\n", '    - default\n    - gpu\n    comment: "it\'s"\n'
    )
    assert paths.nodes_conf.read_text() == expected


def test_entries_are_made_and_deleted_in_place(paths: Paths) -> None:
    paths.nodes_conf.write_text(TEXT)
    store = Store(paths)
    store.change(lambda draft: draft.put(NODES, "n3", {"comment": "x"}), why="add")
    assert paths.nodes_conf.read_text() == TEXT.replace("  n2: {}\n", "  n2: {}\n  n3:\n    comment: x\n")
    store.change(lambda draft: draft.delete(NODES, "n3"), why="delete")
    assert paths.nodes_conf.read_text() == TEXT


def test_change_that_cannot_be_written_leaves_no_version_behind(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    paths.nodes_conf.write_text(TEXT)
    edit(paths, "n1", comment="one")
    kept = sorted(paths.history.iterdir())
    disk = FaultyDisk(paths.nodes_conf.parent, monkeypatch)
    disk.fail(FULL)
    with pytest.raises((OSError, WwfastError)):
        edit(paths, "n1", comment="two")
    assert disk.struck
    disk.heal()
    assert sorted(paths.history.iterdir()) == kept
    Store(paths).undo(Store(paths).recall())
    assert paths.nodes_conf.read_text() == TEXT


def test_undo_goes_back_step_by_step(paths: Paths) -> None:
    paths.nodes_conf.write_text(TEXT)
    edit(paths, "n1", comment="one")
    once = paths.nodes_conf.read_text()
    edit(paths, "n1", comment="two")
    store = Store(paths)
    store.undo(store.recall())
    assert paths.nodes_conf.read_text() == once
    store.undo(store.recall())
    assert paths.nodes_conf.read_text() == TEXT
    with pytest.raises(WwfastError, match="no change to take back"):
        store.recall()


def test_undo_refuses_to_lose_an_edit_by_hand(paths: Paths) -> None:
    paths.nodes_conf.write_text(TEXT)
    edit(paths, "n1", comment="one")
    paths.nodes_conf.write_text(paths.nodes_conf.read_text() + "# by hand\n")
    store = Store(paths)
    with pytest.raises(WwfastError, match="changed by other means"):
        store.undo(store.recall())
    store.undo(store.recall(), force=True)
    assert paths.nodes_conf.read_text() == TEXT


HEADS = {
    "no JSON": b"{",
    "a list": b"[]",
    "an empty map": b"{}",
    "a time as text": b'{"why": "x", "becomes": "y", "at": "1"}',
    "a time beyond all dates": b'{"why": "x", "becomes": "y", "at": 99999999999999999}',
    "a reason that is none": b'{"why": 1, "becomes": "y", "at": 1}',
    "no UTF-8": b'{"why": "\xff", "becomes": "y", "at": 1}',
}
KEPT: dict[str, Callable[[Path, bytes], object]] = {
    **{name: lambda path, body, head=head: path.write_bytes(head + b"\n" + body) for name, head in HEADS.items()},
    "no body": lambda path, _body: path.write_bytes(b'{"why": "x", "becomes": "y", "at": 1}\n'),
    "nothing": lambda path, _body: path.write_bytes(b""),
    "a directory": lambda path, _body: path.mkdir(),
    "a link to nothing": lambda path, _body: path.symlink_to("nowhere"),
}


@pytest.mark.parametrize("kind", KEPT)
def test_history_that_holds_something_else_is_told_by_undo_and_keeps_nobody_from_editing(
    paths: Paths, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    paths.nodes_conf.write_text(TEXT)
    edit(paths, "n1", comment="one")
    [good] = Store(paths).versions()
    bad = good.with_name(f"00000002-{good.name[9:]}")
    KEPT[kind](bad, good.read_bytes().partition(b"\n")[2])
    (good.with_name("00000001-and-a-copy")).write_bytes(b"of somebody's")
    run = runner(paths, capsys)
    status, out, err = run("undo", "--list")
    assert (status, out.count("test"), f"{bad}: not a kept version: " in err) == (0, 1, True), err
    status, _, err = run("undo", "--yes")
    assert (status, f"hint: remove {bad}" in err) == (1, True), err
    edit(paths, "n1", comment="two")
    assert run("undo", "--yes")[0] == 0
    assert "comment: one" in paths.nodes_conf.read_text()


def test_history_is_private_and_bounded(paths: Paths) -> None:
    paths.nodes_conf.write_text(TEXT)
    store = Store(paths, history=3)
    for number in range(6):
        store.change(lambda draft, number=number: draft.get(NODES, "n1").update(comment=str(number)), why="x")
    assert len(store.versions()) == 3
    assert stat.S_IMODE(paths.history.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in store.versions()} == {0o600}


def test_mode_stays_and_a_new_file_is_private(paths: Paths) -> None:
    Store(paths).change(lambda draft: draft.put(NODES, "n1", {}), why="x")
    assert stat.S_IMODE(paths.nodes_conf.stat().st_mode) == 0o600
    assert paths.nodes_conf.read_text() == "nodes:\n  n1: {}\n"
    paths.nodes_conf.chmod(0o640)
    edit(paths, "n1", comment="x")
    assert stat.S_IMODE(paths.nodes_conf.stat().st_mode) == 0o640


def test_a_shared_anchor_is_refused_and_nothing_written(paths: Paths) -> None:
    text = "nodes:\n  n1: &one\n    comment: x\n  n2: *one\n"
    paths.nodes_conf.write_text(text)
    with pytest.raises(ConfigError, match="cannot change n1 in place"):
        edit(paths, "n1", comment="y")
    assert paths.nodes_conf.read_text() == text


def test_a_key_over_a_merged_one_is_written_locally(paths: Paths) -> None:
    paths.nodes_conf.write_text("nodes:\n  n1: &one\n    comment: x\n  n2:\n    <<: *one\n    init: /sbin/init\n")
    edit(paths, "n2", comment="y")
    assert Registry(paths).snapshot().nodes["n2"].comment == "y"
    assert Registry(paths).snapshot().nodes["n1"].comment == "x"


def test_claim_takes_one_node_each_and_may_be_repeated(paths: Paths) -> None:
    paths.nodes_conf.write_text(
        "nodes:\n  n1:\n    discoverable: true\n    network devices: {default: {ipaddr: 10.0.0.1}}\n"
        "  n2:\n    discoverable: true\n    network devices:\n      default:\n        ipaddr: 10.0.0.2\n"
    )
    store = Store(paths)
    assert store.claim("52-54-00-00-00-AA") == "n1"
    assert store.claim("52:54:00:00:00:aa") == "n1"
    assert store.claim("52:54:00:00:00:bb") == "n2"
    assert store.claim("52:54:00:00:00:cc") is None
    assert Registry(paths).snapshot().nodes["n1"].network_devices["default"].hwaddr == "52:54:00:00:00:aa"
