"""Samples of other provisioners' files, and what a site of the test's own makes of them."""

from __future__ import annotations

from pathlib import Path

from support.commands import Run as Run
from wwfast.config import yaml
from wwfast.config.yaml import Tree
from wwfast.paths import Paths

DATA = Path(__file__).parents[1] / "data/importers"
MAPS = ("--map", "mac=hwaddr", "--map", "bmc.address=ipmiaddr", "--map", "bmc.pass=ipmipass", "--map", "rack=tag.rack")
#: Sample: the words of its import.
SAMPLES: dict[str, tuple[str, ...]] = {
    "xcat": ("xcat", f"{DATA}/xcat.stanza"),
    "warewulf3": ("warewulf3", f"{DATA}/warewulf3.txt"),
    "cobbler": ("cobbler", f"{DATA}/cobbler"),
    "grendel": ("grendel", f"{DATA}/grendel.json"),
    "csv": ("csv", f"{DATA}/nodes.csv"),
    "dhcpd": ("dhcpd", f"{DATA}/dhcpd.conf"),
    "dnsmasq": ("dnsmasq", f"{DATA}/dnsmasq"),
    "ansible": ("ansible", f"{DATA}/ansible.json", *MAPS),
    "ansible-yaml": ("ansible", f"{DATA}/ansible.yaml", "--map", "mac=hwaddr", "--map", "netmask=netmask"),
}
SECRET = "Kept-From-Sight"  # in samples, wherever one has a secret


def written(paths: Paths) -> Tree:
    """nodes.conf as it is now; {} when there is none."""
    return yaml.load(paths.nodes_conf.read_bytes(), "nodes.conf") if paths.nodes_conf.exists() else {}


def stanza(name: str, **values: object) -> str:
    """A node of xCAT."""
    return f"{name}:\n    objtype=node\n" + "".join(f"    {key}={value}\n" for key, value in values.items())


def stanzas(number: int) -> str:
    """As many nodes, alike but for their addresses and racks."""
    return "".join(
        stanza(
            f"n{index:05d}",
            addkcmdline="quiet console=tty0",
            arch="x86_64",
            bmc=f"11.0.{index >> 8}.{index & 255}",
            bmcusername="root",
            groups=f"compute,rack{index // 40},all",
            ip=f"10.0.{index >> 8}.{index & 255}",
            mac=f"52:54:00:00:{index >> 8:02x}:{index & 255:02x}",
        )
        for index in range(1, number + 1)
    )
