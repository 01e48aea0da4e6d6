"""A whole server in a network of its own, and a machine that asks it for everything."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.netns import Namespace, namespace_number, network
from support.patience import until
from wwfast.paths import Paths

SUPPORT = Path(__file__).parent
ADDRESS, PORT = "10.7.0.1", 9873
BOOT_FILE = bytes(range(256)) * 20
NODES = {"nodes": {"n1": {"network devices": {"default": {"hwaddr": "52:54:00:00:00:01", "ipaddr": "10.7.0.11"}}}}}
CONF: dict[str, Any] = {
    "ipaddr": ADDRESS,
    "netmask": "255.255.255.0",
    "network": "10.7.0.0",
    "warewulf": {"port": PORT},
    "dhcp": {"enabled": True, "range start": "10.7.0.100", "range end": "10.7.0.200"},
}


@dataclass
class Site:
    """A server in a namespace, and another one to ask from."""

    paths: Paths
    space: Namespace
    client: Namespace

    def start(
        self, log: str, plan: dict[str, Any], *words: str, inside: tuple[str, ...] = ()
    ) -> subprocess.Popen[bytes]:
        assert str(namespace_number()) not in self.space.run("readlink", "/proc/self/ns/net")
        script = str(SUPPORT / "strained_server.py")
        command = [*inside, sys.executable, script, json.dumps(plan), "--root", str(self.paths.root), "server", *words]
        return self.space.start(*command, log=log)

    def conf(self, name: str, **changes: Any) -> Path:
        """Another warewulf.conf, for a successor alone."""
        path = self.paths.etc / name
        path.write_text(json.dumps(CONF | changes))
        return path

    def ask(self) -> dict[str, Any]:
        """Everything the server serves, asked by a machine."""
        shown = self.client.run(sys.executable, SUPPORT / "ask_all.py", ADDRESS, str(PORT), "snponly.efi")
        found: dict[str, Any] = json.loads(shown.splitlines()[-1])
        assert bytes.fromhex(found["tftp"]) == BOOT_FILE
        assert found["dhcp"] == [ADDRESS]
        return found

    def says(self, log: str, words: str, seconds: float = 60.0) -> None:
        self.says_of(self.space, log, words, seconds)

    def says_of(self, space: Namespace, log: str, words: str, seconds: float = 60.0) -> None:
        until(lambda: words in space.log(log), seconds, lambda: space.log(log))


@contextmanager
def made(folder: Path) -> Iterator[Site]:
    paths = Paths.at(folder)
    paths.etc.mkdir(parents=True)
    (folder / "snponly.efi").write_bytes(BOOT_FILE)
    CONF["tftp"] = {"enabled": True, "ipxe": {"00:07": str(folder / "snponly.efi")}}
    paths.conf.write_text(json.dumps(CONF))
    paths.nodes_conf.write_text(json.dumps(NODES))
    with network() as net:
        yield Site(paths, net.join("server", f"{ADDRESS}/24"), net.join("client", "10.7.0.2/24"))
