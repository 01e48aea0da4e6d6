"""What is written by any command, read by PyYAML (and so by Ansible and scripts): text stays text."""

from __future__ import annotations

from typing import Any

import pytest
import yaml as pyyaml
from hypothesis import given
from hypothesis import strategies as st

from compat.conftest import Run
from wwfast.config import yaml
from wwfast.config.schema import Kind, fields, written
from wwfast.nodes.edit.store import Store
from wwfast.nodes.merge import SCHEMA
from wwfast.paths import Paths

# What YAML 1.1 or 1.2 has as a number, a yes or no, a date, nothing, or a part of its syntax.
WORDS = """yes no on off y n Y N true False TRUE null Null ~ 010 0o10 0x1f 0b11 9000 +5 -1 1_000 1e3 1E3 1.5 .5 5. 1e+3
685_230.15 .inf -.INF .NaN 52:54:00:00:07:01 190:20:30 1:30.5 2026-01-02 2026-1-2 2026-01-02T03:04:05Z << = - . _ e5
00:11:22:33:44:55 a:b 10.0.0.1 10.0 fe80::1 ::1 0"""
NASTY = WORDS.split()
PLAIN_TEXTS = ["10.0.0.1", "fe80::1", "a:b", "e5", "52:54:00:aa:bb:cc", "eth0", "rocky9"]


def read(text: str) -> Any:
    return pyyaml.safe_load(text)


@pytest.mark.parametrize("value", NASTY)
def test_compat_written_text_is_text_for_yaml_1_1(value: str) -> None:
    for tree in ({"k": value}, {value: "v"}, [value], {"k": [value]}):
        assert read(yaml.dump(tree)) == tree


@pytest.mark.parametrize("value", PLAIN_TEXTS)
def test_compat_written_text_that_nobody_mistakes_has_no_quotes(value: str) -> None:
    assert yaml.dump({"k": value}) == f"k: {value}\n"


@given(st.text(st.sampled_from("0123456789abefnosxyINF:.-+_~<=TZ "), min_size=1, max_size=9))
def test_compat_written_text_is_text_whatever_it_looks_like(value: str) -> None:
    assert read(yaml.dump({"k": value, value: "v"})) == {"k": value, value: "v"}


def test_compat_every_text_field_of_a_node_is_written_as_text() -> None:
    """And a yes/no or a number of the schema as what it is."""

    def tree(schema: Any) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for spec in schema.values():
            if spec.is_text:
                made[spec.key] = "010"
            elif spec.kind is Kind.LIST:
                made[spec.key] = ["yes", "1:30"]
            elif spec.kind is Kind.TAGS:
                made[spec.key] = {"on": "2026-01-02"}
            elif spec.kind is Kind.BOOL:
                made[spec.key] = "true"
            elif spec.struct is not None:
                inner = tree(fields(spec.struct))
                made[spec.key] = {"0x1": inner} if spec.kind is Kind.STRUCTS else inner
        return made

    def wanted(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: wanted(item) for key, item in value.items()}
        return True if value == "true" else value

    made = tree(SCHEMA)
    assert read(yaml.dump(written({"n1": made}, SCHEMA, 1))) == {"n1": wanted(made)}


def test_compat_free_data_keeps_its_types_and_its_texts() -> None:
    text = 'resources: {a: 5, b: "5", c: yes, d: true, e: 1.50, f: [no, ~, 0x1F], g: 2026-01-02}\nodd: {k: 7}\n'
    again = yaml.dump(written(yaml.load(text.encode(), ""), SCHEMA))
    assert read(again) == {
        "resources": {"a": 5, "b": "5", "c": "yes", "d": True, "e": 1.5, "f": ["no", None, 31], "g": "2026-01-02"},
        "odd": {"k": 7},
    }
    assert "e: 1.50\n" in again


ADD = "--hwaddr 52:54:00:00:07:01 --mtu 9000 --onboot=no --diskname /dev/vda --diskwipe --partname 1 --partnumber 1"
ADDED = {
    "network devices": {"default": {"onboot": "false", "hwaddr": "52:54:00:00:07:01", "mtu": "9000"}},
    "tags": {"a": "yes", "b": "010", "c": "2026-01-02"},
    "disks": {"/dev/vda": {"wipe_table": True, "partitions": {"1": {"number": "1"}}}},
}
FLOWED = 'nodes: {n1: {comment: c, "network devices": {default: {mtu: "1500"}}}}\n'


@pytest.mark.parametrize("begin", ["", "nodes: {}\n", "nodes:\n  n0:\n    comment: x\n", "# only a comment\n", FLOWED])
def test_compat_every_writer_of_nodes_conf_writes_text_as_text(
    run: Run, paths: Paths, begin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths.nodes_conf.write_text(begin)
    verb = "set -y" if begin == FLOWED else "add"
    run(f"node {verb} n1 {ADD} --tagadd a=yes --tagadd b=010 --tagadd c=2026-01-02")
    found = read(paths.nodes_conf.read_text())["nodes"]["n1"]
    assert {key: found[key] for key in ADDED} == ADDED
    run("node set -y n1 --tagadd d=1:30 --comment 007 --kernelargs 1e3,on")
    assert read(run("node export n1"))["n1"] == (found := read(paths.nodes_conf.read_text())["nodes"]["n1"])
    assert found["tags"]["d"] == "1:30"
    assert (found["comment"], found["kernel"]) == ("007", {"args": ["1e3", "on"]})
    shown = read(run("node list -y n1"))["n1"]
    assert {key: shown[key] for key in found} == found
    run("profile add 010 --comment no --mtu 9000")
    assert read(paths.nodes_conf.read_text())["nodeprofiles"] == {
        "010": {"comment": "no", "network devices": {"default": {"mtu": "9000"}}}
    }
    assert read(run("profile list -y 010"))["010"]["network devices"]["default"]["mtu"] == "9000"
    file = paths.root / "import.yaml"
    file.write_text(run("node export n1"))
    before = read(paths.nodes_conf.read_text())
    run("node", "import", "-y", str(file))
    assert read(paths.nodes_conf.read_text()) == before
    monkeypatch.setenv("EDITOR", "sed -i s/007/0x7/")
    run("node edit -y n1")
    assert read(paths.nodes_conf.read_text())["nodes"]["n1"]["comment"] == "0x7"


def test_compat_a_discovered_address_of_digits_is_text(paths: Paths) -> None:
    paths.nodes_conf.write_text("nodes:\n  n1:\n    discoverable: true\n    network devices:\n      default: {}\n")
    assert Store(paths).claim("52:54:00:00:07:01") == "n1"
    found = read(paths.nodes_conf.read_text())["nodes"]["n1"]["network devices"]["default"]["hwaddr"]
    assert found == "52:54:00:00:07:01"
