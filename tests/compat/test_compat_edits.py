"""What edits make of nodes.conf, as the real program does."""

from __future__ import annotations

from typing import Any

import pytest
import yaml as pyyaml

from compat.conftest import Run
from wwfast.paths import Paths

N1 = {
    "profiles": ["p"],
    "ipmi": {"ipaddr": "10.1.0.1", "username": "root"},
    "network devices": {"default": {"ipaddr": "10.0.0.1"}, "second": {"device": "eth1"}},
    "disks": {"/dev/vda": {"wipe_table": True, "partitions": {"a": {"number": "1"}}}},
    "tags": {"rack": "r1"},
    "resources": {"fstab": [{"spec": "a"}], "map": {"x": 1}},
}


def conf(paths: Paths) -> Any:
    return pyyaml.safe_load(paths.nodes_conf.read_text())["nodes"]


@pytest.fixture
def site(paths: Paths) -> Paths:
    paths.nodes_conf.write_text(pyyaml.safe_dump({"nodeprofiles": {"p": {}}, "nodes": {"n1": N1}}))
    return paths


IMPORTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a field": ({"comment": "x"}, {"comment": "x"}),
    "a field of a struct": ({"ipmi": {"username": "adm"}}, {"ipmi": {"ipaddr": "10.1.0.1", "username": "adm"}}),
    "a list replaces": ({"profiles": ["q"]}, {"profiles": ["q"]}),
    "a tag is added": ({"tags": {"row": "1"}}, {"tags": {"rack": "r1", "row": "1"}}),
    "a device is added": (
        {"network devices": {"third": {"device": "eth2"}}},
        {"network devices": {**N1["network devices"], "third": {"device": "eth2"}}},  # type: ignore[dict-item]
    ),
    "a field of a device": (
        {"network devices": {"default": {"device": "eth0"}}},
        {"network devices": {"default": {"ipaddr": "10.0.0.1", "device": "eth0"}, "second": {"device": "eth1"}}},
    ),
    "nothing clears": ({"comment": "", "profiles": [], "ipmi": None, "tags": {}}, {}),
    "a resource": ({"resources": {"new": [1]}}, {"resources": {**N1["resources"], "new": [1]}}),  # type: ignore[dict-item]
}


@pytest.mark.parametrize("case", IMPORTS)
def test_compat_import_merges_into_a_node_that_exists(run: Run, site: Paths, case: str) -> None:
    given, changed = IMPORTS[case]
    file = site.root / "given.yaml"
    file.write_text(pyyaml.safe_dump({"n1": given, "n2": {"comment": "new"}}))
    run("node", "import", "-y", "--force", str(file))
    assert conf(site) == {"n1": {**N1, **changed}, "n2": {"comment": "new"}}


def test_compat_import_replaces_where_told_to(run: Run, site: Paths) -> None:
    file = site.root / "given.yaml"
    file.write_text("n1: {comment: x}\n")
    run("node", "import", "-y", "--replace", str(file))
    assert conf(site) == {"n1": {"comment": "x"}}


@pytest.mark.parametrize("flag", ["ipaddr", "gateway", "netmask", "ipmiaddr", "ipmigateway"])
def test_compat_an_address_that_is_none_changes_nothing(run: Run, site: Paths, flag: str) -> None:
    before = site.nodes_conf.read_bytes()
    run(f"node set n1 -y --{flag}=0.0.0.0")
    assert site.nodes_conf.read_bytes() == before
    run(f"node set n1 -y --{flag}=0.0.0.0 --comment x")
    assert conf(site)["n1"] == {**N1, "comment": "x"}
