"""A head node of its own for a storm: a temporary root with an image and N nodes, and the real server on it."""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Protocol

from wwfast.errors import WwfastError
from wwfast.storm.link import SERVER
from wwfast.storm.plan import hwaddr
from wwfast.system.run import Argv, Done, Process, run, stop

PORT = 9873
KERNEL = 8 << 20
RELEASE = "6.1.0-1-amd64"
START_SECONDS = 60.0
KEY = "etc/warewulf/tls/follow.pem"
NO_CACHES: Mapping[str, str] = {}

CONF = """\
ipaddr: {server}
netmask: 255.248.0.0
network: 10.208.0.0
warewulf:
  port: {port}
  secure: true
dhcp:
  enabled: {firmware}
tftp:
  enabled: {firmware}
nfs:
  enabled: false
wwfast:
  caches: [{caches}]
  heads: [{heads}]
"""

PROFILE = """\
nodeprofiles:
  default:
    image name: storm
    system overlay: [{overlays}]
    runtime overlay: [{overlays}]
    wwfast: {{two stage: {two_stage}}}
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
#: What stage-1 takes of an image: named in share/stage1/init. Nobody runs them here.
PROGRAMS = "sh mount mkdir cat sleep rm wc sha256sum curl ip modprobe switch_root chroot gzip cpio tar head zstd"
GNU_TAR = "#!/bin/sh\n# as GNU tar's: --delay-directory-restore\n"


def prepare(
    root: Path, addresses: Sequence[str], image_mib: int, clusters: int = 1, *, firmware: bool = False,
    overlays: str = "hostname, hosts", caches: Mapping[str, str] = NO_CACHES, cache_rate: int = 0,
    kernel: int = KERNEL, heads: Sequence[str] = (),
) -> None:  # fmt: skip
    """Write configuration and image below `root`, with the commands an admin would use; `firmware`: DHCP and TFTP;
    `caches`: URLs by the network of their nodes; `cache_rate`: Mbit/s of each; `heads`: addresses of all, where there
    are several. With caches or heads nodes boot in two stages."""
    staged = bool(caches or heads)
    configure(root, SERVER, firmware=firmware, caches=caches, cache_rate=cache_rate, heads=heads)
    etc = root / "etc/warewulf"
    entries = (
        NODE.format(name=f"n{index:05}", cluster=f"c{index % clusters}", mac=hwaddr(index), address=address)
        for index, address in enumerate(addresses)
    )
    (etc / "nodes.conf").write_text(
        PROFILE.format(overlays=overlays, two_stage="always" if staged else "auto") + "".join(entries)
    )
    tree = root / "tree"
    (tree / "boot").mkdir(parents=True)
    (tree / "etc").mkdir()
    (tree / "bin").mkdir()
    for name in PROGRAMS.split():
        (tree / "bin" / name).write_text(GNU_TAR)
        (tree / "bin" / name).chmod(0o755)
    (tree / "etc/os-release").write_text("ID=storm\n")
    noise(tree / f"boot/vmlinuz-{RELEASE}", kernel, 1)
    (tree / f"boot/config-{RELEASE}").write_text("CONFIG_RD_GZIP=y\nCONFIG_RD_ZSTD=y\n")
    modules = tree / "lib/modules" / RELEASE
    modules.mkdir(parents=True)
    (modules / "modules.dep").touch()
    (modules / "modules.builtin").write_text("kernel/drivers/block/loop.ko\nkernel/fs/overlayfs/overlay.ko\n")
    noise(tree / "payload", image_mib << 20, 2)
    run(wwfast(root, "image", "import", tree, "storm"))
    run(wwfast(root, "image", "build", "storm", *(["--format", "tmpfs"] if staged else [])))


def configure(
    root: Path, address: str, *, firmware: bool = False, caches: Mapping[str, str] = NO_CACHES,
    cache_rate: int = 0, heads: Sequence[str] = (),
) -> None:  # fmt: skip
    """warewulf.conf of a head with this address."""
    etc = root / "etc/warewulf"
    etc.mkdir(parents=True)
    told = ", ".join(f"{{url: {url}, networks: [{network}], rate: {cache_rate}}}" for network, url in caches.items())
    (etc / "warewulf.conf").write_text(
        CONF.format(server=address, port=PORT, firmware=str(firmware).lower(), caches=told, heads=", ".join(heads))
    )


def noise(path: Path, size: int, seed: int) -> None:
    """`size` bytes that do not compress."""
    random = Random(seed)
    with path.open("wb") as file:
        for at in range(0, size, 1 << 20):
            file.write(random.randbytes(min(1 << 20, size - at)))


def wwfast(root: Path, *words: str | Path) -> list[str | Path]:
    return [sys.executable, "-m", "wwfast", "--root", root, *words]


class Room(Protocol):
    """Where a head is: a Link, or a place of a Fabric of racks."""

    def serve(self, argv: Argv, **options: Any) -> Process: ...

    def run(self, argv: Argv, **options: Any) -> Done: ...


class Head:
    """A context manager: `wwfast server` on `root`, in the server's namespace of `link`, perhaps one that follows."""

    def __init__(
        self, root: Path, link: Room, *, firmware: bool = False, address: str = SERVER, follow: str = ""
    ) -> None:
        self.root, self.link, self.address = root, link, address
        self._words = ["--follow", follow] if follow else []
        self._listens = ["-Hlun", "sport = :67"] if firmware else ["-Hltn", f"sport = :{PORT}"]  # what comes last
        self.process: Process | None = None

    def __enter__(self) -> Head:
        log = self.root / "server.log"
        with log.open("wb") as out:
            self.process = self.link.serve(wwfast(self.root, "server", *self._words), stdout=out, stderr=out)
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
        stop(self.process)

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """At once, with nobody told."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def status(self) -> dict[str, Any]:
        """What it tells of itself."""
        url = f"http://{self.address}:{PORT}/status"
        body = self.link.run(["curl", "-sS", "--noproxy", "*", url], package="curl").stdout
        found: dict[str, Any] = json.loads(body)
        return found

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


class Seat(Room, Protocol):
    """A place of a Fabric: one of several heads has its own address."""

    @property
    def address(self) -> str: ...


class Heads:
    """A context manager: the head that has a site at `root`, and others beside it that follow it, each in its place."""

    def __init__(
        self, root: Path, seats: Sequence[Seat], caches: Mapping[str, str] = NO_CACHES, cache_rate: int = 0
    ) -> None:
        self.all = [Head(root, seats[0])]
        addresses = [seat.address for seat in seats]
        key = root / KEY
        if seats[1:]:
            run(wwfast(root, "follow", "key"))
        for number, seat in enumerate(seats[1:], 2):
            beside = root.with_name(f"head{number}")
            configure(beside, seat.address, caches=caches, cache_rate=cache_rate, heads=addresses)
            (beside / KEY).parent.mkdir(0o700)
            shutil.copy(key, beside / KEY)
            self.all.append(Head(beside, seat, address=seat.address, follow=f"https://{addresses[0]}"))
        self._running = ExitStack()

    def __enter__(self) -> list[Head]:
        with ExitStack() as begun:
            for head in self.all:
                begun.enter_context(head)
            self._running = begun.pop_all()
        return self.all

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._running.close()
