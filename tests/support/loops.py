"""Disks of a test: loop devices on sparse files, and what wwinit.d does with them, and no others are there."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.shipped import lay, write
from wwfast.paths import Paths
from wwfast.system.locks import waited
from wwfast.system.run import run

MIB = 1 << 20
LOCK = Path("/run/wwfast-tests/loops")  # one at a time: what another run attaches meanwhile would not be hidden
OVERLAYS = ("wwinit", "sfdisk", "mkfs", "mkswap")
#: What is not ours is hidden by /dev/null; a /run of its own, where udev is there already: nobody is to start one.
ENTER = """\
ours=$1 why=$2
shift 2
for block in /dev/loop* /dev/vd* /dev/sd* /dev/nvme* /dev/dm-* /dev/md*; do
    for one in $ours; do
        case $block in "$one" | "$one"p[0-9]*) continue 2 ;; esac
    done
    if [ -b "$block" ]; then mount --bind /dev/null "$block"; fi
done
mount -t tmpfs tmpfs /run
mkdir /run/udev
: > /run/udev/control
"$@"
status=$?
cat /run/wwinit.why > "$why" 2> /dev/null
exit $status
"""


@dataclass
class Disk:
    """One of so many MiB; `name` is its device."""

    file: Path
    size: int
    readonly: bool = False
    name: str = ""

    def attach(self) -> Disk:
        if not self.file.exists():
            with self.file.open("wb") as file:
                file.truncate(self.size * MIB)
        flags = ["--read-only"] if self.readonly else []
        self.name = run(["losetup", "--find", "--show", *flags, self.file]).stdout.decode().strip()
        run(["partx", "--update", self.name], check=False)
        return self

    def detach(self) -> None:
        if self.name:
            run(["partx", "--delete", self.name], check=False)
            run(["losetup", "--detach", self.name])
            self.name = ""

    def part(self, number: int) -> str:
        return f"{self.name}p{number}"


@dataclass
class Machine:
    """A node with disks. What a boot says is in `said`, what stopped it in `why`."""

    paths: Paths
    place: Path
    disks: list[Disk] = field(default_factory=list)
    said: str = ""
    why: str = ""

    def disk(self, size: int, *, readonly: bool = False) -> Disk:
        self.disks.append(Disk(self.place / f"disk{len(self.disks)}", size, readonly).attach())
        return self.disks[-1]

    def renamed(self) -> None:
        """The disks have each other's names."""
        for disk in self.disks:
            disk.detach()
        for disk in reversed(self.disks):
            disk.attach()

    def close(self) -> None:
        for disk in self.disks:
            disk.detach()

    def boot(
        self,
        node: Mapping[str, Any],
        *,
        shell: str = "sh",
        tools: Mapping[str, str] | None = None,
        overlays: Sequence[str] = OVERLAYS,
    ) -> bool:
        """Run the scripts of wwinit.d for this node; whether the boot goes on. `tools` are scripts before all others
        of their names."""
        tree = self.place / "tree"
        run(["rm", "-rf", tree])
        write(lay(self.paths, list(overlays), {"n1": dict(node)})["n1"], tree)
        shims = self.place / "tools"
        run(["rm", "-rf", shims])
        shims.mkdir()
        for name, text in {"sleep": "", **(tools or {})}.items():
            (shims / name).write_text(f"#!/bin/sh\n{text}\n")
            (shims / name).chmod(0o755)
        why = self.place / "why"
        ours = " ".join(disk.name for disk in self.disks)
        inner = ["env", f"PATH={shims}:/usr/sbin:/usr/bin:/sbin:/bin", f"PREFIX={tree}"]
        inner += [*shell.split(), str(tree / "warewulf/run-wwinit.d")]
        done = subprocess.run(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", ENTER, "enter", ours, why, *inner],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=100,
            check=False,
        )
        self.said, self.why = done.stdout, why.read_text().strip()
        return done.returncode == 0


@contextmanager
def attached(paths: Paths, place: Path) -> Iterator[Machine]:
    """A machine whose disks go with it."""
    with waited(LOCK):
        made = Machine(paths, place)
        try:
            yield made
        finally:
            made.close()


def seen(device: str, what: str) -> str:
    """By blkid."""
    return run(["blkid", "-p", "-o", "value", "-s", what, device], check=False).stdout.decode().strip()


def table(disk: Disk) -> list[str]:
    """A line for each partition, without the name of the disk: it may have another one by then."""
    dump = run(["sfdisk", "--dump", disk.name], check=False).stdout.decode().splitlines()
    return [line.removeprefix(disk.name) for line in dump if line.startswith(disk.name)]
