"""The registry: a nodes.conf as a real site exports it, at ten thousand nodes.

Six profiles, forty racks, about 500 bytes a node: two devices, tags, a BMC. Commands are whole processes, start of the
interpreter included.
"""

from __future__ import annotations

SYSTEM = [
    "wwinit",
    "wwclient",
    "hosts",
    "fstab",
    "hostname",
    "ssh.host_keys",
    "issue",
    "resolv",
    "udev.netname",
    "systemd.netname",
    "ifcfg",
    "ifupdown",
    "NetworkManager",
    "wicked",
    "ignition",
]
KINDS = ("compute", "gpu", "bigmem", "login", "storage")


def site(nodes: int) -> str:
    """The text of nodes.conf, in the form Warewulf writes."""
    lines = ["nodeprofiles:"]
    for kind in KINDS:
        lines += [
            f"  {kind}:",
            f"    comment: {kind} nodes",
            "    profiles:",
            "      - default",
            f"    image name: rocky9-{kind}",
            "    kernel:",
            "      args:",
            f"        - {kind}.tune=1",
            "    tags:",
            f"      kind: {kind}",
        ]
    lines += [
        "  default:",
        "    comment: This profile is automatically included for each node",
        "    image name: rocky9",
        "    ipxe template: default",
        "    runtime overlay:",
        "      - hosts",
        "      - ssh.authorized_keys",
        "    system overlay:",
        *(f"      - {name}" for name in SYSTEM),
        "    kernel:",
        "      args:",
        "        - quiet",
        "        - crashkernel=no",
        "        - net.ifnames=1",
        "    ipmi:",
        "      username: root",
        "      password: calvin",
        "      netmask: 255.255.0.0",
        "      template: ipmitool.tmpl",
        "    init: /sbin/init",
        "    root: initramfs",
        "    network devices:",
        "      default:",
        "        type: ethernet",
        "        device: eno1",
        "        netmask: 255.255.0.0",
        "        gateway: 10.0.0.1",
        "nodes:",
    ]
    width = len(str(nodes))
    for index in range(nodes):
        high, low = index // 250, index % 250 + 1
        octets = f"{index >> 16 & 255:02x}:{index >> 8 & 255:02x}:{index & 255:02x}"
        lines += [
            f"  n{index + 1:0{width}d}:",
            "    profiles:",
            f"      - {KINDS[index % 40 % len(KINDS)]}",
            f"    comment: row {index % 8 + 1}, slot {index // 40 % 42 + 1}",
            f"    cluster name: rack{index % 40 + 1:02d}",
            "    ipmi:",
            f"      ipaddr: 10.1.{high}.{low}",
            "    network devices:",
            "      default:",
            f"        hwaddr: 52:54:00:{octets}",
            f"        ipaddr: 10.0.{high}.{low}"
            if nodes <= 60000
            else f"        ipaddr: 10.{16 + high // 250}.{high % 250}.{low}",
            "      ib0:",
            "        type: infiniband",
            "        device: ib0",
            f"        ipaddr: 10.2.{high}.{low}"
            if nodes <= 60000
            else f"        ipaddr: 10.{32 + high // 250}.{high % 250}.{low}",
            "        netmask: 255.255.0.0",
            '        mtu: "2044"',
            "    tags:",
            f"      rack: r{index % 40 + 1:02d}",
            f"      serial: CZ{index * 7919 % 10**8:08d}",
        ]
    return "\n".join(lines) + "\n"
