"""`groups` of nodes and profiles, `@group` in hostlists, `group list`."""

from __future__ import annotations

import json

import pytest
import yaml as pyyaml

from compat.conftest import Run
from wwfast.nodes.registry import Registry
from wwfast.paths import Paths

CONF = """
nodeprofiles:
  base: {groups: [compute, old]}
  gpu: {groups: [gpu]}
nodes:
  a: {profiles: [base]}
  b: {profiles: [base, gpu], groups: [~old, mine]}
  c: {groups: [mine, ~all], comment: x}
  d: {}
"""


@pytest.fixture
def site(paths: Paths) -> Paths:
    paths.nodes_conf.write_text(CONF)
    return paths


def test_compat_groups_are_merged_and_taken_out(site: Paths) -> None:
    nodes = Registry(site).snapshot().nodes
    assert {name: node.groups for name, node in nodes.items()} == {
        "a": ["compute", "old"], "b": ["compute", "gpu", "mine"], "c": ["mine", "~all"], "d": [],
    }  # fmt: skip


def test_compat_group_list(run: Run, site: Paths) -> None:
    assert json.loads(run("group list -j")) == {
        "all": ["a", "b", "d"], "compute": ["a", "b"], "gpu": ["b"], "mine": ["b", "c"], "old": ["a"],
    }  # fmt: skip
    assert run("group list -n mine,old").split() == ["b", "c", "a"]
    assert run("group list @gpu").splitlines()[2].split() == ["gpu", "1", "b"]
    assert len(run("group list none", status=1).splitlines()) == 2


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("@all", "a b d"),
        ("@mine,a", "a b c"),
        ("d,@gpu,d", "b d"),
        ("@none", ""),
        ("@none,d", "d"),
        ("c,d", "c d"),
    ],
)
def test_compat_hostlists_take_groups(run: Run, site: Paths, words: str, names: str) -> None:
    """Who is there is listed beside a group that is none, which the exit status tells."""
    assert list(json.loads(run(f"node list -j {words}", status=int("@none" in words)))) == names.split()


def test_compat_groups_in_edits_and_lists(run: Run, site: Paths) -> None:
    run("node set -y @mine --tagadd x=1")
    found = pyyaml.safe_load(site.nodes_conf.read_text())["nodes"]
    assert [name for name, node in found.items() if node.get("tags")] == ["b", "c"]
    run("node set -y d --groups rack1,rack2 -g more")
    assert pyyaml.safe_load(site.nodes_conf.read_text())["nodes"]["d"] == {"groups": ["rack1", "rack2", "more"]}
    assert "Groups" in run("node list -a d")
    assert list(pyyaml.safe_load(run("node export @rack1"))) == ["d"]
    run("node unset -y @rack1 --groups")
    assert not pyyaml.safe_load(site.nodes_conf.read_text())["nodes"]["d"]
    run("node delete -y @mine")
    assert list(pyyaml.safe_load(site.nodes_conf.read_text())["nodes"]) == ["a", "d"]
    run("node delete -y @none", status=1)
