"""A real BMC simulator (ipmi_sim of OpenIPMI) on loopback, whose power state is a file."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.patience import until
from wwfast.system.run import start

# What ipmi_sim calls: `chassis MC get power` or `chassis MC set power|reset|shutdown VALUE`.
CHASSIS = """#!/bin/sh
echo "$*" >> {folder}/calls
case "$2 $3" in
    "get power") echo "power:$(cat {folder}/power)" ;;
    "set power") echo "$4" > {folder}/power ;;
esac
"""
CONF = """name "bmc"
set_working_mc 0x20
startlan 1
  addr 127.0.0.1 {port}
  priv_limit admin
  allowed_auths_callback none md2 md5 straight
  allowed_auths_user none md2 md5 straight
  allowed_auths_operator none md2 md5 straight
  allowed_auths_admin none md2 md5 straight
  guid a123456789abcdefa123456789abcdef
endlan
chassis_control "{folder}/chassis 0x20"
{sol}user 1 true "" "test" user 10 none md2 md5 straight
user 2 true "admin" "{password}" admin 10 none md2 md5 straight
"""
COMMANDS = """mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02
sel_enable 0x20 1000 0x0a
mc_enable 0x20
"""
PASSWORD = "s3'cr$t`et"  # a shell would make something else of it


class Bmc:
    """One BMC: `port` (UDP), `power` as it is now, `calls` of its chassis since the start."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port

    @property
    def power(self) -> bool:
        return (self.folder / "power").read_text().strip() == "1"

    @property
    def calls(self) -> list[str]:
        """What was set, in order, such as `power 1`."""
        lines = (self.folder / "calls").read_text().splitlines() if (self.folder / "calls").exists() else []
        return [line.partition(" set ")[2] for line in lines if " set " in line]


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def bmc(folder: Path, console: int = 0) -> Iterator[Bmc]:
    """Start a simulator with its files in `folder`; it ends with the block. `console`: TCP port of a serial console."""
    for program, package in (("ipmi_sim", "openipmi"), ("ipmitool", "ipmitool")):
        assert shutil.which(program), f"{program} is missing: apt-get install {package} (tools/setup.sh does)"
    made = Bmc(folder, free_port())
    (folder / "state").mkdir(parents=True)
    (folder / "power").write_text("0\n")
    (folder / "chassis").write_text(CHASSIS.format(folder=folder))
    (folder / "chassis").chmod(0o755)
    sol = f'sol "tcp:127.0.0.1:{console}" 115200\n' if console else ""
    (folder / "lan.conf").write_text(CONF.format(folder=folder, port=made.port, password=PASSWORD, sol=sol))
    (folder / "commands").write_text(COMMANDS)
    with (folder / "log").open("wb") as log:
        process = start(
            ["ipmi_sim", "-c", folder / "lan.conf", "-f", folder / "commands", "-s", folder / "state", "-n"],
            stdout=log, stderr=log, tied=True,
        )  # fmt: skip
    try:

        def listens() -> bool:
            assert process.poll() is None, (folder / "log").read_text()
            return answers(made.port)

        until(listens, 15.0, why=lambda: "ipmi_sim does not answer")
        yield made
    finally:
        process.terminate()
        process.wait(15)


def answers(port: int) -> bool:
    """Whether the port is taken, by the kernel's own list."""
    return f":{port:04X} " in Path("/proc/net/udp").read_text()


@contextmanager
def silent() -> Iterator[int]:
    """The port of a BMC that hears everything and answers nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        yield int(sock.getsockname()[1])
