"""The registry: snapshots, indexes, isolation of bad entries, reload."""

from __future__ import annotations

import gc
import weakref

import msgspec
import pytest

from wwfast.config import settings
from wwfast.errors import ConfigError
from wwfast.nodes.registry import Registry, Snapshot
from wwfast.nodes.text.source import Source
from wwfast.paths import Paths

GOOD = """\
nodeprofiles:
  default:
    image name: rocky
    kernel:
      args: [quiet, crashkernel=no]
    network devices:
      default:
        netmask: 255.255.255.0
nodes:
  n2:
    profiles: [default]
    cluster name: a
    kernel:
      args: ["~quiet", debug]
    network devices:
      default:
        hwaddr: 52-54-00-00-00-AA
        ipaddr: 10.0.0.2
  n1:
    profiles: [default]
    cluster name: b
    discoverable: true
    network devices:
      default: {ipaddr: 10.0.0.1}
"""


def write(paths: Paths, text: str) -> None:
    paths.nodes_conf.write_text(text)


def test_a_node_left_out_is_known_by_its_hardware_address(paths: Paths) -> None:
    write(paths, GOOD.replace("netmask: 255.255.255.0", "gateway: fe80::1"))
    snapshot = Registry(paths).snapshot()
    assert not snapshot.nodes.keys() & {"n2"}
    assert snapshot.by_mac("52:54:00:00:00:aa") is None
    assert snapshot.left_out("52-54-00-00-00-AA") == "n2"


def test_snapshot_resolves_and_indexes(paths: Paths) -> None:
    write(paths, GOOD)
    snapshot = Registry(paths).snapshot()
    assert list(snapshot.nodes) == ["n2", "n1"]
    node = snapshot.nodes["n2"]
    assert node.image_name == "rocky"
    assert node.kernel.args == ["crashkernel=no", "debug"]
    assert node.network_devices["default"].ip_cidr == "10.0.0.2/24"
    assert node.network_devices["default"].primary
    assert node.primary_network == "default"
    assert snapshot.by_mac("52:54:00:00:00:aa") is node
    assert snapshot.by_ip("10.0.0.2") is node
    assert [each.id for each in snapshot.discoverable()] == ["n1"]
    assert snapshot.problems == ()


GUID = "ec:0d:9a:03:00:9c:81:e2"


@pytest.mark.parametrize(
    ("written", "asks"),
    [
        (GUID, "ec:0d:9a:9c:81:e2"),
        ("80:00:02:08:fe:80:00:00:00:00:00:00:" + GUID, "ec:0d:9a:9c:81:e2"),
        ("80:00:02:08:fe:80:00:00:00:00:00:00:" + GUID, GUID),
        ("ec:0d:9a:9c:81:e2", GUID),
    ],
)
def test_nodes_a_port_of_infiniband_is_found_by_what_its_firmware_shows(paths: Paths, written: str, asks: str) -> None:
    write(paths, f"nodes: {{n1: {{network devices: {{ib0: {{hwaddr: '{written}', ipaddr: 10.0.0.9}}}}}}}}")
    node = Registry(paths).snapshot().by_mac(asks)
    assert node is not None
    assert [device.ipaddr for device in node.network_devices.values() if device.is_called(asks)] == ["10.0.0.9"]
    assert not node.network_devices["ib0"].is_called("ec:0d:9a:9c:81:e3")


def test_nodes_who_has_six_octets_in_full_goes_before_who_is_shown_so(paths: Paths) -> None:
    ports = {"a": GUID, "b": "ec:0d:9a:9c:81:e2", "c": GUID.replace(":03:00:", ":04:00:")}
    nodes = [f"{name}: {{network devices: {{ib0: {{hwaddr: '{hwaddr}'}}}}}}" for name, hwaddr in ports.items()]
    write(paths, f"nodes: {{{', '.join(nodes)}}}")
    snapshot = Registry(paths).snapshot()
    found = [snapshot.by_mac(address) for address in ports.values()]
    assert [node and node.id for node in found] == ["a", "b", "c"]


@pytest.mark.parametrize("asks", ["2001:db8::1", "2001:DB8:0::1", "2001:0db8:0000:0000:0000:0000:0000:0001"])
def test_nodes_an_address_of_ipv6_is_one_however_it_is_written(paths: Paths, asks: str) -> None:
    device = "{network devices: {d: {ipaddr6: '2001:DB8:0::1'}}, ipmi: {ipaddr: 'FD00:0::1'}}"
    write(paths, f"nodes: {{n1: {device}, n2: {device.replace(':0::', '::0:')}}}")
    snapshot = Registry(paths).snapshot()
    node = snapshot.by_ip(asks)
    assert node is snapshot.nodes["n1"]
    assert [str(problem) for problem in snapshot.problems] == [
        "node n2: address 2001:DB8::0:1 also belongs to node n1",
        "node n2: BMC address FD00::0:1 also belongs to node n1",
    ]


def test_a_bad_node_is_reported_and_the_others_stay(paths: Paths) -> None:
    write(paths, GOOD.replace("10.0.0.1", "10.0.0.999"))
    snapshot = Registry(paths).snapshot()
    assert list(snapshot.nodes) == ["n2"]
    assert snapshot.left_out("52:54:00:00:00:aa") == "", "n1 has no hardware address"
    (problem,) = snapshot.problems
    assert (problem.kind, problem.id, problem.fatal) == ("node", "n1", True)
    assert "nodes.conf:24: network devices.default.ipaddr: '10.0.0.999' is not an IPv4 address" in problem.message


def test_reload_keeps_the_last_good_one(paths: Paths) -> None:
    write(paths, GOOD)
    registry = Registry(paths)
    good = registry.reload()
    write(paths, "nodes: [")
    assert registry.reload() is good
    assert isinstance(registry.error, ConfigError)
    write(paths, GOOD.replace("10.0.0.1}", "10.0.0.7}"))
    fresh = registry.reload()
    assert registry.error is None
    assert fresh.nodes["n2"] is good.nodes["n2"]
    assert fresh.nodes["n1"].network_devices["default"].ipaddr == "10.0.0.7"


LAYERS = """\
nodeprofiles:
  up:
    kernel: {version: "5.1"}
    tags: {up: u}
  base:
    profiles: [up]
    comment: c
    image name: rocky
    resources: {a: 1}
  other:
    image name: alma
nodes:
  plain:
    profiles: [base]
  tagged:
    profiles: [base]
    tags: {own: "1"}
    resources: {b: 2}
  devices:
    profiles: [base]
    network devices: {eth: {hwaddr: 02:77:77:00:00:01, ipaddr: 10.0.0.1}}
  asset:
    profiles: [base, other]
    asset key: "12"
    discoverable: true
  free:
    init: /sbin/init
"""
WHOLE = LAYERS.replace("  plain:\n    profiles: [base]", "  plain: {profiles: [base]}")  # for this libyaml reads all
EDITS = [
    ("image name: rocky", "image name: alma"),
    ("  other:\n    image name: alma", "  other:\n    init: /init"),
    ("resources: {a: 1}", "resources: {a: true}"),
    ("resources: {a: true}", "resources: {a: 1.0}"),
    ("resources: {a: 1.0}", "tags: {b: t}"),
    ("resources: {b: 2}", "resources: {b: '2'}"),
    ('version: "5.1"', 'args: [quiet], version: "6.1"'),
    ("tags: {up: u}", "tags: {up: other}\n    network devices: {eth: {netmask: 255.0.0.0}}"),
    ("comment: c", "primary network: eth\n    comment: d"),
    ("comment: d", "asset key: ignored\n    discoverable: true"),
    ("profiles: [up]", "profiles: []"),
    ("init: /init", "init: 1\n    nonsense: 2"),
    ("nonsense: 2", "profiles: [nowhere]"),
    ("    profiles: [nowhere]\n", ""),
    ("  other:\n    init: 1\n", ""),
    ("[base, other]", "[base, ~up]"),
    ("ipaddr: 10.0.0.1", "ipaddr: 10.0.0.2"),
    ("  base:\n", "  base: &base\n"),
    ("  free:\n    init: /sbin/init", "  free: *base"),
]


def told(snapshot: Snapshot) -> object:
    """All that a snapshot says, with types: for Python 1 and true are the same."""
    nodes = {name: repr(msgspec.to_builtins(node)) for name, node in snapshot.nodes.items()}
    found = snapshot.by_mac("02:77:77:00:00:01"), snapshot.by_ip("10.0.0.1"), snapshot.by_ip("10.0.0.2")
    return nodes, [node.id if node is not None else None for node in found], set(map(str, snapshot.problems))


@pytest.mark.parametrize("text", [LAYERS, WHOLE], ids=["entries", "whole"])
def test_reload_after_each_edit_says_what_a_first_reading_says(paths: Paths, text: str) -> None:
    """What did not change is taken over, also over other profiles; each edit stays for the next ones."""
    write(paths, text)
    registry = Registry(paths)
    registry.reload()
    for before, after in EDITS:
        assert text.count(before) >= 1, before
        write(paths, text := text.replace(before, after, 1))
        assert told(registry.reload()) == told(Registry(paths).reload()), (before, after)
        assert registry.error is None


@pytest.mark.parametrize("text", [LAYERS, WHOLE], ids=["entries", "whole"])
def test_reload_makes_only_what_an_edit_touches(paths: Paths, text: str) -> None:
    write(paths, text)
    registry = Registry(paths)
    before = registry.reload().nodes
    write(paths, text.replace("image name: rocky", "image name: alma"))
    after = registry.reload().nodes
    assert after["tagged"].ipmi is before["tagged"].ipmi, "not resolved anew"
    assert after["free"] is before["free"]
    assert after["plain"].image_name == "alma"
    assert after["devices"].network_devices["eth"] is before["devices"].network_devices["eth"]


def test_no_file_is_an_empty_registry(paths: Paths) -> None:
    assert dict(Registry(paths).snapshot().nodes) == {}


def test_settings_name_file_line_and_key(paths: Paths) -> None:
    paths.conf.write_text("ipaddr: 10.0.0.1/24\nwarewulf:\n  prot: 1\n  port: none\n")
    with pytest.raises(ConfigError) as caught:
        settings.load(paths)
    assert caught.value.message == f"{paths.conf}:4: warewulf.port: must be a whole number, not 'none'"


def test_lines_of_problems_are_right_in_any_order(paths: Paths) -> None:
    """Counting goes on from the place asked for last; asking backwards must not disturb it."""
    entries = "".join(f"  n{number}:\n    comment: x\n    profiles: [gone{number}]\n" for number in range(1, 6))
    source = Source.parse(("nodeprofiles: {}\nnodes:\n" + entries).encode(), "nodes.conf")
    forwards = [source.line("nodes", f"n{number}", "profiles") for number in range(1, 6)]
    backwards = [source.line("nodes", f"n{number}", "profiles") for number in range(5, 0, -1)]
    assert forwards == [5, 8, 11, 14, 17]
    assert backwards == forwards[::-1]


def test_an_old_snapshot_goes_without_the_collector(paths: Paths) -> None:
    """The daemon keeps what it loaded from the collector, so a cycle would stay for ever."""
    write(paths, GOOD)
    registry = Registry(paths)
    old = weakref.ref(registry.reload())
    assert len(registry.snapshot().nodes) == 2
    gc.disable()
    try:
        write(paths, GOOD.replace("10.0.0.1}", "10.0.0.7}"))
        registry.reload()
        assert old() is None
    finally:
        gc.enable()
