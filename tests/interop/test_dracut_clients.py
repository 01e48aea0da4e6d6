"""What Warewulf's dracut modules do to a server, each version's own way: the same requests in the same order, by curl,
gzip and cpio with the same options, against a server of its own."""

from __future__ import annotations

import json
import random
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.daemon import overlay, tiny_image, write_conf
from support.httpserver import get, read_response
from support.initramfs import initramfs
from support.patience import until
from wwfast.api.service import Service
from wwfast.config.settings import load
from wwfast.images.building import How
from wwfast.nodes.registry import Registry
from wwfast.paths import Paths

pytestmark = [
    pytest.mark.root,  # ports below 1024
    pytest.mark.skipif(shutil.which("cpio") is None, reason="no cpio"),
]

PAYLOAD = 24 << 20  # more than the kernel holds of a transfer that nobody takes
RATE = 8 << 20  # bytes a second to one node
STORM = 24
CURL = "curl --location --silent --get --retry 60 --retry-delay 1"
REFUSED = "--retry-connrefused"
QUERY = "--data-urlencode assetkey='Rack 7' --data-urlencode uuid=u-1"
TOLD = "--dump-header /dev/stderr"  # of each answer, those that it tries again as well

VERSIONS = ["4.6.2", "4.6.5", "4.7.0", "main"]  # of whose modules the first nodes are
#: By version: one after the other, the stage, and the tree that it is unpacked to.
ORDER = [("system", "aside"), ("image", "root"), ("system", "root"), ("runtime", "root")]


def request(version: str, base: str, mac: str, stage: str) -> str:
    """One download of a module: 4.6 asks /provision/, 4.7 each stage's own route."""
    port = "--local-port 1-1023" if stage == "runtime" else ""
    if version in ("4.6.2", "4.6.5"):
        url = f"--data-urlencode stage={stage} --data-urlencode compress=gz {base}/provision/{mac}"
    else:
        url = f"--data-urlencode compress=gz {base}/{stage}/{mac}"
    return f"{CURL} {REFUSED} {TOLD} --noproxy '*' {port} {QUERY} {url}"


def script(version: str, base: str, mac: str, folder: Path, before: Path | None, amid: Path | None) -> str:
    """What the hook of a version does, where a failure ends the boot; it waits for these files at its image."""
    until_there = "until [ -e {} ]; do sleep 0.02; done"
    waits = f"(head -c 1000000; {until_there.format(amid)}; cat) |"
    lines = ["set -e", f"mkdir -p {folder}/aside {folder}/root"]
    for stage, tree in ORDER:
        held = waits if amid is not None and stage == "image" else ""
        if before is not None and stage == "image":
            lines.append(until_there.format(before))
        unpack = f"gzip -d | {held} cpio -ium --quiet --directory={folder}/{tree}"
        lines.append(f"({request(version, base, mac, stage)} | {unpack}) || exit 9")
        if version == "main" and (stage, tree) == ORDER[0]:  # mounts before the image
            lines.append(f"[ ! -f {folder}/aside/warewulf/mounts ] || sort -k3 {folder}/aside/warewulf/mounts >&2")
    return "\n".join(lines)


def mac_of(number: int) -> str:
    return f"52:54:00:00:00:{number:02x}"


def node(number: int) -> dict[str, Any]:
    device = {"device": "eth0", "hwaddr": mac_of(number)}
    return {"profiles": ["default"], "asset key": "Rack 7", "network devices": {"default": device}}


PROFILE = {
    "image name": "tiny",
    "system overlay": ["motd"],
    "runtime overlay": ["users"],
    "tags": {"IPXEMenuEntry": "dracut"},
}


class Server:
    """`wwfast server` on a loopback port, with a log of its own."""

    def __init__(self, paths: Paths, name: str, *flags: str) -> None:
        self.log = paths.root / name
        with self.log.open("wb") as out:
            words = [sys.executable, "-m", "wwfast", "--root", str(paths.root), "server", *flags]
            self.process = subprocess.Popen(words, stdout=out, stderr=out)
        until(lambda: "serving on port" in self.log.read_text() or self.process.poll() is not None)
        assert self.process.poll() is None, self.log.read_text()

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(70)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> tuple[Paths, str]:
    """A site whose image has hard links, a file that an overlay replaces, and an initramfs."""
    paths = Paths.at(tmp_path_factory.mktemp("dracut"))
    paths.etc.mkdir(parents=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    write_conf(paths, warewulf={"port": port, "secure": True}, wwfast={"client rate": RATE})
    overlay(paths)
    overlay(paths, "users", "{{ id }} runs\n")
    root = tiny_image(paths)
    (root / "payload").write_bytes(random.Random(1).randbytes(PAYLOAD))
    (root / "linked").hardlink_to(root / "etc/os-release")
    (root / "etc/motd").write_text("of the image\n")
    (root / "etc/kept").hardlink_to(root / "etc/motd")
    (root / "boot/initramfs-6.1.0-1.img").write_bytes(initramfs("4.6.2"))
    nodes = {f"n{at}": node(at) for at in range(1, len(VERSIONS) + STORM + 1)}
    paths.nodes_conf.write_text(json.dumps({"nodeprofiles": {"default": PROFILE}, "nodes": nodes}))
    Service(paths, lambda: load(paths), lambda: Registry(paths).snapshot()).build_image("tiny", How())
    return paths, f"http://127.0.0.1:{port}"


@pytest.fixture
def server(site: tuple[Paths, str]) -> Iterator[Server]:
    made = Server(site[0], "server.log")
    yield made
    made.end()


class Boot:
    """By a module of one version, on node n1, n2, ... in their order."""

    def __init__(
        self, version: str, base: str, folder: Path, before: Path | None = None, amid: Path | None = None
    ) -> None:
        self.version, self.base, self.folder = version, base, folder / version
        self.number = VERSIONS.index(version) + 1
        words = ["sh", "-c", script(version, base, mac_of(self.number), self.folder, before, amid)]
        self.waited = False
        self.process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def goes_on(self) -> bool:
        return self.process.poll() is None

    def begun(self) -> bool:
        """It has its first overlay; or it is over."""
        return (self.folder / "aside/etc/motd").exists() or not self.goes_on()

    def was_held(self) -> bool:
        """To be asked again and again: whether it waited for its turn; or it is over."""
        name = f"n{self.number}"
        self.waited = self.waited or bool(told(self.base, name)["nodes"][name].get("place"))
        return self.waited or not self.goes_on()

    def unpacks(self) -> bool:
        """Its image; or it is over."""
        return (self.folder / "root/boot").exists() or not self.goes_on()

    def ended(self) -> list[str]:
        """The status of each answer that it got, once the boot is over."""
        _, said = self.process.communicate(timeout=240)
        assert self.process.returncode == 0, said
        return [line.split()[1] for line in said.decode().splitlines() if line.startswith("HTTP/")]

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def boots() -> Iterator[list[Boot]]:
    """Ended with the test."""
    begun: list[Boot] = []
    yield begun
    for one in begun:
        one.end()


def assert_right(paths: Paths, one: Boot) -> None:
    """The tree is the image's, with both overlays over it; nothing is half unpacked, or a link to where it lies."""
    image, root, number, folder = paths.chroots / "tiny/rootfs", one.folder / "root", one.number, one.folder
    for file in ("payload", "boot/vmlinuz-6.1.0-1", "usr/bin/curl"):
        assert (root / file).read_bytes() == (image / file).read_bytes()
    assert (root / "lib").readlink() == Path("usr/lib")
    assert (root / "linked").samefile(root / "etc/os-release")
    assert (root / "etc/motd").read_text() == f"n{number} runs\n"
    assert (folder / "aside/etc/motd").read_text() == f"n{number} of tiny\n"
    assert (root / "etc/kept").read_text() == "of the image\n", "a hard link of what an overlay replaces is the image's"
    assert [it for it in root.rglob("*") if it.is_symlink() and it.readlink() == Path()] == []


def test_dracut_module_of_each_version_gets_the_right_tree(
    site: tuple[Paths, str], server: Server, boots: list[Boot], tmp_path: Path
) -> None:
    paths, base = site
    boots += [Boot(version, base, tmp_path) for version in VERSIONS]
    for one in boots:
        assert one.ended() == ["200"] * 4, one.version
        assert_right(paths, one)
        name = f"n{one.number}"
        stages = [part["stage"] for part in told(base, name)["nodes"][name]["boot"]]
        assert stages == ["system", "image", "system", "runtime"]


class Crowd:
    """Nodes whose iPXE fetches the image, all at once, again when they are told to come again."""

    def __init__(self, base: str) -> None:
        self.port = int(base.rpartition(":")[2])
        self.statuses: list[int] = []
        places = range(len(VERSIONS) + 1, len(VERSIONS) + STORM + 1)
        self._threads = [threading.Thread(target=self._fetch, args=(at,)) for at in places]
        for thread in self._threads:
            thread.start()

    def _fetch(self, number: int) -> None:
        ask = get(f"/image/{mac_of(number)}?compress=gz&assetkey=Rack%207&image=tiny", "User-Agent: iPXE/1.21")
        status = 503
        while status == 503:
            with socket.create_connection(("127.0.0.1", self.port), 60) as sock:
                sock.settimeout(60)
                sock.sendall(ask)
                status = read_response(sock)[0]
            self.statuses.append(status)

    def end(self) -> None:
        for thread in self._threads:
            thread.join(120)


@pytest.mark.parametrize("replaced", [False, True], ids=["one server", "replaced meanwhile"])
def test_dracut_module_waits_in_a_storm_and_is_never_sent_away(
    site: tuple[Paths, str], server: Server, boots: list[Boot], tmp_path: Path, replaced: bool
) -> None:
    """Nodes before it in the queue; its first system overlay does not end its turn. Who waits at a server that is
    replaced has its image from that one, and what follows from the new one."""
    paths, base = site
    gate = tmp_path / "gate"
    boots += [Boot(version, base, tmp_path, before=gate) for version in VERSIONS]
    until(lambda: all(one.begun() for one in boots))
    crowd, new = Crowd(base), None
    try:
        until(lambda: told(base)["queue"]["queued"] > STORM // 4)
        gate.touch()
        until(lambda: sum(one.was_held() for one in boots) == len(boots))
        assert all(one.waited for one in boots)
        new = Server(paths, "new.log", "--replace") if replaced else None
        for one in boots:
            assert one.ended() == ["200"] * 4, one.version
            assert_right(paths, one)
    finally:
        crowd.end()
        if new is not None:
            new.end()
    assert crowd.statuses.count(200) == STORM


def told(base: str, node: str = "") -> Any:
    where = f"{base}/status?node={node}"
    return json.loads(subprocess.run(["curl", "-s", "--noproxy", "*", where], capture_output=True, check=True).stdout)


def test_dracut_module_in_the_middle_of_its_image_outlives_a_server_that_is_replaced(
    site: tuple[Paths, str], server: Server, boots: list[Boot], tmp_path: Path
) -> None:
    """A transfer that is cut is never tried again by it: the old server finishes, the new one answers what follows."""
    paths, base = site
    gate = tmp_path / "gate"
    boots += [Boot(version, base, tmp_path, amid=gate) for version in VERSIONS]
    until(lambda: all(one.unpacks() for one in boots))
    new = Server(paths, "new.log", "--replace")
    try:
        assert server.process.poll() is None, "it has images to finish"
        gate.touch()
        for one in boots:
            assert one.ended() == ["200"] * 4, one.version
            assert_right(paths, one)
        assert server.process.wait(60) == 0
    finally:
        new.end()


def test_dracut_module_gets_nothing_where_it_is_refused(
    site: tuple[Paths, str], server: Server, tmp_path: Path
) -> None:
    """As a user of a node it has no low port, and with another asset tag no image; cpio is given no letter."""
    _, base = site
    denied = request("4.6.5", base, mac_of(1), "runtime").replace("--local-port 1-1023", "")
    other = request("4.6.5", base, mac_of(1), "image").replace("Rack 7", "Rack 8")
    for line in (denied, other):
        done = subprocess.run(["sh", "-c", line], capture_output=True, timeout=60, check=False)
        assert done.stdout == b""
        assert done.stderr.startswith(b"HTTP/1.1 401 ")
