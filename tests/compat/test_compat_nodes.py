"""Effective nodes and hostlists of many configurations, plain and nasty, with the values of the real program."""

from __future__ import annotations

from typing import Any

import pytest

from wwfast.cli.nodes.views import plain
from wwfast.config import yaml
from wwfast.nodes import hostlist
from wwfast.nodes.registry import Snapshot
from wwfast.nodes.text.source import Source


def effective(nodes: str, profiles: str = "{}") -> Snapshot:
    return Snapshot(Source.parse(f"nodeprofiles: {profiles}\nnodes: {nodes}\n".encode(), "nodes.conf"))


def n1(own: str, profiles: str = "{}") -> dict[str, Any]:
    return plain(effective(f"{{n1: {own}}}", profiles).nodes["n1"])


# What n1 says, the profiles, and what of the effective node is looked at.
NODES: list[tuple[str, str, dict[str, Any]]] = [
    ("{}", "{}", {"id": None}),
    ("", "{}", {"profiles": None}),
    ("{comment: no}", "{}", {"comment": "no"}),
    ("{comment: 010}", "{}", {"comment": "010"}),
    ("{comment: 2026-01-02}", "{}", {"comment": "2026-01-02"}),
    ('{comment: "%d %s"}', "{}", {"comment": "%d %s"}),
    ('{comment: ""}', "{p: {comment: x}}", {"comment": None}),
    ("{profiles: [p], comment: mine}", "{p: {comment: x}}", {"comment": "mine"}),
    ("{profiles: [p]}", "{p: {comment: x}}", {"comment": None}),
    ("{profiles: [p, q]}", "{p: {init: /a}, q: {init: /b}}", {"init": "/b", "profiles": ["p", "q"]}),
    ("{profiles: [q, p]}", "{p: {init: /a}, q: {init: /b}}", {"init": "/a"}),
    ('{profiles: [p], init: ""}', "{p: {init: /a}}", {"init": "/a"}),
    ("{profiles: [p, none]}", "{p: {init: /a}}", {"init": "/a", "profiles": ["p", "none"]}),
    ("{profiles: [p, ~p]}", "{p: {init: /a}}", {"init": None, "profiles": None}),
    ("{profiles: [~q, p, q]}", "{p: {init: /a}, q: {init: /b}}", {"init": "/a", "profiles": ["p"]}),
    ("{profiles: [p, p]}", "{p: {kernel: {args: [x]}}}", {"kernel": {"args": ["x"]}}),
    ("{profiles: [p]}", "{p: {profiles: [q], init: /a}, q: {init: /b, root: tmpfs}}", {"init": "/a", "root": "tmpfs"}),
    ("{profiles: [p]}", "{p: {profiles: [q], init: /a}, q: {profiles: [p], root: r}}", {"init": "/a", "root": "r"}),
    ("{profiles: [p], kernel: {args: [~a, c]}}", "{p: {kernel: {args: [a, b]}}}", {"kernel": {"args": ["b", "c"]}}),
    ("{profiles: [p], kernel: {version: v}}", "{p: {kernel: {args: [a]}}}",
     {"kernel": {"version": "v", "args": ["a"]}}),
    ("{profiles: [p], system overlay: [b]}", "{p: {system overlay: [a]}}", {"system overlay": ["a", "b"]}),
    ("{profiles: [p], system overlay: [a]}", "{p: {system overlay: [a]}}", {"system overlay": ["a", "a"]}),
    ("{profiles: [p], runtime overlay: [~a]}", "{p: {runtime overlay: [a]}}", {"runtime overlay": None}),
    ("{profiles: [p], tags: {a: x}}", "{p: {tags: {a: y, b: z}}}", {"tags": {"a": "x", "b": "z"}}),
    ('{profiles: [p], tags: {a: ""}}', "{p: {tags: {a: y}}}", {"tags": {"a": ""}}),
    ("{tags: {a: yes, b: 1:30}}", "{}", {"tags": {"a": "yes", "b": "1:30"}}),
    ("{discoverable: yes}", "{}", {"discoverable": "yes"}),
    ("{profiles: [p]}", "{p: {discoverable: true, asset key: x}}", {"discoverable": None, "asset key": None}),
    ("{ipmi: {write: false}, profiles: [p]}", "{p: {ipmi: {write: true, username: u}}}",
     {"ipmi": {"write": "false", "username": "u"}}),
    ("{network devices: {b: {}, a: {device: e}}}", "{}", {"primary network": "a"}),
    ("{primary network: b, network devices: {b: {}, a: {}}}", "{}", {"primary network": "b"}),
    ("{primary network: none, network devices: {b: {}, a: {}}}", "{}", {"primary network": "a"}),
    ("{profiles: [p], network devices: {d: {ipaddr: 10.0.0.1}}}", "{p: {network devices: {d: {netmask: 255.0.0.0}}}}",
     {"network devices": {"d": {"ipaddr": "10.0.0.1", "netmask": "255.0.0.0"}}}),
    ("{profiles: [p], network devices: {d: {gateway: 0.0.0.0}}}", "{p: {network devices: {d: {gateway: 10.0.0.1}}}}",
     {"network devices": {"d": {"gateway": "0.0.0.0"}}}),
    ("{network devices: {d: {mtu: 9000, onboot: off, hwaddr: 52:54:00:00:07:01}}}", "{}",
     {"network devices": {"d": {"onboot": "off", "hwaddr": "52:54:00:00:07:01", "mtu": "9000"}}}),
    ("{network devices: {d: {hwaddr: 52-54-00-AA-BB-CC}}}", "{}",
     {"network devices": {"d": {"hwaddr": "52-54-00-AA-BB-CC"}}}),
    ("{disks: {/dev/a: {wipe_table: yes, partitions: {x: {number: 1, should_exist: off}}}}}", "{}",
     {"disks": {"/dev/a": {"wipe_table": True, "partitions": {"x": {"number": "1", "should_exist": False}}}}}),
    ("{profiles: [p], disks: {/dev/a: {wipe_table: false}}}", "{p: {disks: {/dev/a: {wipe_table: true}}}}",
     {"disks": {"/dev/a": {"wipe_table": False}}}),
    ("{profiles: [p], filesystems: {/dev/a: {options: [-b]}}}", "{p: {filesystems: {/dev/a: {options: [-a]}}}}",
     {"filesystems": {"/dev/a": {"options": ["-a", "-b"]}}}),
    ("{profiles: [p], resources: {x: {a: 1}}}", "{p: {resources: {x: {b: 2}}}}",
     {"resources": {"x": {"b": 2, "a": 1}}}),
    ("{profiles: [p], resources: {x: [1]}}", "{p: {resources: {x: [2]}}}", {"resources": {"x": [2, 1]}}),
    ("{profiles: [p], resources: {x: }}", "{p: {resources: {x: [2]}}}", {"resources": {"x": None}}),
    ("{profiles: [p], resources: {x: {is: map}}}", "{p: {resources: {x: 7}}}", {"resources": {"x": {"is": "map"}}}),
    ("{resources: {a: yes, b: true, c: 5, d: '5', e: 1.5}}", "{}",
     {"resources": {"a": "yes", "b": True, "c": 5, "d": "5", "e": 1.5}}),
    ("{unknown key: 5, comment: x}", "{}", {"comment": "x", "unknown key": None}),
    ("{kernel: , ipmi: , network devices: , comment: x}", "{}", {"kernel": None, "comment": "x"}),
]  # fmt: skip


@pytest.mark.parametrize(("own", "profiles", "wanted"), NODES)
def test_compat_effective_node(own: str, profiles: str, wanted: dict[str, Any]) -> None:
    found = n1(own, profiles)
    assert {key: found.get(key) for key in wanted} == wanted


BAD = {
    "a null node": "{n1: , n2: {}}",
    "a text for a list": "{n1: {kernel: {args: quiet}}, n2: {}}",
    "a bad address": "{n1: {network devices: {d: {ipaddr: 10.0.0}}}, n2: {}}",
    "a null device": "{n1: {network devices: {d: }}, n2: {}}",
    "a bad yes or no": "{n1: {disks: {/dev/a: {wipe_table: maybe}}}, n2: {}}",
    "a list for a map": "{n1: {tags: [a]}, n2: {}}",
}


@pytest.mark.parametrize("case", BAD)
def test_compat_a_bad_node_leaves_the_others(case: str) -> None:
    """Where the real program refuses the whole file, or panics."""
    assert "n2" in effective(BAD[case]).nodes


def test_compat_all_nodes_are_in_the_order_of_cluster_and_name() -> None:
    at = effective("{b: {cluster name: x}, a: {cluster name: y}, c: {}, d: {cluster name: x}}")
    assert list(at.nodes) == ["c", "b", "d", "a"]


HOSTS = [
    ("n1", "n1"),
    ("n1,n2", "n1 n2"),
    ("n2,n1", "n2 n1"),
    ("n[1-3]", "n1 n2 n3"),
    ("n[01-03]", "n01 n02 n03"),
    ("n[08-11]", "n08 n09 n10 n11"),
    ("n[1-2,5]", "n1 n2 n5"),
    ("n[5,1]", "n5 n1"),
    ("n[1]", "n1"),
    ("r[1-2]n[1-2]", "r1n1 r1n2 r2n1 r2n2"),
    ("n[1-2].x", "n1.x n2.x"),
    ("n1,n1", "n1 n1"),
    ("n1,,n2,", "n1 n2"),
    ("n[1-2],login", "n1 n2 login"),
    ("n[009-011]", "n009 n010 n011"),
    ("n-[1-2]", "n-1 n-2"),
]


@pytest.mark.parametrize(("words", "names"), HOSTS)
def test_compat_hostlist(words: str, names: str) -> None:
    assert hostlist.expand([words]) == names.split()


def test_compat_what_is_listed_is_read_back_the_same() -> None:
    for own, profiles, _ in NODES:
        found = n1(own, profiles)
        assert yaml.typed(yaml.load(yaml.dump(found).encode(), "")) == found
