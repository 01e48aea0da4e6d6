"""Which drivers are in stage-1: the choice that is made without a word of the site, and its rule file.

A line is `+ PATTERN` or `- PATTERN`, and `+ firmware PATTERN` or `- firmware PATTERN` for files below lib/firmware. A
pattern without a slash is the name of a module, one with a slash its path below lib/modules/RELEASE, where `kernel/`
may be left out; one that ends with a slash is all that is below it. Compressed firmware has its name without .xz or
.zst, too. The last rule that matches wins.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from wwfast.errors import ConfigError
from wwfast.images.kernels.modules import COMPRESSED

FILE = "stage1-drivers"  # beside nodes.conf
PACKED = re.compile(rf"({'|'.join(map(re.escape, COMPRESSED))})$")
LINE = re.compile(r"([+-])\s+(firmware\s+)?(\S+)")

#: Where drivers of network cards and what they stand on are kept; paravirtual ones lie elsewhere.
NETWORK = (
    "drivers/net/ethernet/",
    "drivers/net/phy/",
    "drivers/net/mdio/",
    "drivers/net/hyperv/",
    "drivers/net/vmxnet3/",
)
BY_NAME = (
    "virtio_net", "virtio_pci", "virtio_mmio", "xen_netfront", "hv_vmbus", "hv_netvsc", "af_packet",
    "loop", "overlay", "squashfs", "erofs", "zram", "lzo_rle", "ext4",
)  # fmt: skip
#: Disks and what hangs them on; and file systems that are made on them.
DISKS = ("drivers/ata/", "drivers/message/fusion/", "drivers/mmc/", "drivers/nvme/host/", "drivers/scsi/")
DISKS_BY_NAME = (
    "virtio_blk", "virtio_scsi", "xen_blkfront", "sd_mod", "vmd", "ext4", "xfs", "btrfs", "vfat",
    "nls_cp437", "nls_ascii", "nls_iso8859_1", "nls_utf8",
)  # fmt: skip
INFINIBAND = ("drivers/infiniband/core/", "drivers/infiniband/hw/", "drivers/infiniband/ulp/ipoib/")


@dataclass(frozen=True, slots=True)
class Rule:
    """`adds` or takes away; `text` is the pattern as it is written."""

    adds: bool
    of_firmware: bool
    text: str

    def matches(self, path: str) -> bool:
        """Path of a module as modules.dep has it, or of a firmware file below lib/firmware."""
        pattern = self.text.lstrip("/")
        if self.of_firmware:
            return _below(pattern, path) or _below(pattern, re.sub(PACKED, "", path))
        if "/" not in pattern:
            return fnmatchcase(name(path), pattern.replace("-", "_"))
        return _below(pattern, path) or _below(pattern, path.removeprefix("kernel/"))

    def __str__(self) -> str:
        return f"{'+' if self.adds else '-'} {'firmware ' if self.of_firmware else ''}{self.text}"


@dataclass(frozen=True, slots=True)
class Choice:
    """`rules` in their order; `infiniband`, `disks`: their drivers as well, and the programs for disks."""

    rules: tuple[Rule, ...] = ()
    infiniband: bool = False
    disks: bool = False

    def modules(self, paths: Iterable[str], in_tree: Iterable[str]) -> list[str]:
        """Those of `paths` that are wanted. `in_tree` are paths of all modules that the kernel came with: one that was
        replaced (weak-updates, dkms) lies elsewhere, under the same name."""
        places = (*NETWORK, *(INFINIBAND if self.infiniband else ()), *(DISKS if self.disks else ()))
        paths = list(paths)
        names = {name(path) for path in (*paths, *in_tree) if any(f"/{place}" in f"/{path}" for place in places)}
        names.update(BY_NAME, DISKS_BY_NAME if self.disks else ())
        return [path for path in paths if self._says(path, name(path) in names, of_firmware=False)]

    def firmware(self, path: str) -> bool:
        """Whether this file is wanted, which a module asks for."""
        return self._says(path, True, of_firmware=True)

    def idle(self, modules: Iterable[str], firmware: Iterable[str]) -> Iterator[str]:
        """The rules that match none of these."""
        both = {False: list(modules), True: list(firmware)}
        for rule in self.rules:
            if not any(rule.matches(path) for path in both[rule.of_firmware]):
                yield str(rule)

    def _says(self, path: str, wanted: bool, *, of_firmware: bool) -> bool:
        for rule in self.rules:
            if rule.of_firmware == of_firmware and rule.matches(path):
                wanted = rule.adds
        return wanted

    def __str__(self) -> str:
        more = ["infiniband"] * self.infiniband + ["disks"] * self.disks
        return "\n".join([" ".join(more), *map(str, self.rules)])


DEFAULT = Choice()


def read(file: Path) -> tuple[Rule, ...]:
    """No file: no rules. Raises ConfigError naming file and line."""
    try:
        text = file.read_bytes()
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from error
    found = []
    for number, line in enumerate(text.decode(errors="surrogateescape").splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = LINE.fullmatch(line.strip())
        if match is None:
            raise ConfigError(
                f"{file}:{number}: {line.strip()!a} is no rule of drivers",
                hint="+ NAME or - NAME, + PATH/ or - PATH/, + firmware PATH or - firmware PATH",
            )
        found.append(Rule(match[1] == "+", bool(match[2]), match[3]))
    return tuple(found)


def name(path: str) -> str:
    """Of a module, as the kernel has it."""
    return re.sub(r"\.ko(\.(gz|xz|zst))?$", "", path.rpartition("/")[2]).replace("-", "_")


def _below(pattern: str, path: str) -> bool:
    return fnmatchcase(path, f"{pattern}*" if pattern.endswith("/") else pattern)
