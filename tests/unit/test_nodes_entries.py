"""Commands on entries of nodes.conf: what they cost, what they keep, what they refuse."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support.commands import Run, runner
from wwfast.nodes.edit.store import Store
from wwfast.nodes.registry import Snapshot
from wwfast.nodes.text.source import NODES, Source
from wwfast.paths import Paths


@pytest.fixture
def run(paths: Paths, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(paths, capsys)


@pytest.fixture
def editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Make $EDITOR one that runs a command of the shell on the file "$1"."""

    def becomes(script: str) -> None:
        (tmp_path / "editor").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "editor").chmod(0o755)
        monkeypatch.setenv("EDITOR", str(tmp_path / "editor"))

    return becomes


def entries(count: int) -> str:
    """Nodes with a fault each."""
    return "".join(f"n{i}:\n  network devices:\n    d:\n      ipaddr: 10.0.0.x\n" for i in range(count))


def devices(count: int) -> str:
    """A node with as many faults."""
    return "n1:\n  network devices:\n" + "".join(f"    d{i}:\n      ipaddr: 10.0.0.x\n" for i in range(count))


def imported(paths: Paths, text: str) -> None:
    from wwfast.api.entries import Entries, places, wrong_values

    taken = Entries(NODES, print).parse(text.encode(), "b.yaml")
    found = wrong_values({(NODES, name): (None, tree) for name, tree in taken.items()}, places(text.encode(), "b.yaml"))
    assert found[-1].startswith(f"b.yaml:{text.count(chr(10))}: "), "the last line is the last fault"


def read(paths: Paths, text: str, head: str = "") -> None:
    whole = head + "nodes:\n" + "".join(f"  {line}\n" for line in text.splitlines())
    found = Snapshot(Source.parse(whole.encode(), "nodes.conf")).problems
    assert f"nodes.conf:{whole.count(chr(10))}: " in str(found[-1])


def read_anchored(paths: Paths, text: str) -> None:
    read(paths, text, "nodeprofiles:\n  p: &p {comment: x}\n  q: *p\n")


def added(paths: Paths, text: str) -> None:
    from wwfast.api.entries import Entries
    from wwfast.nodes.edit.change import Request

    names = [f"n{i}" for i in range(4 * text.count("ipaddr"))]
    assert len(Store(paths).draft(Entries(NODES, print).add(names, Request()))[0].changes()) == len(names)


@pytest.mark.parametrize("text", [entries, devices])
@pytest.mark.parametrize("way", [imported, read, read_anchored, added])
def test_entries_cost_what_they_are_long_however_many_are_wrong(
    paths: Paths, text: Callable[[int], str], way: Callable[[Paths, str], None]
) -> None:
    def spent(count: int) -> float:
        given = text(count)
        begun = time.thread_time()
        way(paths, given)
        return time.thread_time() - begun

    spent(10)
    few, many = min(spent(300) for _ in range(3)), spent(2400)
    assert many < 24 * few + 0.2, f"eight times as many: {few:.3f} s, {many:.3f} s"


ENTRY = "n1: {comment: x}"
AT_TOP = {
    "node": ("node", "error: {conf}:1: unknown key 'node', did you mean 'nodes'?", "{" + ENTRY + "}"),
    "capital": ("Nodes", "error: {conf}:1: unknown key 'Nodes', did you mean 'nodes'?", "{n1: {}, n2: }"),
    "capitals": ("NODES", "error: {conf}:1: unknown key 'NODES', did you mean 'nodes'?", "{" + ENTRY + "}"),
    "profiles": ("profiles", "error: {conf}:1: unknown key 'profiles', did you mean 'nodeprofiles'?", "{p: {}}"),
    "hosts": ("hosts", "error: {conf}:1: unknown key 'hosts' (kept, but not used)", "{" + ENTRY + "}"),
    "words": ("owner", "warning: {conf}:1: unknown key 'owner' (kept, but not used)", "{room: {door: 5}}"),
    "text": ("nod", "warning: {conf}:1: unknown key 'nod', did you mean 'nodes'?", "5"),
}


@pytest.mark.parametrize("kind", AT_TOP)
def test_nodes_key_at_the_top_that_nobody_reads_is_told(paths: Paths, run: Run, kind: str) -> None:
    key, message, value = AT_TOP[kind]
    message = message.format(conf=paths.nodes_conf)
    paths.nodes_conf.write_text(f"{key}: {value}\nnodes: {{h1: {{}}}}\n")
    for command in ("node list", "node list h1", "profile list"):
        assert run(*command.split())[::2] == (0, message + "\n"), command
    level, _, said = message.partition(": ")
    out = run("doctor", "--json")[1]
    found = next(it for it in json.loads(out) if it["check"] == "nodes.conf")
    assert (found["level"], found["message"]) == (level, said)
    assert run("node", "set", "h1", "--comment", "x", "--yes")[0] == 0
    assert f"{key}: {value}\n" in paths.nodes_conf.read_text()


@pytest.mark.parametrize(
    "line",
    [
        "WW_INTERNAL: 45",
        "x-site: {n1: {comment: x}}",
        ".anchors: {n1: {comment: x}}",
        "common: &common {n1: {comment: x}}",
        "common:\n  net: &net {mtu: 9000}\n  all: [&one {comment: x}]",
    ],
)
def test_nodes_key_at_the_top_that_somebody_meant_so_is_not_told(paths: Paths, run: Run, line: str) -> None:
    paths.nodes_conf.write_text(f"{line}\nnodes: {{h1: {{}}}}\n")
    assert run("node", "list")[::2] == (0, "")
    assert not Snapshot(Source.read(paths.nodes_conf)).problems


@pytest.mark.parametrize("form", ["everyday", "shared"])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('a: "1"', "a: 1"),
        ("a: 1", "a: '1'"),
        ("a: true", 'a: "true"'),
        ("a: [1, '2']", "a: [1, 2]"),
        ('a: {b: "null"}', "a: {b: null}"),
    ],
)
def test_nodes_quotes_of_free_data_are_a_change(
    paths: Paths, run: Run, editor: Callable[[str], None], tmp_path: Path, form: str, old: str, new: str
) -> None:
    head = "nodeprofiles:\n  p: &p {comment: x}\n  q: *p\n" if form == "shared" else ""
    text = f'{head}nodes:\n  n1:\n    comment: "5"\n    resources:\n      r:\n        {old}\n'
    fresh = f"n1:\n  comment: 5\n  resources:\n    r:\n      {new}\n"
    (tmp_path / "new.yaml").write_text(fresh)
    editor(f'cp {tmp_path}/new.yaml "$1"')
    wanted = Source.parse(f"nodes: {{n1: {{resources: {{r: {{{new}}}}}}}}}".encode(), "x")
    for command in (f"node import {tmp_path}/new.yaml --replace --yes", "node edit n1 --yes"):
        paths.nodes_conf.write_text(text)
        status, out, err = run(*command.split())
        assert (status, err) == (0, ""), command
        shown = [line.split(None, 2) for line in out.splitlines()[2:-1]]
        assert len(shown) == 1, "the comment says the same"
        assert " ".join(shown[0]).startswith("node n1 resources[r].a")
        assert Snapshot(Source.read(paths.nodes_conf)).nodes["n1"].resources == Snapshot(wanted).nodes["n1"].resources
        assert paths.nodes_conf.read_text().startswith(text[: text.index("        a: ")])
        assert run(*command.split())[1] == "no changes\n"


SET = "node set n1 --comment x --tagadd a=b --groups g --kernelversion v5 --yes"
REMARKS = {
    "an entry of nothing": ("nodes:\n  n1: {}  # r\n", SET),
    "no entry": ("nodes:\n  n1:     # r\n", SET),
    "a tilde": ("nodes:\n  n1: ~ # r\n", SET),
    "null": ("nodes:\n  n1: null   # r\n  n2: {} # s\n", SET),
    "no tags": ("nodes:\n  n1:\n    tags: {} # r\n    groups: [] # s\n    kernel:   # t\n", SET),
    "text of lines": ("nodes:\n  n1:\n    comment: |-  # r\n      a\n      b\n    root: tmpfs # s\n", SET),
    "text in quotes": ("nodes:\n  n1:\n    comment: 'a\n\n      b' # r\n", SET),
    "a map on two lines": ("nodes:\n  n1:\n    tags: {b: c,\n      d: e}  # r\n", SET),
    "an entry on two lines": ("nodes:\n  n1: {tags: {b: c},\n    comment: y}  # r\n  # s\n", SET),
    "amid a map": ("nodes:\n  n1: {  # r\n    tags: {b: 'c # NO', 'd # NO': e},  # s\n    # t\n  }  # u\n", SET),
    "amid tags": ("nodes:\n  n1:\n    tags: {  # r\n      b: c,# s\n      d: 'e\n       # NO' # t\n    }\n", SET),
    "amid what others refer to": ("nodes:\n  n1: &x\n    # r\n    init: a # s\n    tags: {b: c} # t\n", SET),
    "amid all": ("# h\n{nodes: {  # r\n  n1: {}  # s\n}}\n# t\n", SET),
    "an anchor": ("nodes:\n  n1: &x {} # r\n", SET),
    "no nodes": ("# h\nnodes: {} # r\n# s\n", "node add n1"),
    "null nodes": ("# h\nnodes: null # r\n# s\n", "node add n1"),
    "absent nodes": ("# h\nnodes:   # r\n# s\n", "node add n1"),
    "an empty file": ("# h\n{} # r\n# s\n", "node add n1"),
    "an empty document": ("# h\n---\n~   # r\n# s\n", "node add n1"),
    "a marked document": ("# h\n--- {} # r\n# s\n", "node add n1"),
    "all gone": ("nodes:\n  n1:  # r\n    comment: x\n  n2: {}\n", "node unset n1 --comment --yes"),
}


@pytest.mark.parametrize("kind", REMARKS)
def test_nodes_comment_stays_where_its_value_is_written_anew(paths: Paths, run: Run, kind: str) -> None:
    text, command = REMARKS[kind]
    paths.nodes_conf.write_text(text)
    assert run(*command.split())[::2] == (0, "")
    made = paths.nodes_conf.read_text()
    assert made != text
    assert re.findall("# [a-z]", made) == re.findall("# [a-z]", text), "each, and in their order"
    assert "n1" in Snapshot(Source.read(paths.nodes_conf)).nodes


@pytest.mark.parametrize(("noun", "section"), [("node", "nodes"), ("profile", "nodeprofiles")])
def test_nodes_edit_does_not_replace_an_entry_that_was_not_edited(
    paths: Paths, run: Run, editor: Callable[[str], None], noun: str, section: str
) -> None:
    text = f"{section}:\n  n1:\n    comment: a\n  n2:\n    comment: b\n"
    paths.nodes_conf.write_text(text)
    editor('sed -i "s/^n1:/n2:/" "$1"')
    status, out, err = run(noun, "edit", "n1", "--noheader", "--yes")
    assert (status, out, paths.nodes_conf.read_text()) == (1, "", text)
    assert f"edit.yaml:1: {noun} 'n2' exists and was not edited: it would be replaced" in err
    assert f"hint: wwfast {noun} edit {'n[1-2]' if noun == 'node' else 'n1,n2'} edits them together" in err
    assert run(noun, "edit", "n1", "--yes", "--force")[0] == 0
    assert paths.nodes_conf.read_text() == f"{section}:\n  n2:\n    comment: a\n"
    editor('sed -i "s/^n2:/n3:/" "$1"')
    assert run(noun, "edit", "n2", "--yes")[0] == 0, "one that is free may be taken"
    assert paths.nodes_conf.read_text() == f"{section}:\n  n3:\n    comment: a\n"


NAMED = """
node add, profile add, node set --comment x --yes, profile set --comment x --yes, node unset --comment --yes,
profile unset --comment --yes, node delete --yes, profile delete --yes, node export, profile export, node list,
profile list, group list, node status, power status, doctor
"""


@pytest.mark.parametrize("command", [" ".join(each.split()) for each in NAMED.split(",")])
@pytest.mark.parametrize("word", [",", ",,"])
def test_cli_name_of_commas_is_no_name_and_not_all(paths: Paths, run: Run, command: str, word: str) -> None:
    text = "nodeprofiles:\n  p: {}\nnodes:\n  n1: {}\n"
    paths.nodes_conf.write_text(text)
    status, out, err = run(*command.split(), word)
    assert (status, paths.nodes_conf.read_text()) == (2 if command.endswith(("add", "doctor")) else 1, text)
    assert f"{command.split()[0].replace('power', 'node').replace('doctor', 'node')} '{word}'" in err
    assert "n1" not in out
    assert not re.search(r"^p\b", out, re.MULTILINE)


@pytest.mark.parametrize("option", ["image", "profile", "cluster", "tag"])
def test_cli_filter_that_is_empty_is_not_all(paths: Paths, run: Run, option: str) -> None:
    paths.nodes_conf.write_text("nodes:\n  n1: {}\n")
    for words in ((f"--{option}", ""), (f"--{option}=",)):
        status, out, err = run("node", "list", *words)
        assert (status, out) == (2, "")
        assert f"--{option} is given, but empty" in err


def test_cli_profiles_are_in_no_groups(paths: Paths, run: Run) -> None:
    paths.nodes_conf.write_text("nodeprofiles:\n  p: {}\n")
    for command in ("set @all --comment x --yes", "list @all", "delete @all --yes", "export @all"):
        assert run("profile", *command.split())[::2] == (
            1, "error: no profile '@all': groups are of nodes alone\nhint: wwfast profile list\n"
        )  # fmt: skip
