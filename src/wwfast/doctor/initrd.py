"""Whether what a node unpacks into memory starts: its kernel, the modules of it, the first program and what that needs.

The kernel unpacks image and system overlay over each other and starts /init (or `rdinit=`). That is the shipped
overlay wwinit as a rule, which hands over to the image's own init.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wwfast.archive.artefact import ZST
from wwfast.doctor.finding import ERROR, WARNING, Fault
from wwfast.images.kernels import detect
from wwfast.overlays.files.model import FILE, LINK
from wwfast.pack import manifest
from wwfast.system import within

if TYPE_CHECKING:
    from wwfast.images.kernels.store import NodeKernel
    from wwfast.images.store import Image
    from wwfast.nodes.model import Node
    from wwfast.overlays.files.stack import Entry, Stack

INIT = "/init"  # what the kernel starts
RUN_INIT = "/warewulf/run-init"  # what dracut hands over to
INITS = ("/sbin/init", "/etc/init", "/bin/init")  # as wwinit's run-init tries them
CLIENT = "/warewulf/wwclient"
HEAD = 128  # bytes in which the first line of a script ends
# What must be built in before the first program starts: the archive, its compression, scripts, /dev.
NEEDED = ("BLK_DEV_INITRD", "BINFMT_ELF", "BINFMT_SCRIPT", "DEVTMPFS", "PROC_FS")


@dataclass(frozen=True)
class Root:
    """What the node finds in memory: the image, and what the system overlays lay over it."""

    image: Image
    over: Stack

    def head(self, path: str) -> bytes | None:
        """How a file begins, links followed; None when it is not there, or not for use as a program."""
        for _ in range(within.LINKS):
            entry = self.over.get(path.strip("/")) or self.over.get(self._place(path))
            if entry is None:
                return self._of_image(path)
            if entry.kind != LINK:
                return _begin(entry) if entry.kind == FILE and entry.mode & 0o111 else None
            target = _content(entry).decode("utf-8", "replace")
            path = target if target.startswith("/") else f"{path.rpartition('/')[0]}/{target}"
        return None

    def runs(self, path: str) -> bool:
        return self.head(path) is not None

    def _place(self, path: str) -> str:
        """Where the image's links lead a path: /bin/sh is /usr/bin/sh."""
        real = within.resolve(self.image.rootfs, path, absent=True)
        return str(real.relative_to(self.image.rootfs)) if real is not None else ""

    def _of_image(self, path: str) -> bytes | None:
        real = within.resolve(self.image.rootfs, path)
        if real is None or not real.is_file() or not real.stat().st_mode & 0o111:
            return None
        with real.open("rb") as file:
            return file.read(HEAD)


def _content(entry: Entry) -> bytes:
    return entry.content if isinstance(entry.content, bytes) else Path(entry.content.source).read_bytes()


def _begin(entry: Entry) -> bytes:
    if isinstance(entry.content, bytes):
        return entry.content[:HEAD]
    with Path(entry.content.source).open("rb") as file:
        return file.read(HEAD)


def first_program(node: Node) -> str:
    """`rdinit=` of its kernel arguments, the last one, or /init."""
    given = re.findall(r"(?:^|\s)rdinit=(\S+)", " ".join(node.kernel.args))
    return str(given[-1]) if given else INIT


def starts(node: Node, root: Root, first: str) -> Iterator[Fault]:
    """The first program of all this, what runs it if it is a script, and the init it hands over to."""
    image = root.image.name
    head = root.head(first)
    if head is None:
        others = ",".join(["wwinit", *node.system_overlay])
        why = f"nothing in its system overlays or in image {image} is {first}, the first program of a node"
        ours = first in (INIT, RUN_INIT)
        fix = f"wwfast node set {node.id} --system-overlays {others}" if ours else "correct `rdinit=`"
        yield Fault(node.id, ERROR, "init", why, fix)
        return
    if head.startswith(b"#!"):
        interpreter = next(iter(head[2:].split(b"\n")[0].decode("utf-8", "replace").split()), "")
        if not root.runs(interpreter):
            why = f"{first} is a script for {interpreter or 'nothing'}, and image {image} has no such program"
            yield Fault(node.id, ERROR, "init", why, f"wwfast image exec {image}, and install it")
            return
    inits = dict.fromkeys([*([node.init] if node.init else []), *INITS])
    if RUN_INIT.strip("/") not in root.over:
        return
    there = next(filter(root.runs, inits), "")
    if not there:
        why = f"image {image} has no init: none of {' '.join(inits)} is a program"
        fix = f"install one (systemd-sysv, busybox-init) by wwfast image exec {image}, or: wwfast node set --init"
        yield Fault(node.id, ERROR, "init", why, fix)
    elif node.init not in ("", there):
        why = f"its init {node.init} is no program in image {image}: {there} is started instead"
        yield Fault(node.id, WARNING, "init", why, f"correct it: wwfast node set {node.id} --init {there}")


def refreshed(node: Node, root: Root, preloaded: bool) -> Iterator[Fault]:
    """Its runtime overlays come before init (`preloaded`), and by wwclient, with curl and tar of the image."""
    if not node.runtime_overlay:
        return
    if not root.runs(CLIENT):
        if preloaded:
            return
        others = ",".join([*node.system_overlay, "wwclient"])
        why = (
            f"nothing brings its runtime overlays ({', '.join(node.runtime_overlay)}): its boot script does not fetch "
        )
        why += f"them, and {CLIENT} is not on it"
        yield Fault(node.id, WARNING, "runtime", why, f"wwfast node set {node.id} --system-overlays {others}")
        return
    for tool in ("curl", "tar"):
        if not any(root.runs(f"/{folder}/{tool}") for folder in ("usr/bin", "bin")):
            why = f"image {root.image.name} has no {tool}: the runtime overlays " + (
                "come at boot and are never refreshed" if preloaded else "never arrive"
            )
            fix = f"wwfast image exec {root.image.name} -- apt-get install -y {tool}  (or dnf, zypper)"
            yield Fault(node.id, WARNING, "runtime", why, fix)


def unpacks(node: Node, image: Image, boots: NodeKernel, fmt: str) -> Iterator[Fault]:
    """The kernel: of the image's architecture, able to unpack it (`fmt`) and to start a program, with its modules."""
    kernel, entry = boots.kernel, boots.entry
    where = f"kernel {entry.name} ({boots.version})" if entry else f"kernel {boots.version or kernel.path}"
    machine = detect.machine(kernel.file)
    if machine and image.arch and machine != image.arch:
        why = f"{where} is for {machine}, and image {image.name} for {image.arch}"
        yield Fault(node.id, ERROR, "kernel", why, "wwfast kernel list; wwfast node set --kerneloverride")
        return
    tree = entry.path / "rootfs" if entry else image.rootfs
    config = options(tree, kernel.release)
    off = [name for name in (*NEEDED, "RD_ZSTD" if fmt == ZST else "RD_GZIP") if config.get(name, "y") != "y"]
    if off:
        why = f"{where} cannot start a node: {', '.join(f'CONFIG_{name}' for name in off)} is not built in"
        yield Fault(node.id, ERROR, "kernel", why, f"another kernel: wwfast image kernels {image.name}")
    elif fmt == ZST and entry and not kernel.zstd:
        why = f"{where} is not known to unpack zstd, and image {image.name} is packed with it"
        yield Fault(node.id, ERROR, "kernel", why, f"wwfast image build --format gz {image.name}, or another kernel")
    if kernel.release and not has_modules(image, boots, config.get("MODULES", "")):
        why = f"{where} has no modules" + ("" if entry else f" in image {image.name}")
        fix = f"install the kernel's modules by wwfast image exec {image.name}, then wwfast image build {image.name}"
        if entry:
            fix = f"wwfast kernel import --force IMAGE {entry.name}, of an image that has them"
        level = ERROR if config.get("MODULES") == "y" else WARNING
        yield Fault(node.id, level, "kernel", f"{why}: only drivers that are built in work", fix)


def has_modules(image: Image, boots: NodeKernel, modular: str) -> bool:
    """Of a kernel that says it has some (`modular`) one must be there; of another one their directory, which also one
    with all drivers built in installs."""
    if boots.entry is not None:
        return manifest.read(boots.entry.path / "kmods").entries > 1  # lib/modules alone
    place = detect.modules(image.rootfs, boots.kernel.release)
    return place is not None and (modular != "y" or next(place.rglob("*.ko*"), None) is not None)


def options(tree: Path, release: str) -> dict[str, str]:
    """What a kernel's configuration says, y, m or n; empty where none lies beside it."""
    file = detect.config(tree, release)
    if file is None:
        return {}
    text = within.text(file)
    said = dict(re.findall(r"^CONFIG_(\w+)=([ym])$", text, re.MULTILINE))
    return said | dict.fromkeys(re.findall(r"^# CONFIG_(\w+) is not set$", text, re.MULTILINE), "n")
