"""YAML: written is read back, edits keep untouched bytes, the fast reader agrees with libyaml, no tracebacks."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wwfast._ext import yamlblocks, yamlevents
from wwfast.config import yaml
from wwfast.errors import WwfastError
from wwfast.nodes.merge import SCHEMA
from wwfast.nodes.registry import Snapshot
from wwfast.nodes.text.patch import rewrite
from wwfast.nodes.text.source import Source, cut, whole

TEXTS = st.one_of(
    st.sampled_from(
        ["no", "010", "~", "null", "", "00:11:22:33:44:55", "a: b", "# x", "- x", "{}", "'", '"', "é", "x\ny", "1e3"]
    ),
    st.text(st.characters(exclude_categories=("Cs",)), max_size=12),
)
KEYS = st.one_of(st.sampled_from(["comment", "profiles", "on", "y", "1", "a b", "null", "x:y", "/dev/sda"]), TEXTS)
TREES = st.recursive(
    st.one_of(TEXTS, st.none()),
    lambda inner: st.one_of(st.dictionaries(KEYS, inner, max_size=4), st.lists(inner, max_size=4)),
    max_leaves=12,
)
QUICK = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@QUICK
@given(st.dictionaries(KEYS, TREES, min_size=1, max_size=4))
def test_nodes_written_is_read_back(tree: dict[str, Any]) -> None:
    assert yaml.load(yaml.dump(tree).encode(), "x") == tree


VALUES = st.text(st.sampled_from("abz019 :#-'\"[]{},&*!|>%@`~_/.\\?="), max_size=8)
LINES = st.lists(
    st.tuples(
        st.integers(0, 4),
        st.sampled_from(["a:", "b: ", "c d: ", "- ", "#", "", "e", "n1:", "nodes:", "resources:", "null: ", "<<: "]),
        st.one_of(VALUES, st.sampled_from(["", "x", "'y'", '"z"', "{}", "[]", "~", "null", "1.2.3.4", " # c"])),
    ),
    max_size=9,
)


def text_of(lines: list[tuple[int, str, str]]) -> bytes:
    return "".join(f"{'  ' * depth}{head}{value}\n" for depth, head, value in lines).encode()


@settings(QUICK, max_examples=600)
@given(LINES)
def test_nodes_cut_into_entries_say_the_same_as_the_whole(lines: list[tuple[int, str, str]]) -> None:
    data = b"nodeprofiles: {}\nnodes:\n" + text_of([(depth + 1, head, value) for depth, head, value in lines])
    try:
        expected: Any = whole(data, "x")[0]
    except WwfastError:
        expected = None
    try:
        found: Any = cut(data, "x")
        found = found and {section: dict(entries) for section, entries in found.items()}
    except WwfastError:
        assert expected is None
        return
    if found is not None:
        assert found == expected


@QUICK
@given(LINES)
def test_nodes_everyday_entries_agree_with_libyaml(lines: list[tuple[int, str, str]]) -> None:
    data = b"  n:\n" + text_of([(depth + 2, head, value) for depth, head, value in lines])
    found = yamlblocks.parse(data, 0, len(data))
    if found is not None:
        assert yamlevents.load(data)[0] == {"n": found[0]}


ENTRIES = st.dictionaries(
    st.sampled_from(["n1", "n2", "n3", "n4"]),
    st.fixed_dictionaries(
        {},
        optional={
            "comment": TEXTS,
            "profiles": st.lists(st.sampled_from(["a", "b", "c", "~d"]), max_size=4),
            "tags": st.dictionaries(st.sampled_from(["x", "y", "z"]), TEXTS, max_size=3),
            "kernel": st.fixed_dictionaries({}, optional={"args": st.lists(TEXTS, max_size=3), "version": TEXTS}),
            "unknown": TREES,
        },
    ),
    min_size=1,
    max_size=4,
)


@settings(QUICK, max_examples=300)
@given(ENTRIES, ENTRIES, st.booleans())
def test_nodes_edited_in_place_say_what_was_meant(old: dict[str, Any], new: dict[str, Any], flow: bool) -> None:
    from wwfast.nodes.text import patch

    lines = ["# head", "nodes:"]
    for name, tree in old.items():
        lines.append(f"  # about {name}")
        lines += [f"  {name}: {patch.flow(tree)}"] if flow else yaml.dump({name: tree}, 2).rstrip("\n").split("\n")
    text = "\n".join([*lines, "# tail", ""])
    before, after = {"nodes": old}, {"nodes": new}
    if yaml.load(text.encode(), "x") != before:
        return  # a text that flow style cannot hold
    made = rewrite(text, before, after, SCHEMA, 2)
    assert yaml.load(made.encode(), "x") == after
    assert made.startswith("# head\n")
    assert made.endswith("# tail\n")


@QUICK
@given(ENTRIES, st.sampled_from(["n1", "n2", "n3", "n4"]))
def test_nodes_an_edit_of_one_keeps_every_byte_of_the_others(old: dict[str, Any], name: str) -> None:
    data = ("nodes:\n" + "".join(f"  # {each}\n{yaml.dump({each: tree}, 2)}" for each, tree in old.items())).encode()
    source = Source.parse(data, "x")
    tree = copy.deepcopy(old.get(name) or {})
    tree["comment"] = "changed"
    fresh = Source.parse(source.rewrite({("nodes", name): tree}, SCHEMA), "x")
    assert fresh.trees["nodes"][name] == tree
    for other in old:
        if other != name:
            block = f"  # {other}\n{yaml.dump({other: old[other]}, 2)}".encode()
            assert block in fresh.data


@settings(QUICK, max_examples=400)
@given(
    st.one_of(st.binary(max_size=60), LINES.map(text_of), LINES.map(lambda lines: b"nodes:\n  n:\n" + text_of(lines)))
)
def test_nodes_fuzzed_files_never_traceback(data: bytes) -> None:
    said = "x:"
    try:
        snapshot = Snapshot(Source.parse(data, "x"))
        said += "".join(f"{node.id}{problem}" for node in snapshot.nodes.values() for problem in snapshot.problems)
    except WwfastError as error:
        said = error.message
    assert said.startswith("x:")


COMPATIBLE = {
    "anchor and alias": ("a: &x [1, b]\nc: *x\n", {"a": ["1", "b"], "c": ["1", "b"]}),
    "merge key": ("a: &x {k: 1, l: 2}\nb:\n  <<: *x\n  l: 3\n", {"a": {"k": "1", "l": "2"}, "b": {"k": "1", "l": "3"}}),
    "merge of a list": ("b:\n  <<: [{k: 1}, {k: 2, m: 3}]\n", {"b": {"k": "1", "m": "3"}}),
    "literal block": ("a: |\n  x\n  y\n", {"a": "x\ny\n"}),
    "folded block": ("a: >-\n  x\n  y\n", {"a": "x y"}),
    "plain over lines": ("a: x\n  y\n", {"a": "x y"}),
    "quotes": ("a: 'it''s'\nb: \"\\u00e9\\n\"\n", {"a": "it's", "b": "é\n"}),
    "nulls": ("a:\nb: ~\nc: null\nd: ''\n", {"a": None, "b": None, "c": None, "d": ""}),
    "flow over lines": ("a: {b: [1,\n  2], c: d}\n", {"a": {"b": ["1", "2"], "c": "d"}}),
    "list at the indentation of its key": ("a:\n- x\n- y\n", {"a": ["x", "y"]}),
    "document start and comments": ("--- # c\na: b # d\n", {"a": "b"}),
    "explicit key": ("? a\n: b\n", {"a": "b"}),
    "tags are text": ("a: !!int 5\nb: !x y\n", {"a": "5", "b": "y"}),
    "colon and hash inside": ("a: b:c#d\n", {"a": "b:c#d"}),
    "carriage returns": ("a: b\r\nc: d\r\n", {"a": "b", "c": "d"}),
}


@pytest.mark.parametrize(("text", "tree"), COMPATIBLE.values(), ids=COMPATIBLE.keys())
def test_nodes_yaml_compatibility(text: str, tree: object) -> None:
    assert yaml.load(text.encode(), "x") == tree
    indented = "nodes:\n  n:\n" + "".join(f"    {line}\n" for line in text.replace("--- # c\n", "").splitlines())
    source = Source.parse(indented.encode(), "x")
    assert source.trees["nodes"]["n"] == tree
