"""A whole wwfast of its own: one state directory, one network namespace, the server in it, and machines to boot."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from wwfast.demo.debian import Tree
from wwfast.demo.netns import Loopback, Namespace
from wwfast.demo.vm import ARGUMENTS, Vm
from wwfast.errors import WwfastError
from wwfast.paths import Paths
from wwfast.system.run import Done, Process, run, stop

Seen = TypeVar("Seen")

IMAGE = "debian"
KERNEL = "lab"  # the kernel kept apart from the image, for `kernel: override`
READY = b"serving on port"  # what the log of the server says when it is up
INTERVAL = 10  # seconds between two looks at the runtime overlay
SYSTEM = "wwinit,wwclient,hostname,ssh.host_keys,systemd.networkd"
RUNTIME = "hosts,ssh.authorized_keys"


class Cluster:
    """Everything goes through the command line and the network, as an admin and a node would do it.

    The server runs in `network`, on its address; files are below `root` only.
    """

    def __init__(self, root: Path, network: Namespace | Loopback, tree: Tree, port: int = 9873) -> None:
        self.root = root
        self.port = port
        self.network = network
        self.tree = tree
        self.paths = Paths.at(root)
        self.server: Process | None = None

    @property
    def command(self) -> list[str | Path]:
        """What runs wwfast on these files, inside the network."""
        return [sys.executable, "-m", "wwfast", "--root", self.root]

    @property
    def log(self) -> Path:
        return self.root / "server.log"

    def configure(self, **changes: object) -> None:
        """Write warewulf.conf; `changes` replace whole sections."""
        prefix = self.network.server.rpartition(".")[0]
        settings: dict[str, object] = {
            "ipaddr": self.network.server,
            "netmask": "255.255.255.0",
            "network": f"{prefix}.0",
            "warewulf": {"port": self.port, "secure": True, "update interval": INTERVAL},
            "dhcp": {"enabled": True, "range start": f"{prefix}.100", "range end": f"{prefix}.199"},
            "tftp": {"enabled": True},
            "nfs": {"enabled": False},
        }
        self.paths.etc.mkdir(parents=True, exist_ok=True)
        self.paths.conf.write_text(json.dumps(settings | changes, indent=2))  # JSON is YAML

    def make_keys(self) -> None:
        """The host keys of the nodes, and the key that opens them for root."""
        keys = self.paths.etc / "keys"
        keys.mkdir(mode=0o700, exist_ok=True)
        for kind in ("ed25519", "rsa"):
            if not (key := keys / f"ssh_host_{kind}_key").exists():
                run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "lab", "-f", key], package="openssh-client")
        authorized = self.root / "root/.ssh/authorized_keys"
        authorized.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.tree.key.with_suffix(".pub"), authorized)

    def populate(self, image: str = IMAGE) -> None:
        """The image, the kernel apart from it, and a default profile with the image."""
        self.wwfast("image", "import", self.tree.rootfs, image, timeout=300)
        self.wwfast("image", "build", image, timeout=300)
        self.wwfast("kernel", "import", self.tree.rootfs, KERNEL, timeout=300)
        self.add_profile(image)

    def add_profile(self, image: str = IMAGE) -> None:
        """The default profile: `image`, the overlays, the serial console."""
        words = ["--image", image, "-O", SYSTEM, "-R", RUNTIME, "--kernelargs", ARGUMENTS]
        self.wwfast("profile", "add", "default", *words, "--netmask", "255.255.255.0", "--yes")

    def wwfast(self, *words: str | Path, check: bool = True, timeout: float = 60.0) -> Done:
        """Run one command beside the server. Raises WwfastError with what it said when it fails."""
        return self.network.run([*self.command, *words], check=check, timeout=timeout)

    def add_node(self, name: str, number: int, *words: str) -> None:
        """Node `name` with address .<10 + number>, the MAC of machine(name, number), and further flags."""
        address = ["--hwaddr", hwaddr(number), "--ipaddr", self.address(number)]
        self.wwfast("node", "add", name, *address, *words, "--yes")

    def address(self, number: int) -> str:
        return f"{self.network.server.rpartition('.')[0]}.{10 + number}"

    def machine(self, name: str, number: int, **options: Any) -> Vm:
        """A machine that is node `name`; not yet started. Needs a namespace."""
        if isinstance(self.network, Loopback):
            raise WwfastError("a machine needs a network of its own, and that needs root")
        options.setdefault("ipaddr", self.address(number))
        return Vm(self.network, self.root / "machines", name, hwaddr(number), key=self.tree.key, **options)

    def serve(self, *flags: str, timeout: float = 60.0) -> None:
        """Start the server and wait until all of it serves, DHCP last."""
        with self.log.open("ab") as log:
            before = log.tell()
            self.server = self.network.start([*self.command, "server", *flags], stdout=log, stderr=log)
        deadline = time.monotonic() + timeout
        while READY not in (said := self.log.read_bytes()[before:]):
            if self.server.poll() is not None or time.monotonic() > deadline:
                tail = "\n".join(said.decode(errors="replace").splitlines()[-20:])
                raise WwfastError(f"the server did not start; its log ({self.log}) ends:\n{tail}")
            time.sleep(0.1)

    def stop(self) -> int:
        """SIGTERM the server; its exit status (0 when none ran)."""
        server, self.server = self.server, None
        return stop(server, 70.0) if server is not None else 0

    def fetch(self, path: str, *options: str, check: bool = True) -> Done:
        """GET `path` of the server with curl, from its own address."""
        url = f"http://{self.network.server}:{self.port}{path}"
        return self.network.run(["curl", "-sS", "--noproxy", "*", *options, url], check=check, package="curl")

    def status(self, node: str) -> dict[str, Any]:
        """The entry of one node in /status, with the stages of its boot; none while there is no such node."""
        body: dict[str, Any] = json.loads(self.fetch(f"/status?node={node}").stdout)
        entry: dict[str, Any] = body["nodes"].get(node, {"stage": "", "boot": []})
        return entry

    def wait_for(self, look: Callable[[], Seen], wanted: Callable[[Seen], bool], timeout: float) -> Seen:
        """Look again and again until what is seen is wanted. Raises WwfastError with the last sight."""
        deadline = time.monotonic() + timeout
        while not wanted(seen := look()):
            if time.monotonic() > deadline:
                raise WwfastError(f"not within {timeout:g} s; the last seen: {seen}")
            time.sleep(0.2)
        return seen


def hwaddr(number: int) -> str:
    return f"52:54:00:77:00:{number:02x}"
