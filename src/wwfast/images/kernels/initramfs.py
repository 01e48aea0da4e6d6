"""The initramfs of a kernel in a tree, and what is in it: Warewulf's dracut module (90wwinit) of a version, programs.

Which file it is goes by the kernel's release, whole: `initramfs-5.14.0-570.el9_8.0.1.x86_64.img` has two versions in
its name, and one made for another kernel has other drivers.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from wwfast.errors import WwfastError, cause
from wwfast.images.kernels.detect import LEFTOVER, VERSION, Kernel
from wwfast.system import within

#: In the order in which Warewulf looks for them, with what stands before the release.
PATTERNS = {"/boot/initramfs-*": "initramfs-", "/boot/initrd-*": "initrd-", "/boot/initrd.img-*": "initrd.img-"}
#: Of rescue systems, of kernels that write what a crashed one left, of Arch's with every driver.
OTHERS = re.compile(r"rescue|kdump|fallback")
#: Where dracut has the tree of the module while it makes an initramfs; it was 50wwinit for a while.
MODULES = ("/usr/lib/dracut/modules.d/*wwinit", "/lib/dracut/modules.d/*wwinit")
LARGEST = 2 << 30  # bytes: more is loaded by no boot loader
SCRIPT = 1 << 20  # bytes of a hook that are looked at
PROGRAMS = 10_000  # in one initramfs: where there are more nobody knows which

#: Warewulf's versions from which a module does what it does, in their order. The last two boot from here: what the
#: others unpack without `cpio -u` keeps the image's file where an overlay has the same one, and is a link to `.` where
#: the image has none.
NONE, OLDEST, OLD, NEAR, ABLE, NEWEST = "", "4.5.3", "4.5.7", "4.6.0", "4.6.2", "4.7.0"
BOOTS = (ABLE, NEWEST)
HOOK = re.compile(r"lib/dracut/hooks/[a-z-]+/\d+-?(parse|load)-wwinit\.sh")
PROGRAM = re.compile(r"(?:usr/(?:local/)?)?s?bin/([^/]+)")
UNCONDITIONAL = re.compile(r"\bcpio\b[^|\n]*\s(-[a-z]*u|--unconditional\b)")


class Found(NamedTuple):
    """`path` as seen inside the tree, `file` where its bytes are."""

    path: str
    file: Path


def carried(root: Path) -> bool:
    """Whether dracut would find Warewulf's module in the tree."""
    return any(next(within.matching(root, pattern), None) is not None for pattern in MODULES)


def find(root: Path, kernel: Kernel) -> Found | None:
    """The initramfs of a kernel: by its release or by the kernel's own name; then the first whose shorter version is
    the kernel's; where the kernel tells no release, the first of its version."""
    there = list(_candidates(root))
    labels = (kernel.release, kernel.path.rpartition("/")[2].partition("-")[2].removesuffix(".gz"))
    exact = (found for label, found in there if label and label in labels)
    alike = (found for label, found in there if VERSION.match(label) and _alike(label, kernel))
    return next(exact, None) or next(alike, None)


def others(root: Path) -> list[str]:
    """All files that look like one, for words."""
    return sorted(path.rpartition("/")[2] for pattern in PATTERNS for path in within.matching(root, pattern))


def _alike(label: str, kernel: Kernel) -> bool:
    if kernel.release:
        return bool(kernel.version) and label.startswith(kernel.version) and kernel.answers_to(label)
    rest = label[len(kernel.version) :]
    return bool(kernel.version) and label.startswith(kernel.version) and not rest[:1].isalnum()


def _candidates(root: Path) -> Iterator[tuple[str, Found]]:
    """Each with what its name says of its kernel."""
    for pattern, before in PATTERNS.items():
        for path in within.matching(root, pattern):
            name = path.rpartition("/")[2]
            label = name.removeprefix(before).removesuffix(".img")
            file = within.resolve(root, path)
            if file is not None and not OTHERS.search(name) and not LEFTOVER.search(name) and _whole(file):
                yield label, Found(path, file)


def _whole(file: Path) -> bool:
    facts = file.stat()
    return stat.S_ISREG(facts.st_mode) and 0 < facts.st_size <= LARGEST


class Module(NamedTuple):
    """`since` is the version from which Warewulf's module is as this one, "" where there is none; `unread` why nobody
    knows. `programs` are all that are beside it, by name; None where nobody knows."""

    since: str = NONE
    unread: str = ""
    programs: list[str] | None = None


def examine(file: Path) -> Module:
    """What is in an initramfs; in as many seconds as it takes to unpack it."""
    from wwfast.archive.initramfs import members  # what reads archives is not for `image list`

    scripts: dict[str, str] = {}
    programs: set[str] = set()
    try:
        for member, source in members(file):
            hook = HOOK.search(member.name)
            if hook and stat.S_ISREG(member.mode):
                scripts[hook[1]] = source.read(min(member.size, SCRIPT)).decode(errors="replace")
            program = PROGRAM.fullmatch(member.name)
            if program and len(programs) <= PROGRAMS and (stat.S_ISLNK(member.mode) or member.mode & 0o111):
                programs.add(program[1])
    except (OSError, WwfastError) as error:
        return Module(version(scripts)) if len(scripts) == 2 else Module(unread=cause(error))
    return Module(version(scripts), programs=sorted(programs) if len(programs) <= PROGRAMS else None)


def in_tree(root: Path) -> Module:
    """The module from which the next initramfs is made: of one that cannot be read it tells most."""
    scripts: dict[str, str] = {}
    for pattern in MODULES:
        for place in within.matching(root, pattern):
            for hook in ("parse", "load"):
                file = within.resolve(root, f"{place}/{hook}-wwinit.sh")
                if file is not None and file.is_file():
                    scripts.setdefault(hook, within.text(file))
    return Module(version(scripts))


def version(scripts: dict[str, str]) -> str:
    """By what its scripts (`parse` and `load`) read and run."""
    if "load" not in scripts:
        return NONE
    both = "\n".join(scripts.values())
    if UNCONDITIONAL.search(scripts["load"]):
        return NEWEST if "wwinit.server" in both else ABLE
    if "wwinit.uri" not in both:
        return OLDEST
    return OLD if "KernelOverride" in both else NEAR


def told(since: str) -> str:
    """In words, as of the packages that have it."""
    words = {
        OLDEST: "4.5.3 to 4.5.6",
        OLD: "4.5.7 or 4.5.8",
        NEAR: "4.6.0 or 4.6.1",
        ABLE: "4.6.2 to 4.6.5",
        NEWEST: "4.7.0 or later",
    }
    return words.get(since, "none")
