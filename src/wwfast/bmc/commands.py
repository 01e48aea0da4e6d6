"""What is run for a node: ipmitool for its BMC, ssh for itself. Words only, no shell, so nothing is quoted or injected.

The options are those of Warewulf's ipmitool.tmpl. The password is not among them: everybody can read a command line
in /proc, so ipmitool gets it in its environment (-E), which only its own user can read.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

from wwfast.errors import ConfigError, UsageError
from wwfast.nodes.model import Ipmi, Node

ACTIONS: dict[str, tuple[str, ...]] = {
    "on": ("chassis", "power", "on"),
    "off": ("chassis", "power", "off"),
    "cycle": ("chassis", "power", "cycle"),
    "reset": ("chassis", "power", "reset"),
    "soft": ("chassis", "power", "soft"),
    "status": ("chassis", "power", "status"),
    "sensors": ("sdr", "list"),
    "sensors full": ("sensor", "list"),
    "console": ("sol", "activate"),
}
TEMPLATES = ("", "ipmitool.tmpl")
# Interfaces that reach a BMC over the network. Every other one of ipmitool's (open, imb, serial) ignores the address
# and talks to the BMC of the machine it runs on: `power off` would switch off this server.
INTERFACES = ("", "lan", "lanplus")
PASSWORD = "IPMITOOL_PASSWORD"  # ipmitool(1): takes precedence over IPMI_PASSWORD
NONE = ("", "0.0.0.0", "::")  # addresses that are none
CONNECT = 10  # seconds ssh tries to reach a node


@dataclass(frozen=True, slots=True)
class Job:
    """One command for one node. `env` is added to our own environment and may hold a secret: never print it."""

    node: str
    argv: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict, repr=False)


def bmc(node: Node, action: str) -> Job:
    """The ipmitool command of an action (a key of ACTIONS). Raises ConfigError naming what the node lacks."""
    ipmi = node.ipmi
    if ipmi.template not in TEMPLATES:
        also = ", and power without a BMC is not built in" if PurePath(ipmi.template).name == "nobmc.tmpl" else ""
        raise ConfigError(
            f"template '{ipmi.template}' is not run: wwfast calls ipmitool itself{also}",
            hint=f"wwfast node set {node.id} --ipmitemplate ipmitool.tmpl",
        )
    if ipmi.ipaddr in NONE:
        raise ConfigError("no BMC address", hint=f"wwfast node set {node.id} --ipmiaddr ADDRESS")
    if ipmi.interface not in INTERFACES:
        raise ConfigError(
            f"ipmi interface '{ipmi.interface}' does not reach a BMC over the network",
            hint=f"wwfast node set {node.id} --ipmiinterface lanplus",
        )
    return Job(node.id, ("ipmitool", *options(ipmi, action), "-E", *ACTIONS[action]), secret(ipmi))


def options(ipmi: Ipmi, action: str) -> list[str]:
    """Where the BMC is and who asks."""
    # A console is there over IPMI 2.0 only; without -I ipmitool takes 1.5 (lan) for a remote BMC.
    interface = ipmi.interface or ("lanplus" if action == "console" else "")
    given = (("-I", interface), ("-e", ipmi.escapechar), ("-p", ipmi.port), ("-H", ipmi.ipaddr), ("-U", ipmi.username))
    return [word for option, value in given if value for word in (option, value)]


def secret(ipmi: Ipmi) -> dict[str, str]:
    """The environment with the password: the node's, else the caller's own, else an empty one, so none is asked for."""
    if not ipmi.password and (os.environ.get(PASSWORD) or os.environ.get("IPMI_PASSWORD")):
        return {}
    return {PASSWORD: ipmi.password}


def remote(node: Node, command: Sequence[str], rsh: str) -> Job:
    """`command` on the node, at the IPv4 address of its primary device. Raises ConfigError when it has none."""
    address = node.primary.ipaddr if node.primary is not None else ""
    if address in NONE:
        raise ConfigError(
            "no address on its primary network device", hint=f"wwfast node set {node.id} --ipaddr ADDRESS"
        )
    # Many ask at once, so nobody could answer a question: OpenSSH is told to fail instead. Another program gets the
    # words Warewulf gives it.
    ssh = PurePath(rsh).name == "ssh"
    options = ("-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT}", "--") if ssh else ()
    return Job(node.id, (rsh, *options, address, *command))


def words(command: Sequence[str]) -> tuple[str, ...]:
    """The command of `wwfast ssh` without a leading `--`. Raises UsageError when it begins with an option."""
    rest = tuple(command[1:] if command[:1] == ("--",) else command)
    if not rest:
        raise UsageError("which command?", hint="wwfast ssh 'n[1-3]' uptime")
    if rest[0].startswith("-"):
        raise UsageError(
            f"{rest[0]!r} is no command",
            hint="options of wwfast ssh stand before the nodes: wwfast ssh -n 'n[1-3]' uptime",
        )
    return rest
