"""The merge rules, one case per rule: a nodes.conf and the effective node, both written out."""

from __future__ import annotations

import pytest

from wwfast.cli.nodes.views import plain
from wwfast.config import yaml
from wwfast.nodes.registry import Snapshot
from wwfast.nodes.text.source import Source

CASES = {
    "text: the node's own wins, an empty one does not clear": (
        """
        nodeprofiles:
          p: {image name: rocky, comment: not inherited, init: /sbin/init}
        nodes:
          n:
            profiles: [p]
            image name: alma
            init: ""
        """,
        """
        profiles:
          - p
        image name: alma
        init: /sbin/init
        """,
    ),
    "profiles: left to right, the later one wins": (
        """
        nodeprofiles:
          a: {image name: first, root: tmpfs}
          b: {image name: second}
        nodes:
          n: {profiles: [a, b]}
        """,
        """
        profiles:
          - a
          - b
        image name: second
        root: tmpfs
        """,
    ),
    "nested profiles: parents before the child, each once, a cycle is harmless": (
        """
        nodeprofiles:
          base: {profiles: [gpu], kernel: {args: [base]}, image name: base}
          gpu: {profiles: [base], kernel: {args: [gpu]}}
          top: {profiles: [base, gpu], kernel: {args: [top]}}
        nodes:
          n: {profiles: [top, base]}
        """,
        """
        profiles:
          - top
          - base
        image name: base
        kernel:
          args:
            - gpu
            - base
            - top
        """,
    ),
    "a negated profile goes, wherever the negation stands; what it pulled in stays": (
        """
        nodeprofiles:
          parent: {root: tmpfs}
          child: {profiles: [parent], image name: child}
          other: {init: /init}
        nodes:
          n: {profiles: [~child, child, other]}
        """,
        """
        profiles:
          - other
        init: /init
        root: tmpfs
        """,
    ),
    "a negation inside a nested profile counts": (
        """
        nodeprofiles:
          a: {image name: a}
          b: {profiles: [~a], root: b}
        nodes:
          n: {profiles: [a, b]}
        """,
        """
        profiles:
          - a
          - b
        root: b
        """,
    ),
    "lists are appended without de-duplication": (
        """
        nodeprofiles:
          p: {system overlay: [wwinit, hosts], runtime overlay: [hosts]}
        nodes:
          n: {profiles: [p], system overlay: [hosts], runtime overlay: [mine]}
        """,
        """
        profiles:
          - p
        runtime overlay:
          - hosts
          - mine
        system overlay:
          - wwinit
          - hosts
          - hosts
        """,
    ),
    "items of overlays and kernel arguments are negated, wherever they stand": (
        """
        nodeprofiles:
          p:
            system overlay: [wwinit, hosts]
            kernel: {args: [a1, a2]}
        nodes:
          n:
            profiles: [p]
            system overlay: [~wwinit]
            kernel: {args: [~a2, a3]}
        """,
        """
        profiles:
          - p
        system overlay:
          - hosts
        kernel:
          args:
            - a1
            - a3
        """,
    ),
    "network devices: united by name, merged field by field": (
        """
        nodeprofiles:
          p:
            network devices:
              default: {netmask: 255.255.255.0, gateway: 10.0.0.254, tags: {vlan: "1", x: y}}
              ib0: {type: infiniband}
        nodes:
          n:
            profiles: [p]
            network devices:
              default: {ipaddr: 10.0.0.1, gateway: 10.0.0.253, tags: {vlan: "2"}}
        """,
        """
        profiles:
          - p
        network devices:
          default:
            ipaddr: 10.0.0.1
            netmask: 255.255.255.0
            gateway: 10.0.0.253
            tags:
              vlan: 2
              x: y
          ib0:
            type: infiniband
        primary network: default
        """,
    ),
    "an address 0.0.0.0 counts as present": (
        """
        nodeprofiles:
          p: {network devices: {eth: {gateway: 10.0.0.254}}}
        nodes:
          n: {profiles: [p], network devices: {eth: {gateway: 0.0.0.0}}}
        """,
        """
        profiles:
          - p
        network devices:
          eth:
            gateway: 0.0.0.0
        primary network: eth
        """,
    ),
    "the primary network: the named device if there is one, else the first by name": (
        """
        nodeprofiles:
          p: {primary network: nowhere}
        nodes:
          n: {profiles: [p], network devices: {b: {device: eth1}, a: {device: eth0}}}
        """,
        """
        profiles:
          - p
        network devices:
          b:
            device: eth1
          a:
            device: eth0
        primary network: a
        """,
    ),
    "tags: united, an empty one overrides": (
        """
        nodeprofiles:
          p: {tags: {a: "1", b: "2"}, ipmi: {tags: {vlan: "7"}, username: root}}
        nodes:
          n: {profiles: [p], tags: {b: "", c: "3"}, ipmi: {username: me}}
        """,
        """
        profiles:
          - p
        ipmi:
          username: me
          tags:
            vlan: 7
        tags:
          a: 1
          b: ""
          c: 3
        """,
    ),
    "booleans have three states; false overrides true": (
        """
        nodeprofiles:
          p:
            disks: {/dev/sda: {wipe_table: yes, partitions: {root: {should_exist: on, number: 1}}}}
            filesystems: {/dev/sda1: {wipe_filesystem: true, options: [-F], format: ext4}}
        nodes:
          n:
            profiles: [p]
            disks: {/dev/sda: {wipe_table: false, partitions: {root: {resize: off, size_mib: 10}}}}
            filesystems: {/dev/sda1: {options: [-q]}}
        """,
        """
        profiles:
          - p
        disks:
          /dev/sda:
            wipe_table: false
            partitions:
              root:
                number: 1
                size_mib: 10
                should_exist: true
                resize: false
        filesystems:
          /dev/sda1:
            format: ext4
            wipe_filesystem: true
            options:
              - -F
              - -q
        """,
    ),
    "a WWbool is merged like text": (
        """
        nodeprofiles:
          p: {network devices: {e: {onboot: true}}, discoverable: true, asset key: never}
        nodes:
          n: {profiles: [p], network devices: {e: {onboot: false}}}
        """,
        """
        profiles:
          - p
        network devices:
          e:
            onboot: false
        primary network: e
        """,
    ),
    "resources: maps united, lists appended, over another kind the later one replaces": (
        """
        nodeprofiles:
          p:
            resources:
              fstab:
                - {spec: a}
              deep: {x: 1, list: [1], keep: yes}
              gone: [1]
              scalar: 5
        nodes:
          n:
            profiles: [p]
            resources:
              fstab:
                - {spec: b}
              deep: {x: "1", list: [2]}
              gone:
              scalar: {a: b}
        """,
        """
        profiles:
          - p
        resources:
          fstab:
            - spec: a
            - spec: b
          deep:
            x: "1"
            list:
              - 1
              - 2
            keep: yes
          gone: null
          scalar:
            a: b
        """,
    ),
    "scalars come out as written: MACs of digits, no, octals, dates": (
        """
        nodes:
          n:
            comment: no
            cluster name: 010
            asset key: 2024-01-01
            network devices: {e: {hwaddr: 00:11:22:33:44:55, mtu: 9000, onboot: yes}}
            tags: {on: off, n: 1_000, e: 1e3, t: 12:30:45}
        """,
        """
        asset key: 2024-01-01
        comment: no
        cluster name: 010
        network devices:
          e:
            onboot: yes
            hwaddr: 00:11:22:33:44:55
            mtu: 9000
        tags:
          "on": off
          "n": 1_000
          e: 1e3
          t: 12:30:45
        primary network: e
        """,
    ),
    "null entries and sections say nothing": (
        """
        nodeprofiles:
          p:
        nodes:
          n:
            profiles: [p]
            kernel:
            network devices:
              default:
            tags: ~
        """,
        """
        profiles:
          - p
        network devices:
          default: {}
        primary network: default
        """,
    ),
}


def snapshot(text: str) -> Snapshot:
    import textwrap

    return Snapshot(Source.parse(textwrap.dedent(text).encode(), "nodes.conf"))


@pytest.mark.parametrize(("conf", "expected"), CASES.values(), ids=CASES.keys())
def test_effective_node(conf: str, expected: str) -> None:
    import textwrap

    found = yaml.dump(plain(snapshot(conf).nodes["n"]))
    wanted = textwrap.dedent(expected).lstrip()
    assert plain_text(found) == plain_text(wanted)


def plain_text(text: str) -> object:
    """As a tree of strings, with the order of keys at the top."""
    tree = yaml.load(text.encode(), "expected")
    return list(tree), tree


def test_undefined_profile_is_skipped_and_reported() -> None:
    at = snapshot("nodes:\n  n: {profiles: [nowhere], comment: x}\n")
    assert at.nodes["n"].profiles == ["nowhere"]
    assert [str(problem) for problem in at.problems] == ["node n: no profile 'nowhere'"]


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("before", ["7", "[a, b]", "{k: v}", "null", '""'])
@pytest.mark.parametrize("after", ["8", "[c]", "{is: map}", "null", '""', "false"])
def test_a_resource_of_another_kind_replaces_that_of_the_profile(before: str, after: str, nested: bool) -> None:
    """Recorded from the real program; older descriptions of it had a map ignored and a list break all nodes."""
    form = "{{deep: {{x: {}}}}}" if nested else "{{x: {}}}"
    at = snapshot(
        f"nodeprofiles: {{p: {{resources: {form.format(before)}}}}}\n"
        f"nodes: {{n: {{profiles: [p], resources: {form.format(after)}}}, other: {{profiles: [p]}}}}\n"
    )
    united = {("[a, b]", "[c]"): ["a", "b", "c"], ("{k: v}", "{is: map}"): {"k": "v", "is": "map"}}
    wanted = united.get((before, after), yaml.typed(yaml.load(after.encode(), "")))
    found = at.nodes["n"].resources
    assert (found["deep"] if nested else found) == {"x": wanted}
    assert at.nodes["other"].resources == yaml.typed(yaml.load(form.format(before).encode(), ""))
    assert not at.problems


def test_an_unusable_profile_takes_out_its_nodes() -> None:
    at = snapshot("nodeprofiles:\n  p: {kernel: {args: quiet}}\nnodes:\n  a: {profiles: [p]}\n  b: {}\n")
    assert list(at.nodes) == ["b"]
    said = "profile p: nodes.conf:2: kernel.args: must be a list, not 'quiet' - Warewulf before 4.6"
    assert [str(each).startswith(said) for each in at.problems] == [True, False]


def test_reading_never_changes_what_others_share() -> None:
    """W-6: effective nodes there alias stored ones."""
    at = snapshot(
        "nodeprofiles:\n  p: {kernel: {args: [a, b]}, tags: {x: y}}\n"
        "nodes:\n  m: {profiles: [p], kernel: {args: [~a]}, tags: {x: z}}\n  n: {profiles: [p]}\n"
    )
    assert at.nodes["m"].kernel.args == ["b"]
    assert at.nodes["n"].kernel.args == ["a", "b"]
    assert at.nodes["n"].tags == {"x": "y"}
    assert at.source.trees["nodeprofiles"]["p"]["kernel"]["args"] == ["a", "b"]


def test_order_is_cluster_name_then_id() -> None:
    at = snapshot("nodes:\n  a: {cluster name: z}\n  c: {}\n  b: {}\n  d: {cluster name: y}\n")
    assert list(at.nodes) == ["b", "c", "d", "a"]


def test_duplicate_addresses_are_reported_and_the_first_keeps_them() -> None:
    at = snapshot(
        "nodes:\n  a: {network devices: {e: {hwaddr: 52:54:00:00:00:01, ipaddr: 10.0.0.1}}}\n"
        "  b: {network devices: {e: {hwaddr: 52-54-00-00-00-01, ipaddr: 10.0.0.1}}}\n"
    )
    assert at.by_mac("52:54:00:00:00:01") is at.nodes["a"]
    assert [str(each) for each in at.problems] == [
        "node b: hardware address 52:54:00:00:00:01 also belongs to node a",
        "node b: address 10.0.0.1 also belongs to node a",
    ]


def test_profiles_may_be_nested_as_deep_as_there_are_profiles() -> None:
    text = "nodeprofiles:\n" + "".join(f"  p{number}: {{profiles: [p{number + 1}]}}\n" for number in range(3000))
    at = snapshot(text + "  p3000: {image name: deep}\nnodes:\n  n: {profiles: [p0]}\n")
    assert at.nodes["n"].image_name == "deep"
    assert at.chain("n")[0] == "p3000"
