"""Every command of wwfast with arguments it works with, and a site for them on a disk of any kind."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click

from support.daemon import overlay, tiny_image, write_conf
from wwfast.cli.main import cli, main
from wwfast.images import building
from wwfast.nodes.edit.store import Store
from wwfast.nodes.text.source import NODES
from wwfast.paths import Paths
from wwfast.system.work import PREFIX

SITE = """
nodeprofiles:
  default:
    image name: tiny
    system overlay: [motd]
    runtime overlay: [motd]
  spare: {}
nodes:
  n1:
    profiles: [default]
    network devices: {default: {hwaddr: "52:54:00:00:00:01", ipaddr: 10.0.0.11}}
  n2: {}
"""
# What each is called with; ROOT is where the site is. Those for other machines find none that answers.
ARGUMENTS = {
    "cache nginx": "http://10.0.0.9:9880 --into ROOT/rack",
    "clean": "",
    "completion": "bash",
    "config show": "",
    "configure all": "",
    "configure dhcp": "",
    "configure hostfile": "",
    "configure nfs": "",
    "configure ssh": "--keytypes ed25519",
    "configure tftp": "",
    "configure tls": "",
    "configure undo": "",
    "configure warewulfd": "",
    "doctor": "",
    "follow end": "",
    "follow key": "",
    "genconfig completion": "bash",
    "genconfig man": "ROOT/man",
    "genconfig reference": "ROOT/reference",
    "genconfig warewulfconf print": "",
    "genconfig wwctl": "",
    "group list": "",
    "help": "node set",
    "image adopt": "--all",
    "image build": "tiny",
    "image copy": "tiny other",
    "image delete": "spare --yes",
    "image exec": "tiny /usr/bin/sh",
    "image history": "tiny",
    "image import": "ROOT/tree new",
    "image kernels": "tiny",
    "image list": "",
    "image rename": "spare moved",
    "image rollback": "tiny",
    "image shell": "tiny",
    "image show": "tiny",
    "image syncuser": "tiny",
    "image verify": "tiny",
    "import ansible": "ROOT/others/ansible.json --map mac=hwaddr --yes",
    "import cobbler": "ROOT/others/cobbler --yes",
    "import csv": "ROOT/others/nodes.csv --yes",
    "import dhcpd": "ROOT/others/dhcpd.conf --yes",
    "import dnsmasq": "ROOT/others/dnsmasq --yes",
    "import grendel": "ROOT/others/grendel.json --yes",
    "import warewulf": "--yes",
    "import warewulf3": "ROOT/others/warewulf3.txt --yes",
    "import xcat": "ROOT/others/xcat.stanza --yes",
    "kernel delete": "k0 --yes",
    "kernel import": "tiny k1",
    "kernel list": "",
    "node add": "n3 --ipaddr 10.0.0.13",
    "node console": "n1",
    "node delete": "n2 --yes",
    "node edit": "n1 --yes",
    "node export": "n1",
    "node import": "ROOT/import.yaml --yes",
    "node list": "--all",
    "node sensors": "n1",
    "node set": "n1 --comment x --yes",
    "node status": "",
    "node unset": "n1 --image --yes",
    "overlay build": "--workers 1",
    "overlay chmod": "hosts etc/hosts 0600",
    "overlay chown": "motd etc/motd.j2 1:1",
    "overlay convert": "motd",
    "overlay create": "fresh",
    "overlay delete": "motd etc/motd.j2",
    "overlay diff": "",
    "overlay edit": "hosts etc/hosts",
    "overlay import": "motd ROOT/import.yaml etc/new",
    "overlay info": "motd etc/motd.j2",
    "overlay lint": "",
    "overlay list": "--all",
    "overlay mkdir": "hosts etc/new/deep",
    "overlay show": "--render n1 motd etc/motd.j2",
    "power cycle": "n1",
    "power off": "n1",
    "power on": "n1",
    "power reset": "n1",
    "power soft": "n1",
    "power status": "n1",
    "profile add": "gpu",
    "profile delete": "spare --yes",
    "profile edit": "spare --yes",
    "profile export": "default",
    "profile import": "ROOT/import.yaml --yes",
    "profile list": "--all",
    "profile set": "default --comment x --yes",
    "profile unset": "default --image --yes",
    "undo": "--yes",
    "upgrade config": "--yes",
    "upgrade nodes": "--yes",
    "version": "",
}

# These wait for other machines, or serve them: their own tests run them.
WAITING = {"server peers", "ssh", "storm", "cache status", "cache warm"}


def leaves(group: click.Group = cli, above: tuple[str, ...] = ()) -> Iterator[str]:
    """The names of all commands, as the program itself has them."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from leaves(command, (*above, name))
        else:
            yield " ".join((*above, name))


class Ended(NamedTuple):
    status: int
    said: str


def make_site(root: Path) -> None:
    """Something for every command to work on."""
    paths = Paths.at(root)
    paths.etc.mkdir(parents=True)
    write_conf(paths)
    paths.nodes_conf.write_text(SITE)
    overlay(paths)
    for name in ("tiny", "spare"):
        (tiny_image(paths, name) / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
        (paths.chroots / name / "rootfs/etc/group").write_text("root:x:0:\n")
    building.build(paths, "tiny")
    shutil.copytree(paths.chroots / "tiny/rootfs", root / "tree", symlinks=True)
    (root / "tree/bin").symlink_to("usr/bin")
    (root / "import.yaml").write_text("n5: {comment: imported}\n")
    shutil.copytree(Path(__file__).parents[1] / "data/importers", root / "others")
    (root / "bin").mkdir()
    for name, text in (("editor", 'echo "# x" >> "$1"'), ("ssh", "exit 0"), ("ipmitool", "exit 1")):
        (root / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (root / "bin" / name).chmod(0o755)
    Store(paths).change(lambda draft: draft.get(NODES, "n2").update(comment="y"), why="node set n2")
    run(root, "kernel import", "tiny k0")


def run(root: Path, name: str, arguments: str | None = None) -> Ended:
    """One command in this process, everything it and its children say included."""
    line = ARGUMENTS[name] if arguments is None else arguments
    words = [*name.split(), *(word.replace("ROOT", str(root)) for word in line.split())]
    output = os.memfd_create("said")
    kept = os.dup(1), os.dup(2)
    sys.stdout.flush(), sys.stderr.flush()
    try:
        os.dup2(output, 1), os.dup2(output, 2)
        try:
            main(["--root", str(root), *words])
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        except BaseException:
            traceback.print_exc()
            status = 70
        sys.stdout.flush(), sys.stderr.flush()
    finally:
        os.dup2(kept[0], 1), os.dup2(kept[1], 2)
        os.close(kept[0]), os.close(kept[1])
    said = os.pread(output, 1 << 20, 0).decode(errors="replace")
    os.close(output)
    return Ended(status, said)


def in_child(call: Callable[[], Any]) -> Any:
    """What `call` returns, in a process that may change its user, its mounts and its environment."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        try:
            os.dup2(os.open(os.devnull, os.O_RDWR), 0)
            for number, name in ((1, "stdout"), (2, "stderr")):
                os.dup2(0, number)
                setattr(sys, name, open(number, "w", closefd=False))  # noqa: SIM115 - of the whole process
            answer: Any = call()
        except BaseException:
            answer = traceback.format_exc()
        with os.fdopen(writing, "wb") as pipe:
            pickle.dump(answer, pipe)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        data = pipe.read()
    os.waitpid(pid, 0)
    answer = pickle.loads(data)
    assert not isinstance(answer, str), answer
    return answer


def content(root: Path) -> dict[str, tuple[int, bytes]]:
    """What counts in a site: not caches, locks, and the leases and phases of a server."""
    found = {}
    for path in root.rglob("*"):
        name = str(path.relative_to(root))
        if name.startswith(("var/cache", "run")) or "lock" in path.name or ".db" in path.name:
            continue
        status = path.lstat()
        found[name] = (status.st_mode, path.read_bytes() if path.is_file() and not path.is_symlink() else b"")
    return found


def left(root: Path) -> list[str]:
    return [str(path) for path in root.rglob(PREFIX + "*")] + [str(path) for path in root.rglob("*.new")]


class Site:
    """A site that is as it was made before each command."""

    def __init__(self, pristine: Path, root: Path) -> None:
        self.pristine, self.root = pristine, root
        os.environ.update(EDITOR=str(root / "bin/editor"), PATH=f"{root}/bin:{os.environ['PATH']}")

    def restore(self) -> None:
        for entry in self.root.iterdir() if self.root.exists() else ():
            subprocess.run(["rm", "-rf", entry], check=True)
        self.root.mkdir(exist_ok=True)
        subprocess.run(["cp", "-a", f"{self.pristine}/.", self.root], check=True)
