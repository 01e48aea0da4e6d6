"""A head node of its own for a storm: a temporary root with an image and N nodes, and the real server on it."""

from __future__ import annotations

import os
import resource
import sys
import time
from pathlib import Path
from random import Random
from types import TracebackType

from wwfast.errors import WwfastError
from wwfast.storm.link import SERVER, Link, source
from wwfast.storm.plan import hwaddr
from wwfast.system.run import Process, run

PORT = 9873
KERNEL = 8 << 20
RELEASE = "6.1.0-1-amd64"
START_SECONDS = 60.0

CONF = """\
ipaddr: {server}
netmask: 255.254.0.0
network: 10.210.0.0
warewulf:
  port: {port}
  secure: true
dhcp:
  enabled: {firmware}
tftp:
  enabled: {firmware}
nfs:
  enabled: false
"""

PROFILE = """\
nodeprofiles:
  default:
    image name: storm
    system overlay: [hostname, hosts]
    runtime overlay: [hostname, hosts]
nodes:
"""

NODE = """\
  {name}:
    profiles: [default]
    cluster name: {cluster}
    network devices:
      default:
        hwaddr: {mac}
        ipaddr: {address}
        netmask: 255.255.0.0
"""


def prepare(root: Path, nodes: int, image_mib: int, clusters: int = 1, *, firmware: bool = False) -> None:
    """Write configuration and image below `root`, with the commands an admin would use; `firmware`: DHCP and TFTP."""
    etc = root / "etc/warewulf"
    etc.mkdir(parents=True)
    (etc / "warewulf.conf").write_text(CONF.format(server=SERVER, port=PORT, firmware=str(firmware).lower()))
    entries = (
        NODE.format(name=f"n{index:05}", cluster=f"c{index % clusters}", mac=hwaddr(index), address=source(index))
        for index in range(nodes)
    )
    (etc / "nodes.conf").write_text(PROFILE + "".join(entries))
    tree = root / "tree"
    (tree / "boot").mkdir(parents=True)
    (tree / "etc").mkdir()
    (tree / "bin").mkdir()
    (tree / "bin/sh").write_text("what makes a tree a root file system\n")
    (tree / "etc/os-release").write_text("ID=storm\n")
    noise(tree / f"boot/vmlinuz-{RELEASE}", KERNEL, 1)
    (tree / f"boot/config-{RELEASE}").write_text("CONFIG_RD_GZIP=y\nCONFIG_RD_ZSTD=y\n")
    noise(tree / "payload", image_mib << 20, 2)
    run(wwfast(root, "image", "import", "--build", tree, "storm"))


def noise(path: Path, size: int, seed: int) -> None:
    """`size` bytes that do not compress."""
    random = Random(seed)
    with path.open("wb") as file:
        for at in range(0, size, 1 << 20):
            file.write(random.randbytes(min(1 << 20, size - at)))


def wwfast(root: Path, *words: str | Path) -> list[str | Path]:
    return [sys.executable, "-m", "wwfast", "--root", root, *words]


class Head:
    """A context manager: `wwfast server` on `root`, in the server's namespace of `link`."""

    def __init__(self, root: Path, link: Link, *, firmware: bool = False) -> None:
        self.root, self.link = root, link
        self._listens = ["-Hlun", "sport = :67"] if firmware else ["-Hltn", f"sport = :{PORT}"]  # what comes last
        self.process: Process | None = None

    def __enter__(self) -> Head:
        log = self.root / "server.log"
        with log.open("wb") as out:
            self.process = self.link.serve(wwfast(self.root, "server"), stdout=out, stderr=out)
        deadline = time.monotonic() + START_SECONDS
        while not self.link.run(["ss", *self._listens]).stdout.strip():
            if self.process.poll() is not None or time.monotonic() > deadline:
                tail = log.read_text(errors="replace").strip().splitlines()[-8:]
                self.__exit__(None, None, None)
                raise WwfastError("\n".join(["the server of the storm did not start", *tail]))
            time.sleep(0.05)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        assert self.process is not None
        self.process.terminate()
        try:
            self.process.wait(10)
        except Exception:
            self.process.kill()
            self.process.wait()

    def usage(self) -> tuple[float, float]:
        """CPU seconds so far and resident MiB now."""
        assert self.process is not None
        base = Path(f"/proc/{self.process.pid}")
        try:
            fields = (base / "stat").read_text().rpartition(")")[2].split()
            pages = int((base / "statm").read_text().split()[1])
        except OSError:
            return 0.0, 0.0
        ticks = int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK"), pages * resource.getpagesize() / (1 << 20)
