"""wwfast import: whatever nodes there are, written in any format and read back they are the same; and a profile of what
they have alike changes none of them."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.importers import stanza
from wwfast.api.importing import Import
from wwfast.api.sources import read
from wwfast.config import yaml
from wwfast.config.checks import MASKS
from wwfast.nodes.edit.store import Draft
from wwfast.nodes.foreign.common import Found, Host, Place
from wwfast.nodes.foreign.profile import Common, common
from wwfast.nodes.model import Node
from wwfast.nodes.registry import Snapshot
from wwfast.nodes.text.source import Source

Spec = dict[str, Any]
LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = st.text(LETTERS, min_size=1, max_size=6)


def addressed(specs: list[Spec]) -> list[Spec]:
    """Names and addresses of their own for each."""
    for index, spec in enumerate(specs, 1):
        spec |= {"name": f"n{index}", "mac": f"52:54:00:00:00:{index:02x}", "ip": f"10.0.0.{index}"}
        spec["bmc"] = f"10.1.0.{index}" if spec["bmc"] else ""
    return specs


SPECS = st.lists(
    st.fixed_dictionaries(
        {
            "mask": st.sampled_from(["255.255.255.0", "255.255.0.0"]),
            "groups": st.lists(st.sampled_from(["compute", "gpu", "big", "login"]), unique=True, max_size=3),
            "args": st.lists(st.sampled_from(["quiet", "console=tty0", "console=ttyS0,115200", "ro"]), max_size=3),
            "user": st.sampled_from(["", "admin", "root"]),
            "rack": st.sampled_from(["", "r1", "r2"]),
            "bmc": st.booleans(),
        }
    ),
    min_size=1,
    max_size=12,
).map(addressed)


def entry(spec: Spec, *keys: str) -> dict[str, Any]:
    """What nodes.conf says of a node, of what a format can tell."""
    host = Host(spec["name"], Place("", 0))
    for key, where in {
        "mac": ("network devices", "default", "hwaddr"),
        "ip": ("network devices", "default", "ipaddr"),
        "mask": ("network devices", "default", "netmask"),
        "groups": ("groups",),
        "args": ("kernel", "args"),
        "user": ("ipmi", "username"),
        "bmc": ("ipmi", "ipaddr"),
        "rack": ("tags", "rack"),
    }.items():
        if key in keys or key in ("mac", "ip"):
            host.put(spec[key], *where)
    return host.entry


def as_xcat(specs: list[Spec]) -> str:
    return "".join(
        stanza(
            it["name"],
            mac=it["mac"],
            ip=it["ip"],
            groups=",".join([*it["groups"], "all"]),
            addkcmdline=" ".join(it["args"]),
            bmcusername=it["user"],
            bmc=it["bmc"],
            rack=it["rack"],
        )
        for it in specs
    )


def as_csv(specs: list[Spec]) -> str:
    rows = ["name;mac;ip;mask;groups;kernelargs;ipmiuser;ipmiaddr;tag.rack"]
    for it in specs:
        cells = (it["groups"], [f'""{each}""' if "," in each else each for each in it["args"]])
        lists = [f'"{",".join(each)}"' for each in cells]
        rows.append(";".join([it["name"], it["mac"], it["ip"], it["mask"], *lists, it["user"], it["bmc"], it["rack"]]))
    return "\n".join(rows)


def as_grendel(specs: list[Spec]) -> str:
    hosts = []
    for it in specs:
        nics = [{"mac": it["mac"], "ip": f"{it['ip']}/{MASKS[it['mask']]}", "ifname": "", "bmc": False}]
        nics += [{"mac": "", "ip": f"{it['bmc']}/32", "bmc": True}] if it["bmc"] else []
        tags = [*it["groups"], *([f"rack:{it['rack']}"] if it["rack"] else [])]
        hosts.append({"name": it["name"], "tags": tags, "interfaces": nics, "provision": True})
    return json.dumps({"Hosts": hosts})


def as_ansible(specs: list[Spec]) -> str:
    groups = {group for it in specs for group in it["groups"]}
    return json.dumps(
        {
            "_meta": {
                "hostvars": {
                    it["name"]: {key: it[key] for key in ("mac", "ip", "mask", "rack", "user")} for it in specs
                }
            },
            **{group: {"hosts": [it["name"] for it in specs if group in it["groups"]]} for group in groups},
        }
    )


def as_dhcpd(specs: list[Spec]) -> str:
    return "".join(
        f"host {it['name']} {{ hardware ethernet {it['mac']}; fixed-address {it['ip']};\n"
        f"option subnet-mask {it['mask']}; }}\n"
        for it in specs
    )


def as_dnsmasq(specs: list[Spec]) -> str:
    return "".join(
        f"dhcp-host={it['mac']},{''.join(f'set:{group},' for group in it['groups'])}{it['ip']},{it['name']},12h\n"
        for it in specs
    )


def as_warewulf3(specs: list[Spec]) -> str:
    lines: list[str] = []
    for it in specs:
        name, said = it["name"], {"NAME": it["name"], "GROUPS": ",".join(it["groups"]) or "UNDEF"}
        said |= {"eth0.HWADDR": it["mac"], "eth0.IPADDR": it["ip"], "eth0.NETMASK": it["mask"], "eth0.MTU": "UNDEF"}
        said |= {"KARGS": f'"{" ".join(it["args"])}"', "IPMI_USERNAME": it["user"] or "UNDEF"}
        said |= {"IPMI_IPADDR": it["bmc"] or "UNDEF"}
        lines += [f"#### {name} {'#' * 40}", *(f"{name:>15}: {key:<16} = {value}" for key, value in said.items())]
    return "\n".join(lines)


# Format: how it is written, what of a node it tells, and the words that say which field is which.
FORMATS: dict[str, tuple[Callable[[list[Spec]], str], str, list[str]]] = {
    "xcat": (as_xcat, "groups args user bmc rack", []),
    "csv": (as_csv, "mask groups args user bmc rack", []),
    "grendel": (as_grendel, "mask groups bmc rack", []),
    "ansible": (
        as_ansible,
        "mask groups user rack",
        ["mac=mac", "ip=ip", "mask=mask", "rack=tag.rack", "user=ipmiuser"],
    ),
    "dhcpd": (as_dhcpd, "mask", []),
    "dnsmasq": (as_dnsmasq, "groups", []),
    "warewulf3": (as_warewulf3, "mask groups args user bmc", []),
}


def plain(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry without what a format adds by nature: masks of a BMC, the interface's name, the order of groups."""
    made = copy.deepcopy(entry)
    made.get("ipmi", {}).pop("netmask", None)
    made["network devices"]["default"].pop("device", None)
    made["groups"] = sorted(made.get("groups", []))
    return made


@pytest.mark.parametrize("name", FORMATS)
@given(specs=SPECS)
def test_importer_reads_back_whatever_was_written(
    tmp_path_factory: pytest.TempPathFactory, name: str, specs: list[Spec]
) -> None:
    write, keys, words = FORMATS[name]
    place = tmp_path_factory.mktemp("round", numbered=True) / "given"
    place.write_text(write(specs))
    found = {host.name: plain(host.entry) for host in read(name, str(place), words).hosts}
    assert found == {spec["name"]: plain(entry(spec, *keys.split())) for spec in specs}


def imported(hosts: list[Host], before: str = "") -> Source:
    """nodes.conf after an import."""
    draft = Draft(Source.parse(before.encode(), "nodes.conf"))
    Import(Found(copy.deepcopy(hosts)), "made", set()).edit(draft)
    return draft.result()


def resolved(source: Source) -> dict[str, dict[str, Any]]:
    """Every node as it boots, without the names of what it took from; groups are a set."""
    import msgspec

    made: dict[str, dict[str, Any]] = {}
    for name, node in Snapshot(source).nodes.items():
        assert isinstance(node, Node)
        made[name] = msgspec.to_builtins(node) | {"profiles": [], "groups": sorted(node.groups)}
    return made


HOSTS = SPECS.map(
    lambda specs: [
        Host(it["name"], Place("f", at), entry(it, "mask", "groups", "args", "user", "bmc", "rack"))
        for at, it in enumerate(specs, 1)
    ]
)


@given(hosts=HOSTS)
def test_importer_profile_changes_no_node(hosts: list[Host]) -> None:
    source = imported(hosts)
    alone = Source.parse(yaml.dump({"nodes": {host.name: host.entry for host in hosts}}).encode(), "nodes.conf")
    assert resolved(source) == resolved(alone)
    assert Snapshot(source).problems == ()


@given(hosts=HOSTS, more=st.integers(0, 11))
def test_importer_again_with_more_nodes_changes_nothing_that_is_there(hosts: list[Host], more: int) -> None:
    first = imported(hosts[: more + 1])
    second = imported(hosts, first.data.decode())
    for section in ("nodes", "nodeprofiles"):
        for name in first.trees[section]:
            assert second.trees[section][name] == first.trees[section][name]
    assert resolved(second) == resolved(imported(hosts))
    assert imported(hosts, second.data.decode()).data == second.data


def test_importer_profile_has_what_four_of_five_say() -> None:
    alike = {"cluster name": "c", "tags": {"rack": "r1"}}
    entries: list[dict[str, Any]] = [copy.deepcopy(alike) for _ in range(8)] + [{"tags": {"rack": "r2"}}, {}]
    assert common(entries) == alike
    assert common([*entries, {}]) == {}  # 8 of 11
    shared = Common(common(entries), entries)
    assert [shared.fits(each) for each in entries] == [True] * 8 + [False] * 2
    assert shared.rest({"cluster name": "d", "tags": {"rack": "r1", "row": "4"}}) == {
        "cluster name": "d",
        "tags": {"row": "4"},
    }


def test_importer_profile_never_has_what_is_a_nodes_own() -> None:
    mine = {
        "comment": "x",
        "asset key": "y",
        "discoverable": "true",
        "ipmi": {"ipaddr": "10.0.0.1", "gateway": "10.0.0.2", "netmask": "255.0.0.0"},
        "network devices": {"default": {"hwaddr": "52:54:00:00:00:01", "ipaddr": "10.0.0.3", "gateway": "10.0.0.2"}},
    }
    assert common([mine, mine]) == {
        "ipmi": {"gateway": "10.0.0.2", "netmask": "255.0.0.0"},
        "network devices": {"default": {"gateway": "10.0.0.2"}},
    }
    assert common([mine]) == {}


def test_importer_profile_has_lists_as_far_as_they_begin_alike() -> None:
    entries = [{"kernel": {"args": ["quiet", "ro"]}}] * 4 + [{"kernel": {"args": ["quiet", "ro", "debug"]}}]
    shared = Common(common(entries), entries)
    assert shared.tree == {"kernel": {"args": ["quiet", "ro"]}}
    assert shared.rest(entries[4]) == {"kernel": {"args": ["debug"]}}
    assert not shared.fits({"kernel": {"args": ["ro", "quiet"]}})


def test_importer_round_trips_are_of_every_format_with_a_text() -> None:
    from wwfast.api.sources import FORMATS as ALL

    assert ALL.keys() - FORMATS.keys() == {"cobbler"}  # a directory: its sample has each of its forms
    assert Path(__file__).name.startswith("test_importers")
