"""Whatever nodes.conf says: a node in service can be put into DHCP packets, and one that cannot is named."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from wwfast.config import checks
from wwfast.net.dhcp.packet import Kind, Message, build, dotted, parse
from wwfast.net.dhcp.responder import DhcpConfig, Responder
from wwfast.net.dhcp.terms import Reservation
from wwfast.nodes.registry import Snapshot
from wwfast.nodes.text.source import Source

FIELDS = ("ipaddr", "gateway", "netmask")
ODD = st.one_of(
    st.ip_addresses(v=6).map(str),
    st.ip_addresses(v=4).map(str),
    st.sampled_from(["10.0.0", "10.0.0.256", "010.0.0.1", "0x0a.0.0.1", "1.2.3.4/24", "::ffff:10.0.0.1", "fe80::1%d"]),
    st.sampled_from(["255.255.255.0", "255.0.255.0", "ffff:ffff::", "255.255.255.999", "24", "/24", "UNSET", "x"]),
    st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=12),
)


def mac(at: int) -> bytes:
    return bytes((0x52, 0x54, 0, 0, 0, at))


def conf(odd: list[tuple[str, str, bool]]) -> str:
    """Node n1.. for each odd value, which stands in the node, or in a profile that it has."""
    profiles, nodes = {}, {"n0": {"network devices": {"d": {"hwaddr": mac(0).hex(":"), "ipaddr": "10.0.0.100"}}}}
    for at, (key, value, inherited) in enumerate(odd, 1):
        own = {"hwaddr": mac(at).hex(":"), "ipaddr": f"10.0.0.{at}", "netmask": "255.255.255.0", key: value}
        entry: dict = {"network devices": {"d": own}}
        if inherited:
            profiles[f"p{at}"] = {"network devices": {"d": {key: own.pop(key)}}}
            entry["profiles"] = [f"p{at}"]
        nodes[f"n{at}"] = entry
    return json.dumps({"nodeprofiles": profiles, "nodes": nodes}, ensure_ascii=False)


@given(st.lists(st.tuples(st.sampled_from(FIELDS), ODD, st.booleans()), min_size=1, max_size=8))
def test_nodes_in_service_can_be_answered_and_the_others_are_named(odd: list[tuple[str, str, bool]]) -> None:
    snapshot = Snapshot(Source.parse(conf(odd).encode(), "nodes.conf"))
    named = {problem.id for problem in snapshot.problems if problem.fatal and problem.kind == "node"}
    assert {f"n{at}" for at in range(len(odd) + 1)} == snapshot.nodes.keys() | named
    assert not snapshot.nodes.keys() & named
    assert "n0" in snapshot.nodes

    def hosts(address: str) -> Reservation | None:
        node = snapshot.by_mac(address)
        device = node.network_devices["d"] if node else None
        return Reservation(node.id, device.ipaddr, device.netmask, device.gateway, node.id) if node and device else None

    server = Responder(DhcpConfig("10.0.0.254", "255.255.255.0"), hosts, lambda client, ip: None)
    for at, (key, value, _) in enumerate(odd, 1):
        reply, _ = server.respond(parse(build(Message(chaddr=mac(at), options={53: bytes((Kind.DISCOVER,))}))), 1.0)
        if checks.ip4(value):
            assert f"n{at}" in named
            assert reply is None
        elif key == "ipaddr" and value != "0.0.0.0":
            assert reply is not None
            assert dotted(parse(reply.data).yiaddr) == value
