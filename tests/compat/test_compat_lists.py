"""What the lists print, as the real program does."""

from __future__ import annotations

import json

import pytest

from compat.conftest import Run
from wwfast.config import yaml
from wwfast.config.schema import Fields, Kind, fields
from wwfast.nodes.merge import SCHEMA
from wwfast.paths import Paths


def entries(schema: Fields = SCHEMA) -> list[str]:
    """For every struct that has a yes/no field: a node in which that stands before quoted texts of the same struct."""
    found = []
    for spec in schema.values():
        if spec.struct is None:
            continue
        inner = fields(spec.struct)
        flags = [it.key for it in inner.values() if it.kind is Kind.BOOL]
        texts = [it.key for it in inner.values() if it.is_text]
        named = spec.kind is Kind.STRUCTS
        for flag in flags:
            lines = ", ".join([f"{flag}: yes", *(f'{key}: "1"' for key in texts)])
            found.append(f"{{{spec.key}: {{x: {{{lines}}}}}}}" if named else f"{{{spec.key}: {{{lines}}}}}")
        found += [f"{{{spec.key}: {{x: {rest}}}}}" if named else f"{{{spec.key}: {rest}}}" for rest in entries(inner)]
    return found


@pytest.mark.parametrize("entry", entries())
@pytest.mark.parametrize("form", ["-j", "-y"])
def test_compat_list_shows_quoted_text_after_a_yes_or_no(run: Run, paths: Paths, entry: str, form: str) -> None:
    paths.nodes_conf.write_text(f"nodes: {{bad: {entry}, good: {{comment: here}}}}\n")
    shown = run(f"node list {form}")
    found = json.loads(shown) if form == "-j" else yaml.load(shown.encode(), "")
    assert list(found) == ["bad", "good"]
    assert '"1"' in json.dumps(found["bad"]) or "texts" not in entry
    assert found["good"]["comment"] == "here"


NODES = """
nodeprofiles:
  p:
    comment: a profile
    network devices: {eth: {device: eth1}}
    tags: {rack: r1}
  q: {ipmi: {username: root}, kernel: {args: [quiet, ro]}, disks: {/dev/vda: {partitions: {one: {number: "1"}}}}}
nodes:
  b: {cluster name: a}
  a: {cluster name: z, network devices: {default: {hwaddr: 52-54-00-AA-BB-CC, onboot: false}}}
  c: {ipmi: {username: root}, network devices: {default: {hwaddr: "52:54:00:aa:bb:cd", ipaddr: 10.0.0.3}}}
"""


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()[2:]]


def test_compat_list_has_a_row_for_every_node_by_name(run: Run, paths: Paths) -> None:
    paths.nodes_conf.write_text(NODES)
    assert [row[0] for row in rows(run("node list"))] == ["a", "b", "c"]
    assert [row[0] for row in rows(run("node list c,b,a"))] == ["a", "b", "c"]
    assert list(json.loads(run("node list -j"))) == ["a", "b", "c"]
    assert rows(run("node list -n")) == [
        ["a", "default", "52-54-00-AA-BB-CC", "<nil>", "<nil>", "--"],
        ["b", "--", "--", "--", "--", "--"],
        ["c", "default", "52:54:00:aa:bb:cd", "10.0.0.3", "<nil>", "--"],
    ]
    assert rows(run("node list -i")) == [
        ["a", "--", "--", "--", "--"],
        ["b", "--", "--", "--", "--"],
        ["c", "<nil>", "--", "root", "--"],
    ]


def test_compat_list_j_spells_onboot_both_ways_and_addresses_as_written(run: Run, paths: Paths) -> None:
    paths.nodes_conf.write_text(NODES)
    found = json.loads(run("node list -j"))
    assert found["a"]["network devices"]["default"] == {
        "onboot": "false", "onbot": "false", "hwaddr": "52-54-00-AA-BB-CC",
    }  # fmt: skip
    assert found["c"]["network devices"]["default"] == {"hwaddr": "52:54:00:aa:bb:cd", "ipaddr": "10.0.0.3"}
    assert "onbot" not in run("node list -y")
    assert "52-54-00-AA-BB-CC" in run("node list -a a")
    assert "52-54-00-AA-BB-CC" in run("node list -y a")


def test_compat_profile_list_a_has_every_field_of_what_is_there(run: Run, paths: Paths) -> None:
    paths.nodes_conf.write_text(NODES)
    found = rows(run("profile list -a"))
    assert [row[1] for row in found if row[0] == "p"] == [
        "Profiles", "Comment", "ClusterName", "Groups", "ImageName", "Ipxe", "RuntimeOverlay", "SystemOverlay",
        "Init", "Root",
        *(f"NetDevs[eth].{field}" for field in (
            "Type", "OnBoot", "Device", "Hwaddr", "Ipaddr", "Netmask", "Gateway", "Ipaddr6", "PrefixLen6", "Gateway6",
            "MTU")),
        "Tags[rack]", "PrimaryNetDev",
    ]  # fmt: skip
    of_q = {row[1]: row[2] for row in found if row[0] == "q"}
    assert of_q["Kernel.Args"] == "quiet,ro"
    assert of_q["Ipmi.UserName"] == "root"
    assert of_q["Ipmi.Password"] == "--"
    assert of_q["Disks[/dev/vda].Partitions[one].Number"] == "1"
    assert of_q["Disks[/dev/vda].WipeTable"] == "--"
