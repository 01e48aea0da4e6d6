"""Which way an image comes to a node: in one stage, where the kernel unpacks it, or in two, where stage-1 fetches it.

Nothing is looked for here: what the image offers, what the machine is and what the node asks for come in, a Choice goes
out. The figures are those of Debian 12 with 335 MB, 378 MiB of them in pages (docs/images.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from wwfast.archive.artefact import DISK, TMPFS
from wwfast.boot import stage1
from wwfast.config.checks import ALWAYS, AUTO, MOUNTED, NEVER, UNSET, on_disk, way
from wwfast.errors import NotFoundError, WwfastError

if TYPE_CHECKING:
    from wwfast.boot.standing import ServedImage
    from wwfast.nodes.model import Node

MIB = 1 << 20
DRACUT = "dracut"  # stands for the root where the image's own initramfs makes it (boot.dracut)
KINDS = (TMPFS, *MOUNTED, DISK)  # roots that stage-1 makes, in the order in which they are preferred
#: Links that udev alone makes, which stage-1 has not.
OF_UDEV = ("/dev/disk/by-id/", "/dev/disk/by-path/", "/dev/disk/by-diskseq/", "/dev/mapper/", "/dev/md")
BIOS, UEFI = "bios", "uefi"

#: MiB of a machine that are no memory to Linux (MemTotal) whatever its size; beside them a 64th describes its pages.
KERNEL = 32
#: MiB beside what stage-1 keeps in memory: kernel, stage-1, what a system writes while it starts. Logins were reached
#: with 512 MiB by tmpfs (378 unpacked) and with 256 by squashfs (95).
BESIDE = {TMPFS: 110, DRACUT: 110, **dict.fromkeys(MOUNTED, 130), DISK: 200}
#: What of its memory stage-1 may fill (`size=90%` in share/stage1/init), and MiB there for pieces and for overlays.
FILLED, ROOM = 0.9, 24
#: MiB that a machine has which does not say, as at every first boot by UEFI: the least that virtual machines are made
#: with. A kernel that runs full panics, and nobody hears of it; stage-1 finds out before it fetches the image. So a
#: larger image comes in two stages where it can, once; without another way it comes in one.
ASSUMED = 512
#: Bytes that a boot loader holds: so many work everywhere, and more than the second nowhere. With BIOS an initrd ends
#: below 2 GiB (initrd_addr_max of the kernel's header), and iPXE has what lies below the devices' addresses at 3 to
#: 4 GiB; with UEFI old loaders and kernels allocate 2 GiB at most. Kernels that unpack no more than 4 GiB are beyond.
LOADS = {BIOS: (1920 * MIB, 3072 * MIB), UEFI: (2047 * MIB, 1 << 62), "": (1920 * MIB, 1 << 62)}


class Machine(NamedTuple):
    """`memory` in MiB, 0 where it is not known; `former`: it is what the node reported at an earlier boot; `silent`:
    stage-1 went to it last time, and nothing was heard of that."""

    memory: int = 0
    firmware: str = ""
    former: bool = False
    silent: bool = False

    def __str__(self) -> str:
        if not self.memory:
            return "of a memory that it does not tell"
        return f"of {self.memory}" + (" (as it last reported)" if self.former else "")


UNTOLD = Machine()


class UnfitError(WwfastError):
    """The machine has too little memory for every way, as far as that is known."""


@dataclass(frozen=True, slots=True)
class Way:
    """`root` is what stage-1 makes, "" in one stage; `need` in MiB of the machine's memory, and `least` with which it
    may still work; `loads` in bytes that the boot loader must hold; `lacks` and `hint` say why it cannot be on any
    machine."""

    root: str
    need: int = 0
    least: int = 0
    loads: int = 0
    lacks: str = ""
    hint: str = ""

    @property
    def name(self) -> str:
        if self.root == DRACUT:
            return "in two stages by dracut"
        return f"in two stages as {self.root}" if self.root else "in one stage"


@dataclass(frozen=True, slots=True)
class Choice:
    """The way, and one sentence that says why it is this one."""

    way: Way
    why: str

    @property
    def root(self) -> str:
        return self.way.root


def total(memory: int) -> int:
    """MiB that Linux has (MemTotal) of so many of a machine; rather a little less than it does have."""
    return max(memory - KERNEL - memory // 64, 0)


def whole(total: int) -> int:
    """MiB of a machine of which Linux has so many: the other way round."""
    return (total + KERNEL) * 64 // 63 if total else 0


def offered(image: ServedImage, release: str, override: str = "", args: Sequence[str] = ()) -> list[Way]:
    """All ways of an image with a kernel of this release and these arguments; the one in one stage is the first."""
    ways = [_in_one(image, args)]
    for kind in KINDS:
        try:
            stage1.ready(image, release, kind, override)
        except WwfastError as error:
            ways.append(Way(kind, lacks=error.message, hint=error.hint or ""))
            continue
        size = _kept(image, kind) / MIB
        need = int(max(size + BESIDE[kind], whole(int((size + ROOM) / FILLED)))) + 1
        ways.append(Way(kind, need, need))
    return ways


def _kept(image: ServedImage, kind: str) -> int:
    """Bytes of the image that stay in memory."""
    if kind == DISK:
        return 0
    return image.unpacked - image.holes if kind == TMPFS else image.roots[kind].size


def _in_one(image: ServedImage, args: Sequence[str]) -> Way:
    if image.boot_format not in image.artefacts:
        return Way("", lacks=f"image {image.name} has a file that an initramfs cannot carry")
    packed = image.artefacts[image.boot_format].size
    need = least = image.least_ram
    if not any(arg.startswith("root=") or (arg.startswith("rootfstype=") and "tmpfs" not in arg) for arg in args):
        # The initramfs is a tmpfs (init_rootfs), which takes half of what is left beside the packed image: with 378
        # MiB, 101 packed, a machine of 768 MiB runs full, and one of 896 comes to its login. A 16th less may do:
        # inodes, which are in the figure, do not count against that half.
        need = max(need, 2 * image.unpacked + packed + KERNEL * MIB)
        least = max(least, 2 * image.unpacked * 15 // 16 + packed)
    return Way("", -(-need // MIB), -(-least // MIB), packed)


def choose(
    image: ServedImage, node: Node, release: str, machine: Machine, lacks: str = "", *, cached: bool = False
) -> Choice:
    """The way of a node; `lacks` keeps it from two stages, and `cached` says that there are caches for it. Raises
    WwfastError where none fits, with what each needs or lacks."""
    said = node.wwfast.two_stage
    said = AUTO if said.lower() in UNSET else said or AUTO
    if wrong := way(node.root, said):
        raise WwfastError(f"node {node.id}: {wrong}", hint=f"wwfast node set {node.id} --twostage auto")
    ways = offered(image, release, node.kernel.override, node.kernel.args)
    if not lacks and node.root.startswith(OF_UDEV):
        lacks = f"stage-1 has no udev, which makes {node.root}"
    if lacks:
        ways[1:] = [Way(each.root, lacks=lacks) for each in ways[1:]]
    wanted = _wanted(ways, node.root, said)
    silent = machine.silent and not machine.memory
    better = "" if machine.silent else _better(image, release, node, cached)
    if better:
        wanted.sort(key=lambda each: not each.root)
    able = [each for each in wanted if not each.lacks and _fits(each, machine)]
    safe, _ = LOADS[machine.firmware]
    sure = [each for each in able if each.need <= (machine.memory or ASSUMED) and each.loads <= safe]
    # Stage-1 looks at the memory before it fetches an image, unless it has no driver for the card to do so.
    able.sort(key=lambda each: ((not each.root) is not silent, each.need))
    chosen = next(iter(able if silent else sure or able), None)
    if chosen is None:
        raise _none(image, node, said, machine, ways, wanted)
    return Choice(chosen, _why(chosen, node, said, machine, ways[0], better))


def _better(image: ServedImage, release: str, node: Node, cached: bool) -> str:
    """What the node has that two stages alone make use of: what comes from a cache in a rack, stage-1 checks."""
    if stage1.updates(image, release, node):
        return "its root on the disk is updated"
    if stage1.caches(image, release, node):
        return "it has a cache"
    return "its image comes from a cache of its rack" if cached else ""


def _fits(each: Way, machine: Machine) -> bool:
    """Whether it may work: memory that is not known may be any."""
    return each.least <= (machine.memory or each.least) and each.loads <= LOADS[machine.firmware][1]


def _wanted(ways: Sequence[Way], root: str, said: str) -> list[Way]:
    """Those that give the node the root it asks for, as `two stage` says."""
    one, two = ways[0], ways[1:]
    if root in MOUNTED:
        return [each for each in two if each.root == root]
    unset = not root or root.lower() in UNSET
    if on_disk(root):
        two = [each for each in two if each.root == DISK]
    else:
        two = [each for each in two if each.root != DISK and (unset or each.root == TMPFS)]
    return [one] if said == NEVER else two if said == ALWAYS else [one, *two]


def _why(chosen: Way, node: Node, said: str, machine: Machine, one: Way, better: str) -> str:
    needs = f"{chosen.name}: needs {chosen.need} MiB {machine}"
    if node.root in MOUNTED:
        return f"{needs}; root is {node.root}"
    if said != AUTO:
        return f"{needs}; two stage is {said}"
    if not chosen.root:
        if machine.silent and not machine.memory:
            return f"{needs}, and stage-1 did not tell it, either"
        return needs if machine.memory else f"{needs}, where {ASSUMED} are taken for granted"
    if better:
        return f"{needs}; {better}"
    if one.lacks:
        return f"{needs}; {one.lacks}"
    if one.need > (machine.memory or ASSUMED):
        assumed = "" if machine.memory else f", and {ASSUMED} are taken for granted"
        return f"{needs}; in one stage it would need {one.need}{assumed}"
    return f"{needs}; {_too_large(one, LOADS[machine.firmware][0])}"


def _too_large(one: Way, most: int) -> str:
    return f"in one stage the boot loader would hold {one.loads // MIB} MiB, and {most // MIB} are safe"


def _none(
    image: ServedImage, node: Node, said: str, machine: Machine, ways: Iterable[Way], wanted: Iterable[Way]
) -> WwfastError:
    """Why nothing of what is wanted can be, and what would help."""
    lacking = [each for each in wanted if each.lacks]
    if lacking == list(wanted):
        return NotFoundError("; ".join(dict.fromkeys(each.lacks for each in lacking)), hint=lacking[0].hint)
    told = list(dict.fromkeys(each.lacks or _figures(each, machine) for each in wanted))
    mounted = [each for each in ways if each.root in MOUNTED and not each.lacks and _fits(each, machine)]
    hint = next((each.hint for each in lacking if each.hint), "")
    if said == NEVER:
        hint = f"wwfast node set {node.id} --twostage auto"
    elif mounted:
        hint = f"wwfast node set {node.id} --root {mounted[0].root}"
    has = f", which has {machine.memory} MiB of memory" if machine.memory else ""
    return UnfitError(f"image {image.name} does not fit node {node.id}{has}: {'; '.join(told)}", hint=hint)


def _figures(each: Way, machine: Machine) -> str:
    most = LOADS[machine.firmware][1]
    if each.loads <= most:
        return f"{each.name} it needs {each.need} MiB"
    return f"{each.name} {each.loads // MIB} MiB are to be loaded, and {machine.firmware} has room for {most // MIB}"
