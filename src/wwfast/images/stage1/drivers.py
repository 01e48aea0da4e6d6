"""The kernel modules of stage-1, with what they need and the firmware they ask for."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from wwfast.errors import WwfastError
from wwfast.images.kernels import detect
from wwfast.images.kernels.modules import firmware

#: Where drivers of network cards and what they stand on are kept below kernel/; paravirtual ones lie elsewhere.
NETWORK = (
    "drivers/net/ethernet/",
    "drivers/net/phy/",
    "drivers/net/mdio/",
    "drivers/net/hyperv/",
    "drivers/net/vmxnet3/",
)
BY_NAME = (
    "virtio_net", "virtio_pci", "virtio_mmio", "xen_netfront", "hv_vmbus", "hv_netvsc", "af_packet",
    "loop", "overlay", "squashfs", "erofs",
)  # fmt: skip
#: Named by no other file: libkmod reads the .bin ones, and the lists of what is built in.
INDEX = (
    "modules.dep", "modules.dep.bin", "modules.alias", "modules.alias.bin", "modules.softdep", "modules.symbols.bin",
    "modules.builtin", "modules.builtin.bin", "modules.builtin.alias.bin", "modules.builtin.modinfo", "modules.order",
)  # fmt: skip


def collect(root: Path, release: str, tree: Path) -> list[str]:
    """Copy the modules of a kernel into `tree`; -> the names of these, and of what is built into it.

    Raises WwfastError where the index of its modules is missing.
    """
    source = detect.modules(root, release)
    if source is None:
        return []
    depends = _depends(source, release)
    names = {_name(path): path for path in depends}
    chosen = _closure(
        depends, [path for path in depends if _is_network(path)] + [names[n] for n in BY_NAME if n in names]
    )
    chosen = _closure(depends, [*chosen, *(names[n] for n in _soft(source, chosen) if n in names)])
    target = tree / "lib/modules" / release
    real = tree / "usr/lib/modules" / release if (tree / "lib").is_symlink() else target
    real.mkdir(parents=True)
    for path in chosen:
        copy = real / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source / path, copy)
    for name in INDEX:
        if (source / name).is_file():
            shutil.copy2(source / name, real / name)
    firmware(root, [real / path for path in chosen], real.parent.parent / "firmware")
    return sorted({_name(path) for path in chosen} | _built_in(source))


def _depends(source: Path, release: str) -> dict[str, list[str]]:
    """Path of each module to those of what it needs, from modules.dep."""
    index = source / "modules.dep"
    if not index.is_file():
        raise WwfastError(f"kernel {release} has no modules.dep", hint=f"wwfast image exec IMAGE depmod {release}")
    found = {}
    for line in os.fsdecode(index.read_bytes()).splitlines():
        path, colon, needed = line.partition(":")
        if colon and (source / path).is_file():
            found[path] = needed.split()
    return found


def _is_network(path: str) -> bool:
    return path.removeprefix("kernel/").startswith(NETWORK)


def _closure(depends: dict[str, list[str]], wanted: Iterable[str]) -> list[str]:
    found: dict[str, None] = {}
    todo = list(wanted)
    while todo:
        path = todo.pop()
        if path in depends and path not in found:
            found[path] = None
            todo += depends[path]
    return sorted(found)


def _soft(source: Path, chosen: Iterable[str]) -> Iterator[str]:
    """Names that modules want beside them, from modules.softdep: `softdep NAME pre: A B post: C`."""
    file = source / "modules.softdep"
    mine = {_name(path) for path in chosen}
    for line in file.read_text(errors="replace").splitlines() if file.is_file() else ():
        words = line.split()
        if words[:1] == ["softdep"] and len(words) > 1 and words[1].replace("-", "_") in mine:
            yield from (word.replace("-", "_") for word in words[2:] if not word.endswith(":"))


def _built_in(source: Path) -> set[str]:
    file = source / "modules.builtin"
    return {_name(line) for line in file.read_text(errors="replace").splitlines()} if file.is_file() else set()


def _name(path: str) -> str:
    return re.sub(r"\.ko(\.(gz|xz|zst))?$", "", path.rpartition("/")[2]).replace("-", "_")
